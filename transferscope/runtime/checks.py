"""Arguments that several verbs take, checked the same way."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal

from transferscope.errors import InputError

Size = int | Literal["all"]
"""How many images of each class to train on."""
ALL: Literal["all"] = "all"


def check_arguments(samples: Any, batch_size: Any, seed: Any, reference: Any) -> None:
    """Raise InputError when one of these arguments of `rank` is of another kind."""
    for name, value, least in (("samples", samples, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        if not isinstance(value, Integral) or not least <= int(value) < 2**63:
            raise InputError(f"Expected `{name}` to be a whole number of at least {least}, but got {value!r}.")
    if not isinstance(reference, str):
        raise InputError(
            "Expected `reference` to be 'compact', 'own', the name of a source in the zoo or a checkpoint file, but "
            f"got {type(reference).__name__}; put a network of your own into the zoo and pass its name."
        )


def check_numbers(samples_per_class: Any, depths: Any = ALL, **counts: Any) -> None:
    """Raise InputError unless the counts are whole numbers above 0, and the others lists of whole numbers."""
    for name, value in counts.items():
        if not isinstance(value, Integral) or int(value) < 1:
            raise InputError(f"Expected `{name}` to be a whole number of at least 1, but got {value!r}.")
    if (
        not isinstance(samples_per_class, Sequence)
        or not samples_per_class
        or not all(size == ALL or (isinstance(size, Integral) and int(size) >= 1) for size in samples_per_class)
    ):
        raise InputError(
            f"Expected `samples_per_class` to list whole numbers above 0 or 'all', but got {samples_per_class!r}."
        )
    if depths != ALL and (
        not isinstance(depths, Sequence) or not depths or not all(isinstance(depth, Integral) for depth in depths)
    ):
        raise InputError(f"Expected `depths` to be 'all' or to list whole numbers, but got {depths!r}.")
