"""Pictures of a ranking: what is drawn is what it holds, ties and cuts are marked, many sources stay readable."""

import math
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from rankings import AWKWARD, make_ranking

from transferscope.errors import InputError
from transferscope.report import plot
from transferscope.report.plots.drawing import hover_texts

SOURCES = ("ranking", "source_depth", "depth_curves", "pareto")


@pytest.fixture(scope="module")
def ranking():
    return make_ranking({"birds": [0.54, 0.7, 0.557], "plain": [0.4, 0.41, 0.42, 0.43]})


@pytest.fixture(scope="module")
def many():
    return make_ranking({f"source{i}": [0.1, 0.2 + i / 100] for i in range(45)}, scratch=0.101)


def axes():
    return Figure(figsize=(8, 5)).subplots()


def texts(found):
    return [each.get_text() for each in found]


def lines(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def dark(bar):
    return sum(to_rgb(bar.get_facecolor())) < 1.3


# --- bars ---------------------------------------------------------------------------------------------------------


def test_bars_are_the_recommendations_with_intervals_the_first_on_top(ranking):
    given = axes()
    ax = plot.ranking(ranking, ax=given)
    assert ax is given
    picks = ranking.recommendations
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [0.7, 0.5, 0.43])
    top, bottom = ax.get_ylim()
    assert top > bottom
    assert ax.get_xlim()[0] == 0
    whiskers = [segment for each in ax.collections for segment in each.get_segments()]
    expected = [[[pick.interval[0], i], [pick.interval[1], i]] for i, pick in enumerate(picks)]
    np.testing.assert_allclose(whiskers, expected, atol=1e-12)
    assert texts(ax.get_yticklabels()) == ["1 birds", "2 scratch", "3 plain"]
    assert texts(ax.texts) == [
        "truncate · blocks.1 (2/3)", "0.700", "compact residual network", "0.500", "truncate · blocks.3 (4/4)", "0.430",
    ]  # fmt: skip
    assert [bar.get_hatch() for bar in ax.patches] == [None, "////", None]
    lower, upper = ranking.best.interval
    assert [hover_texts(bar) for bar in ax.patches[:2]] == [
        (f"birds · truncate · blocks.1 (2/3): 0.700 [{lower:.3f}, {upper:.3f}]",),
        (f"scratch: 0.500 [{picks[1].interval[0]:.3f}, {picks[1].interval[1]:.3f}]",),
    ]
    assert texts(ax.get_legend().get_texts()) == ["first, or tied with it", "behind", "from scratch"]


def test_what_is_tied_with_the_first_is_as_dark_and_has_its_sign():
    ranking = make_ranking({"birds": [0.7], "insects": [0.71], "far": [0.3]}, scratch=0.69)
    ax = plot.ranking(ranking, ax=axes())
    assert texts(ax.get_yticklabels()) == ["1 insects", "2= birds", "3= scratch", "4 far"]
    assert [dark(bar) for bar in ax.patches] == [True, True, True, False]


def test_guessing_is_a_line_where_it_is_known(ranking):
    known = replace(ranking, scores=ranking.scores.assign_attrs(largest_class=0.25, objective="latency"))
    ax = plot.ranking(known, ax=axes())
    assert 0.25 in [line.get_xdata()[0] for line in ax.get_lines() if line.get_linestyle() == ":"]
    assert texts(ax.get_legend().get_texts())[-1] == "guessing the largest class"
    assert ax.get_xlabel() == "expected accuracy, 80 % interval\nranked by latency"


def test_of_many_sources_the_first_have_a_bar_and_scratch(many):
    ax = plot.ranking(many, ax=axes())
    assert texts(ax.get_yticklabels())[-2:] == ["25 source20", "46 scratch"]
    assert ax.get_xlabel().endswith("26 of 46")


# --- source × depth -----------------------------------------------------------------------------------------------


def test_source_by_depth_has_a_row_for_each_source_and_marks_the_cut(ranking):
    ax = plot.source_depth(ranking, ax=axes())
    cells = ax.collections[0].get_array()
    np.testing.assert_allclose(cells.filled(np.nan), [[0.54, 0.7, 0.557, math.nan], [0.4, 0.41, 0.42, 0.43]])
    assert ax.collections[0].get_clim() == (0.4, 0.7)
    assert texts(ax.get_yticklabels()) == ["birds", "plain"]
    assert texts(ax.get_xticklabels()) == [f"blocks.{i}" for i in range(4)]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    (cuts,) = ax.get_lines()
    assert cuts.get_xydata().tolist() == [[1.5, 0.5], [3.5, 1.5]]
    assert [hover.split(":")[0] for hover in hover_texts(cuts)] == [
        "birds · truncate · blocks.1 (2/3)", "plain · truncate · blocks.3 (4/4)",
    ]  # fmt: skip
    said = hover_texts(ax.collections[0])
    assert [text.split(" [")[0] for text in said[2:5]] == [
        "birds · truncate · blocks.2 (3/3): 0.557", "", "plain · truncate · blocks.0 (1/4): 0.400",
    ]  # fmt: skip
    assert len(said) == 8
    assert texts(ax.get_legend().get_texts()) == ["recommended cut · truncate"]


def test_each_source_is_drawn_by_its_own_protocol_or_all_by_one():
    birds, plain = [0.54, 0.7, 0.557], [0.4, 0.41, 0.42, 0.43]
    halved = {"birds": [0.27, 0.35, 0.28], "plain": [0.2, 0.205, 0.21, 0.5]}
    mixed = make_ranking({"birds": birds, "plain": plain}, others={"finetune": halved}, scratch=0.45)
    ax = plot.source_depth(mixed, ax=axes())
    np.testing.assert_allclose(ax.collections[0].get_array()[:, 0], [0.54, 0.2])
    assert [(line.get_marker(), line.get_xydata().tolist()) for line in ax.get_lines()] == [
        ("o", [[1.5, 0.5]]), ("^", [[3.5, 1.5]]),
    ]  # fmt: skip
    ax = plot.source_depth(mixed, ax=axes(), protocol="finetune")
    np.testing.assert_allclose(ax.collections[0].get_array()[:, 0], [0.27, 0.2])
    assert [line.get_xydata().tolist() for line in ax.get_lines()] == [[[3.5, 1.5]]]
    with pytest.raises(InputError, match=r"`protocol` to be one of .*, but got 'freeze'"):
        plot.source_depth(mixed, ax=axes(), protocol="freeze")
    curves = lines(plot.depth_curves(mixed, ax=axes()))
    np.testing.assert_allclose(curves["plain · finetune"].get_ydata(), halved["plain"])
    points = [line for line in plot.pareto(mixed, ax=axes()).get_lines() if line.get_marker() == "s"]
    assert [to_rgb(line.get_markerfacecolor()) == (1, 1, 1) for line in points] == [False, True]


def test_four_protocols_have_marks_and_fillings_of_their_own():
    names = ["truncate", "reinit", "finetune", "defrost"]
    nothing = [0.2, 0.2, 0.2]
    others = {name: {each: [0.3, 0.6, 0.4] if each == name else nothing for each in names} for name in names[1:]}
    ranking = make_ranking({each: [0.3, 0.6, 0.4] if each == names[0] else nothing for each in names}, others=others)
    assert {pick.source: pick.protocol for pick in ranking.recommendations if pick.layer} == dict(
        zip(names, names, strict=True)
    )
    ax = plot.source_depth(ranking, ax=axes())
    assert len({line.get_marker() for line in ax.get_lines()}) == 4
    assert {text.rpartition(" ")[2] for text in texts(ax.get_legend().get_texts())} == set(names)
    assert ax.get_xlabel() == "layer after which the source is cut (defrost: frozen)"
    ax = plot.depth_curves(ranking, ax=axes())
    assert {f"{name} · {name}" for name in names} <= set(lines(ax))
    assert ax.get_xlabel() == "depth of the cut (share of the stages kept; defrost: frozen)"
    ax = plot.pareto(ranking, ax=axes())
    legend = dict(zip(texts(ax.get_legend().get_texts())[4:8], ax.get_legend().legend_handles[4:8], strict=True))
    assert list(legend) == ["truncate", "reinit", "finetune", "defrost"]
    looks = {(to_rgb(each.get_markerfacecolor()), to_rgb(each.get_markeredgecolor())) for each in legend.values()}
    assert len(looks) == 4
    drawn = {
        (to_rgb(line.get_markerfacecolor()), to_rgb(line.get_markeredgecolor()))
        for line in ax.get_lines()
        if line.get_marker() == "s" and len(line.get_xdata())
    }
    assert len(drawn) == 4
    # One network comes out of all but `truncate`, so that they cost as much.
    front = {pick.protocol: pick.flops for pick in ranking.recommendations}
    assert front["defrost"] == front["reinit"] == front["finetune"] > front["truncate"]


def test_layers_that_differ_between_sources_are_numbered(ranking):
    layers = ranking.scores["layer"].copy()
    layers[0, 0] = "stem"
    ax = plot.source_depth(replace(ranking, scores=ranking.scores.assign(layer=layers)), ax=axes())
    assert texts(ax.get_xticklabels()) == ["1", "2", "3", "4"]


def test_of_many_sources_forty_have_a_row(many):
    ax = plot.source_depth(many, ax=axes())
    assert ax.collections[0].get_array().shape == (40, 2)
    assert ax.figure.axes[1].get_ylabel() == "expected accuracy\n40 of 45 sources"


def test_without_a_source_there_are_no_rows():
    ranking = make_ranking({"birds": [0.2]}, scratch=0.9)
    alone = replace(ranking, recommendations=ranking.recommendations[:1])
    with pytest.raises(InputError, match="to have a source with an expected accuracy, but it has none"):
        plot.source_depth(alone)
    assert list(plot.figures(alone)) == ["ranking", "depth_curves", "pareto"]


# --- curves -------------------------------------------------------------------------------------------------------


def test_depth_curves_draw_each_source_up_to_its_own_depth(ranking):
    given = axes()
    ax = plot.depth_curves(ranking, ax=given)
    assert ax is given
    curves = lines(ax)
    np.testing.assert_allclose(curves["birds"].get_xydata(), [[1 / 3, 0.54], [2 / 3, 0.7], [1, 0.557]])
    np.testing.assert_allclose(curves["plain"].get_xydata(), [[0.25, 0.4], [0.5, 0.41], [0.75, 0.42], [1, 0.43]])
    np.testing.assert_allclose(curves["scratch"].get_ydata(), 0.5)
    np.testing.assert_allclose(curves["recommended cut"].get_xydata(), [[2 / 3, 0.7], [1, 0.43]])
    band = ax.collections[0].get_paths()[0].get_extents()
    rows = ranking.cuts[ranking.cuts["source"] == "birds"]
    np.testing.assert_allclose([band.y0, band.y1], [rows["lower"].min(), rows["upper"].max()])
    assert [text.split(" [")[0] for text in hover_texts(curves["birds"])] == [
        "birds · truncate · blocks.0 (1/3): 0.540", "birds · truncate · blocks.1 (2/3): 0.700",
        "birds · truncate · blocks.2 (3/3): 0.557",
    ]  # fmt: skip
    assert curves["birds"].get_marker() != curves["plain"].get_marker()
    assert texts(ax.get_legend().get_texts()) == ["birds", "plain", "scratch", "recommended cut", "80 % interval"]


def test_of_many_sources_ten_have_a_colour_and_the_first_its_interval(many):
    ax = plot.depth_curves(many, ax=axes())
    named = texts(ax.get_legend().get_texts())
    assert named[:2] == ["source44", "source43"]
    assert named[9:] == ["source35", "35 other sources", "scratch", "recommended cut", "80 % interval (first)"]
    grey = [line for line in ax.get_lines() if line.get_color() == "0.8"]
    assert len(grey) == 1
    assert np.isnan(grey[0].get_ydata()).sum() == 35  # a gap behind each
    assert len(ax.collections) == 1


def test_of_many_points_some_have_a_marker_and_all_a_text():
    ranking = make_ranking({"deep": list(np.linspace(0.2, 0.8, 100))})
    line, dots = plot.depth_curves(ranking, ax=axes()).get_lines()[:2]
    assert len(line.get_xdata()) == len(dots.get_xdata()) == len(hover_texts(dots)) == 100
    assert line.get_markevery() == 5
    assert hover_texts(line) == hover_texts(dots)[::5]


def test_pareto_joins_what_is_worth_its_flops():
    ranking = make_ranking({"birds": [0.5, 0.4, 0.7], "insects": [0.6, 0.65, 0.3]}, scratch=0.64)
    ax = plot.pareto(ranking, ax=axes())
    front = [[90000, 0.6], [180000, 0.65], [270000, 0.7]]
    rings = lines(ax)["worth its FLOPs"]
    assert rings.get_xydata().tolist() == front
    assert [text.split(":")[0] for text in hover_texts(rings)] == [
        "insects · truncate · blocks.0 (1/3)",
        "insects · truncate · blocks.1 (2/3)",
        "birds · truncate · blocks.2 (3/3)",
    ]
    assert [line.get_xydata().tolist() for line in ax.get_lines() if line.get_drawstyle() == "steps-post"] == [front]
    points = sorted(
        tuple(point)
        for line in ax.get_lines()
        if hover_texts(line) and line is not rings
        for point in line.get_xydata()
    )
    cuts = ranking.cuts
    assert points == sorted(zip(cuts["flops"], cuts["expected_accuracy"], strict=True))
    assert ax.get_xscale() == "log"
    assert texts(ax.get_legend().get_texts()) == ["birds", "insects", "truncate", "scratch", "worth its FLOPs"]


# --- all ----------------------------------------------------------------------------------------------------------


def test_all_figures_are_made_outside_pyplot(ranking, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("pyplot was used")

    for name in ("figure", "subplots", "gca", "gcf", "sca", "show"):
        monkeypatch.setattr(plt, name, refuse)
    figures = plot.figures(ranking)
    assert list(figures) == [*SOURCES, "similarity"]
    assert all(isinstance(figure, Figure) for figure in figures.values())
    panels = figures["similarity"].axes[:2]
    assert [ax.get_title() for ax in panels] == ["birds", "plain"]
    assert panels[0].get_ylabel() == "layer of the source"
    assert figures["similarity"].get_supxlabel() == "layer of the scratch network"


def test_of_many_sources_four_are_compared(many):
    figure = plot.figures(many)["similarity"]
    assert [ax.get_title() for ax in figure.axes[:4]] == ["source44", "source43", "source42", "source41"]
    assert figure.get_suptitle() == "the first 4 of 45 sources"


def test_awkward_names_appear_as_they_are():
    def shown(found):
        # Matplotlib draws an escaped dollar sign as a dollar sign, and mathematics where there are unescaped ones.
        assert all(len(re.findall(r"(?<!\\)\$", text)) == 0 for text in texts(found))
        return [text.replace(r"\$", "$") for text in texts(found)]

    ranking = make_ranking({name: [0.3, 0.9 - i / 20] for i, name in enumerate(AWKWARD)}, scratch=None)
    bars = shown(plot.ranking(ranking, ax=axes()).get_yticklabels())
    assert [re.sub(r"^\d+=? ", "", bar) for bar in bars] == AWKWARD
    assert shown(plot.source_depth(ranking, ax=axes()).get_yticklabels()) == AWKWARD
    assert shown(plot.depth_curves(ranking, ax=axes()).get_legend().get_texts())[:9] == AWKWARD
    assert shown(plot.pareto(ranking, ax=axes()).get_legend().get_texts())[:9] == AWKWARD
    figure = plot.figures(ranking)["similarity"]
    assert shown([ax.title for ax in figure.axes[:4]]) == AWKWARD[:4]


@pytest.mark.parametrize("name", SOURCES)
def test_something_else_is_an_input_error(ranking, name):
    with pytest.raises(InputError, match="what `rank` or `load_ranking` returns, but got Dataset"):
        getattr(plot, name)(ranking.scores)
