"""Which views each result has: the pictures and pages beside its files, and what a notebook shows of it."""

import io
import warnings
from functools import singledispatch
from typing import Any

from matplotlib.figure import Figure

from transferscope.report import plot
from transferscope.report.card import readme
from transferscope.report.html import page
from transferscope.report.plots import parameter_plots, transfer_plots
from transferscope.report.plots.confusion import confusion
from transferscope.report.plots.drawing import figure_of, outside_pyplot
from transferscope.results.comparison import Comparison
from transferscope.results.measurement import Measurement
from transferscope.results.parameters import ParameterTransfer
from transferscope.results.ranking import Ranking
from transferscope.results.recommendation import Recommendation
from transferscope.results.transfer import Transfer


@singledispatch
def views(result: Any) -> dict[str, bytes]:
    """Return the pictures and pages that are saved with a result: file name to content."""
    raise TypeError(f"no views are known of {type(result).__name__}")


@views.register
def _(ranking: Ranking) -> dict[str, bytes]:
    figures = plot.figures(ranking)
    whole_page = page.page(ranking, figures, plot.figures(ranking, context="paper"))
    data = whole_page.encode("utf-8", "xmlcharrefreplace")  # a name may hold bytes that are no letters
    return {**{f"{name}.png": png(figure) for name, figure in figures.items()}, "report.html": data}


@views.register
def _(comparison: Comparison) -> dict[str, bytes]:
    return {f"compare_{measure}.png": png(plot.heatmaps({"": array})) for measure, array in comparison.results.items()}


@views.register
def _(measurement: Measurement) -> dict[str, bytes]:
    settings = measurement.settings
    figures = transfer_plots.figures(measurement.table, chance=settings["chance"], energy=settings["energy"])
    return {name: png(figure) for name, figure in figures.items()}


@views.register
def _(transfer: ParameterTransfer) -> dict[str, bytes]:
    return {name: png(figure) for name, figure in parameter_plots.figures(transfer).items()}


@views.register
def _(transfer: Transfer) -> dict[str, bytes]:
    with outside_pyplot():
        figure = figure_of(confusion(transfer))
    return {"README.md": readme(transfer).encode(), "confusion.png": png(figure)}


@singledispatch
def fragment(result: Any) -> str:
    """Return what a notebook shows of a result, as HTML."""
    raise TypeError(f"no page is known of {type(result).__name__}")


fragment.register(Ranking, page.fragment)
fragment.register(Recommendation, page.recommendation_fragment)


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name in letters that the font lacks shows as boxes; the other files spell it out.
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
