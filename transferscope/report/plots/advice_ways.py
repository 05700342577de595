"""The ways to transfer a source: accuracy against the seconds that each takes."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from transferscope.errors import InputError
from transferscope.report.plots.drawing import (
    GRID,
    MARKERS,
    NARROW,
    Context,
    canvas,
    explain,
    figure_of,
    hover,
    label,
)
from transferscope.report.plots.transfer_curves import COLOURS
from transferscope.results.advice import Advice, Way
from transferscope.results.measurement import PROTOCOLS
from transferscope.runtime.numbers import short_number

_LEAST_SECONDS = 1e-6
"""What took no time that could be measured is drawn here: the axis is logarithmic."""
_ENOUGH: dict[str, Any] = {"color": "0.45", "linestyle": (0, (5, 2))}
_LARGE = 1.7
"""The marker of the advised way, in those of the others."""
_PLACES = [
    (across * distance, up * distance)
    for distance in (1.1, 2.0, 3.2, 4.8, 7.0)
    for across, up in [
        (1, 0),
        (-1, 0),
        (1, 0.7),
        (-1, 0.7),
        (1, -0.7),
        (-1, -0.7),
        (0.4, 1.2),
        (-0.4, 1.2),
        (0.4, -1.2),
    ]
]
"""Where the name of a way may stand beside its point, in ems: the nearest first."""


def advice(advice: Advice, ax: Axes | None = None, *, context: Context = "notebook") -> Axes:
    """Draw what is expected of each way to transfer the source over the seconds that it takes, with 80 % intervals.

    The advised way is the large dark point. Above the dashed line a way is within the tolerance of the most accurate
    one; of those the advised one is the quickest.

    Parameters
    ----------
    advice : Advice
        What `advise` returns.
    ax : matplotlib.axes.Axes, optional
        Drawn into; new axes by default.
    context : {"paper", "notebook", "talk"}
        How large fonts and lines are, and the figure where no axes are given.

    Raises
    ------
    InputError
        When `advice` is something else, or there is no such context.
    """
    if not isinstance(advice, Advice):
        raise InputError(f"Expected `advice` to be what `advise` returns, but got {type(advice).__name__}")
    with canvas(ax, context, _size) as ax:
        within = f"within {advice.tolerance:g} of the most accurate"
        enough = advice.most_accurate.expected_accuracy - advice.tolerance
        line = ax.axhline(enough, zorder=1, linewidth=0.7 * rcParams["lines.linewidth"], label=within, **_ENOUGH)
        for way in advice.ways:
            colour, advised = COLOURS[way.protocol], way.protocol == advice.advised
            ends = np.abs(np.array([way.interval]).T - way.expected_accuracy)
            ax.errorbar(
                *_place(way), yerr=ends, color=colour, capsize=0.4 * rcParams["lines.markersize"], zorder=2,
                linewidth=0.8 * rcParams["lines.linewidth"],
            )  # fmt: skip
            (point,) = ax.plot(
                *_place(way), marker=MARKERS[PROTOCOLS.index(way.protocol)], color=colour, linestyle="none", zorder=3,
                markersize=rcParams["lines.markersize"] * (_LARGE if advised else 1.1), markeredgecolor="black",
                markeredgewidth=1.5 if advised else 0.5,
            )  # fmt: skip
            hover(point, [_says(way, advised)])
        ax.set_xscale("log")
        ax.margins(x=0.12)
        ax.xaxis.set_major_locator(LogLocator(10, numticks=8))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: short_number(seconds)))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.grid(axis="y", **GRID)
        ax.set_axisbelow(True)
        label(ax, x="seconds of the whole transfer on this machine", y="expected accuracy, 80 % interval")
        sns.despine(ax=ax)
        explain(ax, [line], below=True)
        _name(ax, advice)
    return ax


def _size(width: float) -> tuple[float, float]:
    # Names of ways stand among the points, which takes room in a column of a paper.
    return width, (0.85 if width < NARROW else 0.6) * width


def _place(way: Way) -> tuple[float, float]:
    return max(way.seconds, _LEAST_SECONDS), way.expected_accuracy


def _says(way: Way, advised: bool) -> str:
    cut = f" · {way.layer}" * bool(way.layer and way.protocol != "fne")
    low, high = way.interval
    return (
        f"{way.name}{cut}: {way.expected_accuracy:.3f} [{low:.3f}, {high:.3f}] in {short_number(way.seconds)} s"
        + ", advised" * advised
    )


def _name(ax: Axes, advice: Advice) -> None:
    """Write beside each point which way it is, where nothing else is written or drawn."""
    figure = figure_of(ax)
    figure.draw_without_rendering()  # so that the axes have their place
    size = 0.85 * rcParams["xtick.labelsize"]
    taken, names = [_box(ax, way) for way in advice.ways], list[Bbox]()
    # The advised one has the first choice.
    for way in sorted(advice.ways, key=lambda way: way.protocol != advice.advised):
        advised, colour = way.protocol == advice.advised, COLOURS[way.protocol]
        note = ax.annotate(
            f"{way.name} (advised)" if advised else way.name, _place(way), (0, 0), textcoords="offset points", zorder=4,
            fontsize=size, fontweight="bold" if advised else "normal", color=[0.7 * part for part in colour],
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 2},
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
        )  # fmt: skip
        note.set_in_layout(False)  # or it would move what it was fitted to
        names.append(_settle(note, ax, taken, names, size))


def _box(ax: Axes, way: Way) -> Bbox:
    """Return where the interval of a way and its point are, in pixels."""
    seconds = _place(way)[0]
    ends = ax.transData.transform([(seconds, way.interval[0]), (seconds, way.interval[1])])
    half = 0.5 * _LARGE * rcParams["lines.markersize"] * figure_of(ax).dpi / 72
    return Bbox([[ends[0, 0] - half, ends[:, 1].min() - 2], [ends[0, 0] + half, ends[:, 1].max() + 2]])


def _settle(note: Annotation, ax: Axes, taken: Sequence[Bbox], names: Sequence[Bbox], size: float) -> Bbox:
    """Move a name to the nearest place where it covers nothing, or as little as may be; return where it is."""
    inside = ax.get_window_extent()
    em = size * figure_of(ax).dpi / 72
    point = ax.transData.transform(note.xy)
    found: list[tuple[float, int, Bbox]] = []
    for place, (across, up) in enumerate(_PLACES):
        _move(note, across, up, size)
        box = _extent(note)
        outside = max(0.0, inside.x0 - box.x0, box.x1 - inside.x1, inside.y0 - box.y0, box.y1 - inside.y1)
        # A little air around it: a browser has other fonts.
        cost = _covered(box.expanded(1.06, 1.15), [*taken, *names]) + outside * em
        on_the_way = np.linspace(point, (box.p0 + box.p1) / 2, 20)
        cost += em * sum(name.contains(*step) for name in names for step in on_the_way)
        found.append((cost, place, box))
        if not found[-1][0]:
            break
    _, place, box = min(found, key=lambda each: each[:2])
    _move(note, *_PLACES[place], size)
    return box


def _extent(note: Annotation) -> Bbox:
    """Return where a name is, without the line to its point."""
    note.get_window_extent()  # which puts it in its place
    return Text.get_window_extent(note)


def _move(note: Annotation, across: float, up: float, size: float) -> None:
    note.set_position((across * size, up * size))
    note.set_horizontalalignment("left" if across > 0 else "right" if across < 0 else "center")
    note.set_verticalalignment("bottom" if up > 0 else "top" if up < 0 else "center")


def _covered(box: Bbox, taken: Iterable[Bbox]) -> float:
    """Return how many square pixels of others a box covers."""
    both = [Bbox.intersection(box, other) for other in taken]
    return float(sum(part.width * part.height for part in both if part is not None))
