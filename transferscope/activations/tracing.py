"""One instrumented forward pass: what fires, in which order, where a network can be cut, what a prefix costs.

A *cut* is a module output through which everything later depends on the input: remove what comes after it and
nothing else is lost. It has an axis that counts images: windows of an image as samples of their own are no cut. Cuts
are read off the graph of data, so residual connections, branches and concatenations are respected whatever the modules
are called, and whether gradients flow or not.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from transferscope.activations.axes import unknown
from transferscope.activations.calls import Call, Trace
from transferscope.activations.dataflow import Dataflow, Node
from transferscope.activations.layout import layout_of, usual
from transferscope.activations.outputs import Way, named, tensor_at, tensors_in
from transferscope.runtime.flops import FlopCounter
from transferscope.runtime.parameter_count import ParameterCounter
from transferscope.runtime.seeding import seeded


def numbered(path: str, call: int) -> str:
    """Name the `call`-th call (from 1) of the module at `path`."""
    return path if call == 1 else f"{path}:{call}"


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Put `net` in evaluation mode and give every module its own mode back at the end."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def watching(net: nn.Module) -> Iterator[None]:
    """Evaluate `net` without gradients and in the open, so that every module of it is called and can be watched."""
    fast = torch.backends.mha.get_fastpath_enabled()
    # Some networks switch gradients on inside, which tensors made here cannot take.
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    # Attention's fast path runs none of the modules inside.
    torch.backends.mha.set_fastpath_enabled(False)
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        with evaluating(net), torch.inference_mode(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "None of the inputs have requires_grad")  # checkpoints need none here
            yield
            # What some networks keep between evaluations would be of no use to gradients: this makes them let go.
            net.train()
    finally:
        _make_ordinary(net)
        for parameter in trainable:
            parameter.requires_grad_(True)
        torch.backends.mha.set_fastpath_enabled(fast)


def _make_ordinary(net: nn.Module) -> None:
    """Copy what modules keep from a pass without gradients (ConViT its indices): none could pass through it."""
    for module in net.modules():
        for kept in (vars(module), vars(module)["_buffers"]):
            for name, value in kept.items():
                if isinstance(value, torch.Tensor) and value.is_inference():
                    kept[name] = value.clone()


@dataclass(frozen=True, eq=False)
class _Seen:
    """What a hook saw of one call."""

    layer: str
    module: nn.Module
    way: Way
    equals: tuple[str, ...]
    shape: tuple[int, ...]
    node: Node | None
    axes: Any
    params: float
    hidden: float
    """Of the modules entered so far, the weights that are no parameters for torch, so that no graph tells of them."""
    flops: float


def trace(net: nn.Module, *args: Any, **kwargs: Any) -> Trace:
    """Run `net` on one sample and return every module call in the order in which the calls *finish*.

    It runs on two as well, for what changes with their number; one that takes no lone sample on two and on three.

    Parameters
    ----------
    net : torch.nn.Module
        Left in the mode it was in.
    *args, **kwargs
        What the network is called with; the first argument is a tensor (n_samples, ...), of which one sample is used.
    """
    with watching(net), seeded(0, args[0].device):
        # What some networks keep between evaluations was computed unseen; this makes them let go.
        net.train()
        net.eval()
        sample = args[0][:1].clone()
        try:
            seen, flow, output, without_tensor = _watched(net, sample, args[1:], kwargs)
        except Exception as alone:
            # Some networks (batch statistics of vectors, say) take no lone image.
            sample = sample.repeat(2, *[1] * (sample.ndim - 1))
            try:
                seen, flow, output, without_tensor = _watched(net, sample, args[1:], kwargs)
            except Exception:
                raise alone from None
        samples_axes, shapes = _samples_axes(net, seen, (sample, *args[1:]), kwargs)
    ends, detached_after = _ends(flow, output, seen)
    cuts, behind = flow.bottlenecks(ends), flow.behind(ends)
    params_by_node = _kept_parameters(net, flow, [each.node for each in seen if each.node in cuts])
    has_class_token = next((known for module in net.modules() if (known := _says(module)) is not None), None)
    calls = []
    for each in seen:
        axis, shape = samples_axes.get(each.layer), shapes.get(each.layer, each.shape)
        has_images = axis is not None or each.layer not in shapes
        if each.axes is None:
            layout = usual(len(shape))
        else:
            axes = each.axes if len(shape) == len(each.shape) else unknown(shape)
            layout = layout_of(axes, shape, axis, each.module, has_class_token)
        calls.append(
            Call(
                layer=each.layer,
                module=each.module,
                shape=tuple(size for place, size in enumerate(shape) if place != layout.samples),
                is_cut=each.node in cuts and has_images,
                node=each.node,
                params=params_by_node[each.node] + each.hidden if each.node in params_by_node else each.params,
                flops=each.flops,
                way=each.way,
                layout=layout,
                leads_to_output=each.node in behind,
                equals=each.equals,
                has_images=has_images,
            )
        )
    return Trace(calls, flow, ends, detached_after=detached_after, without_tensor=without_tensor)


def _watched(
    net: nn.Module, sample: torch.Tensor, others: Sequence[Any], kwargs: Any
) -> tuple[list[_Seen], Dataflow, Any, dict[str, str]]:
    """Run `net` and return its calls, the graph of data, its output, and the layers that return no tensor."""
    parameters = ParameterCounter(net)
    seen: list[_Seen] = []
    without_tensor: dict[str, str] = {}
    counter = FlopCounter()

    def leave(layer: str, module: nn.Module, output: Any) -> None:
        way, tensor, equals = _deepest(output, flow)
        if tensor is None:
            without_tensor[layer] = type(output).__name__
        else:
            # The node is read now: a later in-place operation gives the tensor another one.
            node, axes, params = flow.node(tensor), flow.axes(tensor), (parameters.total, parameters.hidden)
            shape, flops = tuple(tensor.shape), counter.total / len(sample)
            flops = int(flops) if flops.is_integer() else flops
            seen.append(_Seen(layer, module, way, equals, shape, node, axes, *params, flops))

    sample = sample.clone()  # which the network may change in place
    flow = Dataflow(net, sample)
    with _hooked(net, parameters.enter, leave), counter, flow:
        output = net(sample, *others, **kwargs)
    parameters.warn_of_unknown()
    return seen, flow, output, without_tensor


@contextmanager
def _hooked(net: nn.Module, enter: Any, leave: Any) -> Iterator[None]:
    """Call `enter(path, module)` and `leave(layer, module, output)` around every call of a module."""
    calls: Counter[str] = Counter()
    handles = []

    def left(path: str, module: nn.Module, output: Any) -> None:
        calls[path] += 1
        leave(numbered(path, calls[path]), module, output)

    try:
        for path, module in net.named_modules():
            handles.append(module.register_forward_pre_hook(lambda m, _args, path=path: enter(path, m)))
            handles.append(module.register_forward_hook(lambda m, _args, out, path=path: left(path, m, out)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _deepest(output: Any, flow: Dataflow) -> tuple[Way, torch.Tensor | None, tuple[str, ...]]:
    """Return the tensor that stands for an output, the way to it, and the names of others that lie as deep."""
    found = list(tensors_in(output))
    # What counts is a number for each image: no class indices, no losses.
    numbers = [(way, tensor) for way, tensor in found if tensor.is_floating_point() and tensor.ndim]
    from_images = [(way, tensor) for way, tensor in numbers if flow.from_images(flow.node(tensor))]
    candidates = from_images or numbers or found
    if not candidates:
        return (), None, ()
    nodes = [flow.node(tensor) for _, tensor in candidates]
    depths = [-1 if node is None else flow.depth(node) for node in nodes]
    deepest = [place for place, depth in enumerate(depths) if depth == max(depths)]
    way, tensor = candidates[deepest[0]]
    if len(deepest) == 1 or len({flow.operator(nodes[place]) for place in deepest}) == 1:
        return way, tensor, ()
    return way, tensor, tuple(named(candidates[place][0]) for place in deepest)


def _samples_axes(
    net: nn.Module, seen: Sequence[_Seen], args: Sequence[Any], kwargs: Any
) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """Return for each layer the axis that grows with the number of images, and its shape for the smaller batch."""
    ways = {each.layer: each.way for each in seen}
    first = {each.layer: each.shape for each in seen}
    few = len(args[0])
    try:
        second = _shapes(net, ways, few + 1, args, kwargs)
        if any(len(shape) != len(first[layer]) for layer, shape in second.items()):
            # A lone image loses an axis in some networks.
            few += 1
            first, second = second, _shapes(net, ways, few + 1, args, kwargs)
    except Exception:  # it takes no other number of images, so that no axis can be told in this way
        return {}, {}
    axes = {}
    for layer, shape in second.items():
        lengths = enumerate(zip(first.get(layer, ()), shape, strict=False))
        growing = [place for place, pair in lengths if pair == (few, few + 1)]
        if len(growing) == 1:
            axes[layer] = growing[0]
    return axes, first


def _shapes(
    net: nn.Module, ways: dict[str, Way], n_samples: int, args: Sequence[Any], kwargs: Any
) -> dict[str, tuple[int, ...]]:
    shapes = {}

    def leave(layer: str, _module: nn.Module, output: Any) -> None:
        if layer in ways and (tensor := tensor_at(output, ways[layer])) is not None:
            shapes[layer] = tuple(tensor.shape)

    sample = args[0][:1]
    with _hooked(net, lambda _path, _module: None, leave):
        net(sample.repeat(n_samples, *[1] * (sample.ndim - 1)), *args[1:], **kwargs)
    return shapes


def _ends(flow: Dataflow, output: Any, seen: Sequence[_Seen]) -> tuple[set[Node], str]:
    """Return what stands for the network's output, and the last layer that images had a part in if they end before."""
    _, tensor, equals = _deepest(output, flow)
    tensors = [each for way, each in tensors_in(output) if named(way) in equals] if equals else [tensor]
    nodes = {flow.node(each) for each in tensors if each is not None}
    if known := {node for node in nodes if node is not None and flow.from_images(node)}:
        return known, ""
    reached = {each.node: each.layer for each in seen if each.layer and each.node is not None}
    reached = {node: layer for node, layer in reached.items() if flow.from_images(node)}
    if not reached:
        return set(), ""
    last = max(reached, key=flow.depth)
    return {last}, reached[last]


def _kept_parameters(net: nn.Module, flow: Dataflow, cuts: Sequence[Node | None]) -> dict[Node | None, int]:
    """Count the parameters that each cut depends on; `cuts` are in the order in which they fire."""
    sizes = {id(parameter): parameter.numel() for parameter in net.parameters()}
    counts: dict[Node | None, int] = {}
    parameter_ids: set[int] = set()
    before = None
    for node in cuts:
        if node is not None and node not in counts:
            parameter_ids |= flow.parameters_behind(node, up_to=before) & sizes.keys()
            counts[node], before = sum(sizes[parameter] for parameter in parameter_ids), node
    return counts


def _says(module: nn.Module) -> bool | None:
    """Return whether a network of timm says that it has a class token."""
    said = getattr(module, "has_class_token", None)
    return said if isinstance(said, bool) else None
