"""What the axes of a tensor stand for, and what becomes of that when it is reshaped, sliced, joined or broadcast.

An axis is a product of atoms, outermost first: the tokens of a vision transformer are height × width, say. An atom may
be a concatenation: a class token, then the grid of patches.
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

SAMPLES, CHANNELS, HEIGHT, WIDTH = "samples", "channels", "height", "width"
INNER = "'"
"""Marks the inner part of an axis that was split: of 14 rows in 7 pairs "height" goes over pairs, "height'" within."""
MADE_FROM = "="
"""Begins the label of what no image had a part in; the names of the parameters that it was made from follow."""


class Atom(NamedTuple):
    """A factor of an axis."""

    label: str
    """One of the four names, with `INNER` for each split; `MADE_FROM` and names; empty when it is not known."""
    size: int
    parts: "tuple[Axis, ...]" = ()
    """What was concatenated, in order."""


Axis = tuple[Atom, ...]
Axes = tuple[Axis, ...]


def unknown(shape: Sequence[int]) -> Axes:
    """Return axes of which nothing is known."""
    return tuple((Atom("", size),) for size in shape)


def of_images(shape: Sequence[int]) -> Axes:
    """Return the axes of a network's input: images (n, channels, height, width), vectors (n, channels)."""
    labels = {2: (SAMPLES, CHANNELS), 4: (SAMPLES, CHANNELS, HEIGHT, WIDTH)}.get(len(shape), (SAMPLES,))
    return tuple((Atom(label, size),) for label, size in zip((*labels, *[""] * len(shape)), shape, strict=False))


def length(axis: Axis) -> int:
    """Return how long an axis is."""
    return prod(atom.size for atom in axis)


def roles(axis: Axis) -> frozenset[str]:
    """Return what an axis stands for: some of the four names; none when part of it is not known.

    Atoms of length one say nothing beside longer ones. A concatenation stands for what its parts do.
    """
    atoms = [atom for atom in axis if atom.size > 1] or list(axis)
    if len(atoms) == 1 and atoms[0].parts:
        return frozenset().union(*map(roles, atoms[0].parts))
    labels = {atom.label.rstrip(INNER) for atom in atoms if not atom.label.startswith(MADE_FROM)}
    return frozenset(labels) if len(labels) and "" not in labels and not any(a.parts for a in atoms) else frozenset()


def is_position(axis: Axis) -> bool:
    """Whether an axis goes over places in an image."""
    return bool(roles(axis)) and roles(axis) <= {HEIGHT, WIDTH}


def resized(axis: Axis, size: int) -> Axis:
    """Return an axis whose length was changed by pooling, strides, padding or the like."""
    if length(axis) == size:
        return axis
    one = roles(axis)
    return (Atom(next(iter(one)), size),) if len(one) == 1 and not any(a.parts for a in axis) else (Atom("", size),)


def reshaped(axes: Axes, shape: Sequence[int]) -> Axes:
    """Return the axes of the same values, in the same order, in another shape."""
    waiting = [atom for axis in axes for atom in axis]
    result: list[Axis] = []
    for size in shape:
        taken: list[Atom] = []
        if size == 1 and waiting and waiting[0].size == 1:
            taken.append(waiting.pop(0))
        reached = 1
        while reached < size:
            atom = waiting.pop(0) if waiting else Atom("", 1)
            outer = size // reached
            if outer % atom.size and (atom.size % outer or atom.parts):
                return unknown(shape)
            if outer % atom.size:
                waiting.insert(0, Atom(atom.label and atom.label + INNER, atom.size // outer))
                atom = Atom(atom.label, outer)
            elif atom.size == 1 and not waiting:
                return unknown(shape)
            taken.append(atom)
            reached *= atom.size
        result.append(tuple(taken) or (Atom("", 1),))
    return tuple(result)


def sliced(axis: Axis, start: int, stop: int, step: int = 1) -> Axis:
    """Return what is left of an axis after `[start:stop:step]`, both within its length."""
    size = max(0, -(-(stop - start) // step))
    if size == length(axis):
        return axis
    if len(axis) == 1 and axis[0].parts and step == 1:
        kept, at = [], 0
        for part in axis[0].parts:
            low, high = max(start, at), min(stop, at + length(part))
            if low < high:
                kept.append(sliced(part, low - at, high - at))
            at += length(part)
        return concatenated(kept)
    return resized(axis, size)


def concatenated(parts: Sequence[Axis]) -> Axis:
    """Return an axis of parts laid end to end."""
    flat: list[Axis] = []
    for part in parts:
        flat += part[0].parts if len(part) == 1 and part[0].parts else (part,)
    if len(flat) == 1:
        return flat[0]
    size = sum(map(length, flat))
    same = {roles(part) for part in flat}
    # Channels beside channels are channels; rows beside rows are rows.
    if len(same) == 1 and len(one := same.pop()) == 1:
        return (Atom(next(iter(one)), size),)
    return (Atom("", size, tuple(flat)),)


def broadcast(given: Sequence[Axes], shape: Sequence[int]) -> Axes:
    """Return the axes of what an element-wise operation makes of tensors with these axes.

    Where two of them say different things of an axis nothing is known of it.
    """
    result: list[Axis] = []
    for place, size in enumerate(shape, -len(shape)):
        said = [axes[place] for axes in given if -place <= len(axes) and length(axes[place]) == size]
        known = [axis for axis in said if roles(axis)]
        if len({roles(axis) for axis in known}) == 1:
            # Of equals the one that tells most.
            result.append(max(known, key=lambda axis: (bool(axis[0].parts), len(axis))))
        else:
            result.append(said[0] if said and not known else (Atom("", size),))
    return tuple(result)
