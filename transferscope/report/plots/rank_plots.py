"""Pictures of a ranking: accuracy against FLOPs, and all of its pictures at once."""

from collections.abc import Callable
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, NullFormatter

from transferscope.report.plots import rank_bars
from transferscope.report.plots.drawing import (
    GRID,
    Context,
    canvas,
    explain,
    figure_of,
    hover,
    label,
    line_styles,
    longest,
    outside_pyplot,
)
from transferscope.report.plots.heatmaps import heatmaps
from transferscope.report.plots.naming import short
from transferscope.report.plots.rank_depths import depth_curves, source_depth
from transferscope.report.plots.rank_rows import MOST_CURVES, check, cuts_of, protocols_of, says, whitened
from transferscope.results import labelled
from transferscope.results.ranking import Ranking

_MOST_PANELS = 4
_WHITE = {"truncate": 0.0, "reinit": 0.6, "finetune": 1.0, "defrost": 0.0}
"""How white the markers of each protocol are."""
_EDGED = "defrost"
"""Its markers have a dark edge."""


def pareto(ranking: Ranking, ax: Axes | None = None, *, context: Context = "notebook") -> Axes:
    """Draw the expected accuracy of every cut against the FLOPs of the network that comes out.

    A line joins the rings around what is worth its FLOPs: nothing that is as cheap is more accurate. Colour and marker
    tell the source, the filling and the edge of the marker the protocol. Sources after the tenth are grey. Cuts whose
    FLOPs are unknown are left out.

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
    cuts = cuts[cuts["flops"].notna()]
    cuts = cuts.assign(flops=cuts["flops"].clip(lower=1))
    sources = list(protocols_of(ranking))
    with canvas(ax, context) as ax:
        styles: dict[str, dict[str, Any]] = dict(zip(sources, line_styles(len(sources)), strict=True))
        # Smaller where there are many.
        size = rcParams["lines.markersize"] * float(np.clip((200 / max(1, len(cuts))) ** 0.5, 0.45, 1))
        point: dict[str, Any] = {"linestyle": "none", "markersize": 0.8 * size, "markeredgewidth": 0.8}
        others = ~(cuts["source"].isin(sources[:MOST_CURVES]) | (cuts["protocol"] == "scratch"))
        groups = list(cuts[~others].groupby(["source", "protocol"], sort=False))
        # All others as one, which a page can make a picture of where they are thousands.
        groups += [(("", ""), cuts[others])] if others.any() else []
        for (source, protocol), rows in groups:
            style = {"color": "0.7", "marker": ".", "markersize": 0.6 * size, "zorder": 1}
            if protocol == "scratch":
                style = {"color": "0.1", "marker": "X", "markersize": 1.3 * rcParams["lines.markersize"], "zorder": 4}
            elif source:
                style = {name: styles[source][name] for name in ("color", "marker")}
                style |= {**_marked(style["color"], protocol), "zorder": 2}
            (points,) = ax.plot(rows["flops"], rows["expected_accuracy"], **{**point, **style})
            hover(points, says(rows))
        front = cuts[cuts["pareto"]]
        ax.step(front["flops"], front["expected_accuracy"], where="post", color="0.35", zorder=1.5)
        ring: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": "black"}
        ring |= {"markersize": 1.7 * size, "color": "0.35", "label": "worth its FLOPs"}
        (rings,) = ax.plot(front["flops"], front["expected_accuracy"], zorder=3, **{**ring, "linestyle": "none"})
        hover(rings, says(front))
        point["markersize"] = 0.8 * rcParams["lines.markersize"]
        handles = [Line2D([], [], **point, **{name: styles[source][name] for name in ("color", "marker")},
                          label=short(source, longest(context))) for source in sources[:MOST_CURVES]]  # fmt: skip
        if len(sources) > MOST_CURVES:
            others = f"{len(sources) - MOST_CURVES} other sources"
            handles.append(Line2D([], [], linestyle="none", marker=".", color="0.7", label=others))
        handles += [
            Line2D([], [], **point, marker="o", color="0.6", **_marked("0.6", protocol), label=protocol)
            for protocol in _WHITE
            if (cuts["protocol"] == protocol).any()
        ]
        if (cuts["protocol"] == "scratch").any():
            handles.append(Line2D([], [], linestyle="none", marker="X", color="0.1", label="scratch"))
        handles.append(Line2D([], [], **{**ring, "markersize": 1.5 * rcParams["lines.markersize"]}))
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(EngFormatter(sep=" "))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.grid(axis="y", **GRID)
        ax.set_axisbelow(True)
        label(ax, x="FLOPs per image of the network that comes out", y=f"expected {ranking.metric.title}")
        sns.despine(ax=ax)
        explain(ax, handles, below=context == "paper")
    return ax


def _marked(colour: Any, protocol: str) -> dict[str, Any]:
    """Return how the markers of a protocol are filled and edged."""
    edge = tuple(0.3 * part for part in to_rgb(colour)) if protocol == _EDGED else colour
    return {"markerfacecolor": whitened(colour, _WHITE[protocol]), "markeredgecolor": edge}


def figures(ranking: Ranking, *, context: Context = "notebook") -> dict[str, Figure]:
    """Draw everything there is to be drawn of a ranking, in figures outside pyplot.

    Parameters
    ----------
    ranking : Ranking
    context : {"paper", "notebook", "talk"}
        Of a figure of its own, as everywhere.

    Returns
    -------
    dict of str to matplotlib.figure.Figure
        "ranking", "source_depth", "depth_curves", "pareto" and, of the first four sources, "similarity" with the
        scratch network, in this order; those of sources where there are any.
    """
    check(ranking)
    sources = list(protocols_of(ranking))
    draw: dict[str, Callable[..., Axes]] = {"ranking": rank_bars.ranking}
    if sources:
        draw["source_depth"] = source_depth
    draw |= {"depth_curves": depth_curves, "pareto": pareto}
    with outside_pyplot():
        pictures = {name: figure_of(function(ranking, context=context)) for name, function in draw.items()}
    matrices = {source: labelled.source_similarity(ranking.scores, source) for source in sources[:_MOST_PANELS]}
    axes = {"x": "layer of the source", "y": "layer of the scratch network"}
    similar = {source: matrix.assign_attrs(axes) for source, matrix in matrices.items() if matrix.size}
    if similar:
        pictures["similarity"] = figure = heatmaps(similar, context=context)
        if len(similar) < len(sources):
            figure.suptitle(f"the first {len(similar)} of {len(sources)} sources", fontsize="medium")
    return pictures
