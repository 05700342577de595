"""Heatmaps of layer × layer similarity: one, or several on one scale."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transferscope.errors import InputError
from transferscope.report.plots.drawing import NARROW, Context, canvas, hatch_cells, hover, label, longest, styled
from transferscope.report.plots.naming import name_places, short, short_layers
from transferscope.similarity import MEASURES

Overlay = Literal["diagonal", "best"]

_PATHS = ("diagonal", "best")
_TITLES = {name: measure.title for name, measure in MEASURES.items()} | {"linear_cka": "debiased linear CKA"}
_MOST_COLUMNS = 4


def heatmap(
    similarity: xr.DataArray,
    ax: Axes | None = None,
    *,
    path: Overlay | None = None,
    context: Context = "notebook",
    **options: Any,
) -> Axes:
    """Draw a layer × layer similarity matrix, the first layers at the bottom left; bright is similar.

    Cells whose number means nothing (coordinate `informative`) are hatched. Where there is no room for all layers'
    names they are written evenly.

    Parameters
    ----------
    similarity : xarray.DataArray
        Dimensions `layer_x` (rows) and `layer_y` (columns), as `compare` returns it.
    ax : matplotlib.axes.Axes, optional
        Drawn into; new axes by default.
    path : {"diagonal", "best"}, optional
        A line over the cells: from the first pair of layers straight to the last, or through the most similar
        column of each row. Hatched cells are no one's best.
    context : {"paper", "notebook", "talk"}
        How large fonts and lines are, and the figure where no axes are given.
    **options
        Passed to `seaborn.heatmap`; the colours run from 0 to 1 unless `vmin` and `vmax` say otherwise.

    Raises
    ------
    InputError
        When the array has other dimensions or no cells, or there is no such path or context.
    """
    _check(similarity)
    if path is not None and path not in _PATHS:
        raise InputError(f"Expected `path` to be one of {', '.join(_PATHS)} or None, but got {path!r}")
    rows, columns = (_names(similarity, dim, context) for dim in similarity.dims)
    with canvas(ax, context, partial(_size, rows=rows, columns=columns)) as ax:
        measure = _measure(similarity)
        defaults = {
            "vmin": 0.0,
            "vmax": 1.0,
            "cmap": "viridis_r" if measure.endswith("_imbalance") else "viridis",
            "square": _square(len(rows), len(columns)),
            "cbar_kws": _bar(measure, context),
            "xticklabels": False,
            "yticklabels": False,
        }
        sns.heatmap(similarity.to_numpy(), ax=ax, **{**defaults, **options})
        says, informative = _texts(similarity)
        hover(ax.collections[0], says.flat)
        flagged = np.argwhere(~informative)
        if len(flagged):
            hover(hatch_cells(ax, flagged), says[~informative])
        ax.invert_yaxis()
        for axis, side, names in ((ax.xaxis, "x", columns), (ax.yaxis, "y", rows)):
            if f"{side}ticklabels" not in options:
                name_places(axis, names, 0.5)
        end = "\n(hatched: not informative)" if len(flagged) else ""
        most = longest(context) + 8 * (context != "paper")
        label(
            ax,
            x=short(similarity.attrs.get("y", "layer_y"), most) + end,
            y=short(similarity.attrs.get("x", "layer_x"), most),
        )
        if path == "diagonal":
            _line(ax, np.array([0, len(columns) - 1]), np.array([0, len(rows) - 1]))
        elif path == "best":
            _best(ax, similarity, informative)
    return ax


def heatmaps(
    similarities: Mapping[str, xr.DataArray], *, path: Overlay | None = None, context: Context = "notebook"
) -> Figure:
    """Draw several similarity matrices of one measure side by side, on one scale of colours.

    Parameters
    ----------
    similarities : mapping of str to xarray.DataArray
        Title to matrix, as for `heatmap`.
    path, context
        As in `heatmap`.

    Returns
    -------
    matplotlib.figure.Figure
        Outside pyplot.

    Raises
    ------
    InputError
        When there is none, or they are of several measures; and as in `heatmap`.
    """
    measure = _measure_of_all(similarities)
    arrays = list(similarities.values())
    with styled(context) as width:
        em = rcParams["xtick.labelsize"] / 72
        column = context == "paper"
        columns = min(len(arrays), 2 if column else _MOST_COLUMNS)
        rows = -(-len(arrays) // columns)
        sides = [[_names(array, dim, context) for dim in array.dims] for array in arrays]
        # A panel that has its left neighbour's layers goes without their names.
        bare = [bool(i % columns) and sides[i][0] == sides[i - 1][0] for i in range(len(arrays))]
        names = max(_beside(x) for x, _ in sides) * (1 if any(bare) else columns)
        if column:
            each = (width - names) / columns
            size = (width, 6 * em)
        else:
            each = max(_cells(0.55 * width, rows=x, columns=y)[0] for x, y in sides)
            each = max(each, 0.65 * em * max(len(short(title, longest(context))) for title in similarities))
            size = (columns * each + names + 7 * em, 2 * em)
        down = max(_cells(each, rows=x, columns=y)[1] + _beside(y) for x, y in sides) + 2 * em
        figure = Figure((size[0], rows * down + size[1]), layout="constrained")
        titles = [short(title, min(longest(context), int(each / (0.6 * em)))) for title in similarities]
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for ax in axes[len(arrays) :]:
            ax.remove()
        drawn = axes[: len(arrays)]
        for ax, title, array, no_names in zip(drawn, titles, arrays, bare, strict=True):
            heatmap(array, ax, path=path, context=context, cbar=False, square=False)
            label(ax, title=title)
            if no_names:
                ax.tick_params(axis="y", labelleft=False)
                ax.set_ylabel("")
        below = {ax.get_xlabel() for ax in drawn}
        if len(arrays) > 1 and len(below) == 1:
            figure.supxlabel(below.pop(), fontsize=rcParams["axes.labelsize"])
            for ax in drawn:
                ax.set_xlabel("")
        bar = _bar(measure, context)
        figure.colorbar(drawn[0].collections[0], ax=drawn, **{**bar, "shrink": 0.8 if column else 0.8 / rows})
    return figure


def _measure_of_all(similarities: object) -> str:
    """Return the one measure of several matrices; raise InputError unless that is what they are."""
    if not isinstance(similarities, Mapping) or not similarities:
        raise InputError(
            "Expected `similarities` to map at least one title to a similarity matrix, but got "
            f"{'none' if isinstance(similarities, Mapping) else type(similarities).__name__}"
        )
    for array in similarities.values():
        _check(array)
    measures = sorted({_measure(array) for array in similarities.values()})
    if len(measures) > 1:
        raise InputError(
            f"Expected `similarities` to be of one measure, for they share a scale, but got {', '.join(measures)}; "
            "draw each measure by itself"
        )
    return measures[0]


def _check(similarity: object) -> None:
    dims = similarity.dims if isinstance(similarity, xr.DataArray) else type(similarity).__name__
    if dims != ("layer_x", "layer_y"):
        raise InputError(
            f"Expected `similarity` to have dimensions ('layer_x', 'layer_y') but got {dims}; `compare` returns "
            "such an array"
        )
    if isinstance(similarity, xr.DataArray) and not similarity.size:
        raise InputError(f"Expected `similarity` to have at least one cell, but got the shape {similarity.shape}")


def _measure(similarity: xr.DataArray) -> str:
    return str(similarity.attrs.get("measure", similarity.name or "similarity"))


def _bar(measure: str, context: Context) -> dict[str, Any]:
    """Return where the scale of colours is: in a column above the cells, for there is no room beside them."""
    where = {"location": "top", "aspect": 30} if context == "paper" else {"location": "right"}
    return {"label": _TITLES.get(measure, measure), "shrink": 0.8, **where}


def _names(similarity: xr.DataArray, dim: Any, context: Context) -> list[str]:
    return short_layers(similarity[dim].to_numpy(), longest(context) - 4 * (context == "paper"))


def _texts(similarity: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Return what each cell says, and whether its number means something."""
    shown = similarity.coords.get("informative")
    informative = np.ones(similarity.shape, bool) if shown is None else shown.to_numpy().astype(bool)
    says = np.empty(similarity.shape, dtype=object)
    for i, x in enumerate(similarity["layer_x"].to_numpy()):
        for j, y in enumerate(similarity["layer_y"].to_numpy()):
            value = float(similarity.to_numpy()[i, j])
            says[i, j] = f"{x} × {y}: {value:.3f}" + ("" if informative[i, j] else ", not informative")
    return says, informative


def _best(ax: Axes, similarity: xr.DataArray, informative: np.ndarray) -> None:
    """Join the most similar column of each row that has one."""
    values = similarity.to_numpy() * (-1 if _measure(similarity).endswith("_imbalance") else 1)
    values = np.where(informative & np.isfinite(values), values, -np.inf)
    rows = np.flatnonzero(np.isfinite(values).any(axis=1))
    columns = values[rows].argmax(axis=1)
    thin = float(np.clip(40 / max(similarity.shape), 0.3, 1))
    _line(ax, columns, rows, max(thin, 0.7))
    size = 0.8 * thin * rcParams["lines.markersize"]
    (points,) = ax.plot(
        columns + 0.5, rows + 0.5, linestyle="none", marker="o", markersize=size, markerfacecolor="white",
        markeredgecolor="black", markeredgewidth=0.1 * size + 0.2,
    )  # fmt: skip
    x, y = similarity["layer_x"].to_numpy(), similarity["layer_y"].to_numpy()
    cells = zip(rows, columns, strict=True)
    hover(points, [f"best of {x[i]}: {y[j]}, {float(similarity.to_numpy()[i, j]):.3f}" for i, j in cells])


def _line(ax: Axes, columns: np.ndarray, rows: np.ndarray, thin: float = 1.0) -> None:
    """Draw a white line with black edges, seen on dark and on bright cells."""
    for colour, width in (("black", 1.9), ("white", 1.0)):
        ax.plot(columns + 0.5, rows + 0.5, color=colour, linewidth=width * thin * rcParams["lines.linewidth"])


def _square(rows: int, columns: int) -> bool:
    """Whether cells are squares; with many more layers on one side than on the other they would be too narrow."""
    return max(rows, columns) <= 4 * min(rows, columns)


def _size(width: float, *, rows: list[str], columns: list[str]) -> tuple[float, float]:
    """Return inches of a figure with one heatmap: cells, names of layers beside and below, and the scale of colours."""
    em = rcParams["xtick.labelsize"] / 72
    beside, below = _beside(rows), _beside(columns)
    if width < NARROW:
        return width, _cells(width - beside, rows=rows, columns=columns, fill=True)[1] + below + 6 * em
    across, up = _cells(width - beside - 7 * em, rows=rows, columns=columns)
    return across + beside + 7 * em, up + below + em


def _beside(names: list[str]) -> float:
    """Return inches for the names of layers and of their network."""
    return (0.6 * max(map(len, names)) + 3.5) * rcParams["xtick.labelsize"] / 72


def _cells(width: float, *, rows: list[str], columns: list[str], fill: bool = False) -> tuple[float, float]:
    """Return inches of the cells across and up, at most `width` across: room for the names, of many for some.

    Those of a column of a paper `fill` its width.
    """
    em = rcParams["xtick.labelsize"] / 72
    across = max(width, 8 * em) if fill else min(max(1.6 * em * len(columns), 16 * em), max(width, 8 * em))
    up = 1.6 * em * len(rows)
    if _square(len(rows), len(columns)):
        cell = min(max(across / len(columns), 16 * em / len(rows)), width / len(columns), 1.4 * width / len(rows))
        across, up = cell * len(columns), cell * len(rows)
    return across, min(max(up, 12 * em), 1.4 * width)
