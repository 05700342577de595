"""Where a source can be captured and cut."""

from pathlib import Path

import pandas as pd
import torch

from transferscope.activations.capture import resolve_stages
from transferscope.activations.tracing import trace
from transferscope.errors import SourceError, TransferscopeError, is_interrupt
from transferscope.networks import loading
from transferscope.networks.zoo import Zoo, load_zoo
from transferscope.runtime.failures import describe


def list_layers(
    source: str, zoo: Zoo | str | Path, *, everything: bool = False, trust_code: bool = False
) -> pd.DataFrame:
    """List where a source can be captured: a row per stage with the size of the network cut there.

    Its weights do not matter: they are drawn at random, nothing is downloaded and no checkpoint is read.

    Parameters
    ----------
    source : str
        Name of an entry of `zoo`.
    zoo : Zoo or path
        What `load_zoo` takes.
    everything : bool
        Every module call instead of the stages; `is_cut` says where the network can be cut.
    trust_code : bool
        Whether a factory of `loader: python` may be run.

    Returns
    -------
    pandas.DataFrame
        Indexed by layer, in firing order: depth, shape (of one sample), params and flops up to there.

    Raises
    ------
    InputError, SourceError
        When the zoo, the source or its layers are not as expected.
    """
    network = loading.load_architecture(load_zoo(zoo)[source], trust_code=trust_code)
    sample = network.transform.blank()
    try:
        return _layer_table(network, sample, everything)
    except TransferscopeError:
        raise
    except (Exception, SystemExit) as error:
        if is_interrupt(error):
            raise
        raise SourceError(f"source {source!r}: {describe(source, error, 1)}") from error


def _layer_table(network: loading.Network, sample: torch.Tensor, everything: bool) -> pd.DataFrame:
    if everything:
        calls = [call for call in trace(network.module, sample) if call.layer]
        rows = [(c.layer, "×".join(map(str, c.shape)), c.params, c.flops, c.is_cut) for c in calls]
        columns = ["layer", "shape", "params", "flops", "is_cut"]
        return pd.DataFrame(rows, columns=columns).set_index("layer")
    stages = resolve_stages(network.module, network.source.layers, sample)
    listed = [
        (stage.layer, depth, "×".join(map(str, stage.shape)), stage.params, stage.flops)
        for depth, stage in enumerate(stages, 1)
    ]
    return pd.DataFrame(listed, columns=["layer", "depth", "shape", "params", "flops"]).set_index("layer")
