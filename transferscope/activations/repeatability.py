"""Whether a network is a function of one image: the same numbers again, whatever other images share its batch."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from transferscope.activations.calls import Trace
from transferscope.activations.capture import capture
from transferscope.activations.outputs import tensor_at
from transferscope.activations.tracing import numbered, watching
from transferscope.errors import CaptureError
from transferscope.runtime.seeding import generator_states, seeded

LOOKED_AT = 4
"""Images that are enough to tell."""

_DRAWS = 8
"""Seeds that are tried for a network that draws random numbers: so many coins seldom fall the same way."""

_SAME = 1e-3
"""Relative difference of an image's pooled features up to which they are the same: kernels change with the batch."""


@dataclass(frozen=True)
class Repeatability:
    """What keeps a network from being a function of one image: the first layer whose output shows it, else None.

    The layer of the network itself is "": what it puts out shows it, and no layer before.
    """

    changing: str | None = None
    """It gives other numbers each time, whatever the seed: a state that it changes, a generator of its own."""
    random: str | None = None
    """It draws random numbers in evaluation mode."""
    in_batch: str | None = None
    """What it gives for an image depends on the others in its batch."""

    def __str__(self) -> str:
        """Say it, for a warning; empty when there is nothing to say."""
        if self.changing is not None:
            return (
                f"Its outputs change from run to run, first seen in {_named(self.changing)}, and no seed controls them "
                "(a state that it changes, or a random generator of its own, say): results hold for this run alone"
            )
        if self.random is not None:
            return (
                f"It draws random numbers in evaluation mode, first seen in {_named(self.random)} (dropout that is "
                "always on, say): they are seeded for each image; results hold for this draw"
            )
        if self.in_batch is not None:
            return (
                "Its output for an image depends on the other images of the batch, first seen in "
                f"{_named(self.in_batch)} (batch statistics in evaluation mode, say): results hold for these batches "
                "alone"
            )
        return ""


def _named(layer: str) -> str:
    return f"layer {layer!r}" if layer else "its output"


def repeatability(net: nn.Module, images: torch.Tensor, layers: Sequence[str], traced: Trace) -> Repeatability:
    """Run a network on a few images twice, all at once and in batches of other sizes.

    Parameters
    ----------
    net : torch.nn.Module
        Left in the mode it was in, as is the global random state.
    images : torch.Tensor
        What it takes, (n_samples, ...) on its device; the first `LOOKED_AT` are run, two at least.
    layers : sequence of str
        Whose pooled outputs have to be the same; what the network puts out has to be, too.
    traced : Trace
        What `tracing.trace` found of it.

    Raises
    ------
    CaptureError
        When the output of one of the layers is NaN or infinite, with the first layer where it is.
    """
    images = images[:LOOKED_AT]
    halves = list(images.split(max(1, len(images) // 2)))
    with seeded(0, images.device):
        before = generator_states(images.device)
        together = pooled(net, [images], layers, traced)
        draws = generator_states(images.device) != before
    if not all(bool(torch.isfinite(features).all()) for features in together[: len(layers)]):
        raise CaptureError(
            f"The output of layer {_first_not_finite(net, images, traced)!r} is NaN or infinite; check the weights "
            "and the input normalisation of this network"
        )
    if len(images) < 2:
        return Repeatability()
    with seeded(0, images.device):
        # A draw that seldom changes anything, as that of a coin, may have fallen the same way.
        if _equal(together, pooled(net, halves, layers, traced)) and not draws:
            return Repeatability()
    # Seldom come to: only now all layers are looked at.
    first = _outputs(net, [images], traced)
    if (layer := _first_difference(first, _outputs(net, [images], traced))) is not None:
        return Repeatability(changing=layer)
    for seed in range(1, _DRAWS + 1) if draws else ():
        if (layer := _first_difference(first, _outputs(net, [images], traced, seed))) is not None:
            return Repeatability(random=layer)
    return Repeatability(in_batch=_first_difference(first, _outputs(net, halves, traced)))


def pooled(net: nn.Module, batches: Sequence[torch.Tensor], layers: Sequence[str], traced: Trace) -> list[torch.Tensor]:
    """Return the features of some layers, pooled, over all batches; then what the network puts out."""
    parts = []
    with capture(net, list(layers), reduce="mean", traced=traced) as activations:
        for batch in batches:
            output = tensor_at(net(batch.clone()), traced.output.way)
            features = [activations[layer] for layer in layers]
            if output is None or not output.is_floating_point() or output.shape[:1] != (len(batch),):
                output = torch.zeros(len(batch))  # class indices, a loss: no features of an image
            parts.append([*features, output])
    return [_joined(features) for features in zip(*parts, strict=True)]


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Put batches one after the other; nothing remains where they are of different shapes."""
    return torch.cat(list(parts)) if len({part.shape[1:] for part in parts}) == 1 else torch.empty(0)


def _equal(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> bool:
    return not any(map(_differ, one, other))


def _differ(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape:
        return True
    one, other = one.reshape(len(one), -1).double(), other.reshape(len(other), -1).double()
    return bool(((one - other).norm(dim=1) > _SAME * one.norm(dim=1)).any())


def _outputs(net: nn.Module, batches: Sequence[torch.Tensor], traced: Trace, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return the outputs of all calls that give a row for each image, in the order in which they finish."""
    parts: dict[str, list[torch.Tensor]] = {}

    def keep(layer: str, output: Any) -> None:
        call = traced.find(layer)
        tensor = None if call is None else tensor_at(output, call.way)
        if call is not None and tensor is not None and tensor.ndim and tensor.is_floating_point():
            parts.setdefault(layer, []).append(call.layout.images_first(tensor).clone())

    with seeded(seed, batches[0].device):
        for batch in batches:
            _watch(net, batch, keep)
    n_samples = sum(map(len, batches))
    joined = {layer: _joined(tensors) for layer, tensors in parts.items() if len(tensors) == len(batches)}
    return {layer: tensor for layer, tensor in joined.items() if len(tensor) == n_samples}


def _watch(net: nn.Module, batch: torch.Tensor, keep: Callable[[str, Any], None]) -> None:
    calls: Counter[str] = Counter()
    handles = []

    def finished(path: str, output: Any) -> None:
        calls[path] += 1
        keep(numbered(path, calls[path]), output)

    try:
        for path, module in net.named_modules():
            hook = lambda _module, _args, output, path=path: finished(path, output)  # noqa: E731
            handles.append(module.register_forward_hook(hook, prepend=True))
        with watching(net):
            net(batch.clone())
    finally:
        for handle in handles:
            handle.remove()


def _first_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> str | None:
    return next((layer for layer in one if layer in other and _differ(one[layer], other[layer])), None)


def _first_not_finite(net: nn.Module, images: torch.Tensor, traced: Trace) -> str:
    outputs = _outputs(net, [images], traced)
    return next((layer for layer, tensor in outputs.items() if not bool(torch.isfinite(tensor).all())), "")
