"""A network made faster for forward passes alone: batch norms folded into convolutions, weights in channels-last order.

Nothing of it is taken on trust. Each way is tried on a few images, and where what is captured, or what the network puts
out, is not what it was, the next one is, and at last none.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from transferscope.activations.calls import Trace
from transferscope.activations.repeatability import LOOKED_AT, pooled
from transferscope.activations.selecting import path_of
from transferscope.activations.tracing import watching

WORTH = 200
"""Images from which on it takes less time than it saves."""

_SAME = 1e-5
"""Largest difference of what is captured, relative to its largest value."""
_LARGE = 160
"""Height and width of images from which on the order of weights matters without grouped convolutions, too."""
_CONVOLUTIONS = {"Conv2d", "Conv2dSame"}
"""Kinds whose output is linear in `weight` and `bias` as they are: others standardise their weights first, say."""


@contextmanager
def sped_up(
    net: nn.Module, images: torch.Tensor, layers: Sequence[str], traced: Trace, *, folding_only: bool = False
) -> Iterator[str]:
    """Make forward passes of `net` faster inside the `with` block; outside it is as before.

    Parameters
    ----------
    net : torch.nn.Module
        In evaluation mode.
    images : torch.Tensor
        A few that it takes, (n_samples, ...) on its device; the first `LOOKED_AT` are run.
    layers : sequence of str
        Whose outputs are captured: they are those of the network as it is, and so is what it puts out, up to 1e-5 of
        the largest value of each.
    traced : Trace
        What `tracing.trace` found of it.
    folding_only : bool
        Do nothing unless half of the convolutions at least can be folded.

    Yields
    ------
    str
        What was done, in words; empty where there was nothing to gain, or something would have been another number.
    """
    images = images[:LOOKED_AT]
    convolutions = [module for module in net.modules() if _is_plain(module)]
    with ExitStack() as done:
        ways: list[tuple[str, list[Callable[[ExitStack], None]]]] = []
        if convolutions and len(images):
            pairs = _pairs(net, images[:1], {path_of(layer) for layer in layers})
            fold = "batch norms folded", lambda undo: _fold(pairs, undo)
            order = "channels last", lambda undo: _reorder(convolutions, undo)
            steps = [fold] * bool(pairs) + [order] * _gains_by_order(convolutions, pairs, images)
            if not folding_only or 2 * len(pairs) >= len(convolutions):
                tried = _tried(steps)
                ways = [(", ".join(name for name, _ in each), [step for _, step in each]) for each in tried]
        expected = pooled(net, [images], layers, traced) if ways else []
        said = ""
        for name, taken in ways:
            if _works(net, images, layers, traced, expected, taken, done):
                said = name
                break
        yield said


def _tried(steps: Sequence[Any]) -> list[Sequence[Any]]:
    """Return all steps together, then each alone."""
    return [steps, *([step] for step in steps)] if len(steps) > 1 else [steps] * bool(steps)


def _gains_by_order(convolutions: Sequence[nn.Module], pairs: Sequence[Any], images: torch.Tensor) -> bool:
    """Whether passes are known to be faster channels last: on a CPU, where little but convolutions is left to do."""
    grouped = any(int(getattr(each, "groups", 1)) > 1 for each in convolutions)
    large = min(images.shape[-2:]) >= _LARGE
    return images.device.type == "cpu" and (grouped or large or 2 * len(pairs) >= len(convolutions))


def _works(
    net: nn.Module,
    images: torch.Tensor,
    layers: Sequence[str],
    traced: Trace,
    expected: Sequence[torch.Tensor],
    steps: Sequence[Callable[[ExitStack], None]],
    done: ExitStack,
) -> bool:
    """Take some steps, and undo them at once where the numbers change, else when `done` is closed."""
    with ExitStack() as undo:
        for step in steps:
            step(undo)
        try:
            found = pooled(net, [images], layers, traced)
        except Exception:  # a network that views outputs in the usual order, say
            return False
        if not all(map(_alike, found, expected)):
            return False
        done.push(undo.pop_all())
    return True


def _alike(found: torch.Tensor, expected: torch.Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    if not expected.numel():
        return True
    return bool((found - expected).abs().max() <= _SAME * expected.abs().max())


def _is_plain(module: nn.Module) -> bool:
    """Whether this is a convolution in float32 that uses its weights as they are."""
    weight = dict(module.named_parameters(recurse=False)).get("weight")
    known = isinstance(module, nn.Conv2d) and type(module).__name__ in _CONVOLUTIONS
    return known and weight is not None and weight.dtype == torch.float32


def _pairs(net: nn.Module, image: torch.Tensor, captured: set[str]) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return convolutions with the batch norm that gets their output, where each runs once in a pass.

    Not such convolutions whose own output is captured.
    """
    calls: Counter[nn.Module] = Counter()
    made: dict[int, tuple[nn.Conv2d, torch.Tensor]] = {}
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def convolved(module: Any, _args: Any, output: torch.Tensor) -> None:
        calls[module] += 1
        made[id(output)] = module, output

    def normalised(module: Any, args: Any) -> None:
        calls[module] += 1
        if args and id(args[0]) in made:
            found.append((made[id(args[0])][0], module))

    handles = []
    try:
        for path, module in net.named_modules():
            if _is_plain(module) and path not in captured:
                handles.append(module.register_forward_hook(convolved, prepend=True))
            elif _after_normalising(module) is not None:
                handles.append(module.register_forward_pre_hook(normalised))
        with watching(net):
            net(image.clone())
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in found if all(calls[module] == 1 for module in pair) and len(set(pair)) == 2]


def _after_normalising(module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return what a batch norm with statistics of its own does after it has normalised; None for what is none."""
    if not isinstance(module, nn.BatchNorm2d) or module.running_mean is None or module.running_var is None:
        return None
    if type(module) is nn.BatchNorm2d:
        return _unchanged
    if type(module).__name__ == "BatchNormAct2d":
        drop, act = getattr(module, "drop", None), getattr(module, "act", None)
        return None if drop is None or act is None else lambda x: act(drop(x))
    return None


def _unchanged(x: torch.Tensor) -> torch.Tensor:
    return x


def _fold(pairs: Sequence[tuple[nn.Conv2d, nn.BatchNorm2d]], undo: ExitStack) -> None:
    for convolution, norm in pairs:
        after = _after_normalising(norm)
        assert after is not None
        weight, bias = _folded(convolution, norm)
        _replace(convolution, "weight", weight, undo)
        _replace(convolution, "bias", bias, undo)
        # On the module alone, not its class, so that hooks still see its output.
        vars(norm)["forward"] = after
        undo.callback(vars(norm).pop, "forward")


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights and bias of the convolution and the batch norm after it as one."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    scale = 1 / torch.sqrt(variance.double() + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight.double()
    bias = -mean.double() if convolution.bias is None else convolution.bias.double() - mean.double()
    shift = 0.0 if norm.bias is None else norm.bias.double()
    weight = convolution.weight.double() * scale[:, None, None, None]
    return weight.float(), (bias * scale + shift).float()


def _reorder(convolutions: Sequence[nn.Module], undo: ExitStack) -> None:
    for convolution in convolutions:
        weight = convolution.get_parameter("weight").detach()
        _replace(convolution, "weight", weight.contiguous(memory_format=torch.channels_last), undo)


def _replace(module: nn.Module, name: str, value: torch.Tensor, undo: ExitStack) -> None:
    """Give a module another parameter of this name, until `undo` is closed."""
    undo.callback(setattr, module, name, getattr(module, name))
    setattr(module, name, nn.Parameter(value.detach(), requires_grad=False))
