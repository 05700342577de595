"""Whether one source really beats another: exact references and simulations."""

import numpy as np
import pytest
from scipy import integrate, stats

from transferscope.ties import beats, beats_unpaired, is_tie


def hits(first_only, second_only, both=5, neither=5):
    first = [1] * first_only + [0] * second_only + [1] * both + [0] * neither
    second = [0] * first_only + [1] * second_only + [1] * both + [0] * neither
    return np.array([first, second], dtype=bool)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (3, 0), (5, 2), (2, 9), (40, 30), (300, 260), (0, 900)])
def test_the_probability_is_one_minus_the_mid_p_of_mcnemars_exact_test(b, c):
    matrix = beats(hits(b, c))
    # One-sided p of b or more of b + c at even odds, of which b itself counts half.
    half = stats.binom.pmf(b, b + c, 0.5) / 2
    assert matrix[1, 0] == pytest.approx(stats.binom.sf(b, b + c, 0.5) + half, rel=1e-9)
    assert matrix[0, 1] == pytest.approx(stats.binom.cdf(b - 1, b + c, 0.5) + half, rel=1e-9)
    assert matrix.diagonal().tolist() == [0.5, 0.5]


def test_images_that_both_get_right_or_wrong_say_nothing():
    assert beats(hits(7, 3, both=0, neither=0))[0, 1] == beats(hits(7, 3, both=400, neither=90))[0, 1]


def test_the_probability_is_the_share_of_worlds_in_which_the_first_is_better():
    rng = np.random.default_rng(0)
    share = rng.random(200_000)  # of the images that tell them apart
    first = rng.binomial(12, share)
    for b in (4, 6, 9):
        worlds = share[first == b] > 0.5
        assert beats(hits(b, 12 - b))[0, 1] == pytest.approx(worlds.mean(), abs=0.015)


def test_many_sources_are_compared_pair_by_pair():
    correct = np.random.default_rng(1).random((4, 60)) < np.array([[0.9], [0.7], [0.7], [0.2]])
    matrix = beats(correct.astype(np.int8))
    for i in range(4):
        for j in range(4):
            assert matrix[i, j] == pytest.approx(beats(correct[[i, j]])[0, 1])
    np.testing.assert_allclose(matrix + matrix.T, 1)


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
