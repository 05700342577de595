"""Parameter transferability of one source over its layers, and over the optimiser's steps."""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib import rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
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
    size_styles,
)
from transferscope.report.plots.naming import name_places, short
from transferscope.report.plots.parameter_rows import T, chosen, layer_names, layers_of, logarithmic, scale, table_of
from transferscope.results.parameters import CRITERIA, ParameterTransfer

MEAN_T = "mean T of the layers"

_REDRAWS = "standard deviation\nover redraws"
_ONE: dict[str, Any] = {"color": "0.45", "linestyle": "--"}
_INFINITE: dict[str, Any] = {"marker": "^", "linestyle": "none", "clip_on": False}


def parameter_transferability(
    transferability: ParameterTransfer | pd.DataFrame | xr.DataArray,
    source: str | None = None,
    ax: Axes | None = None,
    *,
    criterion: str = "epochs",
    samples_per_class: int | None = None,
    legend: bool = True,
    context: Context = "notebook",
) -> Axes:
    """Draw T over the layers, from the first to the last: of one fine-tuning, or of a source a line for each target.

    Bands are one standard error over seeds to either side, or with a single seed one standard deviation over redrawn
    initial weights. Where T is infinite the line has a gap, with a mark at the upper edge. The axis is
    logarithmic where T spans more than a decade.

    Parameters
    ----------
    transferability : xarray.DataArray, ParameterTransfer or pandas.DataFrame
        What `ts.parameters.transferability` returns; or what `ts.parameters.measure` returns, or its `layers`.
    source, ax, criterion, samples_per_class, context
        As in `parameter_heatmap`; of an array there is nothing to choose.
    legend : bool
        Whether to explain the lines.

    Raises
    ------
    InputError
        When the array has other dimensions, or the table no such source, criterion or number of images, or there is no
        such context.
    """
    if isinstance(transferability, xr.DataArray):
        line = _array_line(transferability)
        lines, names, title = {"": line}, layer_names(line, longest(context) - 4), ""
        meaning = _REDRAWS if line["error"].notna().any() else ""
    else:
        source, layers = layers_of(transferability, source)
        rows, columns, images = chosen(layers, source, criterion, samples_per_class)
        names = layer_names(rows, longest(context) - 4)
        column, meaning = band(layers[layers["source"] == source])
        lines = {
            shown: rows[rows["target"] == target].assign(error=rows[column], what=f"{source} on {target}")
            for target, shown in columns.items()
        }
        title = f"{short(source)}\n{images}, {CRITERIA[criterion]}"
    with canvas(ax, context, partial(_size, letters=max(map(len, names)))) as ax:
        for line, style in zip(lines.values(), line_styles(len(lines)), strict=True):
            _depth_line(ax, line.set_index("depth").reindex(names.index), style)
        ax.axhline(1, **_ONE)
        values = np.concatenate([line["transferability"] for line in lines.values()])
        if isinstance(scale(values), LogNorm):
            logarithmic(ax)
        name_places(ax.xaxis, list(names), int(names.index[0]))
        label(ax, x="layer")
        _finish(ax, title)
        if legend:
            handles = depth_handles(list(lines), meaning, bool(np.isinf(values).any()))
            explain(ax, handles[(list(lines) == [""]) :], below=context == "paper")
    return ax


def parameter_steps(
    transferability: ParameterTransfer | pd.DataFrame,
    source: str,
    target: str,
    ax: Axes | None = None,
    *,
    legend: bool = True,
    context: Context = "notebook",
) -> Axes:
    """Draw the mean T of a source's layers over the optimiser's steps on a target, a line for each number of images.

    Bands are one standard error over seeds to either side. Infinite T are left out of the mean, and so is the time
    before the first step, where nothing has moved.

    Parameters
    ----------
    transferability : ParameterTransfer or pandas.DataFrame
        What `ts.parameters.measure` returns, or its `trajectory`.
    source, target : str
        What is drawn of it.
    ax, context
        As in `parameter_heatmap`.
    legend : bool
        Whether to explain the lines.

    Raises
    ------
    InputError
        When the table has no such source, or the source no such target, or there is no such context.
    """
    trajectory = table_of(transferability, "trajectory")
    rows = selected(selected(trajectory, source=source), target=target)
    rows = rows[np.isfinite(rows["transferability"]) & (rows["step"] > 0)]
    with canvas(ax, context) as ax:
        styles = size_styles(trajectory[trajectory["source"] == source])
        # The few last, for their short lines often lie on the long ones of the many.
        for size, at in reversed(list(rows.groupby("samples_per_class"))):
            line = at.groupby(["step", "seed"])["transferability"].mean().groupby("step").agg(["mean", "sem"])
            (drawn,) = _line(ax, line["mean"], line["sem"], styles[size])
            what = f"{source} on {target} · {size} images of each class · step"
            hover(drawn, [f"{what} {step:g}: {value:.3g}" for step, value in line["mean"].items()])
        ax.axhline(1, **_ONE)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
        logarithmic(ax)
        label(ax, x="optimiser steps")
        _finish(ax, f"{short(source)} on {short(target)}", MEAN_T)
        if legend:
            explain(ax, handles_of(styles.items()), "images of each class", below=context == "paper")
    return ax


def _size(width: float, *, letters: int) -> tuple[float, float]:
    return width, 0.5 * width + 0.6 * letters * rcParams["xtick.labelsize"] / 72


def band(layers: pd.DataFrame) -> tuple[str, str]:
    """Return the column with half the width of bands, and what it means; nothing where it is nowhere known."""
    if len(layers["seed"].unique()) > 1:
        return "standard_error", "standard error over seeds"
    return "spread", _REDRAWS if layers["spread"].notna().any() else ""


def depth_handles(targets: Sequence[str], meaning: str, infinite: bool) -> list[Artist]:
    """Return what explains the lines of `parameter_transferability`."""
    handles = handles_of(zip(targets, line_styles(len(targets)), strict=True))
    if meaning:
        handles.append(Patch(color="0.5", alpha=0.3, linewidth=0, label=meaning))
    if infinite:
        handles.append(Line2D([], [], label="infinite", color="0.3", **_INFINITE))
    return handles


def handles_of(styles: Iterable[tuple[Any, dict[str, Any]]]) -> list[Artist]:
    """Return what explains lines with these styles, and the line at 1."""
    lines: list[Artist] = [Line2D([], [], label=str(name), **style) for name, style in styles]
    return [*lines, Line2D([], [], label="T = 1", **_ONE)]


def _array_line(array: xr.DataArray) -> pd.DataFrame:
    if array.dims != ("layer",) or not array.size:
        raise InputError(
            f"Expected `transferability` to have the dimension ('layer',) and at least one layer, but got {array.dims} "
            f"with shape {array.shape}; `ts.parameters.transferability` returns such an array"
        )
    spread = array.coords["spread"].to_numpy() if "spread" in array.coords else math.nan
    columns = {"layer": array["layer"].to_numpy(), "transferability": array.to_numpy(), "error": spread, "what": ""}
    return pd.DataFrame({"depth": np.arange(1, array.size + 1), **columns})


def _depth_line(ax: Axes, line: pd.DataFrame, style: dict[str, Any]) -> None:
    """Draw T over depth: a line with gaps, markers where T is finite, and marks at the upper edge where it is not."""
    values = line["transferability"].where(np.isfinite(line["transferability"]))
    bare = {key: value for key, value in style.items() if key not in ("marker", "markersize")}
    _line(ax, values, line["error"], bare)
    finite = values.notna()
    infinite = np.isinf(line["transferability"])
    said = [
        f"{what} · {layer}: {value:.3g}".removeprefix(" · ")
        for what, layer, value in zip(line["what"], line["layer"], line["transferability"], strict=True)
    ]
    shown = [text for text, keep in zip(said, finite, strict=True) if keep]
    draw_line(ax, line.index[finite], values[finite], shown, {**style, "linestyle": "none"})
    if infinite.any():
        top = np.full(int(infinite.sum()), 0.98)
        over = {"transform": ax.get_xaxis_transform(), "color": style["color"], **_INFINITE}
        (marks,) = ax.plot(line.index[infinite], top, **over)
        hover(marks, [text for text, keep in zip(said, infinite, strict=True) if keep])


def _line(ax: Axes, values: pd.Series, error: pd.Series, style: dict[str, Any]) -> list[Line2D]:
    ax.fill_between(values.index, values - error, values + error, color=style["color"], alpha=0.18, linewidth=0)
    return ax.plot(values.index, values, **style)


def _finish(ax: Axes, title: str, value: str = T) -> None:
    label(ax, y=value, title=title)
    ax.grid(axis="y", **GRID)
    ax.set_axisbelow(True)
    sns.despine(ax=ax)
