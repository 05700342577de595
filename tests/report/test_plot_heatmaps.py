"""Heatmaps of similarity: cells, names, paths, hatching, one scale for several."""

import io
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure

from transferscope.errors import InputError
from transferscope.report import plot
from transferscope.report.plots.drawing import hover_texts
from transferscope.results import labelled


def matrix(rows, columns, measure="linear_cka", informative=None, **names):
    values = np.random.default_rng(0).uniform(-0.2, 1, (rows, columns))
    x, y = ([f"{side}.{i}" for i in range(n)] for side, n in (("x", rows), ("y", columns)))
    cells = {} if informative is None else {"informative": np.array(informative)}
    return labelled.similarity_array(values, x, y, cells, measure=measure, **names)


def axes(width=9, height=9):
    return Figure(figsize=(width, height)).subplots()


def labels(ticks):
    return [tick.get_text() for tick in ticks]


def hatched(ax):
    return [each for each in ax.collections if isinstance(each, PatchCollection)]


def test_the_matrix_is_drawn_with_the_first_layers_at_the_bottom_left():
    similarity, given = matrix(5, 3), axes()
    ax = plot.heatmap(similarity, ax=given)
    assert ax is given
    np.testing.assert_array_equal(ax.collections[0].get_array().reshape(5, 3), similarity)
    assert ax.collections[0].get_clim() == (0, 1)
    bottom, top = ax.get_ylim()
    assert bottom < top
    assert labels(ax.get_yticklabels()) == [f"x.{i}" for i in range(5)]
    assert labels(ax.get_xticklabels()) == [f"y.{i}" for i in range(3)]
    assert hatched(ax) == []
    assert "hatched" not in ax.get_xlabel()


@pytest.mark.parametrize(("rows", "columns"), [(150, 40), (3, 150)])
@pytest.mark.parametrize("size", [4, 9])
def test_of_many_layers_as_many_are_named_as_there_is_room_for(rows, columns, size):
    ax = plot.heatmap(matrix(rows, columns), ax=axes(size, size))
    ax.figure.savefig(io.BytesIO(), dpi=40)
    for axis, letter, count in ((ax.yaxis, "x", rows), (ax.xaxis, "y", columns)):
        ticks = [tick for tick in axis.get_major_ticks() if tick.label1.get_text()]
        places = [round(tick.get_loc() - 0.5) for tick in ticks]
        assert [tick.label1.get_text() for tick in ticks] == [f"{letter}.{place}" for place in places]
        assert len(set(np.diff(places))) <= 1
        boxes = [tick.label1.get_window_extent() for tick in ticks]
        ends = [(box.y0, box.y1) if letter == "x" else (box.x0, box.x1) for box in boxes]
        assert all(before[1] <= after[0] for before, after in pairwise(ends))
        assert len(places) >= min(count, size)


def test_long_names_lose_what_all_have_in_common_then_their_beginning():
    long = [f"backbone.body.stage{i}.conv.with.a.rather.long.name.weight" for i in range(2)]
    array = matrix(2, 2).assign_coords(layer_x=long, layer_y=["short", "backbone." + "x" * 40])
    ax = plot.heatmap(array, ax=axes())
    assert labels(ax.get_yticklabels()) == ["…stage0…", "…stage1…"]
    assert labels(ax.get_xticklabels()) == ["short", "…" + "x" * 31]


def test_the_most_similar_column_of_each_row_is_joined():
    similarity = matrix(6, 4)
    informative = np.ones((6, 4), bool)
    informative[0, similarity[0].to_numpy().argmax()] = False
    informative[2] = False
    similarity = similarity.assign_coords(informative=(similarity.dims, informative))
    similarity[4, :2] = np.nan
    ax = plot.heatmap(similarity, ax=axes(), path="best")
    expected = []
    for i, row in enumerate(similarity.to_numpy()):
        best = None
        for j, value in enumerate(row):
            if informative[i, j] and value == value and (best is None or value > row[best]):
                best = j
        if best is not None:
            expected.append([best + 0.5, i + 0.5])
    black, white, points = ax.get_lines()
    for line in (black, white, points):
        assert line.get_xydata().tolist() == expected
    assert (black.get_color(), white.get_color(), points.get_marker()) == ("black", "white", "o")
    assert black.get_linewidth() > white.get_linewidth()
    column, row = (int(place) for place in expected[0])
    assert hover_texts(points)[0] == f"best of x.{row}: y.{column}, {float(similarity[row, column]):.3f}"
    assert len(hover_texts(points)) == 5


def test_of_an_imbalance_the_smallest_is_the_best_and_the_brightest():
    similarity = matrix(1, 3, "information_imbalance")
    ax = plot.heatmap(similarity, ax=axes(), path="best")
    assert ax.get_lines()[-1].get_xdata().tolist() == [np.argmin(similarity[0].to_numpy()) + 0.5]
    mesh = ax.collections[0]
    low, high = mesh.cmap(mesh.norm([0.1, 0.9]))[:, :3].sum(axis=1)
    assert low > high


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (2, 7)])
def test_the_diagonal_goes_from_the_first_pair_to_the_last(rows, columns):
    ax = plot.heatmap(matrix(rows, columns), ax=axes(), path="diagonal")
    for line in ax.get_lines():
        assert line.get_xydata().tolist() == [[0.5, 0.5], [columns - 0.5, rows - 0.5]]


def test_cells_that_mean_nothing_are_hatched():
    ax = plot.heatmap(matrix(2, 3, informative=[[True, False, True], [True, True, False]]), ax=axes())
    (cells,) = hatched(ax)
    assert cells.get_hatch()
    boxes = [path.get_extents().bounds for path in cells.get_paths()]
    assert boxes == [(1, 0, 1, 1), (2, 1, 1, 1)]  # x, y, width, height: columns of y, rows of x
    assert ax.get_xlabel().endswith("(hatched: not informative)")
    values = matrix(2, 3).to_numpy()
    assert hover_texts(cells) == (
        f"x.0 × y.1: {values[0, 1]:.3f}, not informative", f"x.1 × y.2: {values[1, 2]:.3f}, not informative",
    )  # fmt: skip
    assert hover_texts(ax.collections[0])[0] == f"x.0 × y.0: {values[0, 0]:.3f}"
    assert hover_texts(ax.collections[0])[1] == hover_texts(cells)[0]
    assert len(hover_texts(ax.collections[0])) == 6


def test_measure_and_networks_are_named_and_options_taken():
    ax = plot.heatmap(matrix(3, 3), ax=axes(), vmin=-1, cbar_kws={"label": "mine"}, yticklabels=["a", "b", "c"])
    assert ax.collections[0].get_clim() == (-1, 1)
    assert ax.figure.axes[1].get_ylabel() == "mine"
    assert labels(ax.get_yticklabels()) == ["a", "b", "c"]
    ax = plot.heatmap(matrix(3, 3, x="a$b", y="other"), ax=axes())
    assert ax.figure.axes[1].get_ylabel() == "debiased linear CKA"
    assert (ax.get_ylabel(), ax.get_xlabel()) == (r"a\$b", "other")


def test_without_axes_some_are_made_and_nothing_is_shown(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *_args, **_kwargs: pytest.fail("shown"))
    before = plt.get_fignums()
    ax = plot.heatmap(matrix(2, 4))
    try:
        assert isinstance(ax, Axes)
        assert len(plt.get_fignums()) == len(before) + 1
    finally:
        plt.close(ax.figure)


@pytest.mark.parametrize("context", ["paper", "notebook"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 25), (25, 2), (5, 5)])
def test_long_names_fit_into_the_picture(shape, context):
    array = matrix(*shape, x="a network with quite a long name", y="another network with a long name")
    names = {f"layer_{side}": [f"features.{i}.conv.branch{i}x1.2" for i in range(n)]
             for side, n in zip("xy", shape, strict=True)}  # fmt: skip
    figure = plot.heatmaps({"a network": array.assign_coords(names)}, context=context)
    figure.savefig(io.BytesIO(), dpi=40)  # a warning, which is an error here, says when there is no room
    for ax in figure.axes:
        box, whole = ax.get_tightbbox(), figure.bbox
        assert min(box.x0, box.y0) >= -1
        assert box.x1 <= whole.x1 + 1
        assert box.y1 <= whole.y1 + 1


# --- several ------------------------------------------------------------------------------------------------------


def test_panels_share_a_scale_and_the_names_of_their_layers():
    other = matrix(3, 2).assign_coords(layer_x=["a", "b", "c"])
    before = plt.get_fignums()
    figure = plot.heatmaps({"one": 0.1 * matrix(3, 2), "two": matrix(3, 2), "th$ree": other}, path="diagonal")
    assert plt.get_fignums() == before
    panels = figure.axes[:3]
    assert [ax.get_title() for ax in panels] == ["one", "two", r"th\$ree"]
    assert {ax.collections[0].get_clim() for ax in panels} == {(0, 1)}
    assert len(figure.axes) == 4  # one scale of colours
    assert [ax.get_ylabel() for ax in panels] == ["layer_x", "", "layer_x"]
    figure.savefig(io.BytesIO(), dpi=40)
    shown = [any(tick.label1.get_visible() for tick in ax.yaxis.get_major_ticks()) for ax in panels]
    assert shown == [True, False, True]
    assert all(len(ax.get_lines()) == 2 for ax in panels)
    assert figure.get_supxlabel() == "layer_y"


def test_the_panels_of_a_column_stand_in_two_columns():
    figure = plot.heatmaps({f"net{i}": matrix(3, 3) for i in range(3)}, context="paper")
    assert figure.get_figwidth() == 3.4
    figure.savefig(io.BytesIO(), dpi=40)
    lefts = [round(ax.get_position().x0, 2) for ax in figure.axes[:3]]
    assert lefts[0] == lefts[2] != lefts[1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "at least one title to a similarity matrix, but got none"),
        (matrix(2, 2), "but got DataArray"),
        ({"a": matrix(2, 2), "b": matrix(2, 2, "rsa")}, "of one measure, .* but got linear_cka, rsa; draw each"),
        ({"a": np.eye(2)}, "to have dimensions"),
    ],
)
def test_what_cannot_be_compared_is_an_input_error(wrong, message):
    with pytest.raises(InputError, match=message):
        plot.heatmaps(wrong)


# --- wrong input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [xr.DataArray(np.eye(2), dims=("layer_y", "layer_x")), xr.DataArray(np.eye(2)), np.eye(2), None]
)
def test_something_else_is_an_input_error(wrong):
    with pytest.raises(InputError, match=r"dimensions \('layer_x', 'layer_y'\) but got"):
        plot.heatmap(wrong)


def test_nothing_to_draw_and_an_unknown_path_are_input_errors():
    with pytest.raises(InputError, match=r"at least one cell, but got the shape \(0, 3\)"):
        plot.heatmap(matrix(3, 3)[:0])
    with pytest.raises(InputError, match="`path` to be one of diagonal, best or None, but got 'dtw'"):
        plot.heatmap(matrix(3, 3), path="dtw")
