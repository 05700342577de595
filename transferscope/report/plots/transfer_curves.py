"""Pictures of what `measure` measured of one source: accuracy by depth, by images of each class, and by cost."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from transferscope.errors import InputError
from transferscope.report.plots.drawing import (
    GRID,
    MARKERS,
    Context,
    canvas,
    draw_line,
    explain,
    hover,
    label,
    selected,
    size_styles,
)
from transferscope.report.plots.naming import short
from transferscope.results.measurement import PROTOCOLS, Measurement, judged_by
from transferscope.runtime.metrics import CLASSIFICATION, METRICS, OF_EACH, guess

Cost = Literal["seconds", "kwh"]

COSTS: dict[Cost, str] = {"seconds": "seconds per transfer", "kwh": "kWh per transfer"}

_MOST_TICKS = 8
# The yellow and the grey of this palette are for what matters least.
COLOURS = dict(
    zip(PROTOCOLS, [sns.color_palette("colorblind")[i] for i in (8, 0, 9, 2, 1, 4, 3, 5, 6, 7)], strict=True)
)
"""Of each protocol, in every picture."""
_CHANCE: dict[str, Any] = {"color": "0.45", "linestyle": ":"}


def accuracy_by_depth(
    measurement: Measurement | pd.DataFrame,
    source: str,
    protocol: str,
    ax: Axes | None = None,
    *,
    chance: float | None = None,
    legend: bool = True,
    context: Context = "notebook",
) -> Axes:
    """Draw the accuracy of one source and protocol over the depth of the cut, a line for each number of images.

    Bands are one standard error to either side; training from scratch is a dashed line. For full-network embeddings
    the axis is the set of layers.

    Parameters
    ----------
    measurement : Measurement or pandas.DataFrame
        What `measure` returns, or its `table`.
    source, protocol : str
        What is drawn of it.
    ax : matplotlib.axes.Axes, optional
        Drawn into; new axes by default.
    chance : float, optional
        The accuracy of always guessing the largest class, a dotted line. By default that of the measurement; a table
        does not know it.
    legend : bool
        Whether to explain the lines.
    context : {"paper", "notebook", "talk"}
        How large fonts and lines are, and the figure where no axes are given.

    Raises
    ------
    InputError
        When `measurement` is something else or has no such source or protocol, or there is no such context.
    """
    table, chance = _given(measurement, chance)
    rows, judged = selected(table, source=source, protocol=protocol), judged_by(table).column
    scratch = table[(table["source"] == source) & (table["protocol"] == "scratch") & (protocol != "scratch")]
    with canvas(ax, context) as ax:
        sets = sorted(rows["layer"].unique(), key=lambda name: (name == "all", name)) if protocol == "fne" else []
        for size, style in size_styles(table).items():
            line = rows[rows["samples_per_class"] == size]
            _line(ax, line.assign(x=line["layer"].map(sets.index) if sets else line["depth"]), style)
            for level in scratch.loc[scratch["samples_per_class"] == size, judged].dropna():
                ax.axhline(level, color=style["color"], linestyle="--", linewidth=0.7 * rcParams["lines.linewidth"])
        if sets:
            ax.set_xticks(range(len(sets)), [name.removeprefix("upper ") for name in sets])
            ax.set_xlim(-0.4, len(sets) - 0.6)
            label(ax, x="upper layers that are used")
        else:
            depths = sorted(rows["depth"].unique())
            ax.set_xlim(depths[0] - 0.4, depths[-1] + 0.4)
            exact = len(depths) <= _MOST_TICKS
            ax.xaxis.set_major_locator(FixedLocator(depths) if exact else MaxNLocator("auto", integer=True))
            label(ax, x=f"stages {'frozen' if protocol == 'defrost' else 'kept'}, of {rows['depths'].max()}")
        handles = depth_handles(table, chance) if legend else []
        _finish(ax, table, f"{short(source)}\n{protocol}", chance, handles, context)
    return ax


def learning_curves(
    measurement: Measurement | pd.DataFrame,
    source: str,
    ax: Axes | None = None,
    *,
    chance: float | None = None,
    legend: bool = True,
    context: Context = "notebook",
) -> Axes:
    """Draw the accuracy of one source at its best depth over the images of each class, a line for each protocol.

    Bands are one standard error to either side.

    Parameters
    ----------
    measurement, source, ax, chance, legend, context
        As in `accuracy_by_depth`.

    Raises
    ------
    InputError
        As in `accuracy_by_depth`.
    """
    table, chance = _given(measurement, chance)
    rows = selected(table, source=source)
    with canvas(ax, context) as ax:
        best = rows[rows["best"]].assign(x=lambda frame: frame["samples_per_class"])
        for protocol, style in _protocol_styles(table).items():
            _line(ax, best[best["protocol"] == protocol], style)
        ax.set_xscale("log")
        sizes = sorted(table["samples_per_class"].unique())
        ax.set_xlim(sizes[0] / 1.25, sizes[-1] * 1.25)
        shown = _apart(sizes, (1.0 if context == "paper" else 0.8) * ax.get_window_extent().width / ax.figure.dpi)
        ax.set_xticks(shown, [str(size) for size in shown])
        ax.xaxis.set_minor_locator(NullLocator())
        label(ax, x=f"training images of {_of_each(table)}")
        _finish(ax, table, short(source), chance, protocol_handles(table, chance) if legend else [], context)
    return ax


def accuracy_by_cost(
    measurement: Measurement | pd.DataFrame,
    source: str,
    cost: Cost = "seconds",
    ax: Axes | None = None,
    *,
    chance: float | None = None,
    legend: bool = True,
    context: Context = "notebook",
) -> Axes:
    """Draw the accuracy of one source over what the transfer cost: a point for each protocol, depth and size.

    Colour and marker tell the protocol, size the images of each class. The best depth is drawn in full, the others
    are pale. A cost of zero is drawn at half of the least one above.

    Parameters
    ----------
    measurement, source, ax, chance, legend, context
        As in `accuracy_by_depth`.
    cost : {"seconds", "kwh"}
        What the axis shows.

    Raises
    ------
    InputError
        As in `accuracy_by_depth`; when there is no such cost.
    """
    if cost not in COSTS:
        raise InputError(f"Expected `cost` to be one of {', '.join(COSTS)}, but got {cost!r}")
    table, chance = _given(measurement, chance)
    judged = judged_by(table).column
    rows = selected(table, source=source).dropna(subset=[judged, cost])
    with canvas(ax, context) as ax:
        above = table.loc[table[cost] > 0, cost]
        least = above.min() if len(above) else 1.0
        areas = _areas(table)
        for protocol, style in _protocol_styles(table).items():
            for best in (False, True):
                points = rows[(rows["protocol"] == protocol) & (rows["best"] == best)]
                drawn = ax.scatter(
                    points[cost].clip(lower=least / 2), points[judged], s=points["samples_per_class"].map(areas),
                    color=style["color"], marker=style["marker"], alpha=0.95 if best else 0.25,
                    edgecolor="black" if best else "none", linewidth=0.6, zorder=3 if best else 2,
                )  # fmt: skip
                spent = [f", {value:.3g} {'s' if cost == 'seconds' else 'kWh'}" for value in points[cost]]
                hover(drawn, [text + more for text, more in zip(_says(points), spent, strict=True)])
        ax.set_xscale("log")
        label(ax, x=COSTS[cost] + (f" (0 is drawn at {least / 2:.2g})" if (table[cost] == 0).any() else ""))
        handles = protocol_handles(table, chance) + area_handles(table) if legend else []
        _finish(ax, table, short(source), chance, handles, context)
    return ax


def depth_handles(table: pd.DataFrame, chance: float) -> list[Line2D]:
    """Return what explains the lines of `accuracy_by_depth`."""
    handles = [_heading(f"images of {_of_each(table)}")]
    handles += [Line2D([], [], label=str(size), **style) for size, style in size_styles(table).items()]
    if {"scratch"} < set(table["protocol"]):
        handles.append(Line2D([], [], color="0.3", linestyle="--", label="from scratch"))
    return handles + _chance_handles(table, chance)


def protocol_handles(table: pd.DataFrame, chance: float) -> list[Line2D]:
    """Return what explains the lines of `learning_curves`."""
    handles = [Line2D([], [], label=name, **style) for name, style in _protocol_styles(table).items()]
    return [_heading("protocol"), *handles, *_chance_handles(table, chance)]


def area_handles(table: pd.DataFrame) -> list[Line2D]:
    """Return what explains the sizes of the points of `accuracy_by_cost`."""
    handles = [
        Line2D([], [], marker="o", linestyle="none", color="0.5", markersize=math.sqrt(area), label=str(size))
        for size, area in _areas(table).items()
    ]
    return [_heading(f"images of {_of_each(table)}"), *handles]


def on_test_images(table: pd.DataFrame) -> str:
    """Return the name of the axis of what a table is judged by."""
    return f"{judged_by(table).title} on test images"


def protocols_of(table: pd.DataFrame) -> list[str]:
    """Return those of the table, in the order of all pictures."""
    return [name for name in PROTOCOLS if (table["protocol"] == name).any()]


def _given(measurement: Measurement | pd.DataFrame, chance: float | None) -> tuple[pd.DataFrame, float]:
    if isinstance(measurement, Measurement):
        return measurement.table, measurement.settings["chance"] if chance is None else chance
    if not isinstance(measurement, pd.DataFrame) or not _complete(measurement):
        raise InputError(
            "Expected `measurement` to be what `measure` returns, or its `table`, but got "
            f"{'a table with other columns' if isinstance(measurement, pd.DataFrame) else type(measurement).__name__}"
        )
    return measurement, math.nan if chance is None else chance


def _complete(table: pd.DataFrame) -> bool:
    return "best" in table and any(metric.column in table for metric in METRICS.values())


def _of_each(table: pd.DataFrame) -> str:
    return OF_EACH[judged_by(table).task]


def _line(ax: Axes, rows: pd.DataFrame, style: dict[str, Any]) -> None:
    """Draw the accuracy over column x, with a band where it has a standard error."""
    judged = judged_by(rows).column
    rows = rows[rows[judged].notna()].sort_values("x")
    draw_line(ax, rows["x"], rows[judged], _says(rows), style)
    low, high = (rows[judged] + sign * rows["standard_error"] for sign in (-1, 1))
    ax.fill_between(rows["x"], low, high, color=style["color"], alpha=0.18, linewidth=0)


def _says(rows: pd.DataFrame) -> list[str]:
    """Say what each transfer was and reached."""
    texts = []
    for row, reached in zip(rows.itertuples(), rows[judged_by(rows).column], strict=True):
        cut = f" · {row.layer} ({row.depth}/{row.depths})" if row.layer else ""
        error = "" if math.isnan(row.standard_error) else f" ± {row.standard_error:.3f}"
        texts.append(
            f"{row.source} · {row.protocol}{cut} · {row.samples_per_class} images of {_of_each(rows)}: "
            f"{reached:.3f}{error}"
        )
    return texts


def _finish(ax: Axes, table: pd.DataFrame, title: str, chance: float, handles: list[Line2D], context: Context) -> None:
    if not math.isnan(chance):
        ax.axhline(chance, **_CHANCE)
    label(ax, y=on_test_images(table), title=title)
    ax.grid(axis="y", **GRID)
    ax.set_axisbelow(True)
    sns.despine(ax=ax)
    if handles:
        explain(ax, handles, below=context == "paper")


def _protocol_styles(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the line of each protocol, the same in every picture."""
    return {
        protocol: {
            "color": COLOURS[protocol], "marker": MARKERS[PROTOCOLS.index(protocol)],
            "markersize": 0.9 * rcParams["lines.markersize"], "markeredgecolor": "black", "markeredgewidth": 0.5,
            "linestyle": "--" if protocol == "scratch" else "-",
        }
        for protocol in protocols_of(table)
    }  # fmt: skip


def _areas(table: pd.DataFrame) -> dict[int, float]:
    """Return the area of the marker of each number of images, in square points."""
    sizes = sorted(table["samples_per_class"].unique())
    scale = (rcParams["lines.markersize"] / 6) ** 2
    areas = np.linspace(18, 110, len(sizes)) if len(sizes) > 1 else np.array([64.0])
    return dict(zip(sizes, scale * areas, strict=True))


def _chance_handles(table: pd.DataFrame, chance: float) -> list[Line2D]:
    metric = judged_by(table)
    text = "guessing the largest class" if metric.task == CLASSIFICATION else guess(metric)
    return [] if math.isnan(chance) else [Line2D([], [], label=text, **_CHANCE)]


def _heading(text: str) -> Line2D:
    return Line2D([], [], linestyle="none", label=text)


def _apart(sizes: Sequence[int], width: float) -> list[int]:
    """Return the numbers that have room beside each other on a logarithmic axis, `width` in inches."""
    inches = width / math.log(sizes[-1] / sizes[0] * 1.25**2)
    letter = 0.65 * rcParams["xtick.labelsize"] / 72
    shown: list[int] = []
    for size in reversed(sizes):
        letters = len(f"{size}{shown[-1]}") / 2 + 1 if shown else 0
        if not shown or math.log(shown[-1] / size) * inches >= letters * letter:
            shown.append(size)
    return shown[::-1]
