"""A source network cut after one of its stages and made ready for a target: what is kept, frozen, drawn anew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transferscope.activations.capture import resolve_stages
from transferscope.activations.outputs import Way
from transferscope.activations.reductions import mean_over_positions
from transferscope.activations.selecting import Layers
from transferscope.activations.stages import classifiers
from transferscope.activations.tracing import evaluating, trace
from transferscope.errors import InputError, SourceError, check_whole, is_whole
from transferscope.networks.loading import Network, build_untrained, load_network
from transferscope.networks.zoo import Source
from transferscope.protocols.cutting.anatomy import copied
from transferscope.protocols.cutting.dividing import Prefix, divide, prefix_keys, stopped
from transferscope.protocols.cutting.network import CutNetwork, PooledHead
from transferscope.runtime.seeding import seeded

PROTOCOLS = ("truncate", "reinit", "finetune", "scratch", "defrost", "surgical")
"""Those of which something is trained by gradients: what `cut` makes networks for."""


@dataclass(frozen=True)
class Cut:
    """A place to cut a network, after its first `depth` stages."""

    layer: str
    """Name of the last stage that is kept."""
    depth: int


def cuts(net: nn.Module, layers: Layers, sample: Tensor) -> tuple[Cut, ...]:
    """Return the cuts of a network at depth 1, 2, …, from the input on.

    Parameters and errors are those of `capture.resolve_stages`; layers that other paths lead around are left
    out with a warning.
    """
    stages = resolve_stages(net, layers, sample, cuts_only=True)
    return tuple(Cut(stage.layer, depth) for depth, stage in enumerate(stages, 1))


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
            The kept stages frozen, the rest drawn anew by the architecture's own initialiser.
        "finetune"
            As reinit, but nothing is frozen.
        "defrost"
            All weights from the source; the first `depth` stages frozen.
        "surgical"
            All weights from the source, nothing frozen.
        "scratch"
            Everything drawn anew.

        The classifier is new in every case.
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
        When the source cannot be loaded or cut there, or does not end in a linear layer that can be replaced.

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
    if not is_whole(classes, 2):
        raise InputError(f"Expected `classes` to be the number of classes, at least 2, but got {classes!r}")
    seed = check_whole("seed", seed, 0)
    network = source if isinstance(source, Network) else load_network(source, trust_code=trust_code)
    net = copied(network.module).cpu()
    drawn_anew = protocol in ("reinit", "finetune", "scratch")
    fresh = build_untrained(network.source, seed=seed, trust_code=trust_code) if drawn_anew else None
    sample = network.transform.blank()
    try:
        places = cuts(net, network.source.layers, sample)
        layer = _pick(places, depth, protocol)
        prefix: Prefix | None = None
        rest = net
        output: Way = ()
        if protocol == "truncate":
            prefix, rest = _truncated(net, layer, sample, int(classes), seed)
        else:
            if fresh is not None:
                _redraw(net, fresh, prefix_keys(net, layer, sample) if layer else frozenset())
            output = _renew_head(net, int(classes), sample, seed, "" if protocol == "surgical" else layer)
            if layer and protocol in ("reinit", "defrost"):
                (prefix, rest), output = divide(net, layer, sample), ()
    except (InputError, SourceError) as error:
        raise type(error)(f"source {network.name!r}: {error}") from error
    stages = [place.layer for place in places]
    transform = network.transform
    return CutNetwork(
        prefix, rest, transform=transform, protocol=protocol, depth=int(depth), stages=stages, output=output
    )


def _pick(places: Sequence[Cut], depth: int, protocol: str) -> str:
    """Return the layer to cut after; nothing at depth 0."""
    depths = len(places)
    allowed = {"scratch": range(1), "defrost": range(depths + 1), "surgical": range(depths, depths + 1)}
    wanted = allowed.get(protocol, range(1, depths + 1))
    if not is_whole(depth) or depth not in wanted:
        expected = f"from {wanted[0]} to {wanted[-1]}" if len(wanted) > 1 else f"{wanted[0]}"
        listed = ", ".join(f"{place.depth} {place.layer}" for place in places)
        raise InputError(
            f"Expected `depth` to be {expected} for the protocol {protocol!r}, but got {depth!r}; the stages are "
            f"{listed}"
        )
    return places[depth - 1].layer if depth else ""


def _truncated(net: nn.Module, layer: str, sample: Tensor, classes: int, seed: int) -> tuple[Prefix, nn.Module]:
    prefix = stopped(net, layer, sample)
    with evaluating(prefix), torch.inference_mode():
        features = mean_over_positions(prefix(sample), prefix.layout).shape[1]
    with seeded(seed):
        return prefix, PooledHead(features, classes, prefix.layout)


def _redraw(net: nn.Module, fresh: nn.Module, kept_keys: frozenset[str]) -> None:
    """Give `net` the weights of `fresh`, but those of `kept_keys`."""
    drawn: Mapping[str, Tensor] = fresh.state_dict()
    wanted = {key: tensor for key, tensor in net.state_dict().items() if key not in kept_keys}
    differing = [key for key, tensor in wanted.items() if key not in drawn or drawn[key].shape != tensor.shape]
    if differing:
        raise SourceError(
            f"Built without its weights the architecture has other parameters than with them ({len(differing)}: "
            f"{', '.join(differing[:3])}), so that they cannot be drawn anew; use 'truncate' or 'defrost'"
        )
    net.load_state_dict({key: drawn[key] for key in wanted}, strict=False)


def _renew_head(net: nn.Module, classes: int, sample: Tensor, seed: int, layer: str) -> Way:
    """Replace the classifier of `net`, which has to come after the cut at `layer`; return the way to its logits."""
    traced = trace(net, sample)
    heads = classifiers(traced)
    if not heads:
        raise SourceError(
            f"Expected {type(net).__name__} to end in a linear classifier (or several, of equal width), which can be "
            f"replaced by one with {classes} outputs, but found none; use the protocol 'truncate'"
        )
    names = [each.layer for each in traced]
    if layer and names.index(layer) >= names.index(heads[0].layer):
        raise SourceError(
            f"The classifier {heads[0].layer!r} belongs to what is kept up to {layer!r}, so that nothing is left to be "
            "trained; choose a smaller depth, or the protocol 'truncate'"
        )
    for place, head in enumerate(heads):
        with seeded(seed + place):
            new = _as_wide(head.module, classes)
        for path, module in list(net.named_modules(remove_duplicate=False)):
            if module is head.module:
                parent, _, name = path.rpartition(".")
                setattr(net.get_submodule(parent), name, new)
    return traced.output.way


def _as_wide(head: nn.Module, classes: int) -> nn.Module:
    """Return a newly drawn layer like a classifier, with so many outputs."""
    if isinstance(head, nn.Conv2d):
        return nn.Conv2d(head.in_channels, classes, 1)
    assert isinstance(head, nn.Linear)
    return nn.Linear(head.in_features, classes, bias=head.bias is not None)
