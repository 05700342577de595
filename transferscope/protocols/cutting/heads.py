"""A new classifier for a network: in place of its own, or on what it puts out where it has none."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from transferscope.activations.calls import Call, Trace
from transferscope.activations.layout import Layout
from transferscope.activations.outputs import Way, tensor_for
from transferscope.activations.reductions import mean_over_positions
from transferscope.activations.stages import classifiers
from transferscope.activations.tracing import evaluating, trace
from transferscope.errors import SourceError
from transferscope.protocols.cutting.dividing import trial_images
from transferscope.runtime.seeding import seeded

_NAME = "new_head"


class PooledHead(nn.Module):
    """A linear classifier on the mean over positions of an activation (n, ...) with this layout."""

    def __init__(self, features: int, classes: int, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.linear = nn.Linear(features, classes)

    def forward(self, activation: Tensor) -> Tensor:
        """Map an activation to logits (n, classes)."""
        return self.linear(mean_over_positions(activation, self.layout))


class OutputHead(PooledHead):
    """The same on the tensor to which a way leads in what a network puts out."""

    def __init__(self, features: int, classes: int, layout: Layout, way: Way) -> None:
        super().__init__(features, classes, layout)
        self.way = way

    def forward(self, output: Any) -> Tensor:
        """Map what the network puts out to logits (n, classes)."""
        return super().forward(_tensor(output, self.way))


def replaceable_heads(net: nn.Module, traced: Trace, heads: Sequence[Call], layer: str) -> Sequence[Call]:
    """Return the classifiers that are replaced behind a cut after `layer`; behind no cut at all where that is empty.

    `heads` are those that `classifiers` finds. There are none where the network has no classifier and gets a head on
    what it puts out.

    Raises
    ------
    SourceError
        When the classifier is kept, or there is none and what the network puts out can take none.
    """
    if not heads:
        if reason := _takes_no_head(traced):
            raise SourceError(
                f"Expected {type(net).__name__} to end in a linear classifier (or several, of equal width), or to put "
                f"out a tensor that can be given one, but {reason}; use the protocol 'truncate'"
            )
        return ()
    names = [each.layer for each in traced]
    if layer and names.index(layer) >= names.index(heads[0].layer):
        raise SourceError(
            f"The classifier {heads[0].layer!r} belongs to what is kept up to {layer!r}, so that nothing is left to be "
            "trained; choose a smaller depth, or the protocol 'truncate'"
        )
    return heads


def _takes_no_head(traced: Trace) -> str:
    """Say why no head can be put on what a network puts out; nothing where one can."""
    output = traced.output
    if output.equals:
        return f"it returns several tensors, of which none lies deepest: {', '.join(output.equals)}"
    if not output.shape:
        return "it returns none"
    if traced.detached_after:
        return "its output does not follow from the images by operations that torch can see"
    return "" if output.has_images else "its output is not one for each image"


def renew_head(net: nn.Module, classes: int, sample: Tensor, seed: int, layer: str = "") -> None:
    """Give a network a new classifier, which has to come after the cut at `layer`; it puts out logits (n, classes).

    A classifier is replaced where it is. A network without one keeps its layers and their names, and gets a linear
    layer on the mean over positions of what it puts out, as the module ``new_head``.

    Raises
    ------
    SourceError
        As `replaceable_heads`.
    """
    traced = trace(net, sample)
    heads = replaceable_heads(net, traced, classifiers(traced), layer)
    for place, head in enumerate(heads):
        with seeded(seed + place):
            new = _as_wide(head.module, classes)
        for path, module in list(net.named_modules(remove_duplicate=False)):
            if module is head.module:
                parent, _, name = path.rpartition(".")
                setattr(net.get_submodule(parent), name, new)
    if not heads:
        _append(net, classes, sample, seed, traced.output)
    elif traced.output.way:
        net.register_forward_hook(partial(_alone, traced.output.way))


def _append(net: nn.Module, classes: int, sample: Tensor, seed: int, output: Call) -> None:
    images = trial_images(sample)
    with evaluating(net), torch.no_grad(), seeded(0, sample.device):
        before = net(images.clone())
    features = mean_over_positions(_tensor(before, output.way), output.layout).shape[1]
    with seeded(seed):
        head = OutputHead(features, classes, output.layout, output.way).to(sample.device)
    name = next(name for name in (_NAME, *(f"{_NAME}_{place}" for place in range(2, 100))) if not hasattr(net, name))
    net.add_module(name, head)
    # A plain sequence runs through it by itself.
    if type(net).forward is not nn.Sequential.forward:
        net.register_forward_hook(partial(_through, name))
    with evaluating(net), torch.no_grad(), seeded(0, sample.device):
        given, after = head(before), net(images)
    if not (isinstance(after, Tensor) and after.shape == given.shape and torch.allclose(after, given, atol=1e-4)):
        raise SourceError(
            f"{type(net).__name__} cannot be given a classifier: with one more module its output changes, or "
            "chance has a part in it; use the protocol 'truncate'"
        )


def _through(name: str, net: nn.Module, _args: Any, output: Any) -> Tensor:
    """Do what a forward hook does: pass on what the head makes of an output."""
    return net.get_submodule(name)(output)


def _alone(way: Way, _net: nn.Module, _args: Any, output: Any) -> Tensor:
    """Do what a forward hook does: pass on the logits alone."""
    return _tensor(output, way)


def _tensor(output: Any, way: Way) -> Tensor:
    found = tensor_for(output, way)
    assert found is not None  # the trace has seen one
    return found


def _as_wide(head: nn.Module, classes: int) -> nn.Module:
    """Return a newly drawn layer like a classifier, with so many outputs."""
    if isinstance(head, nn.Conv2d):
        return nn.Conv2d(head.in_channels, classes, 1)
    assert isinstance(head, nn.Linear)
    return nn.Linear(head.in_features, classes, bias=head.bias is not None)
