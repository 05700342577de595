"""Which views each result has: the pictures and pages beside its files, and what a notebook shows of it."""

import io
import warnings
from collections.abc import Mapping
from functools import singledispatch
from typing import Any

from matplotlib.figure import Figure

from transferscope.report import plot
from transferscope.report.card import picture_of, readme
from transferscope.report.html import advice as advice_page
from transferscope.report.html import comparison as comparison_page
from transferscope.report.html import measurement as measurement_page
from transferscope.report.html import page
from transferscope.report.html import parameters as parameters_page
from transferscope.report.html.parts import encoded
from transferscope.report.plots import parameter_plots, transfer_plots
from transferscope.report.plots.confusion import confusion
from transferscope.report.plots.drawing import figure_of, outside_pyplot
from transferscope.report.plots.outcome import outcome
from transferscope.results.advice import Advice
from transferscope.results.comparison import Comparison
from transferscope.results.measurement import Measurement
from transferscope.results.parameters import ParameterTransfer
from transferscope.results.ranking import Ranking
from transferscope.results.recommendation import Recommendation
from transferscope.results.transfer import Transfer

PAGE = "report.html"


@singledispatch
def views(result: Any) -> dict[str, bytes]:
    """Return the pictures and pages that are saved with a result: file name to content."""
    raise TypeError(f"no views are known of {type(result).__name__}")


@views.register
def _(ranking: Ranking) -> dict[str, bytes]:
    figures = plot.figures(ranking)
    whole_page = page.page(ranking, figures, plot.figures(ranking, context="paper"))
    return {**_pngs(figures), PAGE: encoded(whole_page)}


@views.register
def _(advice: Advice) -> dict[str, bytes]:
    with outside_pyplot():
        wide, narrow = ({"advice": figure_of(plot.advice(advice, context=size))} for size in ("notebook", "paper"))
    whole_page = advice_page.page(advice, wide, narrow)
    return {**_pngs(wide), PAGE: whole_page.render()}


@views.register
def _(comparison: Comparison) -> dict[str, bytes]:
    wide, narrow = (
        {measure: plot.heatmaps({"": array}, context=size) for measure, array in comparison.results.items()}
        for size in ("notebook", "paper")
    )
    whole_page = comparison_page.page(comparison, wide, narrow)
    return {**_pngs({f"compare_{measure}": figure for measure, figure in wide.items()}), PAGE: whole_page.render()}


@views.register
def _(measurement: Measurement) -> dict[str, bytes]:
    settings = measurement.settings
    figures = transfer_plots.figures(measurement.table, chance=settings["chance"], energy=settings["energy"])
    figures = {name.removesuffix(".png"): figure for name, figure in figures.items()}
    whole_page = measurement_page.page(measurement, figures)
    return {**_pngs(figures), PAGE: whole_page.render()}


@views.register
def _(transfer: ParameterTransfer) -> dict[str, bytes]:
    figures = {name.removesuffix(".png"): figure for name, figure in parameter_plots.figures(transfer).items()}
    whole_page = parameters_page.page(transfer, figures)
    return {**_pngs(figures), PAGE: whole_page.render()}


@views.register
def _(transfer: Transfer) -> dict[str, bytes]:
    with outside_pyplot():
        figure = figure_of(confusion(transfer) if transfer.outcome is None else outcome(transfer))
    return {"README.md": readme(transfer).encode(), picture_of(transfer): png(figure)}


@singledispatch
def fragment(result: Any) -> str:
    """Return what a notebook shows of a result, as HTML."""
    raise TypeError(f"no page is known of {type(result).__name__}")


fragment.register(Ranking, page.fragment)
fragment.register(Recommendation, page.recommendation_fragment)


def _pngs(figures: Mapping[str, Figure]) -> dict[str, bytes]:
    """Return the files of figures that stand in a page already."""
    for figure in figures.values():
        # Where everything goes was found out for the page, and takes longer than all of the drawing.
        figure.set_layout_engine("none")
    return {f"{name}.png": png(figure) for name, figure in figures.items()}


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name in letters that the font lacks shows as boxes; the other files spell it out.
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
