"""Arguments that several verbs take, checked the same way."""

from collections.abc import Sequence
from typing import Any, Literal

from transferscope.errors import InputError, check_whole, is_whole

Size = int | Literal["all"]
"""How many images of each class to train on."""
ALL: Literal["all"] = "all"


def check_numbers(samples_per_class: Any, depths: Any = ALL, **counts: Any) -> dict[str, int]:
    """Return the counts by name; raise InputError unless they are above 0, and the others lists of whole numbers."""
    checked = {name: check_whole(name, value, 1) for name, value in counts.items()}
    if (
        not isinstance(samples_per_class, Sequence)
        or not samples_per_class
        or not all(size == ALL or is_whole(size, 1) for size in samples_per_class)
    ):
        raise InputError(
            f"Expected `samples_per_class` to list whole numbers above 0 or 'all', but got {samples_per_class!r}"
        )
    if depths != ALL and (not isinstance(depths, Sequence) or not depths or not all(map(is_whole, depths))):
        raise InputError(f"Expected `depths` to be 'all' or to list whole numbers, but got {depths!r}")
    return checked


UNLABELLED = {-1: "scikit-learn", -100: "PyTorch"}
"""Whole numbers that stand for a missing label, and whose convention that is."""


def check_labelled(labels: Any, what: str) -> None:
    """Raise InputError when an array of labels holds a number that stands for a missing one.

    Parameters
    ----------
    labels : array
        (n_samples,) of any type; only whole numbers with a sign can be meant.
    what : str
        What the labels are of, for the message.
    """
    for number, library in UNLABELLED.items() if getattr(labels.dtype, "kind", "") == "i" else ():
        if count := int((labels == number).sum()):
            raise InputError(
                f"labels: {count} of {len(labels)} are {number}, which in {library} stands for no label; leave "
                f"these {what} out, or, if it is a class, give the classes names, such as labels.astype(str)"
            )
