"""What all pictures have in common: contexts, formats, texts to hover over, settings left alone, wrong input."""

import io
import math

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from advices import ADVICE
from matplotlib.figure import Figure
from rankings import make_ranking
from transfers import MADE

from transferscope.errors import InputError
from transferscope.report import plot
from transferscope.report.html.svg import svg
from transferscope.report.plots.drawing import hover_texts
from transferscope.report.plots.naming import short, short_layers
from transferscope.results import labelled

RANKING = make_ranking({"birds": [0.54, 0.7, 0.557], "a$b": list(np.linspace(0.2, 0.6, 30))})
SIMILARITY = labelled.similarity_array(
    np.array([[0.2, 0.7], [0.9, math.nan]]), ["a", "b"], ["c", "d"],
    {"informative": np.array([[True, False], [True, True]])}, measure="linear_cka",
)  # fmt: skip
LAYERS = labelled.parameter_array(np.array([2.0, math.inf, 4.0]), ["a", "b", "c"], {"spread": [0.1, math.nan, 0.2]})
MEASURED = pd.DataFrame([
    {
        "source": "birds", "protocol": protocol, "depth": depth, "depths": 2, "layer": f"blocks.{depth}",
        "samples_per_class": size, "accuracy": 0.3 + depth / 10 + size / 100, "standard_error": error,
        "seconds": depth * size, "kwh": 0.0, "best": depth == 2,
    }
    for protocol in ("truncate", "finetune") for depth in (1, 2) for size, error in ((5, 0.01), (20, math.nan))
])  # fmt: skip
MOVED = pd.DataFrame([
    {
        "source": "birds", "target": target, "samples_per_class": 5, "seed": seed, "criterion": "epochs", "step": step,
        "depth": depth, "layer": f"blocks.{depth}", "transferability": value * (1 + seed), "spread": 0.1,
        "relative_change": 0.1, "cka": 0.5, "gradient_snr": 0.5, "reason": "",
    }
    for target in ("shells", "signs") for seed in (0, 1) for step in (1, 10)
    for depth, value in ((1, 2.0), (2, math.inf), (3, 40.0))
])  # fmt: skip
PICTURES = {
    "heatmap": lambda **how: plot.heatmap(SIMILARITY, path="best", **how),
    "advice": lambda **how: plot.advice(ADVICE, **how),
    "ranking": lambda **how: plot.ranking(RANKING, **how),
    "source_depth": lambda **how: plot.source_depth(RANKING, **how),
    "depth_curves": lambda **how: plot.depth_curves(RANKING, **how),
    "pareto": lambda **how: plot.pareto(RANKING, **how),
    "learning_curves": lambda **how: plot.learning_curves(MEASURED, "birds", chance=0.2, **how),
    "accuracy_by_depth": lambda **how: plot.accuracy_by_depth(MEASURED, "birds", "truncate", **how),
    "accuracy_by_cost": lambda **how: plot.accuracy_by_cost(MEASURED, "birds", **how),
    "parameter_heatmap": lambda **how: plot.parameter_heatmap(MOVED[MOVED["step"] == 1], **how),
    "parameter_transferability": lambda **how: plot.parameter_transferability(LAYERS, **how),
    "confusion": lambda **how: plot.confusion(MADE, **how),
    "parameter_steps": lambda **how: plot.parameter_steps(MOVED, "birds", "shells", **how),
}
every = pytest.mark.parametrize("name", PICTURES)


def font_sizes(ax):
    return {
        ax.xaxis.label.get_size(), *(label.get_size() for label in ax.get_xticklabels()),
        *(text.get_size() for legend in [ax.get_legend()] if legend for text in legend.get_texts()),
    }  # fmt: skip


@every
def test_a_context_decides_fonts_and_the_size_of_a_figure_of_its_own(name):
    drawn = {context: PICTURES[name](context=context) for context in ("paper", "notebook", "talk")}
    try:
        assert drawn["paper"].figure.get_figwidth() == 3.4
        assert all(6 <= size <= 8 for size in font_sizes(drawn["paper"]))
        smallest = [min(font_sizes(ax)) for ax in drawn.values()]
        assert smallest == sorted(set(smallest))
        given = plt.figure(figsize=(4, 3)).subplots()
        assert PICTURES[name](context="paper", ax=given) is given
        assert font_sizes(given) == font_sizes(drawn["paper"])
        assert tuple(given.figure.get_size_inches()) == (4, 3)
    finally:
        plt.close("all")


@every
def test_settings_and_figures_of_the_session_are_left_alone(name):
    before, figures = dict(mpl.rcParams), plt.get_fignums()
    with mpl.rc_context():
        PICTURES[name](ax=Figure(layout="constrained").subplots(), context="talk")
        assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == figures


@every
def test_it_can_be_saved_in_all_formats_and_has_a_text_for_each_mark(name):
    figure = Figure(figsize=(3.4, 4), layout="constrained")
    PICTURES[name](ax=figure.subplots(), context="paper")
    for kind in ("pdf", "png"):
        figure.savefig(io.BytesIO(), format=kind, dpi=50)
    given = [text for artist in figure.findobj() for text in hover_texts(artist) if text]
    assert given
    # Where their number is not that of the marks, none of an artist are written.
    assert svg(figure, "one", "").count("<title>") == len(given)


@every
def test_an_unknown_context_and_no_axes_are_input_errors(name):
    with pytest.raises(
        InputError, match=r"`context` to be one of paper, notebook, talk, but got 'papr' \(did you mean"
    ):
        PICTURES[name](context="papr")
    with pytest.raises(InputError, match="`ax` to be the axes to draw into, or None, but got Figure; `matplotlib"):
        PICTURES[name](ax=Figure())


def test_a_legend_below_makes_its_figure_higher():
    ax = PICTURES["depth_curves"](context="paper")
    try:
        ax.figure.canvas.draw()
        legend = ax.get_legend().get_window_extent()
        assert legend.y1 <= ax.xaxis.get_tightbbox().y0 + 1
        assert legend.x0 >= 0
        assert legend.x1 <= ax.figure.bbox.x1
        assert ax.get_position().height * ax.figure.get_figheight() > 1.2
    finally:
        plt.close(ax.figure)


def test_every_public_plot_is_documented_and_known():
    assert set(PICTURES) | {"heatmaps", "figures", "outcome"} == set(plot.__all__)
    assert all(getattr(plot, name).__doc__ for name in plot.__all__)


def test_long_names_keep_both_ends_and_layers_what_tells_them_apart():
    assert short("a" * 20 + "b" * 20, 11) == "aaaaa…bbbbb"
    assert short("cost $5", 11) == r"cost \$5"
    assert short_layers(["stem", "x" * 9], 6) == ["stem", "…xxxxx"]
    assert short_layers(["net.a.1.weight", "net.b.1.weight"], 8) == ["…a…", "…b…"]
    assert short_layers(["net.a.1.weight"], 20) == ["net.a.1.weight"]
    assert short_layers(["same.name.twice", "same.name.twice"], 8) == ["…e.twice"] * 2
