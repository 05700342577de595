"""Expected accuracy over the depth of the cut: every source as a row of a heatmap, or as a curve."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from transferscope.errors import InputError
from transferscope.report.plots.drawing import (
    GRID,
    Context,
    canvas,
    draw_line,
    explain,
    hover,
    label,
    line_styles,
    longest,
    selected,
)
from transferscope.report.plots.naming import name_places, short, short_layers
from transferscope.report.plots.rank_rows import (
    MOST_CURVES,
    OTHERS,
    curves_of,
    cuts_of,
    protocols_of,
    says,
    says_pick,
    says_pilot,
)
from transferscope.results.ranking import Ranking
from transferscope.results.recommendation import Recommendation

_MOST_BANDS = 3
_MOST_ROWS = 40
_MARKED = {"truncate": "o", "reinit": "s", "finetune": "^", "defrost": "D"}
_PILOT: dict[str, Any] = {"marker": "*", "markersize": 11, "linestyle": "none"}
_SCRATCH: dict[str, Any] = {"color": "0.25", "linestyle": (0, (5, 2))}


def source_depth(
    ranking: Ranking, ax: Axes | None = None, *, protocol: str | None = None, context: Context = "notebook"
) -> Axes:
    """Draw the expected accuracy of every source (rows, the first on top) at every depth (columns); bright is accurate.

    A white mark is the recommended cut, its shape the protocol. Sources have different numbers of stages: the rest of
    a row is blank. Where all sources have the same layers, their names stand below. Of more than 40 sources the first
    are drawn.

    Parameters
    ----------
    ranking, ax, context
        As in `ranking`.
    protocol : str, optional
        One for all sources: recommendations of another have no mark. By default each source is drawn by the one that
        is recommended for it.

    Raises
    ------
    InputError
        As in `ranking`; when there is no source or no such protocol.
    """
    cuts = cuts_of(ranking)
    protocols = {source: protocol or recommended for source, recommended in protocols_of(ranking).items()}
    if not protocols:
        raise InputError("Expected `ranking` to have a source with an expected accuracy, but it has none")
    if protocol is not None:
        selected(cuts, protocol=protocol)
    shown = list(protocols)[:_MOST_ROWS]
    names = [short(source, longest(context)) for source in shown]
    known = curves_of(cuts)
    curves = [known.get((source, protocols[source]), cuts[:0]) for source in shown]
    depths = int(max(curve["depth"].max() for curve in curves))
    layers = _shared_layers(curves, depths)
    with canvas(ax, context, lambda width: (width, _grid_height(len(shown), layers))) as ax:
        values, texts = np.full((len(shown), depths), np.nan), np.full((len(shown), depths), "", dtype=object)
        for row, curve in enumerate(curves):
            values[row, curve["depth"] - 1] = curve["expected_accuracy"]
            texts[row, curve["depth"] - 1] = says(curve)
        few = f"\n{len(shown)} of {len(protocols)} sources" * (len(shown) < len(protocols))
        bar = {"label": f"expected {ranking.metric.title}{few}"}
        sns.heatmap(values, ax=ax, cmap="viridis", cbar_kws=bar, xticklabels=False, yticklabels=False)
        hover(ax.collections[0], texts.flat)
        ax.set_facecolor("white")
        name_places(ax.yaxis, names, 0.5)
        name_places(ax.xaxis, layers or [str(depth + 1) for depth in range(depths)], 0.5, upright=bool(layers))
        handles = []
        for name, marker in _MARKED.items():
            if name not in {protocols[source] for source in shown}:
                continue
            picks = [pick for pick in ranking.recommendations if pick.source in shown and pick.protocol == name]
            picks = [pick for pick in picks if protocols[pick.source] == name]
            handles += ax.plot(
                [pick.depth - 0.5 for pick in picks], [shown.index(pick.source) + 0.5 for pick in picks],
                linestyle="none", marker=marker, markersize=1.1 * rcParams["lines.markersize"], clip_on=False,
                markerfacecolor="white", markeredgecolor="black", label=f"recommended cut · {name}",
            )  # fmt: skip
            hover(handles[-1], [says_pick(pick) for pick in picks])
        frozen = "defrost" in {protocols[source] for source in shown}
        where = f"layer after which the source is cut{' (defrost: frozen)' * frozen}"
        label(ax, x=where if layers else f"depth of the cut (stages kept{'; defrost: frozen' * frozen})", y="")
        place: dict[str, Any] = {
            "loc": "lower right",
            "bbox_to_anchor": (1.0, 1.0),
            "ncols": 1 if context == "paper" else len(handles),
        }
        ax.legend(handles=handles, frameon=False, borderpad=0.1, columnspacing=1.0, handletextpad=0.2, **place)
    return ax


def depth_curves(ranking: Ranking, ax: Axes | None = None, *, context: Context = "notebook") -> Axes:
    """Draw the expected accuracy of every source over the depth of the cut, with 80 % intervals.

    Each source is drawn by the protocol that is recommended for it, and a circle marks its recommended cut; training
    from scratch is a dashed line with its interval. Stars are what pilots measured, by whichever protocol, with
    their standard errors. With more than three sources the first alone has its intervals; those after the tenth are
    grey.

    Parameters
    ----------
    ranking, ax, context
        As in `ranking`.

    Raises
    ------
    InputError
        As in `ranking`.
    """
    cuts = cuts_of(ranking)
    protocols, curves = protocols_of(ranking), curves_of(cuts)
    several = len(set(protocols.values())) > 1
    shown = list(protocols)[:MOST_CURVES]
    banded = shown if len(protocols) <= _MOST_BANDS else shown[:1]
    with canvas(ax, context) as ax:
        lines: list[Any] = []
        for source, style in zip(shown, line_styles(len(shown)), strict=True):
            curve = curves[source, protocols[source]]
            name = short(source, longest(context)) + f" · {protocols[source]}" * several
            if source in banded:
                band = {"color": style["color"], "alpha": 0.14, "linewidth": 0, "zorder": 0.5}
                ax.fill_between(_share(curve), curve["lower"], curve["upper"], **band)
            style |= {"label": name, "zorder": 3}
            lines.append(draw_line(ax, _share(curve), curve["expected_accuracy"], says(curve), style))
        if others := [curves[source, protocols[source]] for source in list(protocols)[MOST_CURVES:]]:
            # As one line with gaps, which a page can make a picture of where it has thousands of points.
            gaps = pd.concat([part for curve in others for part in (curve, pd.DataFrame(index=[0]))])
            (line,) = ax.plot(_share(gaps), gaps["expected_accuracy"], zorder=1, marker=".", markersize=1, **OTHERS)
            hover(line, says(pd.concat(others)))
        if len(protocols) > len(shown):
            lines.append(Line2D([], [], label=f"{len(protocols) - len(shown)} other sources", **OTHERS))
        for pick in ranking.recommendations:
            if pick.layer is None:
                lines.append(ax.axhline(pick.expected_accuracy, label="scratch", zorder=2, **_SCRATCH))
                ax.axhspan(*pick.interval, color=_SCRATCH["color"], alpha=0.1, linewidth=0, zorder=0)
        lines += _draw_pilots(ax, ranking, dict(zip(shown, line_styles(len(shown)), strict=True)))
        picks = [pick for pick in ranking.recommendations if pick.source in shown]
        heights = [_at(curves[pick.source, pick.protocol], pick) for pick in picks]
        (circles,) = ax.plot(
            [pick.depth / pick.depths for pick in picks], heights,
            linestyle="none", marker="o", markersize=1.7 * rcParams["lines.markersize"], markerfacecolor="none",
            markeredgecolor="black", zorder=4, label="recommended cut",
        )  # fmt: skip
        hover(circles, [says_pick(pick) for pick in picks])
        lines.append(Line2D([], [], linestyle="none", marker="o", markerfacecolor="none", markeredgecolor="black",
                            markersize=1.4 * rcParams["lines.markersize"], label="recommended cut"))  # fmt: skip
        of = " (first)" * (len(banded) < len(protocols))
        lines.append(Patch(color="0.5", alpha=0.25, linewidth=0, label=f"80 % interval{of}"))
        ax.set_xlim(0, 1.03)
        ax.grid(axis="y", **GRID)
        ax.set_axisbelow(True)
        frozen = "; defrost: frozen" * ("defrost" in protocols.values())
        label(ax, x=f"depth of the cut (share of the stages kept{frozen})", y=f"expected {ranking.metric.title}")
        sns.despine(ax=ax)
        explain(ax, lines, below=context == "paper")
    return ax


def _draw_pilots(ax: Axes, ranking: Ranking, styles: dict[str, dict[str, Any]]) -> list[Line2D]:
    """Draw what pilots measured of these sources, with standard errors; return what the legend says of them."""
    stages = {pick.source: pick.depths for pick in ranking.recommendations}
    pilots = [pilot for pilot in ranking.pilots if pilot.source in styles]
    for pilot in pilots:
        x = pilot.depth / stages[pilot.source]
        style = {"color": styles[pilot.source]["color"], "zorder": 5}
        ax.errorbar(x, pilot.accuracy, pilot.standard_error, capsize=2, linestyle="none", **style)
        (point,) = ax.plot(x, pilot.accuracy, markeredgecolor="white", **_PILOT, **style)
        hover(point, [says_pilot(pilot)])
    return [Line2D([], [], color="0.3", label="measured by a pilot", **_PILOT)] if pilots else []


def _at(curve: pd.DataFrame, pick: Recommendation) -> float:
    """Return what is expected of the recommended cut, as of every other one: not corrected for the choice."""
    return float(curve.loc[curve["depth"] == pick.depth, "expected_accuracy"].iloc[0])


def _share(curve: pd.DataFrame) -> pd.Series:
    return curve["depth"] / curve["depths"]


def _shared_layers(curves: list[pd.DataFrame], depths: int) -> list[str]:
    """Return the names of the layers by depth, where all sources have the same ones; else nothing."""
    names = pd.concat(curves).groupby("depth")["layer"].agg(["nunique", "first"])
    if len(names) < depths or (names["nunique"] > 1).any():
        return []
    return short_layers(names["first"])


def _grid_height(rows: int, layers: list[str]) -> float:
    below = 0.6 * max(map(len, layers), default=2)
    return (max(2.1 * rows, 11) + below + 6) * rcParams["ytick.labelsize"] / 72
