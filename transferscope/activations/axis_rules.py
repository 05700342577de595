"""What each of torch's operators makes of the axes of its arguments (see `axes`).

Weights tell: a convolution puts channels second, a linear layer last, unless it mixes positions. What an operator that
has no rule here gives in the shape of an argument has the axes of that argument; otherwise they are unknown.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from transferscope.activations.axes import (
    CHANNELS,
    MADE_FROM,
    Atom,
    Axes,
    Axis,
    broadcast,
    concatenated,
    is_position,
    length,
    reshaped,
    resized,
    roles,
    sliced,
    unknown,
)

Shape = Sequence[int]


@dataclass(frozen=True)
class Operation:
    """One call of an operator."""

    name: str
    """Without its namespace and without the underscore of an in-place one."""
    given: Mapping[str, Any]
    """Its arguments by name."""
    axes_of: Callable[[Any], Axes | None]
    """The axes of a tensor; None of one that no image had a part in."""
    names_of: Callable[[Tensor], Sequence[str]]
    """The parameters that such a tensor was made from."""

    def axes(self, *names: str) -> Axes | None:
        """Return the axes of the argument that has one of these names."""
        return self.axes_of(next((self.given[name] for name in names if name in self.given), None))

    def labelled(self) -> list[Axes]:
        """Return the axes of all arguments that images had a part in."""
        flat: list[Any] = []
        for value in self.given.values():
            flat += value if isinstance(value, (list, tuple)) else [value]
        return [axes for value in flat if (axes := self.axes_of(value)) is not None]


def is_known(name: str) -> bool:
    """Whether there is a rule for the operator of this name, which then need not be taken apart."""
    return _rule(name) is not None


def _rule(name: str) -> "Rule | None":
    return _RULES.get(name) or next((rule for part, rule in _BY_PART.items() if part in name), None)


def axes_after(operation: Operation, shapes: Sequence[Shape]) -> list[Axes]:
    """Return the axes of each tensor, of these shapes, that an operation gives."""
    rule = _rule(operation.name)
    try:
        found = rule(operation, shapes) if rule else None
    except Exception:  # called otherwise than the rule knows: then nothing is known of the axes
        found = [unknown(shape) for shape in shapes]
    found = found or [_as_given(operation, shape) for shape in shapes]
    return [
        axes if tuple(map(length, axes)) == tuple(shape) else unknown(shape)
        for axes, shape in zip([*found, *map(unknown, shapes[len(found) :])], shapes, strict=False)
    ]


def _as_given(operation: Operation, shape: Shape) -> Axes:
    return broadcast([axes for axes in operation.labelled() if len(axes) <= len(shape)], shape)


Rule = Callable[[Operation, Sequence[Shape]], list[Axes] | None]


def _one(rule: Callable[[Operation, Axes, Shape], Axes]) -> Rule:
    """Make a rule of a function of the first argument's axes and the shape of the one result."""

    def of_first(operation: Operation, shapes: Sequence[Shape]) -> list[Axes] | None:
        axes = operation.axes("self", "input")
        return None if axes is None else [rule(operation, axes, shapes[0])]

    return of_first


def _with(axes: Axes, dim: int, axis: Axis) -> Axes:
    dim %= len(axes)
    return (*axes[:dim], axis, *axes[dim + 1 :])


def _without(axes: Axes, dims: Sequence[int]) -> Axes:
    gone = {dim % len(axes) for dim in dims}
    return tuple(axis for place, axis in enumerate(axes) if place not in gone)


# --- the same values in another shape -----------------------------------------------------------------------------


def _permuted(operation: Operation, axes: Axes, _shape: Shape) -> Axes:
    return tuple(axes[dim] for dim in operation.given["dims"])


def _transposed(operation: Operation, axes: Axes, _shape: Shape) -> Axes:
    order = list(axes)
    one, other = operation.given.get("dim0", 0), operation.given.get("dim1", -1)
    order[one], order[other] = order[other], order[one]
    return tuple(order)


def _unsqueezed(operation: Operation, axes: Axes, _shape: Shape) -> Axes:
    place = operation.given["dim"] % (len(axes) + 1)
    return (*axes[:place], (Atom("", 1),), *axes[place:])


def _squeezed(operation: Operation, axes: Axes, _shape: Shape) -> Axes:
    dims = operation.given.get("dim", range(len(axes)))
    dims = [dims] if isinstance(dims, int) else dims
    return _without(axes, [dim for dim in dims if length(axes[dim]) == 1])


def _expanded(_operation: Operation, axes: Axes, shape: Shape) -> Axes:
    new = unknown(shape)
    kept = new[: len(shape) - len(axes)] + axes
    return tuple(axis if length(axis) == size else other for axis, size, other in zip(kept, shape, new, strict=True))


def _resized(_operation: Operation, axes: Axes, shape: Shape) -> Axes:
    return tuple(resized(axis, size) for axis, size in zip(axes, shape, strict=True))


# --- parts --------------------------------------------------------------------------------------------------------


def _selected(operation: Operation, axes: Axes, _shape: Shape) -> Axes:
    return _without(axes, [operation.given["dim"]])


def _slice(operation: Operation, axes: Axes, shape: Shape) -> Axes:
    dim = operation.given.get("dim", 0)
    size = length(axes[dim])
    start, stop, step = slice(*(operation.given.get(key) for key in ("start", "end", "step"))).indices(size)
    return _with(axes, dim, sliced(axes[dim], start, max(start, stop), step))


def _split(operation: Operation, shapes: Sequence[Shape]) -> list[Axes] | None:
    axes, dim = operation.axes("self"), operation.given.get("dim", 0)
    if axes is None:
        return None
    starts = [sum(shape[dim] for shape in shapes[:i]) for i in range(len(shapes))]
    return [
        _with(axes, dim, sliced(axes[dim], start, start + shape[dim]))
        for start, shape in zip(starts, shapes, strict=True)
    ]


def _unbound(operation: Operation, shapes: Sequence[Shape]) -> list[Axes] | None:
    axes = operation.axes("self")
    return None if axes is None else [_without(axes, [operation.given.get("dim", 0)])] * len(shapes)


def _indexed(operation: Operation, axes: Axes, shape: Shape) -> Axes:
    indices = operation.given["indices"]
    places = [place for place, index in enumerate(indices) if index is not None]
    if len(places) != 1 or len(shape) != len(axes):
        return unknown(shape)
    return _with(axes, places[0], (Atom("", shape[places[0]]),))


def _index_selected(operation: Operation, axes: Axes, shape: Shape) -> Axes:
    dim = operation.given["dim"]
    return _with(axes, dim, (Atom("", shape[dim]),))


# --- several together ---------------------------------------------------------------------------------------------


def _cat(operation: Operation, shapes: Sequence[Shape]) -> list[Axes] | None:
    shape, tensors = shapes[0], operation.given["tensors"]
    dim = operation.given.get("dim", 0) % len(shape)
    given = [(tensor, operation.axes_of(tensor)) for tensor in tensors if tensor.ndim == len(shape)]
    parts = []
    for tensor, axes in given:
        made = (Atom(MADE_FROM + " ".join(operation.names_of(tensor)), tensor.shape[dim]),)
        parts.append(made if axes is None else axes[dim])
    others = [_with(axes, dim, (Atom("", shape[dim]),)) for _, axes in given if axes is not None]
    return [_with(broadcast(others, shape), dim, concatenated(parts))]


def _stack(operation: Operation, shapes: Sequence[Shape]) -> list[Axes] | None:
    shape = shapes[0]
    dim = operation.given.get("dim", 0) % len(shape)
    given = [axes for tensor in operation.given["tensors"] if (axes := operation.axes_of(tensor)) is not None]
    inner = broadcast(given, [*shape[:dim], *shape[dim + 1 :]])
    return [(*inner[:dim], (Atom("", shape[dim]),), *inner[dim:])]


# --- products -----------------------------------------------------------------------------------------------------


def _projected(axes: Axes, size: int) -> Axis:
    """Return the last axis after a product with weights: channels, unless positions (beside channels) were mixed."""
    last, others = axes[-1], axes[:-1]
    if roles(last) == {CHANNELS} or not any(roles(axis) == {CHANNELS} for axis in others):
        return (Atom(CHANNELS, size),)
    return last if is_position(last) and length(last) == size else (Atom("", size),)


def _linear(operation: Operation, shapes: Sequence[Shape]) -> list[Axes] | None:
    axes = operation.axes("input", "self", "X")
    return None if axes is None else [(*axes[:-1], _projected(axes, shapes[0][-1]))]


def _product(operation: Operation, shapes: Sequence[Shape]) -> list[Axes] | None:
    """Of matrices, or of a batch of them: rows of the first, columns of the second."""
    first, second = operation.axes("mat1", "batch1", "self"), operation.axes("mat2", "batch2")
    shape = shapes[0]
    if first is None and second is None:
        return None
    if first is not None and second is not None:
        return [(*first[:-1], second[-1])]
    if first is not None:
        return [(*first[:-1], _projected(first, shape[-1]))]
    assert second is not None
    turned = (*second[:-2], second[-1], second[-2])
    return [(*second[:-2], _projected(turned, shape[-2]), second[-1])]


def _convolution(operation: Operation, shapes: Sequence[Shape]) -> list[Axes] | None:
    axes, shape = operation.axes("input", "self", "qx"), shapes[0]
    if axes is None or len(axes) != len(shape):
        return None
    sizes = zip(axes[2:], shape[2:], strict=True)
    return [(axes[0], (Atom(CHANNELS, shape[1]),), *(resized(axis, size) for axis, size in sizes))]


def _attention(operation: Operation, shapes: Sequence[Shape]) -> list[Axes] | None:
    query, value = operation.axes("query"), operation.axes("value")
    if query is None:
        return [unknown(shape) for shape in shapes]
    return [(*query[:-1], query[-1] if value is None else value[-1])]


def _recurrent(operation: Operation, shapes: Sequence[Shape]) -> list[Axes] | None:
    axes = operation.axes("input")
    return None if axes is None else [(*axes[:-1], (Atom(CHANNELS, shapes[0][-1]),))]


# --- statistics ---------------------------------------------------------------------------------------------------


def _reduced(operation: Operation, shapes: Sequence[Shape]) -> list[Axes] | None:
    axes, dims = operation.axes("self"), operation.given.get("dim")
    if axes is None or dims is None or dims == []:
        return None
    dims = [dims] if isinstance(dims, int) else dims
    if len(shapes[0]) < len(axes):
        return [_without(axes, dims)] * len(shapes)
    gone = {dim % len(axes) for dim in dims}
    kept = tuple((Atom("", 1),) if place in gone else axis for place, axis in enumerate(axes))
    return [kept] * len(shapes)


def _normalised(place: int) -> Rule:
    """Make the rule of a norm, whose own weights lie along this axis."""

    def rule(operation: Operation, shapes: Sequence[Shape]) -> list[Axes] | None:
        axes = operation.axes("input", "self")
        if axes is None:
            return None
        only = len(operation.given.get("normalized_shape", [0])) == 1
        if only and not roles(axes[place]) and not any(roles(axis) == {CHANNELS} for axis in axes):
            axes = _with(axes, place, (Atom(CHANNELS, length(axes[place])),))
        return [axes]

    return rule


_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("view", "_unsafe_view", "view_copy", "reshape", "_reshape_alias", "_reshape_copy"),
        _one(lambda _operation, axes, shape: reshaped(axes, shape)),
    ),
    "permute": _one(_permuted),
    "transpose": _one(_transposed),
    "t": _one(_transposed),
    "unsqueeze": _one(_unsqueezed),
    "squeeze": _one(_squeezed),
    "expand": _one(_expanded),
    "repeat": _one(_expanded),
    "as_strided": _one(lambda _operation, _axes, shape: unknown(shape)),
    "select": _one(_selected),
    "slice": _one(_slice),
    "split": _split,
    "split_with_sizes": _split,
    "unsafe_split": _split,
    "unbind": _unbound,
    "index": _one(_indexed),
    "index_select": _one(_index_selected),
    "gather": _one(_index_selected),
    "cat": _cat,
    "stack": _stack,
    "linear": _linear,
    "linear_dynamic": _linear,
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm"), _product),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    **dict.fromkeys(
        (
            "mean",
            "sum",
            "amax",
            "amin",
            "max",
            "min",
            "var",
            "std",
            "linalg_vector_norm",
            "norm",
            "logsumexp",
            "argmax",
        ),
        _reduced,
    ),
    "layer_norm": _normalised(-1),
    "native_layer_norm": _normalised(-1),
    "_fused_rms_norm": _normalised(-1),
    "rms_norm": _normalised(-1),
    "pixel_shuffle": _convolution,
    "pixel_unshuffle": _convolution,
}
_BY_PART: dict[str, Rule] = {
    "scaled_dot_product": _attention,
    "convolution": _convolution,
    "conv1d": _convolution,
    "conv2d": _convolution,
    "conv3d": _convolution,
    "batch_norm": _normalised(1),
    "group_norm": _normalised(1),
    "instance_norm": _normalised(1),
    "pool": _one(_resized),
    "upsample": _one(_resized),
    "pad": _one(_resized),
}
