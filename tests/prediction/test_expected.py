"""Expected accuracies beside the scores: padding, intervals, more images, and targets like none that was measured."""

import math

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from transferscope.errors import InputError, TransferscopeWarning
from transferscope.prediction.calibration import Calibration, Term
from transferscope.prediction.expected import accuracy_interval, expected_accuracies, most_samples, raised
from transferscope.transferability.scores import NEEDED

ERRORS = dict.fromkeys(("truncate", "reinit", "finetune", "scratch"), (-0.5, 1.0))
LATE = Term(("reinit", "finetune"), ("depth_fraction",), 2.0)
MORE = Term(("truncate", "scratch"), ("log_more",), 0.25)


def calibration(**ranges):
    return Calibration(-1.0, (LATE, MORE), ERRORS, 0.5, 0.2, ranges, "nothing")


def scores(**attributes):
    """Two sources, of two and of three stages."""
    known = {"n_samples": 40, "classes": 4, "scratch_accuracy": 0.5, "scratch_held_out": 20, **attributes}
    layer = np.array([["a", "b", ""], ["x", "y", "z"]], dtype=object)
    share = np.array([[1 / 2, 1, np.nan], [1 / 3, 2 / 3, 1]])
    values = {name: np.where(layer == "", np.nan, 0.25) for name in NEEDED}
    values |= {"layer": layer, "depth_fraction": share}
    return xr.Dataset(
        {name: (("source", "depth"), array) for name, array in values.items()},
        coords={"source": ["two", "three"], "depth": [1, 2, 3]},
        attrs={name: value for name, value in known.items() if value is not None},
    )  # fmt: skip


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_each_cut_and_protocol_has_its_prediction_and_padding_has_none():
    before = scores()
    found = expected_accuracies(before, 40, calibration())
    assert found["expected_accuracy"].dims == ("source", "depth", "protocol")
    assert found["protocol"].to_numpy().tolist() == ["truncate", "reinit", "finetune"]
    here = found.sel(source="three", depth=2)
    assert float(here["expected_accuracy"].sel(protocol="reinit")) == pytest.approx(sigmoid(-1 + 4 / 3))
    assert float(here["lower"].sel(protocol="finetune")) == pytest.approx(sigmoid(-1.5 + 4 / 3))
    assert float(here["upper"].sel(protocol="truncate")) == pytest.approx(sigmoid(0))
    assert np.isnan(found["expected_accuracy"].sel(source="two", depth=3)).all()
    assert float(found["scratch_expected_accuracy"]) == pytest.approx(sigmoid(-1))
    xr.testing.assert_identical(
        found[list(before)].drop_vars("protocol", errors="ignore").drop_attrs(), before.drop_attrs()
    )
    assert {found[name].attrs["units"] for name in ("expected_accuracy", "lower", "upper", "scratch_upper")} == {"1"}
    assert found["scratch_lower"].attrs["long_name"] == "expected accuracy, lower end, from scratch"
    assert found["protocol"].attrs["long_name"] == "protocol"
    known = {"samples": 40, "calibrated": 1, "contrast": 0.2, "scratch_growth": 0}
    assert {name: found.attrs[name] for name in known} == known


def test_more_images_than_were_looked_at_raise_accuracies_and_widen_intervals():
    found = expected_accuracies(scores(), 160, calibration())
    here = found.sel(source="two", depth=1, protocol="truncate")
    more, wider = 0.25 * math.log(4), 1 + 0.5 * math.log(4)
    assert float(here["expected_accuracy"]) == pytest.approx(sigmoid(-1 + more))
    assert float(here["lower"]) == pytest.approx(sigmoid(-1 + more - 0.5 * wider))
    assert found.attrs["scratch_growth"] == pytest.approx(more)


def test_a_target_like_none_that_was_measured_is_told_of_and_scores_speak():
    with pytest.warns(TransferscopeWarning, match="images of a class"):
        found = expected_accuracies(scores(), 160, calibration(log_per_class=(0.0, math.log(30))))
    assert (found.attrs["calibrated"], found.attrs["scratch_growth"]) == (0, 0)
    # A quarter of 40 images right, half an image added to both.
    head = 10.5 / 41
    here = found.sel(source="two", depth=1, protocol="truncate")
    assert float(here["expected_accuracy"]) == pytest.approx(head)
    assert [float(here[name]) for name in ("lower", "upper")] == pytest.approx(accuracy_interval(head, 40))


def test_without_a_scratch_network_there_is_a_prediction_all_the_same():
    found = expected_accuracies(scores(scratch_accuracy=None, scratch_held_out=None), 40, calibration())
    assert float(found["expected_accuracy"].max()) == pytest.approx(sigmoid(1))


def test_scores_that_are_nowhere_defined_are_an_error():
    lacking = scores()
    lacking["ridge"] = lacking["ridge"] * np.nan
    with pytest.raises(InputError, match="there is none"):
        expected_accuracies(lacking, 40, calibration())


def test_the_most_images_are_the_nearer_of_two_bounds():
    ranges = {"log_per_class": (0.0, math.log(100)), "log_more": (0.0, math.log(12))}
    assert most_samples(scores(), calibration(**ranges)) == 400
    assert most_samples(scores(n_samples=30), calibration(**ranges)) == 360


def test_a_logit_is_raised_and_stays_below_one():
    assert raised(0.5, math.log(3), 1000) == pytest.approx(0.75)
    assert raised(0.37, 0, 10) == 0.37
    assert 0.9 < raised(1.0, 1.0, 10) < 1


@pytest.mark.parametrize("n_samples", [1, 2, 7, 17, 50, 600])
def test_the_interval_is_the_wilson_interval_of_scipy(n_samples):
    for correct in {0, 1, n_samples // 3, n_samples - 1, n_samples}:
        expected = stats.binomtest(correct, n_samples).proportion_ci(confidence_level=0.8, method="wilson")
        lower, upper = accuracy_interval(correct / n_samples, n_samples)
        assert (lower, upper) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert 0 <= lower <= upper <= 1


def test_the_interval_of_an_array_is_that_of_each_value_and_keeps_nan():
    accuracies = np.array([0.0, 0.3, np.nan, 1.0])
    lower, upper = accuracy_interval(accuracies, 17)
    single = [accuracy_interval(accuracy, 17) for accuracy in accuracies]
    np.testing.assert_array_equal(np.stack([lower, upper], axis=1), single)
    assert np.isnan(lower).tolist() == [False, False, True, False]


@pytest.mark.parametrize("n_samples", [0, -3])
def test_an_interval_needs_a_sample(n_samples):
    with pytest.raises(InputError, match="`n_samples` to be a whole number of at least 1"):
        accuracy_interval(0.5, n_samples)
