"""What the cut networks of a grid cost to use: parameters, operations and seconds of one image."""

import numpy as np
import pandas as pd
import torch

from transferscope.activations.extraction import extract
from transferscope.networks import loading
from transferscope.runtime.store import Store, digest
from transferscope.runtime.version import __version__
from transferscope.verbs.measure.executor import Executor

_IMAGES = 20


def cut_networks(executor: Executor, source: str) -> pd.DataFrame:
    """Return a row for each depth at which a source can be cut, from the cache where possible.

    Parameters
    ----------
    executor : Executor
        Has the networks and the images.
    source : str
        Its name.

    Returns
    -------
    pandas.DataFrame
        With the columns source, depth, layer, params and flops (of one image) of the network cut there, and latency:
        seconds until one image alone has come so far, mean over a few.
    """
    network, stages = executor.network(source), executor.stages(source)
    layers = [stage.layer for stage in stages]
    store, device = Store(), executor.device
    key = digest(
        __version__,
        torch.__version__,
        device.type,
        torch.get_num_threads(),
        loading.fingerprint(network.source),
        layers,
    )
    if (entry := store.get("latency", key)) is not None:
        latencies = entry[0]["latency"].tolist()
    else:
        bank, indices = executor.bank(source), executor.setup.drawn[:_IMAGES]
        bank.add(indices)
        timed = extract(network.module.to(device), stages, bank.images(indices), device=device, batch_size=1)
        latencies = [timed.seconds[layer] for layer in layers]
        store.put("latency", key, {"latency": np.array(latencies)}, {})
    return pd.DataFrame(
        {
            "source": source,
            "depth": range(1, len(stages) + 1),
            "layer": layers,
            "params": [stage.params for stage in stages],
            "flops": [stage.flops for stage in stages],
            "latency": latencies,
        }
    )
