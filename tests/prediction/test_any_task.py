"""What is expected of several labels and of numbers: leave-one-out figures, and errors wider than those of classes."""

import numpy as np
import pandas as pd
import pytest

from transferscope.errors import InputError
from transferscope.prediction.any_task import WIDENED, calibration_for
from transferscope.prediction.belief import Belief
from transferscope.prediction.calibration import load_calibration
from transferscope.prediction.covariates import AS_CLASSES, Case, candidates
from transferscope.prediction.effects import variance
from transferscope.prediction.observation import Observation
from transferscope.prediction.ties import is_tie
from transferscope.runtime.links import link_of
from transferscope.runtime.metrics import AVERAGE_PRECISION, R2, SPEARMAN

MANY = 10**7
"""Images: with so many nothing is smoothed."""
HEADS = {"a": [0.1, 0.5, 0.7], "b": [-0.2, 0.6, 0.4]}


def believed(metric=R2, *, probe=MANY, samples=MANY, heads=HEADS, **more):
    scores = pd.DataFrame(
        {"source": source, "depth": depth, "depth_fraction": depth / len(values), "ridge": value}
        for source, values in heads.items()
        for depth, value in enumerate(values, 1)
    )
    case = Case(samples, probe, AS_CLASSES, metric=metric, **more)
    return Belief(candidates(scores, case), case, calibration_for(metric.task))


@pytest.mark.parametrize("metric", [R2, SPEARMAN, AVERAGE_PRECISION], ids=lambda metric: metric.name)
def test_a_linear_head_is_expected_to_reach_what_it_reaches_on_images_left_out(metric):
    heads = HEADS if metric is not AVERAGE_PRECISION else {name: np.abs(values) for name, values in HEADS.items()}
    belief = believed(metric, heads=heads)
    of_head = (belief.rows["protocol"] == "truncate").to_numpy()
    assert link_of(metric).back(belief.mean[of_head]) == pytest.approx(np.concatenate(list(heads.values())), abs=0.01)
    ends = belief.expected()[of_head]
    assert (ends["lower"] < ends["expected_accuracy"]).all()
    assert (ends["expected_accuracy"] < ends["upper"]).all()
    assert (ends["upper"] < 1).all()


def test_what_is_trained_is_expected_about_where_heads_are_and_protocols_are_hardly_told_apart():
    belief = believed(heads={"a": [0.5, 0.5, 0.5]})
    assert belief.mean == pytest.approx(-np.log(0.5), abs=1e-3)
    places = {name: np.flatnonzero(belief.rows["protocol"] == name)[0] for name in belief.rows["protocol"].unique()}
    for one in places.values():
        for other in places.values():
            assert one == other or is_tie(belief.better(np.array([one]), int(other))[0])


def test_errors_are_those_of_classes_but_wider():
    belief = believed(heads={"a": [0.5, 0.5, 0.5]})
    rows = belief.rows[belief.rows["protocol"] == "finetune"]
    # Nothing is left to coefficients where a head is like the others and no image more.
    spread = WIDENED * variance(load_calibration().components, rows)
    assert belief.posterior(rows)[1] == pytest.approx(spread, rel=0.02)


def test_a_measured_transfer_moves_what_is_expected_of_the_others():
    before = believed(probe=200, samples=200)
    seen = Observation(
        source="a", depth=1, protocol="finetune", samples=200, accuracy=0.97, tested=100, link=link_of(R2)
    )
    after = before.given([seen])
    tuned = ((before.rows["protocol"] == "finetune") & (before.rows["source"] == "b")).to_numpy()
    assert (after.mean[tuned] > before.mean[tuned] + 0.5).all()
    assert (after.variance[tuned] < 0.6 * before.variance[tuned]).all()


def test_no_use_is_no_use_however_bad():
    worse, bad = (
        believed(probe=200, samples=200, scratch_accuracy=figure, scratch_held_out=50).given(
            [Observation(source="", depth=0, protocol="scratch", samples=200, accuracy=figure, tested=50,
                         origin="reference", link=link_of(R2))]
        )
        for figure in (-1e9, -1.0)
    )  # fmt: skip
    assert worse.mean == pytest.approx(bad.mean)


def test_a_calibration_of_classes_is_refused():
    assert calibration_for("classification") is load_calibration()
    with pytest.raises(InputError, match="no `calibration` for the task regression, but got one"):
        calibration_for("regression", load_calibration())
