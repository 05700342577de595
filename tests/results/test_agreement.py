"""Agreement of scores with the predicted accuracy: scipy's τ, and where it cannot be told."""

import math

import numpy as np
import pytest
import xarray as xr
from scipy.stats import weightedtau

from transferscope.results.agreement import agreement, weighted_tau

ACCURACY = np.array([[0.2, 0.6, 0.4, 0.5], [0.3, 0.1, 0.7, np.nan], [0.9, 0.8, np.nan, np.nan], [np.nan] * 4])


def dataset(**variables):
    rng = np.random.default_rng(0)
    over_both = {"score": rng.normal(size=ACCURACY.shape), **variables}
    dims = {1: ("source",), 2: ("source", "depth")}
    return xr.Dataset(
        {name: (dims[np.ndim(array)], array) for name, array in {"expected_accuracy": ACCURACY, **over_both}.items()}
    )


def test_tau_is_that_of_scipy_over_what_is_known():
    scores = dataset(own=np.array([1.0, 5.0, 3.0, 9.0]))
    found = agreement(scores, ["score", "own"])
    values = scores["score"].to_numpy()
    at_cut = [0.6, 0.7, 0.9]
    assert found.sources == 3
    expected = weightedtau([values[0, 1], values[1, 2], values[2, 0]], at_cut).statistic
    assert found.over_sources["score"] == pytest.approx(expected, abs=1e-12)
    assert found.over_sources["own"] == pytest.approx(weightedtau([1, 5, 3], at_cut).statistic, abs=1e-12)
    # The third source has two depths with a prediction, which is too few.
    within = [weightedtau(values[0], ACCURACY[0]).statistic, weightedtau(values[1, :3], ACCURACY[1, :3]).statistic]
    assert found.over_depths["score"] == pytest.approx(np.mean(within))
    assert math.isnan(found.over_depths["own"])


def test_the_same_order_is_one_and_the_opposite_minus_one():
    found = agreement(dataset(same=2 * ACCURACY, opposite=-ACCURACY), ["same", "opposite"])
    assert [*found.over_sources.values(), *found.over_depths.values()] == pytest.approx([1, -1, 1, -1])


def test_what_equals_the_prediction_is_left_out_and_constants_tell_nothing():
    found = agreement(dataset(itself=ACCURACY, flat=np.full(4, 7.0)), ["itself", "flat"])
    assert list(found.over_sources) == ["flat"]
    assert math.isnan(found.over_sources["flat"])


def test_unknown_values_are_left_out_and_two_are_too_few():
    known = np.array([1.0, np.nan, 3.0, 9.0])
    found = agreement(dataset(known=known), ["known"])
    assert math.isnan(found.over_sources["known"])
    pair = agreement(dataset().isel(source=[0, 1]), ["score"])
    assert pair.sources == 2
    assert math.isnan(pair.over_sources["score"])
    assert not math.isnan(pair.over_depths["score"])


@pytest.mark.parametrize("kinds", [2, 3, 1000])
@pytest.mark.parametrize("n", [3, 4, 30])
def test_tau_is_that_of_scipy_with_ties_too(n, kinds):
    rng = np.random.default_rng(n)
    for _ in range(20):
        x, y = rng.integers(0, kinds, (2, n)).astype(float)
        np.testing.assert_allclose(weighted_tau(x, y), weightedtau(x, y).statistic, atol=1e-12)
