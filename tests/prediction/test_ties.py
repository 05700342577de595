"""Whether one source really beats another: an exact reference."""

import numpy as np
import pytest
from scipy import integrate, stats

from transferscope.prediction.ties import beats_unpaired, is_tie


@pytest.mark.parametrize(
    ("right", "n", "other", "m"), [(40, 50, 30, 60), (5, 5, 4, 5), (0, 30, 0, 9), (300, 600, 290, 600)]
)
def test_unpaired_accuracies_are_compared_as_their_posteriors(right, n, other, m):
    first, second = stats.beta(right + 1, n - right + 1), stats.beta(other + 1, m - other + 1)
    exact, _ = integrate.quad(lambda x: first.pdf(x) * second.cdf(x), 0, 1, points=[other / m, right / n])
    assert beats_unpaired(np.array([right / n]), n, other / m, m)[0] == pytest.approx(exact, abs=0.03)


def test_an_unknown_accuracy_beats_nothing_that_is_known():
    assert np.isnan(beats_unpaired(np.array([0.5, np.nan]), 10, 0.5, 10)).tolist() == [False, True]


@pytest.mark.parametrize(("probability", "tied"), [(0.09, False), (0.1, True), (0.5, True), (0.9, True), (0.91, False)])
def test_a_tie_is_a_probability_in_the_middle(probability, tied):
    assert is_tie(probability) is tied
    assert is_tie(float("nan")) is False
