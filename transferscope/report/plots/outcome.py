"""The picture of a model that predicts several labels, or numbers: each label's precision, or predicted over true."""

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from transferscope.errors import InputError
from transferscope.report.plots.drawing import GRID, Context, canvas, label, longest
from transferscope.report.plots.naming import short
from transferscope.results.transfer import Transfer
from transferscope.runtime.metrics import MULTI_LABEL

_MOST = 40
"""Labels that are shown, those of the lowest average precision."""


def outcome(transfer: Transfer, ax: Axes | None = None, *, context: Context = "notebook") -> Axes:
    """Draw what a model reaches on held-out images: average precision by label; or predicted numbers over true ones.

    A line at a label is the share of images that have it, which is what guessing reaches. Of several numbers each is
    drawn in standard deviations of its true values.

    Parameters
    ----------
    transfer : Transfer
        What `transfer` returns, of a model of several labels or of numbers.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a figure of its own.
    context : {"paper", "notebook", "talk"}
        How large.

    Raises
    ------
    InputError
        The model predicts classes.
    """
    found = transfer.outcome
    if found is None:
        raise InputError(
            "Expected a transfer to several labels or to numbers, but this one is to classes; draw `confusion`"
        )
    title = f"{transfer.measured_on} held-out images of {transfer.target.name}"
    if found.task == MULTI_LABEL:
        table = found.table.dropna(subset="average_precision")
        table = table.nsmallest(_MOST, "average_precision").iloc[::-1].reset_index(drop=True)
        with canvas(ax, context, lambda width: (width, max(2.0, 0.25 * len(table)))) as axes:
            axes.barh(table.index, table["average_precision"], color=sns.color_palette("colorblind")[0])
            guessed = table["images"] / len(found)
            axes.vlines(guessed, table.index - 0.4, table.index + 0.4, color="0.3", linestyle=":")
            axes.set_yticks(table.index, [short(name, longest(context)) for name in table["label"]])
            axes.set_xlim(0, 1)
            label(axes, x="average precision, dotted: guessing", title=title)
            axes.grid(axis="x", **GRID)
            axes.set_axisbelow(True)
            sns.despine(ax=axes)
        return axes
    alone = len(found.names) == 1
    with canvas(ax, context) as axes:
        for place, name in enumerate(found.names):
            true, predicted = found.truth[:, place], found.predicted[:, place]
            middle, spread = (0.0, 1.0) if alone else (true.mean(), true.std() or 1.0)
            axes.scatter((true - middle) / spread, (predicted - middle) / spread, s=12, alpha=0.6, label=name)
        ends = np.array(axes.get_xlim())
        axes.plot(ends, ends, color="0.4", linestyle=":")
        unit = short(found.names[0], longest(context)) if alone else "standard deviations from the mean"
        label(axes, x=f"true: {unit}", y="predicted", title=title)
        if not alone:
            axes.legend(fontsize="small")
        sns.despine(ax=axes)
    return axes
