"""What pictures share: rows looked up by name, short names, and the lines of numbers of images."""

import itertools
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from transferscope.errors import InputError

MARKERS = "osD^vP*X<>"
LONGEST_NAME = 32


def selected(table: pd.DataFrame, **chosen: Any) -> pd.DataFrame:
    """Return the rows where each of these columns has this value.

    Raises
    ------
    InputError
        When there is none; the message names what there is.
    """
    for column, value in chosen.items():
        known = table[column].unique()
        if value not in known:
            raise InputError(
                f"Expected `{column}` to be one of {', '.join(map(str, known)) or 'none'}, but got {value!r}."
            )
        table = table[table[column] == value]
    return table


def size_styles(table: pd.DataFrame) -> dict[int, dict[str, Any]]:
    """Return the line of each number of images (`samples_per_class`), from light for few to dark for many."""
    sizes = sorted(table["samples_per_class"].unique())
    # Without the lightest yellow, which paper swallows.
    colours = map(matplotlib.colormaps["viridis"], np.linspace(0.85, 0.0, len(sizes)))
    looks = zip(sizes, colours, itertools.cycle(MARKERS), strict=False)
    return {
        size: {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.4} for size, colour, marker in looks
    }


def short(name: Any, longest: int = LONGEST_NAME) -> str:
    """Shorten a long name, and keep its dollar signs from being read as mathematics."""
    return cut(str(name), longest).replace("$", r"\$")


def cut(name: str, longest: int = LONGEST_NAME) -> str:
    """Shorten a long name."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
