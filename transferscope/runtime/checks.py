"""Arguments that several verbs take, checked the same way."""

from collections.abc import Sequence
from typing import Any, Literal

from transferscope.errors import InputError, check_whole, is_whole

Size = int | Literal["all"]
"""How many images of each class to train on."""
ALL: Literal["all"] = "all"


def check_arguments(samples: Any, batch_size: Any, seed: Any, reference: Any) -> tuple[int, int, int]:
    """Return the numbers among these arguments of `rank`; raise InputError when one is of another kind."""
    named = (("samples", samples, 1), ("batch_size", batch_size, 1), ("seed", seed, 0))
    samples, batch_size, seed = (check_whole(name, value, least) for name, value, least in named)
    if not isinstance(reference, str):
        raise InputError(
            "Expected `reference` to be 'compact', 'own', the name of a source in the zoo or a checkpoint file, but "
            f"got {type(reference).__name__}; put a network of your own into the zoo and pass its name"
        )
    return samples, batch_size, seed


def check_numbers(samples_per_class: Any, depths: Any = ALL, **counts: Any) -> None:
    """Raise InputError unless the counts are whole numbers above 0, and the others lists of whole numbers."""
    for name, value in counts.items():
        check_whole(name, value, 1)
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
