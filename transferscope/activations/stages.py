"""One instrumented forward pass: what fires, in which order, where a network can be cut, what a prefix costs.

A *cut* is a module output through which everything later depends on the input: remove what comes after it and
nothing else is lost. Cuts are read off the autograd graph, so residual connections, branches and concatenations
are respected whatever the modules are called.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from transferscope.errors import CaptureError
from transferscope.runtime.flops import FlopCounter

_PLAIN_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one module during a forward pass."""

    layer: str
    """`named_modules()` path; the second call of the same module is `path:2`, the third `path:3`."""
    module: nn.Module
    shape: tuple[int, ...]
    """Shape of the (first) output tensor, for one sample."""
    is_cut: bool
    """Whether everything later depends on the input only through this output."""
    node: object
    """The autograd node of the output: two calls with the same node return the same values."""
    params: int
    """Parameters of the network cut after this call: those that its output depends on. Of a call that is no cut, those
    of all modules entered so far."""
    flops: float
    """Floating-point operations so far for one sample (a multiply-add counts as two): an integer, NaN when unknown."""


@dataclass(frozen=True)
class Stage:
    """A natural place to cut a network: its layer name, and the size of what is kept."""

    layer: str
    shape: tuple[int, ...]
    params: int
    flops: float


_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def unwrapped(net: nn.Module) -> nn.Module:
    """Return the network inside any wrappers: those for several processes or GPUs, for averages, and a compiled one's.

    Its layers have the names that they have without a wrapper.
    """
    while True:
        if isinstance(net, _WRAPPERS):
            net = net.module
        elif is_compiled(net):
            (net,) = net.children()
        else:
            return net


def is_compiled(net: nn.Module) -> bool:
    """Whether `torch.compile` returned this, whose class has no public name: a module around the `_orig_mod` given."""
    return [name for name, _ in net.named_children()] == ["_orig_mod"]


def first_tensor(output: Any) -> torch.Tensor | None:
    """Return the tensor that stands for a module's output: itself, or the first one in a tuple or mapping."""
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, (tuple, list)):
        return next((t for t in map(first_tensor, output) if t is not None), None)
    return None


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
def all_trainable(net: nn.Module) -> Iterator[None]:
    """Let every parameter show up in the autograd graph."""
    frozen = [p for p in net.parameters() if not p.requires_grad and p.is_floating_point()]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def parameters_behind(node: Any, up_to: Any = None) -> set[int]:
    """Return the ids of the parameters that an autograd node depends on, not going beyond the node `up_to`."""
    stack, seen, parameter_ids = [node], {None, up_to}, set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            parameter_ids.add(id(variable))
        stack += [following for following, _ in node.next_functions]
    return parameter_ids


def trace(net: nn.Module, *args: Any, **kwargs: Any) -> list[Call]:
    """Run `net` once and return every module call in the order in which the calls *finish*.

    Parameters
    ----------
    net : torch.nn.Module
        Left in the mode it was in.
    *args, **kwargs
        What the network is called with; the first argument is a floating-point tensor (n_samples, ...), of which
        one sample is used.
    """
    records: list[tuple[str, nn.Module, torch.Tensor, Any, int, float]] = []
    entered: dict[int, int] = {}
    calls: Counter[str] = Counter()
    flop_counter = FlopCounter()

    def enter(module: nn.Module, _args: Any) -> None:
        for parameter in module.parameters(recurse=False):
            entered[id(parameter)] = parameter.numel()

    def leave(path: str, module: nn.Module, output: Any) -> None:
        tensor = first_tensor(output)
        calls[path] += 1
        if tensor is not None:
            name = numbered(path, calls[path])
            # The node is read now: a later in-place operation gives the tensor another one.
            key = (tensor.grad_fn, tensor.output_nr)
            records.append((name, module, tensor, key, sum(entered.values()), flop_counter.total))

    handles = []
    try:
        for path, module in net.named_modules():
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(lambda m, _a, out, path=path: leave(path, m, out)))
        with evaluating(net), torch.inference_mode(False), torch.enable_grad(), all_trainable(net):
            leaf = args[0][:1].detach().clone().requires_grad_()
            # A leaf may not be changed in place, and the first module of a network may do just that.
            with flop_counter:
                output = first_tensor(net(leaf.clone(), *args[1:], **kwargs))
            bottlenecks = _bottlenecks(output, leaf)
    finally:
        for handle in handles:
            handle.remove()
    params_by_key = _kept_parameters(net, [key for *_, key, _, _ in records if key in bottlenecks])
    return [
        Call(name, module, tuple(tensor.shape[1:]), key in bottlenecks, key, params_by_key.get(key, params), flops)
        for name, module, tensor, key, params, flops in records
    ]


def _kept_parameters(net: nn.Module, cuts: list[tuple[Any, int]]) -> dict[tuple[Any, int], int]:
    """Count the parameters that each cut depends on; `cuts` are in the order in which they fire."""
    sizes = {id(parameter): parameter.numel() for parameter in net.parameters()}
    counts: dict[tuple[Any, int], int] = {}
    parameter_ids: set[int] = set()
    before = None
    for key in cuts:
        if key not in counts:
            parameter_ids |= parameters_behind(key[0], up_to=before) & sizes.keys()
            counts[key], before = sum(sizes[parameter] for parameter in parameter_ids), key[0]
    return counts


def _bottlenecks(output: torch.Tensor | None, leaf: torch.Tensor) -> set[tuple[Any, int]]:
    """Return the (autograd node, output number) pairs that every path from `output` to `leaf` runs through.

    None at all when the graph is detached (`no_grad` or `detach` inside `forward`).
    """
    if output is None or output.grad_fn is None:
        return set()
    reaches = _nodes_reaching(output.grad_fn, leaf)
    if output.grad_fn not in reaches:
        return set()
    edges = {node: [(nxt, slot) for nxt, slot in node.next_functions if nxt in reaches] for node in reaches}
    indegree = Counter(nxt for targets in edges.values() for nxt, _ in targets)
    slots: dict[Any, set[int]] = {output.grad_fn: {output.output_nr}}
    for targets in edges.values():
        for nxt, slot in targets:
            slots.setdefault(nxt, set()).add(slot)

    bottlenecks = set()
    open_edges = 0
    waiting = Counter(indegree)
    queue = deque([output.grad_fn])
    while queue:
        node = queue.popleft()
        open_edges -= indegree[node]
        # With no edge left open around this node, whatever comes before it reaches the output through it alone.
        if open_edges == 0 and not queue and len(slots[node]) == 1:
            bottlenecks.add((node, next(iter(slots[node]))))
        for nxt, _ in edges[node]:
            open_edges += 1
            waiting[nxt] -= 1
            if waiting[nxt] == 0:
                queue.append(nxt)
    return bottlenecks


def _nodes_reaching(root: Any, leaf: torch.Tensor) -> set[Any]:
    """Return the autograd nodes between `root` and the accumulator of `leaf`, both included."""
    order, seen, stack = [], {root}, [root]
    while stack:
        node = stack.pop()
        order.append(node)
        for nxt, _ in node.next_functions:
            if nxt is not None and nxt not in seen:
                seen.add(nxt)
                stack.append(nxt)
    parents: dict[Any, list[Any]] = {}
    for node in order:
        for nxt, _ in node.next_functions:
            if nxt is not None:
                parents.setdefault(nxt, []).append(node)
    stack = [node for node in order if getattr(node, "variable", None) is leaf]
    reaches = set(stack)
    while stack:
        for parent in parents.get(stack.pop(), []):
            if parent not in reaches:
                reaches.add(parent)
                stack.append(parent)
    return reaches


def natural_stages(net: nn.Module, calls: list[Call]) -> list[Stage]:
    """Pick the stages at which a practitioner would cut `net`, in the order in which they fire.

    These are the stem, every repeated block (residual, inverted residual, transformer, inception, dense …), every
    layer of a plain chain with its normalisation and activation, and the pooled output; the final classifier is
    left out. All of them are cuts.

    Raises
    ------
    CaptureError
        When the network has no such stage.
    """
    cuts = _before_classifier([call for call in calls if call.is_cut and call.layer])
    composites = _units([call for call in cuts if _is_composite(call.module)], cuts)
    innermost = [call for call in composites if not any(_inside(other.layer, call.layer) for other in composites)]
    # A block without a skip connection has cuts within; one of its class that has the skip shows what the unit is.
    kinds = {type(call.module) for call in innermost}
    blocks = [call for call in composites if type(call.module) in kinds]
    blocks = [call for call in blocks if not any(_inside(call.layer, other.layer) for other in blocks)]
    items = [
        call
        for call in cuts
        if call in blocks
        or not (
            _is_composite(call.module)
            or type(call.module) in _PLAIN_CONTAINERS
            or any(_inside(call.layer, block.layer) for block in blocks)
        )
    ]
    stages = _close_segments(_one_name_each(items), blocks)
    if not stages:
        raise CaptureError(
            f"Found no natural stage in {type(net).__name__}: no module output is a place where it can be cut "
            "(or its graph is detached inside `forward`); name the layers explicitly instead of `layers='auto'`"
        )
    return [Stage(call.layer, call.shape, call.params, call.flops) for call in stages]


def classifier(calls: list[Call]) -> Call | None:
    """Return the call that gives a source's own class logits, None when there is none to be seen.

    That is the last weight layer, if everything runs through it and it is a linear one or a 1 × 1 convolution with
    a bias. The last layer of an embedding looks the same and counts as one too.
    """
    # Not the network itself, which may own weights (position embeddings, say) and finishes last.
    weighted = [call for call in calls if call.layer and _has_weight(call.module)]
    if not weighted:
        return None
    last, module = weighted[-1], weighted[-1].module
    pointwise = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.bias is not None
    # A graph that is detached inside `forward` shows no cut at all.
    runs_through = last.is_cut or not any(call.is_cut for call in calls)
    return last if runs_through and (pointwise or isinstance(module, nn.Linear)) else None


def _before_classifier(cuts: list[Call]) -> list[Call]:
    """Drop the last weight layer, where it is a linear one, and everything that finishes with or after it."""
    weighted = [i for i, call in enumerate(cuts) if _has_weight(call.module)]
    if weighted and isinstance(cuts[weighted[-1]].module, nn.Linear):
        return cuts[: weighted[-1]]
    return cuts


def _units(composites: list[Call], cuts: list[Call]) -> list[Call]:
    """Drop a composite that is a mere part (squeeze-and-excitation, say) of the block it is an attribute of."""

    def children(parent: str, of: list[Call]) -> list[Call]:
        return [call for call in of if call.layer.rpartition(".")[0] == parent]

    parts = set()
    for parent in composites:
        inner = children(parent.layer, composites)
        if len(inner) == 1 and any(_has_weight(call.module) for call in children(parent.layer, cuts)):
            parts.add(inner[0])
    return [call for call in composites if call not in parts]


def _one_name_each(items: list[Call]) -> list[Call]:
    """Keep one call a node: the outermost of nested modules, else the first to fire."""
    call_by_node: dict[Any, Call] = {}
    for call in items:
        previous = call_by_node.get(call.node)
        if previous is None or _inside(previous.layer, call.layer):
            call_by_node[call.node] = call
    return list(call_by_node.values())


def _close_segments(items: list[Call], blocks: list[Call]) -> list[Call]:
    """Reduce a chain of blocks and loose layers to its stages: a weight layer ends where the next one starts."""
    stages: list[Call] = []
    segment: list[Call] = []

    def close() -> None:
        if segment and (segment[0] in blocks or _has_weight(segment[0].module)):
            stages.append(segment[-1])

    for call in items:
        if call in blocks or _has_weight(call.module) or (segment and segment[-1] in blocks):
            close()
            segment = []
        segment.append(call)
    close()
    # What follows the last block or weight layer is its pooling and normalisation: the pooled output.
    return stages if items[-1:] == stages[-1:] else [*stages, items[-1]]


def _inside(layer: str, container: str) -> bool:
    return layer.startswith(f"{container}.")


def _is_composite(module: nn.Module) -> bool:
    """Whether a module with a forward of its own combines at least two modules that have parameters."""
    if type(module) in _PLAIN_CONTAINERS:
        return False
    owners = (m for m in module.modules() if m is not module and next(m.parameters(recurse=False), None) is not None)
    return sum(1 for _ in owners) >= 2


def _has_weight(module: nn.Module) -> bool:
    return any(p.ndim >= 2 for p in module.parameters(recurse=False))
