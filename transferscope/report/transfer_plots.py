"""Pictures of a measurement: each takes its table and optional axes, returns axes, shows nothing."""

import math
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from transferscope.errors import InputError
from transferscope.report.drawing import MARKERS, selected, short, size_styles
from transferscope.report.measurement import PROTOCOLS

_MOST_SOURCES = 6
_MOST_COLUMNS = 3
_MOST_TICKS = 8
_INCHES_A_LETTER = 0.09
# The yellow and the grey of this palette are for what matters least.
_COLOURS = dict(
    zip(PROTOCOLS, [sns.color_palette("colorblind")[i] for i in (8, 0, 9, 2, 1, 4, 3, 5, 6, 7)], strict=True)
)
_CHANCE: dict[str, Any] = {"color": "0.45", "linestyle": ":", "linewidth": 1.2}
_ACCURACY = "accuracy on test images"
_Cost = Literal["seconds", "kwh"]
_COSTS: dict[_Cost, tuple[str, str]] = {
    "seconds": ("seconds per transfer", "accuracy-by-seconds.png"),
    "kwh": ("kWh per transfer", "accuracy-by-energy.png"),
}


def accuracy_by_depth(
    table: pd.DataFrame,
    source: str,
    protocol: str,
    ax: Axes | None = None,
    *,
    chance: float = math.nan,
    legend: bool = True,
) -> Axes:
    """Draw the accuracy of one source and protocol over the depth of the cut, a line for each number of images.

    Bands are one standard error to either side; training from scratch is a dashed line. For full-network embeddings
    the axis is the set of layers.

    Parameters
    ----------
    table : pandas.DataFrame
        `Measurement.table`.
    source, protocol : str
        What is drawn of it.
    ax : matplotlib.axes.Axes, optional
        Drawn into; new axes by default.
    chance : float
        The accuracy of always guessing the largest class, a dotted line.
    legend : bool
        Whether to explain the lines.

    Raises
    ------
    InputError
        When the table has no such source or protocol.
    """
    rows = selected(table, source=source, protocol=protocol)
    scratch = table[(table["source"] == source) & (table["protocol"] == "scratch") & (protocol != "scratch")]
    ax = _axes(ax)
    sets = sorted(rows["layer"].unique(), key=lambda name: (name == "all", name)) if protocol == "fne" else []
    for size, style in size_styles(table).items():
        line = rows[(rows["samples_per_class"] == size) & rows["accuracy"].notna()]
        line = line.assign(x=line["layer"].map(sets.index) if sets else line["depth"]).sort_values("x")
        _line(ax, line, style)
        for level in scratch.loc[scratch["samples_per_class"] == size, "accuracy"].dropna():
            ax.axhline(level, color=style["color"], linestyle="--", linewidth=1)
    if sets:
        ax.set_xticks(range(len(sets)), [name.removeprefix("upper ") for name in sets])
        ax.set_xlim(-0.4, len(sets) - 0.6)
        ax.set_xlabel("upper layers that are used")
    else:
        depths = sorted(rows["depth"].unique())
        ax.set_xlim(depths[0] - 0.4, depths[-1] + 0.4)
        ax.set_xticks(depths[:: -math.ceil(len(depths) / _MOST_TICKS)][::-1])
        ax.set_xlabel(f"stages {'frozen' if protocol == 'defrost' else 'kept'}, of {rows['depths'].max()}")
    return _finish(ax, f"{short(source)}\n{protocol}", chance, _depth_handles(table, chance) if legend else None)


def accuracy_by_samples(
    table: pd.DataFrame, source: str, ax: Axes | None = None, *, chance: float = math.nan, legend: bool = True
) -> Axes:
    """Draw the accuracy of one source at its best depth over the images of each class, a line for each protocol.

    Bands are one standard error to either side.

    Parameters
    ----------
    table, source, ax, chance, legend
        As in `accuracy_by_depth`.

    Raises
    ------
    InputError
        When the table has no such source.
    """
    rows = selected(table, source=source)
    ax = _axes(ax)
    best = rows[rows["best"]].sort_values("samples_per_class").assign(x=lambda found: found["samples_per_class"])
    for protocol, style in _protocol_styles(table).items():
        _line(ax, best[best["protocol"] == protocol], style)
    ax.set_xscale("log")
    sizes = sorted(table["samples_per_class"].unique())
    ax.set_xlim(sizes[0] / 1.25, sizes[-1] * 1.25)
    shown = _apart(sizes)
    ax.set_xticks(shown, [str(size) for size in shown])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("training images of each class")
    return _finish(ax, short(source), chance, _protocol_handles(table, chance) if legend else None)


def accuracy_by_cost(
    table: pd.DataFrame,
    source: str,
    cost: _Cost = "seconds",
    ax: Axes | None = None,
    *,
    chance: float = math.nan,
    legend: bool = True,
) -> Axes:
    """Draw the accuracy of one source over what the transfer cost: a point for each protocol, depth and size.

    Colour and marker tell the protocol, size the images of each class. The best depth is drawn in full, the others
    are pale. A cost of zero is drawn at half of the least one above.

    Parameters
    ----------
    table, source, ax, chance, legend
        As in `accuracy_by_depth`.
    cost : {"seconds", "kwh"}
        What the axis shows.

    Raises
    ------
    InputError
        When the table has no such source or cost.
    """
    if cost not in _COSTS:
        raise InputError(f"Expected `cost` to be one of {', '.join(_COSTS)}, but got {cost!r}.")
    rows = selected(table, source=source).dropna(subset=["accuracy", cost])
    ax = _axes(ax)
    above = table.loc[table[cost] > 0, cost]
    least = above.min() if len(above) else 1.0
    areas = _areas(table)
    for protocol, style in _protocol_styles(table).items():
        for best in (False, True):
            points = rows[(rows["protocol"] == protocol) & (rows["best"] == best)]
            ax.scatter(
                points[cost].clip(lower=least / 2), points["accuracy"], s=points["samples_per_class"].map(areas),
                color=style["color"], marker=style["marker"], alpha=0.95 if best else 0.18,
                edgecolor="black" if best else "none", linewidth=0.6, zorder=3 if best else 2,
            )  # fmt: skip
    ax.set_xscale("log")
    ax.set_xlabel(_COSTS[cost][0] + (f" (0 is drawn at {least / 2:.2g})" if (table[cost] == 0).any() else ""))
    handles = _protocol_handles(table, chance) + _area_handles(table)
    return _finish(ax, short(source), chance, handles if legend else None)


def figures(table: pd.DataFrame, *, chance: float = math.nan, energy: str = "") -> dict[str, Figure]:
    """Draw everything there is to be drawn, a panel for each source (of more than six, those with the best accuracy).

    Parameters
    ----------
    table : pandas.DataFrame
        `Measurement.table`.
    chance : float
        The accuracy of always guessing the largest class.
    energy : str
        How electricity was measured, for its picture.

    Returns
    -------
    dict of str to matplotlib.figure.Figure
        File name to picture; without energy where it was not measured, empty where no run came to an end.
    """
    table = table[table["accuracy"].notna()]
    if table.empty:
        return {}
    best = table.groupby("source", sort=False)["accuracy"].max().sort_values(ascending=False, kind="stable")
    few = [source for source in table["source"].unique() if source in best.index[:_MOST_SOURCES]]
    note = f"The {len(few)} best of {len(best)} sources." if len(few) < len(best) else ""
    drawn = table[table["source"].isin(few)]
    found = {
        "accuracy-by-depth.png": _depth_figure(drawn, few, chance, note),
        "accuracy-by-samples.png": _source_figure(
            few, note, _protocol_handles(drawn, chance), partial(accuracy_by_samples, drawn, chance=chance)
        ),
    }
    for cost, (_, name) in _COSTS.items():
        if drawn[cost].notna().any():
            found[name] = _source_figure(
                few,
                f"{note} {energy if cost == 'kwh' else ''}".strip(),
                _protocol_handles(drawn, chance) + _area_handles(drawn),
                partial(accuracy_by_cost, drawn, cost=cost, chance=chance),
            )
    return found


def _depth_figure(table: pd.DataFrame, sources: list[str], chance: float, note: str) -> Figure:
    protocols = [name for name in _protocols(table) if name != "scratch"] or ["scratch"]
    if len(sources) > len(protocols):
        columns, panels = len(sources), [(source, protocol) for protocol in protocols for source in sources]
    else:
        columns, panels = len(protocols), [(source, protocol) for source in sources for protocol in protocols]
    if len(panels) == columns:
        columns = min(columns, _MOST_COLUMNS)
    figure, axes = _panels(len(panels), columns, (2.7, 2.5), note, _depth_handles(table, chance))
    for (source, protocol), ax in zip(panels, axes, strict=True):
        if ((table["source"] == source) & (table["protocol"] == protocol)).any():
            accuracy_by_depth(table, source, protocol, ax, chance=chance, legend=False)
        else:
            _finish(ax, f"{short(source)}\n{protocol}", math.nan, None)
            ax.text(0.5, 0.5, "no result", transform=ax.transAxes, ha="center", color="0.4")
            ax.set_xticks([])
        ax.set_ylabel("")
    return figure


def _source_figure(sources: list[str], note: str, handles: list[Line2D], draw: Callable[..., Axes]) -> Figure:
    figure, axes = _panels(len(sources), min(len(sources), _MOST_COLUMNS), (3.9, 3.4), note, handles, sharex=True)
    for source, ax in zip(sources, axes, strict=True):
        draw(source=source, ax=ax, legend=False)
        ax.tick_params(labelbottom=True)
        ax.set_ylabel("")
    return figure


def _panels(
    count: int, columns: int, size: tuple[float, float], note: str, handles: list[Line2D], *, sharex: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure of our own, outside pyplot, with `count` axes that share the accuracy, and a legend beside."""
    rows = -(-count // columns)
    width, height = size
    width = max(width * columns, 4.2) + 1.7
    figure = Figure(figsize=(width, max(height * rows, 3.4)), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=True).flat)
    for ax in axes[count:]:
        ax.remove()
    figure.supylabel(_ACCURACY, fontsize="medium")
    _legend(figure, handles, loc="outside right upper")
    if note:
        # Below, for a title would run into the legend.
        figure.supxlabel(textwrap.fill(note, int((width - 1.7) * 13)), x=0.01, ha="left", fontsize="small", color="0.3")
    return figure, axes[:count]


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots(figsize=(7, 4.5), layout="constrained")[1] if ax is None else ax


def _line(ax: Axes, rows: pd.DataFrame, style: dict[str, Any]) -> None:
    """Draw the accuracy over column x, with a band where it has a standard error."""
    ax.plot(rows["x"], rows["accuracy"], **style)
    low, high = (rows["accuracy"] + sign * rows["standard_error"] for sign in (-1, 1))
    ax.fill_between(rows["x"], low, high, color=style["color"], alpha=0.18, linewidth=0)


def _finish(ax: Axes, title: str, chance: float, handles: list[Line2D] | None) -> Axes:
    if not math.isnan(chance):
        ax.axhline(chance, **_CHANCE)
    ax.set_ylabel(_ACCURACY)
    ax.set_title(title, fontsize="small")
    ax.grid(axis="y", color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    if handles is not None:
        _legend(ax, handles, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    sns.despine(ax=ax)
    return ax


def _legend(owner: Axes | Figure, handles: list[Line2D], **place: Any) -> None:
    legend = owner.legend(handles=handles, fontsize="small", frameon=False, **place)
    for handle, text in zip(handles, legend.get_texts(), strict=True):
        if handle.get_linestyle() == handle.get_marker() == "None":
            text.set_fontweight("bold")


def _protocols(table: pd.DataFrame) -> list[str]:
    """Return those of the table, in the order of all pictures."""
    return [name for name in PROTOCOLS if (table["protocol"] == name).any()]


def _protocol_styles(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the line of each protocol, the same in every picture."""
    return {
        protocol: {
            "color": _COLOURS[protocol], "marker": MARKERS[PROTOCOLS.index(protocol)], "markersize": 5.5,
            "markeredgecolor": "black", "markeredgewidth": 0.5, "linewidth": 1.5,
            "linestyle": "--" if protocol == "scratch" else "-",
        }
        for protocol in _protocols(table)
    }  # fmt: skip


def _areas(table: pd.DataFrame) -> dict[int, float]:
    """Return the area of the marker of each number of images, in square points."""
    sizes = sorted(table["samples_per_class"].unique())
    return dict(zip(sizes, np.linspace(18, 110, len(sizes)), strict=True))


def _depth_handles(table: pd.DataFrame, chance: float) -> list[Line2D]:
    handles = [_heading("images of each class")]
    handles += [Line2D([], [], label=str(size), **style) for size, style in size_styles(table).items()]
    if {"scratch"} < set(table["protocol"]):
        handles.append(Line2D([], [], color="0.3", linestyle="--", linewidth=1, label="from scratch"))
    return handles + _chance_handles(chance)


def _protocol_handles(table: pd.DataFrame, chance: float) -> list[Line2D]:
    handles = [Line2D([], [], label=name, **style) for name, style in _protocol_styles(table).items()]
    return [_heading("protocol"), *handles, *_chance_handles(chance)]


def _area_handles(table: pd.DataFrame) -> list[Line2D]:
    handles = [
        Line2D([], [], marker="o", linestyle="none", color="0.5", markersize=math.sqrt(area), label=str(size))
        for size, area in _areas(table).items()
    ]
    return [_heading("images of each class"), *handles]


def _chance_handles(chance: float) -> list[Line2D]:
    return [] if math.isnan(chance) else [Line2D([], [], label="guessing the largest class", **_CHANCE)]


def _heading(text: str) -> Line2D:
    return Line2D([], [], linestyle="none", label=text)


def _apart(sizes: Sequence[int]) -> list[int]:
    """Return the numbers that have room beside each other on the logarithmic axis of a panel, the last in any case."""
    inches = 2.6 / math.log(sizes[-1] / sizes[0] * 1.25**2)
    shown: list[int] = []
    for size in reversed(sizes):
        letters = len(f"{size}{shown[-1]}") / 2 + 1 if shown else 0
        if not shown or math.log(shown[-1] / size) * inches >= letters * _INCHES_A_LETTER:
            shown.append(size)
    return shown[::-1]
