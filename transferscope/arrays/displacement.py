"""How far a layer's weights have moved: mean absolute and Euclidean distances between tensors, in one pass over them.

Pure array functions on NumPy and CuPy. Every sum is in float64, whatever the precision of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from array_api_compat import is_numpy_array

from transferscope.arrays.backend import Array, array_namespace
from transferscope.errors import InputError

BLOCK = 2**17
"""Numbers in a block on the CPU: its float64 copies stay in the cache."""

DEVICE_BLOCK = 2**24
"""Numbers in a block elsewhere, where the start of each operation costs more than its memory."""


@dataclass(frozen=True)
class Displacement:
    """Where the weights θ of a layer lie, seen from its initial weights θᵣ and from the source's θ_A."""

    to_initial: tuple[float, ...]
    """Mean |θᵣ - θ| for each of the initial weights."""
    to_source: float
    """Mean |θ_A - θ|."""
    change: float
    """‖θ - θ_A‖₂."""
    norm: float
    """‖θ_A‖₂."""


def displacement(initials: Sequence[Array], source: Array, weights: Array) -> Displacement:
    """Return the distances of `weights` from any number of initial weights and from those of the source.

    Parameters
    ----------
    initials
        θᵣ, each of the shape of `weights`.
    source
        θ_A, of the same shape.
    weights
        θ, after fine-tuning: a real tensor of any number of dimensions and any floating precision.

    Raises
    ------
    InputError
        When the shapes differ, or the tensors are empty or no arrays.

    References
    ----------
    Chen et al. (2022), Measuring parameter transferability (arXiv 2212.00399).
    """
    named = {"weights": weights, "source": source, **{f"initials[{i}]": each for i, each in enumerate(initials)}}
    xp = _checked(named)
    to_initial: list[Any] = [0.0] * len(initials)
    to_source: Any = 0.0
    change: Any = 0.0
    norm: Any = 0.0
    for now, before, *starts in _blocks(weights, source, *initials):
        moved = now - before
        to_source += xp.sum(xp.abs(moved))
        change += xp.sum(moved * moved)
        norm += xp.sum(before * before)
        for i, start in enumerate(starts):
            to_initial[i] += xp.sum(xp.abs(now - start))
    size = math.prod(weights.shape)
    return Displacement(
        tuple(float(total) / size for total in to_initial),
        float(to_source) / size,
        math.sqrt(float(change)),
        math.sqrt(float(norm)),
    )


def _checked(tensors: dict[str, Array]) -> Any:
    """Return the namespace of tensors that have one shape and are not empty."""
    xp = array_namespace(*tensors.values())
    (name, first), *others = tensors.items()
    for other, tensor in others:
        if tensor.shape != first.shape:
            raise InputError(
                f"Expected `{name}` and `{other}` to have the same shape but got {tuple(first.shape)} and "
                f"{tuple(tensor.shape)}; take both from the same layer of the same architecture"
            )
    if not math.prod(first.shape):
        raise InputError(
            f"Expected `{name}` to hold at least one number but got shape {tuple(first.shape)}; leave the layer out"
        )
    return xp


def _blocks(*tensors: Array) -> Iterator[tuple[Array, ...]]:
    """Yield blocks of tensors of one shape, side by side, in float64.

    Cut along the first axis, which copies nothing whatever the layout in memory (channels last, say).
    """
    xp = array_namespace(*tensors)
    if not tensors[0].shape:
        tensors = tuple(xp.reshape(tensor, (1,)) for tensor in tensors)
    rows, *rest = tensors[0].shape
    step = max(1, (BLOCK if is_numpy_array(tensors[0]) else DEVICE_BLOCK) // math.prod(rest))
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        yield tuple(xp.astype(tensor[start:stop, ...], xp.float64) for tensor in tensors)
