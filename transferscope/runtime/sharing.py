"""The same question asked of many processes at once: which of them this one is, and where it begins."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from transferscope.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """One of so many processes.

    Attributes
    ----------
    index
        Counted from 0.
    count
        How many there are.
    """

    index: int
    count: int


def shard_of(text: str | None) -> Shard | None:
    """Read "i/n", i from 1 to n; None says what the batch system says, or nothing.

    Raises
    ------
    InputError
        The text is something else.
    """
    if text is None:
        return _given()
    parts = re.fullmatch("([0-9]{1,6})/([0-9]{1,6})", text) if isinstance(text, str) else None
    if parts is None or not 1 <= int(parts[1]) <= int(parts[2]):
        raise InputError(f"Expected `shard` to be i/n with i from 1 to n, like 2/8, but got {text!r}")
    return Shard(int(parts[1]) - 1, int(parts[2]))


def turn(items: Sequence[T], shard: Shard | None) -> list[T]:
    """Return the items with those first that a shard begins with."""
    if shard is None:
        return list(items)
    start = shard.index * len(items) // shard.count
    return [*items[start:], *items[:start]]


def _given() -> Shard | None:
    """Return the task of a SLURM array, or the rank that MPI's and torch's launchers tell."""
    for index, count, first in (
        ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
        ("RANK", "WORLD_SIZE", ""),
    ):
        numbers = [os.environ.get(name, "0" if not name else "") for name in (index, count, first)]
        if all(number.isdecimal() for number in numbers) and int(numbers[1]) > 0:
            return Shard((int(numbers[0]) - int(numbers[2])) % int(numbers[1]), int(numbers[1]))
    return None
