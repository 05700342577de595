"""Pictures of a measurement: accuracy by depth, by images and by cost, and what each point says of itself."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from measurements import PICTURES, measured_grid, measurement, run

from transferscope.errors import InputError
from transferscope.report import plot
from transferscope.report.plots import transfer_plots
from transferscope.report.plots.drawing import hover_texts

pytestmark = pytest.mark.bounds


@pytest.fixture(scope="module")
def grid():
    return measured_grid()


def curves(ax):
    """Return the drawn lines that have points, without horizontal ones."""
    return [line.get_xydata() for line in ax.get_lines() if line.get_marker() != "None" and len(line.get_xdata())]


def levels(ax, style):
    return [line.get_ydata()[0] for line in ax.get_lines() if line.get_linestyle() == style]


def test_accuracy_by_depth_has_a_line_for_each_size_with_bands_and_scratch(grid):
    given = Figure().subplots()
    ax = plot.accuracy_by_depth(grid.table, "birds", "truncate", given, chance=0.25)
    assert ax is given
    few, many = curves(ax)
    np.testing.assert_allclose(few, [[1, 0.43], [2, 0.445], [3, 0.465]])  # at depth 1 the first seed failed
    np.testing.assert_allclose(many, [[1, 0.725], [2, 0.745], [3, 0.765]])
    np.testing.assert_allclose(levels(ax, "--"), [0.305, 0.605])
    assert levels(ax, ":") == [0.25]
    # Two values that are 0.01 apart have a standard error of 0.005.
    band = ax.collections[1].get_paths()[0].get_extents()
    np.testing.assert_allclose([band.y0, band.y1], [0.72, 0.77])
    assert ax.get_xlabel() == "stages kept, of 3"
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["images of each class", "5", "20", "from scratch", "guessing the largest class"]


def test_sets_of_layers_stand_side_by_side_the_fewest_first(grid):
    ax = plot.accuracy_by_depth(grid.table, "birds", "fne", Figure().subplots(), legend=False)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["25%", "50%", "75%", "all"]
    np.testing.assert_allclose(curves(ax)[0], [[x, 0.405] for x in range(4)])
    assert ax.get_legend() is None


def test_learning_curves_show_the_best_depth(grid):
    ax = plot.learning_curves(grid.table, "birds", Figure().subplots())
    truncate, fne, scratch = curves(ax)
    np.testing.assert_allclose(truncate, [[5, 0.465], [20, 0.765]])
    np.testing.assert_allclose(fne, [[5, 0.405], [20, 0.705]])
    np.testing.assert_allclose(scratch, [[5, 0.305], [20, 0.605]])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["5", "20"]
    assert ax.get_xscale() == "log"


def test_accuracy_by_cost_shows_every_depth_and_those_that_cost_nothing(grid):
    ax = plot.accuracy_by_cost(grid.table, "plain", "seconds", Figure().subplots())
    pale, best = (np.array(points.get_offsets()) for points in ax.collections[:2])
    np.testing.assert_allclose(pale, [[5, 0.425], [20, 0.725]])
    np.testing.assert_allclose(best, [[10, 0.445], [40, 0.745]])
    small, large = ax.collections[1].get_sizes()
    assert small < large
    scratch = np.array(ax.collections[5].get_offsets())
    np.testing.assert_allclose(scratch, [[1, 0.305], [1, 0.605]])  # half of 2 seconds, the least there is
    assert ax.get_xlabel() == "seconds per transfer (0 is drawn at 1)"
    energy = plot.accuracy_by_cost(grid.table, "plain", "kwh", Figure().subplots())
    assert energy.get_xlabel() == "kWh per transfer"


def test_protocols_look_alike_in_all_pictures_and_differ_without_colour(grid):
    alone = plot.learning_curves(measurement(run(0.5, "scratch", 0)).table, "birds", Figure().subplots())
    among = plot.learning_curves(grid.table, "birds", Figure().subplots())
    assert alone.get_lines()[0].get_color() == among.get_lines()[2].get_color()
    assert alone.get_lines()[0].get_marker() == among.get_lines()[2].get_marker()
    assert len({line.get_marker() for line in among.get_lines()}) == 3


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda table: plot.learning_curves(table, "fish"), "`source` to be one of birds, plain, but"),
        (lambda table: plot.accuracy_by_depth(table, "birds", "svm"), "`protocol` to be one of truncate"),
        (lambda table: plot.accuracy_by_cost(table, "birds", "euro"), "`cost` to be one of seconds, kwh"),
    ],
)
def test_what_is_not_there_cannot_be_drawn(grid, draw, message):
    with pytest.raises(InputError, match=message):
        draw(grid.table)


def test_a_measurement_is_drawn_like_its_table_and_knows_what_guessing_gives(grid):
    ax = plot.learning_curves(grid, "birds", Figure().subplots())
    assert levels(ax, ":") == [0.25]
    assert levels(plot.learning_curves(grid, "birds", Figure().subplots(), chance=math.nan), ":") == []
    table = plot.learning_curves(grid.table, "birds", Figure().subplots())
    assert levels(table, ":") == []
    for mine, other in zip(curves(ax), curves(table), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_every_point_says_what_it_is(grid):
    line = plot.accuracy_by_depth(grid, "birds", "truncate", Figure().subplots()).get_lines()[0]
    assert hover_texts(line)[:2] == (
        "birds · truncate · blocks.0 (1/3) · 5 images of each class: 0.430",
        "birds · truncate · blocks.1 (2/3) · 5 images of each class: 0.445 ± 0.005",
    )
    scratch = plot.learning_curves(grid, "birds", Figure().subplots()).get_lines()[2]
    assert hover_texts(scratch)[1] == "birds · scratch · 20 images of each class: 0.605 ± 0.005"
    points = plot.accuracy_by_cost(grid, "plain", "seconds", Figure().subplots()).collections[1]
    assert hover_texts(points)[0] == "plain · truncate · blocks.1 (2/2) · 5 images of each class: 0.445 ± 0.005, 10 s"


@pytest.mark.parametrize("wrong", [None, pd.DataFrame({"accuracy": [0.5]})])
def test_something_else_than_a_measurement_is_an_input_error(wrong):
    with pytest.raises(InputError, match="`measurement` to be what `measure` returns, or its `table`, but got"):
        plot.learning_curves(wrong, "birds")


def titles(figure):
    return [ax.get_title() for ax in figure.axes]


def test_every_source_and_protocol_has_a_panel_also_where_all_runs_failed():
    found = measurement(
        run(0.5), run(0.6, "svm"), run(None, source="plain"), run(0.4, "svm", source="plain"), run(0.3, "scratch", 0)
    )
    figures = transfer_plots.figures(found.table)
    depth = figures["accuracy-by-depth.png"]
    assert titles(depth) == ["birds\ntruncate", "birds\nsvm", "plain\ntruncate", "plain\nsvm"]
    assert [text.get_text() for text in depth.axes[2].texts] == ["no result"]
    assert titles(figures["accuracy-by-samples.png"]) == ["birds", "plain"]


def test_of_many_sources_the_best_are_drawn_and_the_picture_says_so():
    found = measurement(*(run(0.1 + i / 20, source=f"source{i}", kwh=math.nan) for i in range(8)))
    figures = transfer_plots.figures(found.table)
    assert titles(figures["accuracy-by-seconds.png"]) == [f"source{i}" for i in range(2, 8)]
    for figure in figures.values():
        assert figure.get_supxlabel() == "The 6 best of 8 sources."


def test_scratch_alone_and_a_source_whose_cost_is_unknown_can_be_drawn(tmp_path):
    found = measurement(run(0.5, "scratch", 0), run(0.4, "scratch", 0, source="$x", seconds=math.nan, kwh=0.0))
    assert [path.name for path in found.save(tmp_path)][3:] == [*PICTURES, "report.html"]
    assert titles(transfer_plots.figures(found.table)["accuracy-by-depth.png"]) == [
        r"\$x" "\nscratch",
        "birds\nscratch",
    ]


def test_sizes_that_would_overlap_are_not_all_written():
    table = measurement(*(run(0.5, size=size) for size in (1, 20, 21, 22, 1000))).table
    ax = plot.learning_curves(table, "birds", Figure().subplots())
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "22", "1000"]
