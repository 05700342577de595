"""Distances of feature sets and diversity: closed forms, slow plain references, invariances."""

import itertools
import math

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.spatial.distance import pdist

from transferscope.arrays.discrepancy import diversity, frechet_distance, maximum_mean_discrepancy
from transferscope.errors import InputError


def sets(n=40, m=30, p=5, *, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) @ rng.normal(size=(p, p))
    Y = rng.normal(size=(m, p)) @ rng.normal(size=(p, p)) + shift
    X.flags.writeable = Y.flags.writeable = False
    return X, Y


def frechet_by_sqrtm(X, Y):
    """The formula as it stands, with dense roots."""
    S, T = np.cov(X, rowvar=False), np.cov(Y, rowvar=False)
    root = sqrtm(S)
    cross = sqrtm(root @ T @ root).real
    return np.sum((X.mean(0) - Y.mean(0)) ** 2) + np.trace(S) + np.trace(T) - 2 * np.trace(cross)


def orthogonal(p, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(p, p)))[0]


def test_frechet_in_one_dimension_is_the_squared_differences_of_means_and_deviations(xp):
    X, Y = sets(p=1, shift=3.0)
    expected = (X.mean() - Y.mean()) ** 2 + (X.std(ddof=1) - Y.std(ddof=1)) ** 2
    assert frechet_distance(xp.asarray(X), xp.asarray(Y)) == pytest.approx(expected, rel=1e-12)


def test_frechet_of_uncorrelated_features_is_the_sum_over_features():
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=3)))
    scales, others, shift = np.array([1.0, 2.0, 0.5]), np.array([3.0, 0.1, 0.5]), np.array([1.0, -2.0, 0.0])
    factor = math.sqrt(8 / 7)  # eight corners of the cube: standard deviation √(8/7), no correlation
    expected = np.sum(shift**2) + factor**2 * np.sum((scales - others) ** 2)
    assert frechet_distance(signs * scales, signs * others + shift) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_frechet_is_the_formula_with_matrix_roots(xp, shift):
    X, Y = sets(shift=2.0)
    expected = frechet_by_sqrtm(X, Y)
    found = frechet_distance(xp.asarray(X + shift), xp.asarray(Y + shift))
    assert found == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(xp.asarray(Y), xp.asarray(X)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(4, 6), (4, 30), (30, 4)])
def test_frechet_with_fewer_samples_than_features(n, m):
    X, Y = sets(n, m, 12)
    S, T = np.cov(X, rowvar=False), np.cov(Y, rowvar=False)
    # The eigenvalues of Σ₁ Σ₂ are those of Σ₁^½ Σ₂ Σ₁^½; of a product without full rank sqrtm would be unreliable.
    eigenvalues = np.clip(np.linalg.eigvals(S @ T).real, 0, None)
    eigenvalues[eigenvalues < 1e-10 * eigenvalues.max()] = 0
    cross = np.sum(np.sqrt(eigenvalues))
    expected = np.sum((X.mean(0) - Y.mean(0)) ** 2) + np.trace(S) + np.trace(T) - 2 * cross
    assert frechet_distance(X, Y) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "p"), [(40, 5), (6, 12)])
def test_frechet_of_a_set_with_itself_is_zero_and_with_a_shifted_copy_the_shift(n, p):
    X, _ = sets(n, p=p)
    total = np.trace(np.cov(X, rowvar=False))
    assert 0 <= frechet_distance(X, X) <= 1e-12 * total
    assert frechet_distance(X, X + 2.0) == pytest.approx(4 * p, rel=1e-10)
    assert frechet_distance(X, 3 * X) == pytest.approx(4 * total + 4 * np.sum(X.mean(0) ** 2), rel=1e-10)


def test_frechet_is_unchanged_by_orthogonal_maps_and_follows_the_scale():
    X, Y = sets(shift=1.0)
    Q, expected = orthogonal(5), frechet_distance(X, Y)
    assert frechet_distance(X @ Q, Y @ Q) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(X * 1e-6, Y * 1e-6) == pytest.approx(expected * 1e-12, rel=1e-10)


def test_frechet_of_float32_is_that_of_the_same_numbers_in_float64(xp):
    X, Y = (each.astype(np.float32) for each in sets(shift=1.0))
    expected = frechet_distance(X.astype(np.float64), Y.astype(np.float64))
    assert frechet_distance(xp.asarray(X), xp.asarray(Y)) == pytest.approx(expected, rel=1e-12)


def plain_mmd(X, Y, sigma):
    def mean(A, B, *, apart):
        values = [
            math.exp(-np.sum((a - b) ** 2) / (2 * sigma**2))
            for i, a in enumerate(A)
            for j, b in enumerate(B)
            if not apart or i != j
        ]
        return np.mean(values)

    return mean(X, X, apart=True) + mean(Y, Y, apart=True) - 2 * mean(X, Y, apart=False)


@pytest.mark.parametrize("bandwidth", [None, 1.5])
@pytest.mark.parametrize(("n", "m"), [(12, 9), (12, 10)])  # an odd and an even number of pairs
def test_mmd_is_the_double_loop(xp, bandwidth, n, m):
    X, Y = sets(n, m, shift=0.5)
    sigma = np.median(pdist(np.concatenate([X, Y]))) if bandwidth is None else bandwidth
    found = maximum_mean_discrepancy(xp.asarray(X), xp.asarray(Y), bandwidth=bandwidth)
    assert found == pytest.approx(plain_mmd(X, Y, sigma), rel=1e-9, abs=1e-12)


def test_mmd_is_zero_on_average_for_one_distribution_and_grows_with_a_shift():
    values = np.array([
        [maximum_mean_discrepancy(X, Y + shift) for shift in (0.0, 0.5, 1.0, 2.0)]
        for X, Y in (np.split(np.random.default_rng(seed).normal(size=(40, 3)), 2) for seed in range(200))
    ])  # fmt: skip
    means, errors = values.mean(0), values.std(0, ddof=1) / math.sqrt(len(values))
    assert abs(means[0]) < 3 * errors[0]
    assert (values[:, 0] < 0).mean() > 0.3
    assert np.all(np.diff(means) > 5 * errors[1:])


def test_mmd_keeps_its_digits_for_a_wide_kernel():
    """For σ → ∞ it is ‖μ₁ - μ₂‖² / σ², corrected for the variances: the linear kernel's estimate."""
    X, Y = sets(shift=1.0)
    cross = X @ X.T, Y @ Y.T, X @ Y.T
    linear = [(K.sum() - np.trace(K)) / (len(K) * (len(K) - 1)) for K in cross[:2]]
    expected = sum(linear) - 2 * cross[2].mean()
    assert maximum_mean_discrepancy(X, Y, bandwidth=1e6) * 1e12 == pytest.approx(expected, rel=1e-4)


def test_mmd_is_symmetric_and_unchanged_by_shifts_and_scale():
    X, Y = sets(shift=1.0)
    expected = maximum_mean_discrepancy(X, Y)
    assert maximum_mean_discrepancy(Y, X) == pytest.approx(expected, rel=1e-10)
    assert maximum_mean_discrepancy(X * 7 + 100, Y * 7 + 100) == pytest.approx(expected, rel=1e-9)
    assert maximum_mean_discrepancy(X @ orthogonal(5), Y @ orthogonal(5)) == pytest.approx(expected, rel=1e-9)


def test_mmd_of_copies_has_no_median_distance_but_takes_a_bandwidth(xp):
    X, Y = xp.zeros((6, 2)), xp.concat([xp.zeros((5, 2)), xp.ones((1, 2))], axis=0)
    with pytest.raises(InputError, match="half of the distances between them are 0; remove copies, or pass `bandwidth"):
        maximum_mean_discrepancy(X, Y)
    kernel = math.exp(-1)
    expected = 1 + (20 + 10 * kernel) / 30 - 2 * (30 + 6 * kernel) / 36
    assert maximum_mean_discrepancy(X, Y, bandwidth=1.0) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("bandwidth", [0, -1.0, math.inf, math.nan])
def test_a_bandwidth_that_is_no_positive_number_is_an_error(bandwidth):
    with pytest.raises(InputError, match="Expected `bandwidth` to be a positive number but got"):
        maximum_mean_discrepancy(*sets(), bandwidth=bandwidth)


@pytest.mark.parametrize("function", [frechet_distance, maximum_mean_discrepancy])
def test_sets_that_do_not_fit_are_an_error(function):
    X, Y = sets()
    with pytest.raises(InputError, match=r"same n_features but got \(40, 5\) and \(30, 4\); take both from the same"):
        function(X, Y[:, :4])
    with pytest.raises(InputError, match=r"Expected `Y` .* at least 2 samples"):
        function(X, Y[:1])
    with pytest.raises(InputError, match=r"Expected `X` .* finite values but got 1 NaN"):
        function(np.where(np.arange(200).reshape(40, 5) == 7, np.nan, X), Y)


def plain_diversity(F, labels):
    mean = F.mean(0)
    within = np.mean([np.sum((x - F[labels == label].mean(0)) ** 2) for x, label in zip(F, labels, strict=True)])
    between = sum(np.mean(labels == c) * np.sum((F[labels == c].mean(0) - mean) ** 2) for c in np.unique(labels))
    return within, between


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_diversity_splits_the_total_variance(xp, offset):
    F = sets(37, shift=0.0)[0]
    codes = np.random.default_rng(1).integers(0, 4, 37)
    found = diversity(xp.asarray(F + offset), xp.asarray(codes))
    np.testing.assert_allclose(found, plain_diversity(F, codes), rtol=1e-7)
    assert found.within + found.between == pytest.approx(F.var(0).sum(), rel=1e-7)
    names = np.array(["d", "b", "a", "c"])[codes]
    assert diversity(xp.asarray(F + offset), names.tolist()) == pytest.approx(found)


def test_one_class_has_nothing_between_and_single_images_nothing_within(xp):
    F = xp.asarray(sets(6)[0])
    total = np.asarray(sets(6)[0]).var(0).sum()
    assert diversity(F, [1] * 6) == pytest.approx((total, 0.0))
    assert diversity(F, range(6)) == pytest.approx((0.0, total))


def test_labels_of_another_length_are_an_error():
    with pytest.raises(InputError, match=r"Expected `labels` to have shape \(40,\).* but got \(39,\)"):
        diversity(sets()[0], np.zeros(39, int))
