"""Pictures of parameter transferability: each takes its tables and optional axes, returns axes, shows nothing."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from transferscope.report.drawing import MARKERS, cut, selected, short, size_styles
from transferscope.report.parameters import CRITERIA, ParameterTransfer, over_seeds

_MOST_LABELS = 40
_MOST_ANNOTATED = 25
_MOST_PANELS = 6
_MOST_COLUMNS = 3
_INCHES_A_LETTER = 0.085
_T = "transferability T"
_MEAN_T = "mean T of the layers"
_ONE: dict[str, Any] = {"color": "0.45", "linestyle": "--", "linewidth": 1.2}
_INFINITE: dict[str, Any] = {"marker": "^", "markersize": 6, "linestyle": "none", "clip_on": False}
_LINE: dict[str, Any] = {"markersize": 4, "linewidth": 1.3}


def heatmap(
    layers: pd.DataFrame,
    source: str,
    *,
    criterion: str = "epochs",
    samples_per_class: int | None = None,
    ax: Axes | None = None,
    **options: Any,
) -> Axes:
    """Draw the mean T over seeds of each layer of a source (rows, the first at the bottom) on each target (columns).

    The colours are logarithmic where T spans more than a decade. An infinite T is hatched, an unknown one blank.

    Parameters
    ----------
    layers : pandas.DataFrame
        `ParameterTransfer.layers`.
    source : str
        What is drawn of it.
    criterion : {"epochs", "steps", "loss"}
        After all epochs, at matched steps or at matched training loss.
    samples_per_class : int, optional
        Images of each class that were trained on. By default the most that all targets have in common; where they
        have none in common the most of each, which then stands beside its name.
    ax : matplotlib.axes.Axes, optional
        Drawn into; new axes by default.
    **options
        Passed to `seaborn.heatmap`, such as a `norm` that several pictures share.

    Raises
    ------
    InputError
        When the table has no such source, criterion or number of images.
    """
    rows, columns, images = _chosen(layers, source, criterion, samples_per_class)
    names = rows.drop_duplicates("depth").set_index("depth")["layer"].sort_index()
    cells = pd.MultiIndex.from_product([names.index, columns])
    values = rows.set_index(["depth", "target"])["transferability"].reindex(cells).to_numpy().reshape(len(names), -1)
    if ax is None:
        ax = plt.subplots(figsize=_heatmap_size(list(names), list(columns.values()), 1), layout="constrained")[1]
    defaults: dict[str, Any] = {
        "norm": _scale(values),
        "vmin": 0,  # without effect beside a norm, but seaborn would look for it, in vain where nothing is finite
        "vmax": 1,
        "cmap": "viridis",
        "annot": len(names) <= _MOST_ANNOTATED,
        "fmt": ".3g",
        "annot_kws": {"fontsize": "small"},
        "cbar_kws": {"label": _T, "shrink": 0.8},
        "xticklabels": list(columns.values()),
        "yticklabels": _thinned(names),
    }
    sns.heatmap(np.where(np.isfinite(values), values, math.nan), ax=ax, **{**defaults, **options})
    bar = ax.collections[0].colorbar
    if bar is not None and isinstance(bar.norm, LogNorm):
        _logarithmic(bar.ax)
    infinite = [Rectangle((j, i), 1, 1) for i, j in np.argwhere(np.isinf(values))]
    if infinite:
        ax.add_collection(PatchCollection(infinite, facecolor="none", edgecolor="0.5", hatch="////", linewidth=0))
        ax.set_xlabel("hatched: infinite")
    ax.invert_yaxis()
    ax.set_ylabel("layer")
    ax.tick_params(axis="x", rotation=90)
    ax.tick_params(axis="y", rotation=0)
    ax.set_title(f"{short(source)}{images}\n{CRITERIA[criterion]}", fontsize="medium")
    return ax


def over_depth(
    layers: pd.DataFrame,
    source: str,
    *,
    criterion: str = "epochs",
    samples_per_class: int | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw T over the depth of the layers of a source, a line for each target.

    Bands are one standard error over seeds to either side, or with a single seed one standard deviation over redrawn
    initial weights. Where T is infinite the line has a gap, with a mark at the upper edge. The axis is
    logarithmic where T spans more than a decade.

    Parameters
    ----------
    layers, source, criterion, samples_per_class, ax
        As in `heatmap`.
    legend : bool
        Whether to explain the lines.

    Raises
    ------
    InputError
        When the table has no such source, criterion or number of images.
    """
    rows, columns, images = _chosen(layers, source, criterion, samples_per_class)
    ax = plt.subplots(figsize=(8, 4.5), layout="constrained")[1] if ax is None else ax
    band, meaning = _band(layers[layers["source"] == source])
    names = rows.drop_duplicates("depth").set_index("depth")["layer"].sort_index()
    finite = np.isfinite(rows["transferability"])
    for (target, _), style in zip(columns.items(), _styles(len(columns)), strict=True):
        line = rows[(rows["target"] == target) & finite].set_index("depth").reindex(names.index)
        _line(ax, line["transferability"], line[band], style)
        infinite = rows.loc[(rows["target"] == target) & np.isinf(rows["transferability"]), "depth"]
        if len(infinite):
            ax.plot(
                infinite,
                np.full(len(infinite), 0.98),
                transform=ax.get_xaxis_transform(),
                color=style["color"],
                **_INFINITE,
            )
    ax.axhline(1, **_ONE)
    if isinstance(_scale(rows["transferability"].to_numpy()), LogNorm):
        _logarithmic(ax)
    ax.set_xticks(names.index, _thinned(names), rotation=90)
    ax.set_xlabel("layer")
    if legend:
        _legend(ax, _depth_handles(columns, meaning, bool(np.isinf(rows["transferability"]).any())))
    return _finish(ax, f"{short(source)}{images}, {CRITERIA[criterion]}")


def over_steps(
    trajectory: pd.DataFrame, source: str, target: str, ax: Axes | None = None, *, legend: bool = True
) -> Axes:
    """Draw the mean T of a source's layers over the optimiser's steps on a target, a line for each number of images.

    Bands are one standard error over seeds to either side. Infinite T are left out of the mean, and so is the time
    before the first step, where nothing has moved.

    Parameters
    ----------
    trajectory : pandas.DataFrame
        `ParameterTransfer.trajectory`.
    source, target : str
        What is drawn of it.
    ax : matplotlib.axes.Axes, optional
        Drawn into; new axes by default.
    legend : bool
        Whether to explain the lines.

    Raises
    ------
    InputError
        When the table has no such source, or the source no such target.
    """
    styles = size_styles(trajectory[trajectory["source"] == source])
    rows = selected(selected(trajectory, source=source), target=target)
    rows = rows[np.isfinite(rows["transferability"]) & (rows["step"] > 0)]
    ax = plt.subplots(figsize=(8, 4.5), layout="constrained")[1] if ax is None else ax
    # The few last, for their short lines often lie on the long ones of the many.
    for size, at in reversed(list(rows.groupby("samples_per_class"))):
        line = at.groupby(["step", "seed"])["transferability"].mean().groupby("step").agg(["mean", "sem"])
        _line(ax, line["mean"], line["sem"], styles[size])
    ax.axhline(1, **_ONE)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    _logarithmic(ax)
    ax.set_xlabel("optimiser steps")
    if legend:
        _legend(ax, _handles(styles.items()), title="images of each class")
    return _finish(ax, f"{short(source)} on {short(target)}", _MEAN_T)


def figures(result: ParameterTransfer) -> dict[str, Figure]:
    """Draw for each source its layers on all targets, T over depth, and the mean T over steps.

    Returns
    -------
    dict of str to matplotlib.figure.Figure
        File name to picture: transferability-<source>-heatmap.png, -depth.png and -steps.png.
    """
    found = {}
    for source in sorted(result.layers["source"].unique()):
        layers = result.layers[result.layers["source"] == source]
        found[f"transferability-{source}-heatmap.png"] = _heatmap_figure(layers, source)
        found[f"transferability-{source}-depth.png"] = _depth_figure(layers, source)
        found[f"transferability-{source}-steps.png"] = _steps_figure(result.trajectory, source)
    return found


def _heatmap_figure(layers: pd.DataFrame, source: str) -> Figure:
    """Draw all criteria side by side, on one scale of colours."""
    rows, columns, images = _all_criteria(layers, source)
    size = _heatmap_size(rows["layer"].unique().tolist(), list(columns.values()), len(CRITERIA))
    figure = _figure(*size, f"{short(source)}{images}")
    scale = _scale(rows["transferability"].to_numpy())
    for i, (criterion, ax) in enumerate(zip(CRITERIA, figure.subplots(1, len(CRITERIA)), strict=True)):
        heatmap(layers, source, criterion=criterion, ax=ax, norm=scale, cbar=i == len(CRITERIA) - 1)
        ax.set_title(CRITERIA[criterion], fontsize="medium")
        if i:
            ax.set(ylabel="", yticks=[])
    return figure


def _depth_figure(layers: pd.DataFrame, source: str) -> Figure:
    """Draw a panel for each criterion, one below the other."""
    rows, columns, images = _all_criteria(layers, source)
    longest = max(len(name) for name in _thinned(rows["layer"].unique()))
    figure = _figure(9, 7 + _INCHES_A_LETTER * longest, f"{short(source)}{images}")
    axes = figure.subplots(len(CRITERIA), 1, sharex=True, sharey=True)
    for criterion, ax in zip(CRITERIA, axes, strict=True):
        over_depth(layers, source, criterion=criterion, ax=ax, legend=False)
        ax.set_title(CRITERIA[criterion], fontsize="small")
        ax.label_outer()
    values = rows["transferability"].to_numpy()
    if isinstance(_scale(values), LogNorm):
        _logarithmic(axes[0])
    _legend(figure, _depth_handles(columns, _band(layers)[1], bool(np.isinf(values).any())))
    return figure


def _steps_figure(trajectory: pd.DataFrame, source: str) -> Figure:
    """Draw a panel for each of at most six targets."""
    trajectory = trajectory[trajectory["source"] == source]
    targets = sorted(trajectory["target"].unique())
    shown = targets[:_MOST_PANELS]
    columns = min(len(shown), _MOST_COLUMNS)
    rows = -(-len(shown) // columns)
    few = f", {len(shown)} of {len(targets)} targets" * (len(shown) < len(targets))
    figure = _figure(3.2 * columns + 1.9, 2.7 * rows + 0.5, f"{short(source)}{few}")
    axes = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for ax in axes[len(shown) :]:
        ax.remove()
    for target, ax in zip(shown, axes, strict=False):
        over_steps(trajectory, source, target, ax, legend=False)
        ax.set_title(short(target), fontsize="small")
        ax.tick_params(labelbottom=True)
        ax.set(xlabel="", ylabel="")
    figure.supxlabel("optimiser steps", fontsize="medium")
    figure.supylabel(_MEAN_T, fontsize="medium")
    _legend(figure, _handles(size_styles(trajectory).items()), title="images of each class")
    return figure


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    return figure


def _chosen(
    layers: pd.DataFrame, source: str, criterion: str, samples_per_class: int | None
) -> tuple[pd.DataFrame, dict[str, str], str]:
    """Return rows over seeds at one number of images for each target, the targets' labels, and an end for titles."""
    rows = selected(layers, source=source)
    sizes = {target: set(own["samples_per_class"]) for target, own in rows.groupby("target")}
    common = set.intersection(*sizes.values())
    rows = over_seeds(selected(rows, criterion=criterion))
    if samples_per_class is None and not common:
        most = {target: max(own) for target, own in sizes.items()}
        rows = rows[rows["samples_per_class"] == rows["target"].map(most)]
        return rows, {target: f"{short(target)} ({size})" for target, size in most.items()}, " (images of each class)"
    size = max(common) if samples_per_class is None else samples_per_class
    rows = selected(rows, samples_per_class=size)
    return rows, {target: short(target) for target in rows["target"].unique()}, f", {size} images of each class"


def _all_criteria(layers: pd.DataFrame, source: str) -> tuple[pd.DataFrame, dict[str, str], str]:
    parts = [_chosen(layers, source, criterion, None) for criterion in CRITERIA]
    return pd.concat([rows for rows, _, _ in parts]), *parts[0][1:]


def _band(layers: pd.DataFrame) -> tuple[str, str]:
    """Return the column with half the width of bands, and what it means; nothing where it is nowhere known."""
    if len(layers["seed"].unique()) > 1:
        return "standard_error", "standard error over seeds"
    return "spread", "standard deviation\nover redraws" if layers["spread"].notna().any() else ""


def _scale(values: np.ndarray) -> Normalize:
    """Return colours for what is finite, logarithmic over more than a decade."""
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    return LogNorm(low, high) if low > 0 and high > 10 * low else Normalize(low, high)


def _line(ax: Axes, values: pd.Series, error: pd.Series, style: dict[str, Any]) -> None:
    ax.plot(values.index, values, **style)
    ax.fill_between(values.index, values - error, values + error, color=style["color"], alpha=0.18, linewidth=0)


def _logarithmic(ax: Axes) -> None:
    """Make T logarithmic, with ticks that are plain numbers."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def _finish(ax: Axes, title: str, value: str = _T) -> Axes:
    ax.set_ylabel(value)
    ax.set_title(title, fontsize="medium")
    ax.grid(axis="y", color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    sns.despine(ax=ax)
    return ax


def _legend(owner: Axes | Figure, handles: Sequence[Artist], title: str | None = None) -> None:
    place: dict[str, Any] = {"loc": "outside right upper"}
    if isinstance(owner, Axes):
        place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    owner.legend(handles=handles, title=title, title_fontsize="small", fontsize="small", frameon=False, **place)


def _styles(count: int) -> list[dict[str, Any]]:
    """Return lines that differ in colour, and without it in marker and dashes."""
    looks = itertools.product(("-", "--", ":"), zip(sns.color_palette("colorblind"), MARKERS, strict=True))
    repeated = itertools.islice(itertools.cycle(looks), count)
    return [{"color": colour, "marker": marker, "linestyle": dashes, **_LINE} for dashes, (colour, marker) in repeated]


def _depth_handles(columns: dict[str, str], band: str, infinite: bool) -> list[Artist]:
    handles = _handles(zip(columns.values(), _styles(len(columns)), strict=True))
    if band:
        handles.append(Patch(color="0.5", alpha=0.3, linewidth=0, label=band))
    if infinite:
        handles.append(Line2D([], [], label="infinite", color="0.3", **_INFINITE))
    return handles


def _handles(styles: Iterable[tuple[Any, dict[str, Any]]]) -> list[Artist]:
    lines: list[Artist] = [Line2D([], [], label=str(label), **style) for label, style in styles]
    return [*lines, Line2D([], [], label="T = 1", **_ONE)]


def _heatmap_size(layers: list[str], columns: list[str], panels: int) -> tuple[float, float]:
    """Return width and height in inches: room for the cells and for the names of layers and targets beside them."""
    beside, below = (_INCHES_A_LETTER * max(len(cut(name)) for name in names) for names in (layers, columns))
    return 1.8 + beside + panels * max(0.5 * len(columns), 2.0), 1.4 + below + max(0.26 * min(len(layers), 60), 1.5)


def _thinned(layers: Sequence[str] | pd.Series) -> list[str]:
    """Blank names evenly where there are too many to be read; of long ones the end tells layers apart."""
    step = -(-len(layers) // _MOST_LABELS)
    return [cut(name[::-1])[::-1].replace("$", r"\$") if i % step == 0 else "" for i, name in enumerate(layers)]
