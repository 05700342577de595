"""Which modules, parameters and buffers of a network work before a cut, which after it."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from transferscope.activations.calls import Call, Trace
from transferscope.activations.outputs import Way
from transferscope.activations.tracing import evaluating, trace
from transferscope.errors import CaptureError, SourceError, near


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Which modules and tensors of a network belong to which side of a cut."""

    cut: Call
    output: Way
    """Which tensor of what the network puts out stands for it."""
    path: str
    """Of the module whose output is the cut."""
    call: int
    """Which call of this module."""
    call_in_suffix: int
    """The same when the calls inside modules that only run before the cut do not take place."""
    prefix: set[str]
    """Keys of parameters and buffers."""
    suffix: set[str]
    shared: set[str]
    """Keys of tensors that either side may read, whichever they belong to."""
    outputs: dict[str, list[Any]]
    """By path: what the outermost modules that only run before the cut return for one image, call by call."""
    running: set[str]
    """Paths of the modules that run after the cut, before it too or not."""
    deciding: set[int]
    """The ids of the parameters that, after the cut, decide what the network puts out."""


@dataclass(frozen=True, eq=False)
class _Run:
    """One call of a module: when it started and ended, within the calls of which modules, and what came out."""

    start: int
    end: int
    within: tuple[nn.Module, ...]
    output: Any


class Dissection:
    """Forward passes of one sample, from which it is told what belongs to which side of any cut.

    Parameters
    ----------
    net : torch.nn.Module
    sample : torch.Tensor
        An input of it, (n_samples, ...), of which one is run.
    """

    def __init__(self, net: nn.Module, sample: Tensor) -> None:
        self.net = net
        self.trace = trace(net, sample)
        self._runs = _runs(net, sample)

    def at(self, layer: str, *, detached: bool = False) -> Anatomy:
        """Say what belongs to which side of the cut after `layer`; arguments and errors are those of `dissect`."""
        net, calls, runs = self.net, self.trace, self._runs
        cut = _find(net, layer, calls, detached)
        path = next(path for path, module in net.named_modules() if module is cut.module)
        number = int(cut.layer[len(path) + 1 :] or 1)
        sides = _sides(net, runs, moment=runs[cut.module][number - 1].end)
        done = {module for module in runs if sides[module] == "before"}
        hidden = sum(bool(done.intersection(run.within)) for run in runs[cut.module][:number])
        before = calls.parameters_behind(cut.node)
        after = calls.parameters_behind(calls.output.node, up_to=cut.node)
        running = {path for path, module in net.named_modules() if module in runs and module not in done}
        anatomy = Anatomy(cut, calls.output.way, path, number, number - hidden, set(), set(), set(), {}, running, after)
        for key, module, _, tensor in tensors_of(net):
            side = sides[module]
            if isinstance(tensor, nn.Parameter):
                # A detached graph does not show what a module that is still running owns for which side.
                in_prefix = side == "before" or id(tensor) in before or (side == "both" and not cut.is_cut)
                in_suffix = side == "after" or id(tensor) in after or (side == "never" and id(tensor) not in before)
            else:
                ids = {id(parameter) for parameter in module.parameters(recurse=False)}
                in_prefix = side in ("before", "both") or (side == "never" and (not ids or bool(ids & before)))
                in_suffix = side != "before"
            if in_prefix:
                anatomy.prefix.add(key)
            if in_suffix:
                anatomy.suffix.add(key)
            if side in ("both", "never"):
                anatomy.shared.add(key)
        for name, module in net.named_modules():
            outermost = [run.output for run in runs.get(module, []) if not done.intersection(run.within)]
            if module in done and outermost:
                anatomy.outputs[name] = outermost
        return anatomy


def dissect(net: nn.Module, layer: str, sample: Tensor, *, detached: bool = False) -> Anatomy:
    """Find out what belongs to which side of the cut after `layer`, from a few forward passes of one sample.

    With `detached`, a network that shows no cut at all is taken too: then `suffix` means nothing.

    Raises
    ------
    CaptureError
        When the forward pass runs through no such layer, or it lies inside a residual connection.
    """
    return Dissection(net, sample).at(layer, detached=detached)


def parameters_by_stage(net: nn.Module, layers: Sequence[str], sample: Tensor) -> dict[str, list[str]]:
    """Return for each of `layers`, in firing order, the parameters that influence its output and no earlier one's.

    Parameters after the last layer are in none of the lists, which hold `named_parameters()` names.

    Raises
    ------
    CaptureError
        As `dissect`.
    """
    calls = trace(net, sample)
    nodes = {layer: _find(net, layer, calls, False).node for layer in layers}
    left = {id(parameter): name for name, parameter in net.named_parameters()}
    names_by_layer = {}
    for layer, node in nodes.items():
        behind = calls.parameters_behind(node) & left.keys()
        names_by_layer[layer] = [left.pop(parameter) for parameter in list(left) if parameter in behind]
    return names_by_layer


def copied(net: nn.Module, *, shared: bool = False) -> nn.Module:
    """Return a copy of `net` that shares nothing with it, or else all its tensors; SourceError when it cannot be."""
    with evaluating(net):
        # What some networks keep between evaluations holds graphs, which cannot be copied; this makes them let go.
        net.train()
    kept = {id(tensor): tensor for *_, tensor in tensors_of(net)} if shared else {}
    # Weights that are computed before each forward pass, as by torch.nn.utils.spectral_norm, hold graphs.
    computed = (value for module in net.modules() for value in vars(module).values() if isinstance(value, Tensor))
    kept |= {id(tensor): tensor.detach().clone() for tensor in computed if not tensor.is_leaf}
    try:
        return copy.deepcopy(net, kept)
    except Exception as error:  # whatever a module holds beside its weights
        raise SourceError(
            f"{type(net).__name__} cannot be copied ({type(error).__name__}: {str(error).partition('.')[0]}); if it "
            "uses torch.nn.utils.weight_norm or spectral_norm, use those of torch.nn.utils.parametrizations"
        ) from error


def _find(net: nn.Module, layer: str, calls: Trace, detached: bool) -> Call:
    """Return the call to cut after: of all that give the tensor of `layer`, the first, as others may read it too."""
    names = [call.layer for call in calls if call.layer]
    if layer not in names:
        raise CaptureError(
            f"{type(net).__name__} runs through no layer {layer!r}{near(layer, names)}; "
            "`transferscope layers` lists them all"
        )
    index = names.index(layer)
    cuts = [call for call in calls if call.is_cut and call.layer]
    if calls[index].is_cut:
        return next(call for call in cuts if call.node == calls[index].node)
    if not cuts and detached:
        return calls[index]
    if not cuts:
        raise CaptureError(
            f"{type(net).__name__} shows no place where it can be cut (its output does not follow from its input), so "
            f"not after {layer!r} either; only the protocol 'truncate' works"
        )
    before = [call for call in calls[:index] if call in cuts]
    passed = {call.node for call in before}
    after = [call for call in calls[index:] if call in cuts and call.node not in passed]
    neighbours = [f"{call.layer!r} before it" for call in before[-1:]]
    neighbours += [f"{call.layer!r} after it" for call in after[:1]]
    raise CaptureError(
        f"{type(net).__name__} cannot be cut after {layer!r}, since {_why_not(calls[index])}; the nearest layers "
        f"where it can be cut: {', '.join(neighbours)}"
    )


def _why_not(call: Call) -> str:
    """Say why a network cannot be cut after a call."""
    return "it lies inside a residual connection" if call.has_images else "its output is not one for each image"


def _runs(net: nn.Module, sample: Tensor) -> dict[nn.Module, list[_Run]]:
    """Run `net` on one sample as `tracing.trace` does and return the calls of every module, by when they ended."""
    one, two = sample[:1], sample[:1].repeat(2, *[1] * (sample.ndim - 1))
    try:
        # With gradients, since some modules skip their children without.
        return _runs_of(net, one, gradients=True)
    except Exception as error:
        # Some networks (batch statistics of vectors, say) take no lone image, some (inference mode inside) none with
        # gradients.
        for images, gradients in ((two, True), (one, False), (two, False)):
            with suppress(Exception):
                return _runs_of(net, images, gradients=gradients)
        raise error from None


def _runs_of(net: nn.Module, images: Tensor, *, gradients: bool) -> dict[nn.Module, list[_Run]]:
    runs: dict[nn.Module, list[_Run]] = {}
    opened: list[tuple[nn.Module, int]] = []
    clock = count()

    def enter(module: nn.Module, _args: Any) -> None:
        opened.append((module, next(clock)))

    def leave(module: nn.Module, _args: Any, output: Any) -> None:
        _, start = opened.pop()
        within = tuple(outer for outer, _ in opened)
        runs.setdefault(module, []).append(_Run(start, next(clock), within, output))

    handles = []
    try:
        for module in net.modules():
            handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
        with evaluating(net), torch.set_grad_enabled(gradients):
            net(images.detach().clone())
    finally:
        for handle in handles:
            handle.remove()
    return runs


def _sides(net: nn.Module, runs: dict[nn.Module, list[_Run]], moment: int) -> dict[nn.Module, str]:
    """Say of every module whether it runs "before" or "after" the moment of the cut, on "both" sides, or "never".

    A module that never runs, as its parent uses its weights directly, is on the side of its parent.
    """
    sides: dict[nn.Module, str] = {}
    paths: dict[str, nn.Module] = {}
    for path, module in net.named_modules():
        paths[path] = module
        if calls := runs.get(module):
            past, future = all(run.end <= moment for run in calls), all(run.start > moment for run in calls)
            sides[module] = "before" if past else "after" if future else "both"
        else:
            parent = sides[paths[path.rpartition(".")[0]]] if path else "never"
            sides[module] = parent if parent in ("before", "after") else "never"
    return sides


def tensors_of(net: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """Yield key, owner, name and tensor of every parameter and buffer, those of a module with two paths once."""
    for path, module in net.named_modules():
        options = {"recurse": False, "remove_duplicate": False}
        for name, tensor in (*module.named_parameters(**options), *module.named_buffers(**options)):
            yield f"{path}.{name}" if path else name, module, name, tensor
