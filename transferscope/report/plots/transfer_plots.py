"""The pictures that a measurement is saved with: a panel for each source."""

import math
import textwrap
from collections.abc import Callable
from functools import partial

import pandas as pd
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from transferscope.report.plots.drawing import explain, label, styled
from transferscope.report.plots.naming import short
from transferscope.report.plots.transfer_curves import (
    COSTS,
    Cost,
    accuracy_by_cost,
    accuracy_by_depth,
    area_handles,
    depth_handles,
    learning_curves,
    on_test_images,
    protocol_handles,
    protocols_of,
)
from transferscope.results.measurement import judged_by

_MOST_SOURCES = 6
_MOST_COLUMNS = 3
_COST_FILES: dict[Cost, str] = {"seconds": "accuracy-by-seconds.png", "kwh": "accuracy-by-energy.png"}


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
    judged = judged_by(table).column
    table = table[table[judged].notna()]
    if table.empty:
        return {}
    best = table.groupby("source", sort=False)[judged].max().sort_values(ascending=False, kind="stable")
    few = [source for source in table["source"].unique() if source in best.index[:_MOST_SOURCES]]
    note = f"The {len(few)} best of {len(best)} sources." if len(few) < len(best) else ""
    drawn = table[table["source"].isin(few)]
    with styled("notebook"):
        protocols = protocol_handles(drawn, chance)
        pictures = {
            "accuracy-by-depth.png": _depth_figure(drawn, few, chance, note),
            "accuracy-by-samples.png": _source_figure(
                drawn, few, note, protocols, partial(learning_curves, drawn, chance=chance)
            ),
        }
        for cost in COSTS:
            if drawn[cost].notna().any():
                pictures[_COST_FILES[cost]] = _source_figure(
                    drawn,
                    few,
                    f"{note} {energy if cost == 'kwh' else ''}".strip(),
                    protocols + area_handles(drawn),
                    partial(accuracy_by_cost, drawn, cost=cost, chance=chance),
                )
    return pictures


def _depth_figure(table: pd.DataFrame, sources: list[str], chance: float, note: str) -> Figure:
    protocols = [name for name in protocols_of(table) if name != "scratch"] or ["scratch"]
    if len(sources) > len(protocols):
        columns, panels = len(sources), [(source, protocol) for protocol in protocols for source in sources]
    else:
        columns, panels = len(protocols), [(source, protocol) for source in sources for protocol in protocols]
    if len(panels) == columns:
        columns = min(columns, _MOST_COLUMNS)
    figure, axes = _panels(table, len(panels), columns, (2.7, 2.5), note, depth_handles(table, chance))
    for (source, protocol), ax in zip(panels, axes, strict=True):
        if ((table["source"] == source) & (table["protocol"] == protocol)).any():
            accuracy_by_depth(table, source, protocol, ax, chance=chance, legend=False)
        else:
            label(ax, title=f"{short(source)}\n{protocol}")
            ax.text(0.5, 0.5, "no result", transform=ax.transAxes, ha="center", color="0.4")
            ax.set_xticks([])
        ax.set_ylabel("")
    return figure


def _source_figure(
    table: pd.DataFrame, sources: list[str], note: str, handles: list[Line2D], draw: Callable[..., Axes]
) -> Figure:
    figure, axes = _panels(
        table, len(sources), min(len(sources), _MOST_COLUMNS), (3.9, 3.4), note, handles, sharex=True
    )
    for source, ax in zip(sources, axes, strict=True):
        draw(source=source, ax=ax, legend=False)
        ax.tick_params(labelbottom=True)
        ax.set_ylabel("")
    return figure


def _panels(
    table: pd.DataFrame,
    count: int,
    columns: int,
    size: tuple[float, float],
    note: str,
    handles: list[Line2D],
    *,
    sharex: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Return a figure of our own, outside pyplot, with `count` axes that share the accuracy, and a legend beside."""
    rows = -(-count // columns)
    width, height = size
    width = max(width * columns, 4.2) + 1.7
    figure = Figure(figsize=(width, max(height * rows, 3.4)), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=True).flat)
    for ax in axes[count:]:
        ax.remove()
    figure.supylabel(on_test_images(table), fontsize=rcParams["axes.labelsize"])
    explain(figure, handles)
    if note:
        # Below, for a title would run into the legend.
        figure.supxlabel(textwrap.fill(note, int((width - 1.7) * 13)), x=0.01, ha="left", fontsize="small", color="0.3")
    return figure, axes[:count]
