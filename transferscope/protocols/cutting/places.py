"""Where a network can be cut, and at which depths a protocol can cut it."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from transferscope.activations.capture import resolve_stages
from transferscope.activations.selecting import Layers
from transferscope.errors import InputError, is_whole

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

    Parameters and errors are those of `capture.resolve_stages`; layers inside a residual connection are left
    out with a warning.
    """
    stages = resolve_stages(net, layers, sample, cuts_only=True)
    return tuple(Cut(stage.layer, depth) for depth, stage in enumerate(stages, 1))


def depths_of(protocol: str, depths: int) -> range:
    """Return the depths at which a protocol cuts a network of so many stages."""
    allowed = {"scratch": range(1), "defrost": range(depths + 1), "surgical": range(depths, depths + 1)}
    return allowed.get(protocol, range(1, depths + 1))


def layer_at(places: Sequence[Cut], depth: int, protocol: str) -> str:
    """Return the layer to cut after; nothing at depth 0. InputError when the protocol has no such depth."""
    wanted = depths_of(protocol, len(places))
    if not is_whole(depth) or depth not in wanted:
        expected = f"from {wanted[0]} to {wanted[-1]}" if len(wanted) > 1 else f"{wanted[0]}"
        listed = ", ".join(f"{place.depth} {place.layer}" for place in places)
        raise InputError(
            f"Expected `depth` to be {expected} for the protocol {protocol!r}, but got {depth!r}; the stages are "
            f"{listed}"
        )
    return places[depth - 1].layer if depth else ""


def trained_after(protocol: str, layer: str) -> str:
    """Return the layer after which a protocol trains a network that is cut after `layer`; nothing: all of it."""
    return layer if protocol in ("reinit", "defrost") else ""
