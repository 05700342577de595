"""Pictures: each takes data and optional axes, draws with seaborn and matplotlib, returns axes, shows nothing."""

from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from transferscope import scoring
from transferscope.errors import InputError
from transferscope.report.drawing import short
from transferscope.selection import Recommendation
from transferscope.similarity import MEASURES

_MARKERS = {"truncate": "o", "reinit": "s", "finetune": "^", "scratch": "X"}
_MOST_LABELS = 40
_MOST_PANELS = 4
_INCHES_A_LETTER = 0.085
_name = partial(short, longest=40)  # more than elsewhere, for the end of its name tells a layer from others
_TITLES = {name: measure.title for name, measure in MEASURES.items()} | {"linear_cka": "debiased linear CKA"}


def heatmap(similarity: xr.DataArray, ax: Axes | None = None, **options: Any) -> Axes:
    """Draw a layer × layer similarity matrix, the first layers at the bottom left; bright is similar.

    Cells whose number means nothing (coordinate `informative`) are hatched.

    Parameters
    ----------
    similarity : xarray.DataArray
        Dimensions `layer_x` (rows) and `layer_y` (columns), as `compare` returns it.
    ax : matplotlib.axes.Axes, optional
        Drawn into; new axes by default.
    **options
        Passed to `seaborn.heatmap`; the colours run from 0 to 1 unless `vmin` and `vmax` say otherwise.

    Raises
    ------
    InputError
        When the array has other dimensions.
    """
    dims = similarity.dims if isinstance(similarity, xr.DataArray) else type(similarity).__name__
    if dims != ("layer_x", "layer_y"):
        raise InputError(
            f"Expected `similarity` to have dimensions ('layer_x', 'layer_y') but got {dims}; `compare` returns "
            "such an array."
        )
    if ax is None:
        ax = plt.subplots(figsize=_heatmap_size(similarity), layout="constrained")[1]
    measure = str(similarity.attrs.get("measure", similarity.name or "similarity"))
    defaults = {
        "vmin": 0.0,
        "vmax": 1.0,
        "cmap": "viridis_r" if measure.endswith("_imbalance") else "viridis",
        "square": True,
        "cbar_kws": {"label": _TITLES.get(measure, measure), "shrink": 0.8},
        "xticklabels": _thinned(similarity["layer_y"].to_numpy()),
        "yticklabels": _thinned(similarity["layer_x"].to_numpy()),
    }
    sns.heatmap(similarity.to_numpy(), ax=ax, **{**defaults, **options})
    if "informative" in similarity.coords:
        cells = [Rectangle((j, i), 1, 1) for i, j in np.argwhere(~similarity["informative"].to_numpy())]
        ax.add_collection(PatchCollection(cells, facecolor="none", edgecolor="0.5", hatch="////", linewidth=0))
    ax.invert_yaxis()
    ax.set_xlabel(_name(similarity.attrs.get("y", "layer_y")))
    ax.set_ylabel(_name(similarity.attrs.get("x", "layer_x")))
    ax.tick_params(axis="x", rotation=90)
    ax.tick_params(axis="y", rotation=0)
    return ax


def depth_curves(scores: xr.Dataset, recommendations: tuple[Recommendation, ...] = (), ax: Axes | None = None) -> Axes:
    """Draw the expected accuracy of every source over the depth of the cut, with intervals, by its best protocol.

    Parameters
    ----------
    scores : xarray.Dataset
        `Ranking.scores`.
    recommendations : tuple of Recommendation
        Their cuts are marked, each source is drawn by the protocol of its own; training from scratch becomes a dashed
        line. A source that is not among them is drawn by the first protocol.
    ax : matplotlib.axes.Axes, optional
        Drawn into; new axes by default.
    """
    if ax is None:
        ax = plt.subplots(figsize=(8, 5), layout="constrained")[1]
    palette = sns.color_palette("colorblind", max(scores.sizes["source"], 1))
    markers = "osD^vP*X<>"
    protocols = {pick.source: pick.protocol for pick in recommendations}
    lines = []
    for i, source in enumerate(scores["source"].to_numpy()):
        protocol = protocols.get(source, scores["protocol"].to_numpy()[0])
        rows = scores.sel(source=source, protocol=protocol)
        kept = rows["layer"].to_numpy() != ""
        label = _name(source) if scores.sizes["protocol"] == 1 else f"{_name(source)}, {protocol}"
        share = rows["depth"].to_numpy()[kept] / kept.sum()
        ax.fill_between(share, rows["lower"][kept], rows["upper"][kept], color=palette[i], alpha=0.12, linewidth=0)
        lines += ax.plot(
            share, rows["expected_accuracy"][kept], color=palette[i], marker=markers[i % len(markers)],
            linestyle=("-", "--", ":")[i // len(markers) % 3], markersize=4, label=label,
        )  # fmt: skip
    for pick in recommendations:
        if pick.protocol == "scratch":
            lines.append(
                ax.axhline(pick.expected_accuracy, color="0.35", linestyle="--", linewidth=1.2, label="scratch")
            )
            ax.axhspan(*pick.interval, color="0.35", alpha=0.08, linewidth=0)
        else:
            ax.plot(
                pick.depth / pick.depths, pick.expected_accuracy, marker="o", markersize=13,
                markerfacecolor="none", markeredgecolor="black", markeredgewidth=1.2, linestyle="none",
            )  # fmt: skip
    ax.set_xlabel("depth of the cut (share of the stages kept)")
    ax.set_ylabel("expected accuracy (80 % interval)")
    ax.set_xlim(0, 1.03)
    # Handed over one by one: labels that begin with an underscore are not collected. Many or long names would cover
    # the curves.
    outside = len(lines) > 6 or max(len(str(line.get_label())) for line in lines) > 24
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if outside else {}
    ax.legend(handles=lines, title="circle: best cut", fontsize="small", **place)
    sns.despine(ax=ax)
    return ax


def pareto(cuts: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw expected accuracy against FLOPs: a line joins what nothing beats that is as cheap.

    Parameters
    ----------
    cuts : pandas.DataFrame
        `Ranking.cuts`.
    ax : matplotlib.axes.Axes, optional
        Drawn into; new axes by default.
    """
    if ax is None:
        ax = plt.subplots(figsize=(8, 5), layout="constrained")[1]
    rows = cuts.assign(flops=cuts["flops"].clip(lower=1))
    sources = list(rows["source"].unique())
    colours = dict(zip(sources, sns.color_palette("colorblind", len(sources)), strict=True))
    for (source, protocol), own in rows.groupby(["source", "protocol"], sort=False):
        ax.scatter(own["flops"], own["expected_accuracy"], color=colours[source], marker=_MARKERS[protocol], alpha=0.6)
    front = rows[rows["pareto"]]
    ax.step(front["flops"], front["expected_accuracy"], where="post", color="0.35", linewidth=1.2, zorder=0)
    dot = partial(Line2D, [], [], linestyle="none")
    handles = [dot(color=colours[source], marker="o", label=_name(source)) for source in sources]
    shown = [protocol for protocol in _MARKERS if (rows["protocol"] == protocol).any()]
    handles += [dot(color="0.35", marker=_MARKERS[protocol], label=protocol) for protocol in shown]
    ax.set_xscale("log")
    ax.set_xlabel("floating-point operations per image of the network that comes out")
    ax.set_ylabel("expected accuracy")
    title = "line: worth its FLOPs"
    ax.legend(handles=handles, title=title, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    sns.despine(ax=ax)
    return ax


def similarity_panels(scores: xr.Dataset, sources: list[str], measure: str = "linear_cka") -> Figure:
    """Draw the similarity of the first four sources with the scratch network side by side, on one colour scale."""
    shown = sources[:_MOST_PANELS]
    matrices = [scoring.source_similarity(scores, source, measure) for source in shown]
    sizes = [_heatmap_size(matrix) for matrix in matrices]
    size = (sum(width for width, _ in sizes), max(height for _, height in sizes) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False)
    if len(shown) < len(sources):
        figure.suptitle(f"the {len(shown)} best of {len(sources)} sources", fontsize="medium")
    for i, (matrix, ax) in enumerate(zip(matrices, axes[0], strict=True)):
        heatmap(matrix, ax=ax, cbar=i == len(shown) - 1, square=False)
        ax.set_title(_name(shown[i]), fontsize="medium")
        ax.set_ylabel("layer of the source" if i == 0 else "")
        ax.set_xlabel("layer of the scratch network")
    return figure


def heatmap_figure(similarity: xr.DataArray) -> Figure:
    """Draw a heatmap in a figure of its own, outside pyplot."""
    figure = Figure(figsize=_heatmap_size(similarity), layout="constrained")
    ax = heatmap(similarity, ax=figure.subplots())
    if "informative" in similarity.coords and not bool(similarity["informative"].all()):
        ax.set_title("hatched: says nothing", fontsize="medium")
    return figure


def _heatmap_size(similarity: xr.DataArray) -> tuple[float, float]:
    """Return width and height in inches: room for the cells and for the names of layers and networks beside them."""
    cells, names = [], []
    for dim, side in (("layer_y", "y"), ("layer_x", "x")):
        title = _INCHES_A_LETTER * len(_name(similarity.attrs.get(side, "")))
        cells.append(max(0.26 * min(similarity.sizes[dim], 60), title, 1.3))
        names.append(_INCHES_A_LETTER * max(len(_name(name)) for name in similarity[dim].to_numpy()))
    return 1.9 + cells[0] + names[1], 1.1 + cells[1] + names[0]


def _thinned(names: np.ndarray) -> list[str]:
    """Blank labels evenly where there are too many to be read."""
    step = -(-len(names) // _MOST_LABELS)
    return [_name(name) if i % step == 0 else "" for i, name in enumerate(names)]
