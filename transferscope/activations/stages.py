"""The natural places to cut a network: what a practitioner would call its stem, its blocks and its pooled output."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from transferscope.activations.calls import Call, Trace
from transferscope.activations.dataflow import Node
from transferscope.errors import CaptureError, TransferscopeWarning

_PLAIN_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Stage:
    """A natural place to cut a network: its layer name, and the size of what is kept."""

    layer: str
    shape: tuple[int, ...]
    params: float
    flops: float


BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def natural_stages(net: nn.Module, calls: Trace) -> list[Stage]:
    """Pick the stages at which a practitioner would cut `net`, in the order in which they fire.

    These are the stem, every repeated block (residual, inverted residual, transformer, inception, dense …), every
    layer of a plain chain with its normalisation and activation, and the pooled output; the final classifier is
    left out. All of them are cuts.

    Raises
    ------
    CaptureError
        When the network has no such stage, or puts out several tensors of which none lies deeper than the others.
    """
    if calls.output.equals:
        raise CaptureError(
            f"Expected {type(net).__name__} to return one tensor that lies deepest, but got "
            f"{', '.join(calls.output.equals)} at the same depth; have it return one of them, or name the layers "
            "explicitly instead of `layers='auto'`"
        )
    if calls.detached_after:
        warnings.warn(
            f"The output of {type(net).__name__} does not follow from its input by operations that torch can see: the "
            f"last layer that does is {calls.detached_after!r} (NumPy after it, say), where its stages end",
            TransferscopeWarning,
            stacklevel=2,
        )
    cuts = _before_classifiers(calls)
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
            "(branches may run side by side up to its end, or layers past torch's modules, or for parts of the images "
            "only); name the layers explicitly instead of `layers='auto'`"
        )
    return [Stage(call.layer, call.shape, call.params, call.flops) for call in stages]


def classifiers(traced: Trace) -> tuple[Call, ...]:
    """Return the calls that give a source's own class logits, in firing order; none where there are none to be seen.

    Those are the weight layers that no other follows, if everything runs through them and they are linear layers, or
    1 × 1 convolutions with a bias, of equal width. There is more than one where heads are averaged, as after
    distillation. The last layer of an embedding looks the same and counts as one too, but for a convolution whose
    network says that it has another number of classes.
    """
    weighted = _weighted(traced)
    last: list[Call] = []
    followed: set[Node | None] = set()
    for call in reversed(weighted):
        if call.node not in followed:
            last.insert(0, call)
            followed |= traced.behind(call)
    if not last or not traced.all_run_through(last):
        return ()
    widths = {_classes(call.module, traced.output.module) for call in last}
    return tuple(last) if len(widths) == 1 and None not in widths else ()


def _weighted(traced: Trace) -> list[Call]:
    """Return the calls of modules with weights of their own, but for those whose weights work before their parts'."""
    # Not the network itself, which may own weights (position embeddings, say) and finishes last; nor a head beside the
    # one whose output stands for the network.
    owners = [call for call in traced if call.layer and call.leads_to_output and _has_weight(call.module)]
    return [call for call in owners if not _works_before(call, owners, traced)]


def _works_before(call: Call, owners: Sequence[Call], traced: Trace) -> bool:
    """Whether the weights of its own of a call (position embeddings, say) work before those of a module within it."""
    inner = [other for other in owners if _inside(other.layer, call.layer)]
    own = {id(parameter) for parameter in call.module.parameters(recurse=False)}
    return bool(inner) and own <= traced.parameters_behind(inner[-1].node)


def _classes(module: nn.Module, net: nn.Module) -> int | None:
    """Return the outputs of a layer that may be a classifier."""
    if isinstance(module, nn.Linear):
        return module.out_features
    pointwise = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.bias is not None
    if not pointwise:
        return None
    outputs = int(module.out_channels)  # type: ignore[arg-type]
    return outputs if getattr(net, "num_classes", outputs) == outputs else None


def _before_classifiers(traced: Trace) -> list[Call]:
    """Return the cuts but for the classifier and everything that finishes with or after it."""
    cuts = [call for call in traced if call.is_cut and call.layer]
    if heads := classifiers(traced):
        first = next(place for place, call in enumerate(traced) if call is heads[0])
        return [call for place, call in enumerate(traced) if call.is_cut and call.layer and place < first]
    weighted = [place for place, call in enumerate(cuts) if _has_weight(call.module)]
    if not weighted or not isinstance(cuts[weighted[-1]].module, nn.Linear):
        return cuts
    # One that others follow, even where there is no cut (within blocks), is no classifier.
    last = cuts[weighted[-1]]
    followed = any(last.node in traced.behind(call) for call in _weighted(traced) if call is not last)
    return cuts if followed else cuts[: weighted[-1]]


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
        # What encloses all of a segment ends it, whatever weights it adds: embeddings of patches, then of positions.
        encloses = bool(segment) and all(_inside(each.layer, call.layer) for each in segment)
        starts = call in blocks or _has_weight(call.module) or (segment and segment[-1] in blocks)
        if starts and not encloses:
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
    if type(module) in _PLAIN_CONTAINERS or is_parametrized(module):
        return False
    owners = (m for m in module.modules() if m is not module and next(m.parameters(recurse=False), None) is not None)
    return sum(1 for _ in owners) >= 2


def _has_weight(module: nn.Module) -> bool:
    # Those that are computed from others, as by a spectral norm, are in modules of their own.
    computed = module.get_submodule("parametrizations").parameters() if is_parametrized(module) else ()
    return any(p.ndim >= 2 for p in (*module.parameters(recurse=False), *computed))
