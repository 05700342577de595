"""Pictures of parameter transferability: heatmaps, T over depth and over steps, and what cannot be drawn."""

import math

import numpy as np
import pytest
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from parameter_transfers import TABLES, result, stuck_transfers, transfer, transferred_grid

from transferscope.errors import InputError
from transferscope.report import plot
from transferscope.report.plots import parameter_plots
from transferscope.report.plots.drawing import hover_texts
from transferscope.results import labelled
from transferscope.results.parameters import CRITERIA


@pytest.fixture(scope="module")
def grid():
    return transferred_grid()


@pytest.fixture(scope="module")
def stuck():
    return stuck_transfers()


def labels(ticks):
    return [tick.get_text() for tick in ticks]


def curves(ax):
    """Return the drawn lines that have markers, without those for what is infinite."""
    return [line.get_xydata() for line in ax.get_lines() if line.get_marker() not in ("None", "^")]


def legend(owner):
    return [text.get_text() for text in owner.texts]


def test_the_heatmap_has_layers_by_targets_the_first_at_the_bottom(grid):
    given = Figure().subplots()
    ax = plot.parameter_heatmap(grid.layers, "birds", samples_per_class=5, ax=given)
    assert ax is given
    np.testing.assert_allclose(ax.collections[0].get_array(), np.array([[1, 4], [2, 8], [2, 2]]) * 1.5)
    assert labels(ax.get_xticklabels()) == ["shells", "signs"]
    assert labels(ax.get_yticklabels()) == ["blocks.0", "blocks.1", "blocks.2"]
    low, high = ax.get_ylim()
    assert low < high
    assert [text.get_text() for text in ax.texts] == ["1.5", "6", "3", "12", "3", "3"]
    assert not isinstance(ax.collections[0].norm, LogNorm)
    assert ax.get_title() == "birds\n5 images of each class\nafter all epochs"
    assert len(ax.collections) == 1


def test_infinite_cells_are_hatched_and_unknown_ones_blank(stuck):
    ax = plot.parameter_heatmap(stuck.layers, "birds", criterion="loss", ax=Figure().subplots())
    cells, hatched = ax.collections
    assert np.ma.getmaskarray(cells.get_array()).tolist() == [[False, True], [True, True], [False, True]]
    assert hatched.get_hatch()
    (path,) = hatched.get_paths()
    assert path.get_extents().get_points().tolist() == [[0, 1], [1, 2]]
    assert ax.get_xlabel() == "hatched: infinite"


@pytest.mark.parametrize(("largest", "logarithmic"), [(10.0, False), (10.5, True)])
def test_more_than_a_decade_is_drawn_on_a_logarithmic_scale(largest, logarithmic):
    layers = result(transfer([1.0, largest])).layers
    ax = plot.parameter_heatmap(layers, "birds", ax=Figure().subplots())
    assert isinstance(ax.collections[0].norm, LogNorm) == logarithmic
    ax = plot.parameter_transferability(layers, "birds", ax=Figure().subplots())
    assert (ax.get_yscale() == "log") == logarithmic


def test_many_cells_are_not_annotated_and_their_layers_thinned():
    names = [f"encoder.layers.encoder_layer_{number}.self_attention" for number in range(50)]
    layers = result(transfer(range(1, 51), layers=names)).layers
    ax = plot.parameter_heatmap(layers, "birds", ax=Figure().subplots())
    assert list(ax.texts) == []
    shown = labels(ax.get_yticklabels())
    step = 50 // len(shown) + 1
    assert shown == [f"…encoder_layer_{number}…" for number in range(0, 50, step)]
    assert 10 < len(shown) < 50
    ax = plot.parameter_transferability(layers, "birds", ax=Figure().subplots())
    assert labels(ax.get_xticklabels())[0] == "…encoder_layer_0…"


def test_without_a_size_the_most_that_targets_share_is_drawn():
    both = [transfer([1.0, 2.0], target=name, size=5) for name in ("shells", "signs")]
    layers = result(*both, transfer([3.0, 4.0], size=20)).layers
    ax = plot.parameter_heatmap(layers, "birds", ax=Figure().subplots())
    assert "5 images of each class" in ax.get_title()
    np.testing.assert_allclose(ax.collections[0].get_array(), [[1, 1], [2, 2]])
    layers = result(transfer([3.0, 4.0], size=20), transfer([1.0, 2.0], target="signs", size=7)).layers
    ax = plot.parameter_heatmap(layers, "birds", ax=Figure().subplots())
    assert labels(ax.get_xticklabels()) == ["shells (20)", "signs (7)"]
    np.testing.assert_allclose(ax.collections[0].get_array(), [[3, 1], [4, 2]])


def test_over_depth_has_a_line_for_each_target_with_bands_and_a_line_at_one(grid):
    ax = plot.parameter_transferability(
        grid.layers, "birds", criterion="steps", samples_per_class=20, ax=Figure().subplots()
    )
    shells, signs = curves(ax)
    np.testing.assert_allclose(shells, [[1, 3], [2, 6], [3, 6]])
    np.testing.assert_allclose(signs, [[1, 12], [2, 24], [3, 6]])
    # At the first layer T is 2 and 4: a standard error of 1.
    band = ax.collections[0].get_paths()[0].vertices
    assert sorted({y for x, y in band if x == 1}) == [2, 4]
    assert [line.get_ydata()[0] for line in ax.get_lines() if line.get_linestyle() == "--"] == [1]
    assert legend(ax.get_legend()) == ["shells", "signs", "T = 1", "standard error over seeds"]
    assert len({line.get_marker() for line in ax.get_lines()[:2]}) == 2


def test_with_one_seed_bands_are_the_spread_over_redraws_and_with_given_weights_there_are_none():
    layers = result(transfer([2.0, 4.0], spread=0.5)).layers
    ax = plot.parameter_transferability(layers, "birds", ax=Figure().subplots())
    box = ax.collections[0].get_paths()[0].get_extents()
    assert (box.y0, box.y1) == (1.5, 4.5)
    assert legend(ax.get_legend())[-1] == "standard deviation\nover redraws"
    layers = result(transfer([2.0, 4.0], spread=math.nan)).layers
    assert legend(plot.parameter_transferability(layers, "birds", ax=Figure().subplots()).get_legend()) == [
        "shells",
        "T = 1",
    ]


def test_an_infinite_layer_leaves_a_gap_with_a_mark_at_the_top(stuck):
    ax = plot.parameter_transferability(stuck.layers, "birds", ax=Figure().subplots())
    line, points = ax.get_lines()[:2]
    np.testing.assert_array_equal(line.get_xydata(), [[1, 2], [2, np.nan], [3, 4]])
    np.testing.assert_array_equal(points.get_xydata(), [[1, 2], [3, 4]])
    assert hover_texts(points) == ("birds on shells · blocks.0: 2", "birds on shells · blocks.2: 4")
    (mark,) = (line for line in ax.get_lines() if line.get_marker() == "^")
    assert hover_texts(mark) == ("birds on shells · blocks.1: inf",)
    assert mark.get_xdata().tolist() == [2]
    assert mark.get_transform() == ax.get_xaxis_transform()
    assert "infinite" in legend(ax.get_legend())


def test_over_steps_has_the_mean_of_the_layers_that_moved_for_each_size():
    runs = [transfer([1.0, 3.0], size=20), transfer([3.0, 5.0], size=20, seed=1), transfer([4.0, math.inf], size=5)]
    ax = plot.parameter_steps(result(*runs).trajectory, "birds", "shells", Figure().subplots())
    many, few = curves(ax)
    np.testing.assert_allclose(many, [[1, 30], [2, 15], [4, 7.5]])
    np.testing.assert_allclose(few, [[1, 40], [2, 20], [4, 10]])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert legend(ax.get_legend()) == ["5", "20", "T = 1"]
    # Means of 20 and 40 after one step: a standard error of 10.
    band = ax.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == (5, 40)


def test_a_source_of_which_no_layer_moved_can_be_drawn(tmp_path):
    names = [path.name for path in result(transfer([math.inf, math.inf])).save(tmp_path)]
    assert len(names) == len(TABLES) + 4


def test_names_that_are_alike_when_they_are_shortened_keep_their_lines():
    targets = [f"a-target-with-quite-a-long-name-of-{number}-images" for number in range(2)]
    layers = result(*(transfer([1.0, 2.0], target=target) for target in targets)).layers
    ax = plot.parameter_transferability(layers, "birds", ax=Figure().subplots())
    first, second = ax.get_legend().legend_handles[:2]
    assert first.get_color() != second.get_color()


def test_one_fine_tuning_is_drawn_over_its_layers():
    array = labelled.parameter_array(np.array([2.0, math.inf, 4.0]), ["a", "b", "c"], {"spread": [0.5, math.nan, 1.0]})
    ax = plot.parameter_transferability(array, ax=Figure().subplots())
    line, points, infinite = ax.get_lines()[:3]
    np.testing.assert_array_equal(line.get_xydata(), [[1, 2], [2, np.nan], [3, 4]])
    assert (hover_texts(points), hover_texts(infinite)) == (("a: 2", "c: 4"), ("b: inf",))
    assert labels(ax.get_xticklabels()) == ["a", "b", "c"]
    assert legend(ax.get_legend()) == ["T = 1", "standard deviation\nover redraws", "infinite"]
    certain = plot.parameter_transferability(array.drop_vars("spread"), ax=Figure().subplots())
    assert legend(certain.get_legend()) == ["T = 1", "infinite"]


def test_a_result_is_drawn_like_its_tables_and_its_only_source_need_not_be_named(grid):
    drawn = [
        curves(plot.parameter_transferability(each, "birds", Figure().subplots()))[0].tolist()
        for each in (grid, grid.layers, grid.layers[grid.layers["source"] == "birds"])
    ]
    assert drawn[0] == drawn[1] == drawn[2]
    only = plot.parameter_transferability(grid.layers[grid.layers["source"] == "birds"], ax=Figure().subplots())
    assert curves(only)[0].tolist() == drawn[0]
    heat = plot.parameter_heatmap(grid, "plain", ax=Figure().subplots())
    # Four numbers are written and drawn; the second layer on shells has T 9, twice that with the second seed.
    assert hover_texts(heat.collections[0])[2] == "plain on shells · blocks.1: 13.5"


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda found: plot.parameter_transferability(found),
            "`source` to be one of birds, plain, but got None",
        ),
        (
            lambda found: plot.parameter_transferability(found.dataset["transferability"]),
            r"to have the dimension \('layer',\) and at least one layer, but got",
        ),
        (
            lambda found: plot.parameter_heatmap(found.table[["source"]], "birds"),
            "`transferability` to be what .* returns, or its `layers`, but got a table with other columns",
        ),
        (
            lambda found: plot.parameter_steps([1], "birds", "shells"),
            "`transferability` to be what .* returns, or its `trajectory`, but got list",
        ),
        (
            lambda found: plot.parameter_heatmap(found.layers, "fish"),
            "`source` to be one of birds, plain, but got 'fish'",
        ),
        (
            lambda found: plot.parameter_transferability(found.layers, "birds", criterion="time"),
            "`criterion` to be one of epochs, steps, loss, but got 'time'",
        ),
        (
            lambda found: plot.parameter_heatmap(found.layers, "birds", samples_per_class=7),
            "`samples_per_class` to be one of 5, 20, but got 7",
        ),
        (
            lambda found: plot.parameter_steps(found.trajectory, "fish", "shells"),
            "`source` to be one of birds, plain",
        ),
        (
            lambda found: plot.parameter_steps(found.trajectory, "birds", "fish"),
            "`target` to be one of shells, signs",
        ),
    ],
)
def test_what_is_not_there_cannot_be_drawn(grid, draw, message):
    with pytest.raises(InputError, match=message):
        draw(grid)


def test_every_source_has_three_pictures_with_shared_scales(grid):
    figures = parameter_plots.figures(grid)
    assert list(figures) == [
        f"transferability-{source}-{name}.png"
        for source in ("birds", "plain")
        for name in ("heatmap", "depth", "steps")
    ]
    heat = figures["transferability-birds-heatmap.png"]
    panels = heat.axes[:3]
    assert [ax.get_title() for ax in panels] == list(CRITERIA.values())
    assert len({id(ax.collections[0].norm) for ax in panels}) == 1
    # From 1.5 after all epochs to 12 × 3 at matched loss.
    assert (panels[0].collections[0].norm.vmin, panels[0].collections[0].norm.vmax) == (1.5, 36)
    assert heat.get_suptitle() == "birds, 20 images of each class"
    depth = figures["transferability-birds-depth.png"]
    assert [ax.get_title() for ax in depth.axes] == list(CRITERIA.values())
    assert len({ax.get_ylim() for ax in depth.axes}) == 1
    assert {ax.get_yscale() for ax in depth.axes} == {"log"}
    steps = figures["transferability-birds-steps.png"]
    assert [ax.get_title() for ax in steps.axes] == ["shells", "signs"]
    assert legend(steps.legends[0]) == ["5", "20", "T = 1"]


def test_of_many_targets_six_are_followed_and_the_picture_says_so():
    figures = parameter_plots.figures(result(*(transfer([1.0, 2.0], "a$b", f"target{i}") for i in range(8))))
    steps = figures["transferability-a$b-steps.png"]
    assert [ax.get_title() for ax in steps.axes] == [f"target{i}" for i in range(6)]
    assert steps.get_suptitle() == r"a\$b, 6 of 8 targets"
