"""The picture of the ways to transfer a source: points, intervals, and names that can be read."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from advices import ADVICE, way
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from transferscope.errors import InputError
from transferscope.report import plot
from transferscope.report.plots.drawing import hover_texts

# Those of a small network, where several take as long and expect as much.
CROWDED = replace(
    ADVICE,
    ways=(
        way("truncate", 0.823, 0.0312), way("fne", 0.753, 0.0112), way("toptuning", 0.845, 0.0107),
        way("reinit", 0.934, 1.3), way("finetune", 0.949, 3.67), way("scratch", 0.892, 3.67),
    ),
    advised="reinit",
)  # fmt: skip


def drawn(advice, width=8.0):
    ax = Figure(figsize=(width, 4.8), layout="constrained").subplots()
    plot.advice(advice, ax)
    ax.figure.draw_without_rendering()
    return ax


def names_of(ax):
    return [text for text in ax.texts if isinstance(text, Annotation)]


def test_each_way_is_a_point_with_its_interval_over_its_seconds():
    ax = drawn(ADVICE)
    points = [artist for artist in ax.get_lines() if hover_texts(artist)]
    assert [(p.get_xdata()[0], p.get_ydata()[0]) for p in points] == [
        (way.seconds, way.expected_accuracy) for way in ADVICE.ways
    ]
    bars = [bar.get_segments()[0] for bar in ax.collections]
    np.testing.assert_allclose([bar[:, 1] for bar in bars], [way.interval for way in ADVICE.ways])
    assert hover_texts(points[2]) == ("top-tuning · blocks.[red]2: 0.790 [0.690, 0.840] in 2 s, advised",)
    assert [point.get_markersize() for point in points].index(max(p.get_markersize() for p in points)) == 2
    assert ax.get_xscale() == "log"
    # Above this line a way is accurate enough: 0.02 below the best.
    dashed = next(line for line in ax.get_lines() if line.get_linestyle() == "--")
    assert dashed.get_ydata()[0] == pytest.approx(0.78)


@pytest.mark.parametrize("advice", [ADVICE, CROWDED], ids=["spread", "crowded"])
def test_names_cover_neither_each_other_nor_intervals_and_stay_inside(advice):
    ax = drawn(advice)
    names = names_of(ax)
    assert {name.get_text().removesuffix(" (advised)") for name in names} == {way.name for way in advice.ways}
    assert sum(name.get_fontweight() == "bold" for name in names) == 1
    boxes = [Text.get_window_extent(name) for name in names]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    intervals = [
        Bbox(ax.transData.transform([(way.seconds, way.interval[0]), (way.seconds, way.interval[1])]))
        for way in advice.ways
    ]
    assert not any(box.overlaps(interval) for box in boxes for interval in intervals)
    inside = ax.figure.bbox
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 and box.y1 <= inside.y1 for box in boxes)


def test_what_took_no_time_and_what_is_no_advice():
    at_once = replace(ADVICE, ways=(way("truncate", 0.7, 0.0), way("finetune", 0.8, 2.0)), advised="finetune")
    assert drawn(at_once).get_xlim()[0] > 0
    with pytest.raises(InputError, match="`advice` to be what `advise` returns, but got str"):
        plot.advice("advice")
