"""Parameter transferability of each layer of a source on each target, as a heatmap."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from transferscope.report.plots.drawing import NARROW, Context, canvas, hatch_cells, hover, label, longest
from transferscope.report.plots.naming import name_places, short
from transferscope.report.plots.parameter_rows import T, chosen, layer_names, layers_of, logarithmic, scale
from transferscope.results.parameters import CRITERIA, ParameterTransfer

_MOST_ANNOTATED = 25


def parameter_heatmap(
    transferability: ParameterTransfer | pd.DataFrame,
    source: str | None = None,
    ax: Axes | None = None,
    *,
    criterion: str = "epochs",
    samples_per_class: int | None = None,
    context: Context = "notebook",
    **options: Any,
) -> Axes:
    """Draw the mean T over seeds of each layer of a source (rows, the first at the bottom) on each target (columns).

    The colours are logarithmic where T spans more than a decade. An infinite T is hatched, an unknown one blank.

    Parameters
    ----------
    transferability : ParameterTransfer or pandas.DataFrame
        What `ts.parameters.measure` returns, or its `layers`.
    source : str, optional
        What is drawn of it; needed where there are several.
    ax : matplotlib.axes.Axes, optional
        Drawn into; new axes by default.
    criterion : {"epochs", "steps", "loss"}
        After all epochs, at matched steps or at matched training loss.
    samples_per_class : int, optional
        Images of each class that were trained on. By default the most that all targets have in common; where they
        have none in common the most of each, which then stands beside its name.
    context : {"paper", "notebook", "talk"}
        How large fonts and lines are, and the figure where no axes are given.
    **options
        Passed to `seaborn.heatmap`, such as a `norm` that several pictures share.

    Raises
    ------
    InputError
        When the table has no such source, criterion or number of images, or there is no such context.
    """
    source, layers = layers_of(transferability, source)
    rows, columns, images = chosen(layers, source, criterion, samples_per_class)
    names = layer_names(rows, longest(context) - 4)
    targets = list(columns.values())
    cells = pd.MultiIndex.from_product([names.index, columns])
    values = rows.set_index(["depth", "target"])["transferability"].reindex(cells).to_numpy().reshape(len(names), -1)
    with canvas(ax, context, partial(heatmap_size, layers=list(names), targets=targets)) as ax:
        defaults: dict[str, Any] = {
            "norm": scale(values),
            "vmin": 0,  # without effect beside a norm, but seaborn would look for it, in vain where nothing is finite
            "vmax": 1,
            "cmap": "viridis",
            "annot": len(names) <= _MOST_ANNOTATED and (context != "paper" or len(targets) <= 4),
            "fmt": ".3g",
            "annot_kws": {"fontsize": 0.9 * rcParams["ytick.labelsize"]},
            "cbar_kws": {"label": T, "shrink": 0.8},
            "xticklabels": False,
            "yticklabels": False,
        }
        sns.heatmap(np.where(np.isfinite(values), values, math.nan), ax=ax, **{**defaults, **options})
        bar = ax.collections[0].colorbar
        if bar is not None and isinstance(bar.norm, LogNorm):
            logarithmic(bar.ax)
        texts = [
            f"{source} on {target} · {layer}: {value:.3g}"
            for layer, row in zip(rows.drop_duplicates("depth").sort_values("depth")["layer"], values, strict=True)
            for target, value in zip(columns, row, strict=True)
        ]
        hover(ax.collections[0], texts)
        infinite = np.isinf(values)
        if infinite.any():
            hatched = hatch_cells(ax, np.argwhere(infinite))
            hover(hatched, [text for text, each in zip(texts, infinite.flat, strict=True) if each])
        ax.invert_yaxis()
        name_places(ax.xaxis, targets, 0.5)
        name_places(ax.yaxis, list(names), 0.5)
        label(ax, x="hatched: infinite" if infinite.any() else "", y="layer")
        label(ax, title=f"{short(source)}\n{images}\n{CRITERIA[criterion]}")
    return ax


def heatmap_size(
    width: float, *, layers: Sequence[str], targets: Sequence[str], panels: int = 1
) -> tuple[float, float]:
    """Return inches of a figure: room for the cells and for the names of layers and targets beside them."""
    em = rcParams["ytick.labelsize"] / 72
    beside, below = (0.6 * em * max(map(len, names)) for names in (layers, targets))
    across = beside + panels * max(3.5 * em * len(targets), 13 * em) + 11 * em
    height = 9 * em + below + max(1.7 * em * min(len(layers), 40), 10 * em)
    return across if panels > 1 or NARROW < width > across else width, height
