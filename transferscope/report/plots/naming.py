"""Names in pictures: short ones, and as many beside the axes as there is room for."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axis import XAxis, YAxis
from matplotlib.ticker import FuncFormatter, Locator, NullLocator

LONGEST_NAME = 32


def short(name: Any, longest: int = LONGEST_NAME) -> str:
    """Shorten a long name in its middle, and keep its dollar signs from being read as mathematics."""
    name, end = str(name), longest // 2
    name = name if len(name) <= longest else f"{name[: longest - end - 1]}…{name[-end:]}"
    return name.replace("$", r"\$")


def short_layer(name: Any, longest: int = LONGEST_NAME) -> str:
    """Shorten the long name of a layer: its end tells it from others."""
    name = str(name)
    return (name if len(name) <= longest else f"…{name[1 - longest :]}").replace("$", r"\$")


def _alike(sequences: list[list[str]]) -> int:
    """Return how many first parts all have in common."""
    return len(list(itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*sequences, strict=False))))


def short_layers(names: Iterable[Any], longest: int = LONGEST_NAME) -> list[str]:
    """Shorten names of layers; where one is too long, the parts at either end that all have in common go first."""
    parts = [str(name).split(".") for name in names]
    if max((len(".".join(each)) for each in parts), default=0) > longest and len(parts) > 1:
        head, tail = (_alike(sides) for sides in (parts, [each[::-1] for each in parts]))
        if head + tail < min(map(len, parts)):
            ends = ("…" if head else "", "…" if tail else "")
            return [short_layer(".".join(each[head : len(each) - tail]).join(ends), longest) for each in parts]
    return [short_layer(".".join(each), longest) for each in parts]


class _Apart(Locator):
    """Puts ticks at every place, or evenly at as many of them as have room for their names."""

    def __init__(self, places: np.ndarray, letters: int) -> None:
        self._places = places
        # The height of a letter, or the width of so many and a space.
        self._ems = 1.2 if letters == 0 else 0.6 * letters + 0.8

    def __call__(self) -> list[float]:
        axis: Any = self.axis
        box = axis.axes.get_window_extent()
        length = (box.width if isinstance(axis, XAxis) else box.height) * 72 / axis.axes.figure.dpi
        needed = self._ems * axis.get_tick_params()["labelsize"] * len(self._places)
        return self._places[:: max(math.ceil(needed / max(length, 1.0)), 1)].tolist()

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        return self()


def name_places(axis: XAxis | YAxis, names: Sequence[str], first: float, *, upright: bool = True) -> None:
    """Write names at places `first`, `first` + 1, …; of many as many as there is room for, whatever the size.

    Those below the axes stand upright, so that for either axis the height of the letters counts.
    """
    places = first + np.arange(len(names))
    upright = upright or isinstance(axis, YAxis)
    axis.set_major_locator(_Apart(places, 0 if upright else max(map(len, names))))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda place, _: names[round(place - first)]))
    if isinstance(axis, XAxis):
        axis.set_tick_params(rotation=90 if upright else 0)
