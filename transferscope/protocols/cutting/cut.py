"""A source network cut after one of its stages and made ready for a target: what is kept, frozen, re-initialised."""

import torch
from torch import Tensor, nn

from transferscope.activations.reductions import mean_over_positions
from transferscope.activations.tracing import evaluating
from transferscope.errors import InputError, SourceError, check_whole, is_whole
from transferscope.networks.loading import Network, build_untrained, load_network
from transferscope.networks.zoo import Source
from transferscope.protocols.cutting.anatomy import copied
from transferscope.protocols.cutting.dividing import Prefix, divide, prefix_keys, stopped, trial_images
from transferscope.protocols.cutting.heads import PooledHead, renew_head
from transferscope.protocols.cutting.network import CutNetwork
from transferscope.protocols.cutting.places import PROTOCOLS, cuts, layer_at, trained_after
from transferscope.protocols.cutting.possible import check_redrawn, check_trainable
from transferscope.runtime.seeding import seeded


def cut(
    source: Source | Network,
    depth: int,
    protocol: str = "truncate",
    classes: int | None = None,
    *,
    seed: int = 0,
    trust_code: bool = False,
) -> CutNetwork:
    """Cut a source network after its first `depth` stages and make it ready to be trained on a target.

    Parameters
    ----------
    source : Source or Network
        An entry of a zoo, or what `load_network` made of it, which is left as it is.
    depth : int
        Number of stages that are kept, from 1 to the number of `cuts`; 0 only for "scratch", which keeps none, and
        "defrost". "surgical" keeps all.
    protocol : str
        "truncate"
            The kept stages frozen, the rest removed; a linear head on the spatial mean of what is left.
        "reinit"
            The kept stages frozen, the rest re-initialised by the architecture's own initialiser.
        "finetune"
            As reinit, but nothing is frozen.
        "defrost"
            All weights from the source; the first `depth` stages frozen.
        "surgical"
            All weights from the source, nothing frozen.
        "scratch"
            Everything re-initialised.

        The classifier is new in every case: in place of the source's own, or, where it has none, on the mean over
        positions of what it puts out.
    classes : int
        Outputs of the new head, at least 2.
    seed : int
        Of what is drawn; the global random state is left as it was.
    trust_code : bool
        Allow to run the code of a factory (loader ``python``), to load a source as well as to draw it anew.

    Returns
    -------
    CutNetwork
        On the CPU, in evaluation mode.

    Raises
    ------
    InputError
        When an argument is not what it has to be.
    SourceError
        When the source cannot be loaded or cut there, or can be given no new classifier.

    Examples
    --------
    >>> import tempfile
    >>> import timm
    >>> from transferscope import load_zoo
    >>> tiny = {"name": "tiny", "loader": "timm", "model": "test_resnet", "transform": {"size": 64}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save(timm.create_model("test_resnet").state_dict(), f"{folder}/tiny.pt")
    ...     zoo = load_zoo({"version": 1, "sources": [tiny | {"checkpoint": f"{folder}/tiny.pt"}]})
    ...     net = cut(zoo["tiny"], depth=2, protocol="truncate", classes=3)
    >>> net(torch.zeros(5, 3, 64, 64)).shape
    torch.Size([5, 3])
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"Expected `protocol` to be one of {', '.join(PROTOCOLS)}, but got {protocol!r}")
    if not is_whole(classes, 1):
        raise InputError(
            f"Expected `classes` to be the number of classes (or other outputs), at least 1, but got {classes!r}"
        )
    seed = check_whole("seed", seed, 0)
    network = source if isinstance(source, Network) else load_network(source, trust_code=trust_code)
    net = copied(network.module).cpu()
    drawn_anew = protocol in ("reinit", "finetune", "scratch")
    fresh = build_untrained(network.source, seed=seed, trust_code=trust_code) if drawn_anew else None
    sample = network.transform.blank()
    try:
        places = cuts(net, network.source.layers, sample)
        layer = layer_at(places, depth, protocol)
        prefix: Prefix | None = None
        rest = net
        if protocol == "truncate":
            prefix, rest = _truncated(net, layer, sample, int(classes), seed)
        else:
            check_trainable(net, sample, trained_after(protocol, layer))
            if fresh is not None:
                _redraw(net, fresh, prefix_keys(net, layer, sample) if layer else frozenset())
            renew_head(net, int(classes), sample, seed, "" if protocol == "surgical" else layer)
            if layer and protocol in ("reinit", "defrost"):
                prefix, rest = divide(net, layer, sample)
    except (InputError, SourceError) as error:
        raise type(error)(f"source {network.name!r}: {error}") from error
    stages = [place.layer for place in places]
    transform = network.transform
    return CutNetwork(prefix, rest, transform=transform, protocol=protocol, depth=int(depth), stages=stages)


def _truncated(net: nn.Module, layer: str, sample: Tensor, classes: int, seed: int) -> tuple[Prefix, nn.Module]:
    prefix = stopped(net, layer, sample)
    with evaluating(prefix), torch.inference_mode():
        features = mean_over_positions(prefix(trial_images(sample)), prefix.layout).shape[1]
    with seeded(seed):
        return prefix, PooledHead(features, classes, prefix.layout)


def _redraw(net: nn.Module, fresh: nn.Module, kept_keys: frozenset[str]) -> None:
    """Give `net` the weights of `fresh`, but those of `kept_keys`."""
    check_redrawn(net, fresh, kept_keys)
    drawn = fresh.state_dict()
    net.load_state_dict({key: drawn[key] for key in net.state_dict() if key not in kept_keys}, strict=False)
