"""Stratified draws without replacement, and the standard errors that follow from them."""

import numpy as np
import pytest

from transferscope.errors import InputError
from transferscope.transferability.standard_errors import jackknife_standard_error, stratified_draws

SKEWED = np.repeat(["rare", "pair", "few", "many"], [1, 2, 5, 92])


def test_draws_keep_the_classes_and_repeat_no_image():
    for drawn in stratified_draws(SKEWED, 50, seed=0):
        assert len(np.unique(drawn)) == len(drawn) == 80
        assert sorted(drawn) == drawn.tolist()
        names, counts = np.unique(SKEWED[drawn], return_counts=True)
        found = dict(zip(names.tolist(), counts.tolist(), strict=True))
        assert (found["rare"], found["pair"]) == (1, 2)
        assert found["few"] in (3, 4, 5)
        assert 72 <= found["many"] <= 74


def test_every_class_with_two_images_keeps_two_of_them():
    labels = np.repeat(np.arange(30), 3)
    for drawn in stratified_draws(labels, 20, seed=1):
        assert np.bincount(labels[drawn], minlength=30).min() >= 2


def test_every_image_of_a_class_is_as_likely_as_any_other():
    labels = np.repeat([0, 1], [40, 60])
    share = np.mean([np.isin(np.arange(100), drawn) for drawn in stratified_draws(labels, 3000, seed=2)], axis=0)
    # 0.8 with a standard error of 0.0073.
    assert abs(share - 0.8).max() < 5 * 0.0073


def test_the_seed_decides_the_draws():
    one, same, other = (list(stratified_draws(SKEWED, 3, seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one[0], one[1])


@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [0, 1, 2], [0, 0, 1, 1, 2]])
def test_too_few_images_say_so(labels):
    with pytest.raises(InputError, match=f"more than {len(labels)} images of .* for `uncertainty`"):
        next(stratified_draws(np.array(labels), 2, seed=0))


def test_the_standard_error_of_a_mean_is_the_textbook_one():
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], [60, 140])
    values = np.where(labels == 0, rng.normal(0, 3, 200), rng.normal(50, 1, 200))
    drawn = list(stratified_draws(labels, 4000, seed=0))
    error = jackknife_standard_error(np.array([values[rows].mean() for rows in drawn]), 160, 200)
    # Stratified: what lies between the classes does not count.
    within = [values[labels == label].var(ddof=1) * (labels == label).sum() for label in (0, 1)]
    assert error == pytest.approx(np.sqrt(sum(within)) / 200, rel=0.05)


def test_the_standard_error_has_the_shape_of_the_statistic():
    values = np.random.default_rng(0).normal(size=(6, 3, 2))
    expected = [[2 * np.std(values[:, i, j], ddof=1) for j in range(2)] for i in range(3)]
    np.testing.assert_allclose(jackknife_standard_error(values, 80, 100), expected)
