"""What is typed as a list with commas: protocols, numbers of images, depths, learning rates."""

import re

import click

from transferscope.errors import InputError
from transferscope.runtime.checks import ALL, Size
from transferscope.verbs.measure.plan import Depths, known_protocols


def parse_protocols(text: str) -> tuple[str, ...]:
    """Read a list like ``truncate,reinit``; raise `InputError` for a name that is not in `PROTOCOLS`."""
    names = _items(text, "protocols", "truncate,reinit")
    known_protocols(names)
    return names


def parse_sizes(text: str) -> tuple[Size, ...]:
    """Read a list like ``1,2,5,all``; raise `InputError` for anything but whole numbers above 0 and all."""
    sizes: list[Size] = []
    for item in _items(text, "samples_per_class", "1,2,5,all"):
        if item != ALL and (not re.fullmatch("[0-9]{1,9}", item) or int(item) < 1):
            raise InputError(
                f"Expected `samples_per_class` to list whole numbers above 0 or all, as in 1,2,5,all, but got {item!r}"
            )
        sizes.append(ALL if item == ALL else int(item))
    return tuple(dict.fromkeys(sizes))


def parse_depths(text: str) -> Depths:
    """Read ``all`` or a list like ``1,3,-1``; raise `InputError` for anything else."""
    items = _items(text, "depths", "1,3,-1")
    if items == (ALL,):
        return ALL
    for item in items:
        if not re.fullmatch("-?[0-9]{1,9}", item):
            raise InputError(
                f"Expected `depths` to be all, or a list of whole numbers as in 1,3,-1, but got {item!r} in {text!r}"
            )
    return tuple(dict.fromkeys(map(int, items)))


def parse_rates(text: str | None) -> tuple[float, ...]:
    """Read a list like ``0.01,0.05``, empty for None; raise `click.BadParameter` for anything but numbers."""
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise click.BadParameter(f"expected numbers like 0.01,0.05, but got {text!r}") from error


def parse_count(text: str) -> int | str:
    """Read a whole number; anything else is a word, for the verb to know."""
    return int(text) if re.fullmatch("-?[0-9]{1,9}", text) else text


def _items(text: str, name: str, example: str) -> tuple[str, ...]:
    items = tuple(item.strip() for item in text.split(","))
    if not all(items):
        raise InputError(f"Expected `{name}` to be a list with commas like {example}, but got {text!r}")
    return tuple(dict.fromkeys(items))
