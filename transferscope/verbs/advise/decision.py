"""Which way to take, and at how many images the answer becomes another one."""

import itertools
from collections.abc import Mapping, Sequence

from transferscope.results.advice import Change

SAME_COST = 1.5
"""Costs that differ by less than this factor count as equal: from a few steps they are not known any better."""


def cheapest(accuracies: Mapping[str, float], seconds: Mapping[str, float], tolerance: float) -> str:
    """Return the quickest of those that are expected to come within `tolerance` of the most accurate one.

    Of several that cost about the same (`SAME_COST`) it is the most accurate, and of equals the first.

    Parameters
    ----------
    accuracies, seconds : mapping of str to float
        Of each way, by its name.
    tolerance : float
        Accuracy that may be lost.
    """
    best = max(accuracies.values())
    # What rounding makes of a difference that is exactly the tolerance must not matter.
    enough = [name for name, accuracy in accuracies.items() if best - accuracy <= tolerance + 1e-12]
    least = min(seconds[name] for name in enough)
    return max((name for name in enough if seconds[name] <= SAME_COST * least), key=lambda name: accuracies[name])


def changes(sizes: Sequence[int], chosen: Sequence[str]) -> tuple[Change, ...]:
    """Return between which neighbouring numbers of images the choice becomes another one.

    Parameters
    ----------
    sizes : sequence of int
        Rising.
    chosen : sequence of str
        What is chosen at each.
    """
    pairs = itertools.pairwise(zip(sizes, chosen, strict=True))
    return tuple(Change((low, high), before, after) for (low, before), (high, after) in pairs if before != after)
