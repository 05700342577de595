"""The confusion matrix of a transfer: which classes its model takes for which."""

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from transferscope.report.plots.drawing import Context, canvas, hover, label, longest
from transferscope.report.plots.naming import short
from transferscope.results.transfer import Transfer

_MOST_NUMBERED = 20
"""Classes up to which each cell shows its number of images."""
_MOST_NAMED = 60
"""Classes up to which they are named along the axes."""


def confusion(transfer: Transfer, ax: Axes | None = None, *, context: Context = "notebook") -> Axes:
    """Draw how many held-out images of each class (rows) the model takes for which class (columns).

    Colours are shares of the true class, so that small classes show as well as large ones.

    Parameters
    ----------
    transfer : Transfer
        What `transfer` returns.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a figure of its own.
    context : {"paper", "notebook", "talk"}
        How large.

    Returns
    -------
    matplotlib.axes.Axes
    """
    counts = transfer.matrix
    n_classes = len(counts)
    names = [short(name, longest(context)) for name in transfer.classes]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    with canvas(ax, context, lambda width: (width, 0.8 * width)) as axes:
        numbered, named = n_classes <= _MOST_NUMBERED, n_classes <= _MOST_NAMED
        sns.heatmap(
            shares, ax=axes, vmin=0, vmax=1, cmap="Blues", square=True, annot=counts if numbered else False, fmt="d",
            xticklabels=names if named else False, yticklabels=names if named else False,
            cbar_kws={"label": "share of the true class", "shrink": 0.8},
        )  # fmt: skip
        hover(
            axes.collections[0],
            [
                f"{true}, taken for {predicted}: {counts[i, j]} of {counts[i].sum()} images"
                for i, true in enumerate(transfer.classes)
                for j, predicted in enumerate(transfer.classes)
            ],
        )
        axes.tick_params(axis="x", rotation=90 if max(map(len, names)) > 3 else 0)
        axes.tick_params(axis="y", rotation=0)
        label(axes, x="predicted", y="true", title=f"{transfer.measured_on} held-out images of {transfer.target.name}")
    return axes
