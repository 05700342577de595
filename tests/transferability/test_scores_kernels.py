"""Kernel ridge left out one by one, and label-kernel alignment: against refits and plain formulas."""

import functools
import itertools
import math
import sys

import labelled_features
import numpy as np
import pytest
from labelled_features import one_hot
from numpy.testing import assert_allclose
from scipy.spatial.distance import pdist, squareform
from sklearn.kernel_ridge import KernelRidge

from transferscope import transferability
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.transferability import Layer
from transferscope.transferability.kernel_ridge import left_out_by_kernel_ridge

task = functools.partial(labelled_features.task, signal=0.6)


def refitted(X, T, sigma, penalty):
    """Leave-one-out predictions by really leaving one out."""
    everyone = np.arange(len(X))
    model = KernelRidge(alpha=penalty * len(X), kernel="rbf", gamma=1 / (2 * sigma**2))
    return np.stack([model.fit(X[everyone != i], T[everyone != i]).predict(X[i : i + 1])[0] for i in everyone])


@functools.cache
def refitted_grid(n, p, signal):
    """Squared error and accuracy of left-out predictions for every σ and λ."""
    X, codes = task(n, p, signal=signal)
    T, median = one_hot(codes), np.median(pdist(X))
    grid = [(factor * median, 10.0**power) for factor in (0.5, 1, 2) for power in range(-9, -2)]
    predictions = {key: refitted(X, T, *key) for key in grid}
    return {key: (np.sum((P - T) ** 2) / n, np.mean(P.argmax(axis=1) == codes)) for key, P in predictions.items()}


@pytest.mark.parametrize(("n", "p", "signal"), [(30, 3, 0.3), (20, 8, 1.0), (18, 60, 0.3)])
def test_kernel_ridge_is_the_best_of_the_grid_refitted(xp, n, p, signal):
    X, codes = task(n, p, signal=signal)
    grid = refitted_grid(n, p, signal)
    best = min(grid, key=grid.get)
    layer = Layer(xp.asarray(X))
    fit = transferability.fit_kernel_ridge(layer, codes)
    assert fit.bandwidth == pytest.approx(best[0], rel=1e-9)
    assert fit.penalty == pytest.approx(best[1], rel=1e-9)
    assert fit.squared_error == pytest.approx(grid[best][0], rel=1e-6)
    assert fit.accuracy == pytest.approx(grid[best][1], abs=1e-12)
    value = transferability.kernel_ridge(xp.asarray(X), codes)
    assert type(value) is float
    assert value == fit.accuracy


@pytest.mark.parametrize("noise", [0, 1e-2, 1])
@pytest.mark.parametrize("whole", [60, 20])
def test_no_neighbour_in_the_grid_is_below_what_is_found(monkeypatch, whole, noise):
    """Smooth targets want wide kernels and next to no penalty, noise the opposite; of few samples it is the least."""
    monkeypatch.setattr(sys.modules[left_out_by_kernel_ridge.__module__], "_WHOLE", whole)
    rng = np.random.default_rng(3)
    X = rng.normal(size=(60, 2))
    T = np.sin(X[:, :1] + X[:, 1:]) + noise * rng.normal(size=(60, 1))
    distances, median = squareform(pdist(X)), np.median(pdist(X))
    grid = {}
    for width, power in itertools.product((-1, 0, 1), range(-9, -2)):
        kernel = np.exp(-((distances / (2.0**width * median)) ** 2) / 2)
        inverse = np.linalg.inv(kernel + 60 * 10.0**power * np.eye(60))
        grid[width, power] = np.mean((inverse @ T / np.diag(inverse)[:, None]) ** 2)
    fit, residuals = left_out_by_kernel_ridge(Layer(X), T, np.zeros(60, int))
    place = round(math.log2(fit.bandwidth / median)), round(math.log10(fit.penalty))
    near = [grid[key] for key in grid if whole == 60 or max(abs(np.subtract(key, place))) <= 1]
    assert min(near) == grid[place]
    assert np.mean(residuals**2) == pytest.approx(grid[place], rel=1e-4)


def test_kernel_ridge_sees_what_no_line_separates(xp):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2))
    rings = (np.linalg.norm(X, axis=1) > 1.2).astype(int)
    features = xp.asarray(X)
    assert transferability.kernel_ridge(features, rings) > 0.93
    assert transferability.ridge(features, rings) < 0.7


@pytest.mark.parametrize("searched", [1500, 6])
def test_kernel_ridge_of_constant_features_is_the_majority_of_the_others(xp, monkeypatch, searched):
    monkeypatch.setattr(sys.modules[transferability.fit_kernel_ridge.__module__], "_SEARCHED", searched)
    features = xp.full((10, 3), 0.7)
    assert transferability.kernel_ridge(features, np.arange(10) % 2) == 0
    assert transferability.kernel_ridge(features, np.arange(10) < 7) == pytest.approx(0.7)


def test_the_median_is_over_pairs_that_differ(xp):
    """With most images there many times over, the plain median distance is zero."""
    X = np.repeat(np.arange(3.0), [10, 2, 1])[:, None]
    fit = transferability.fit_kernel_ridge(Layer(xp.asarray(X)), np.repeat([0, 1], [10, 3]))
    assert fit.bandwidth in (0.5, 1.0, 2.0)  # 20 pairs at 1, 10 at 2 and 2 at 1


@pytest.mark.parametrize(("single", "precision"), [(math.inf, 1e-6), (0, 1e-5)])
def test_of_many_samples_width_and_penalty_are_chosen_on_a_part(xp, monkeypatch, single, precision):
    """What is found is the error, on all samples, of the width and the penalty that a part of them chose."""
    X, codes = task(18, 60, signal=0.3)
    for name, value in (("_WHOLE", 12), ("_SEARCHED", 12), ("_SINGLE", single)):
        monkeypatch.setattr(sys.modules[transferability.fit_kernel_ridge.__module__], name, value)
    fit = transferability.fit_kernel_ridge(Layer(xp.asarray(X)), codes)
    T = one_hot(codes)
    predictions = refitted(X, T, fit.bandwidth, fit.penalty)
    assert fit.squared_error == pytest.approx(np.sum((predictions - T) ** 2) / 18, rel=precision)
    assert fit.accuracy == pytest.approx(np.mean(predictions.argmax(axis=1) == codes), abs=1e-12)

    # They have the least error among four samples of each class, spread along what varies most.
    points = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)[0][:, 0]
    ranks = [np.flatnonzero(codes == c)[np.argsort(points[codes == c])] for c in range(3)]
    part = np.concatenate([members[[0, 2, 3, 5]] for members in ranks])
    widths = [factor * np.median(pdist(X[part])) for factor in (0.5, 1, 2)]
    errors = {
        key: np.sum((refitted(X[part], T[part], *key) - T[part]) ** 2)
        for key in itertools.product(widths, [10.0**power for power in range(-9, -2)])
    }
    # What is added to the diagonal is the same for all of them.
    assert (fit.bandwidth, fit.penalty * 18 / 12) == pytest.approx(min(errors, key=errors.get), rel=1e-9)


@pytest.mark.parametrize("block", [7, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_kernel_of_many_samples_is_made_in_blocks(xp, monkeypatch, block, dtype):
    module = sys.modules[transferability.fit_kernel_ridge.__module__]
    monkeypatch.setattr(module, "_BLOCK", 50 * block)
    X, _ = task(50, 4)
    kernel = module._kernel_of(xp.asarray(X), 1.5, getattr(xp, dtype))
    assert kernel.dtype == getattr(xp, dtype)
    assert_allclose(np.asarray(kernel), np.exp(squareform(pdist(X)) ** 2 / -4.5), rtol=3e-7)


@pytest.mark.parametrize(("single", "precision"), [(math.inf, 1e-9), (0, 3e-5)])
def test_kernel_ridge_of_many_samples_does_not_depend_on_their_order(monkeypatch, single, precision):
    for name, value in (("_WHOLE", 20), ("_SEARCHED", 40), ("_SINGLE", single)):
        monkeypatch.setattr(sys.modules[transferability.fit_kernel_ridge.__module__], name, value)
    X, codes = task(200, 5, 7, signal=0.8)
    codes = np.minimum(codes, 5)
    fit = transferability.fit_kernel_ridge(Layer(X), codes)
    order = np.random.default_rng(0).permutation(200)
    again = transferability.fit_kernel_ridge(Layer(2 * X[order, ::-1] + 1), 5 - codes[order])
    assert again.bandwidth == pytest.approx(2 * fit.bandwidth, rel=1e-9)
    assert again[0] == fit[0]
    assert again.squared_error == pytest.approx(fit.squared_error, rel=precision)


def plain_hsic(K, L):
    n = len(K)
    H = np.eye(n) - 1 / n
    return np.trace(K @ H @ L @ H)


def unbiased_hsic(K, L):
    """Song et al. (2012), equation 5, times n (n - 3)."""
    n = len(K)
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    return np.trace(K @ L) + K.sum() * L.sum() / ((n - 1) * (n - 2)) - 2 * (K @ L).sum() / (n - 2)


@pytest.mark.parametrize(("debiased", "hsic"), [(False, plain_hsic), (True, unbiased_hsic)])
@pytest.mark.parametrize(("n", "p", "classes"), [(30, 4, 3), (20, 60, 5), (41, 7, 2)])
def test_alignment_is_cka_with_the_one_hot_labels(xp, n, p, classes, debiased, hsic):
    X, codes = task(n, p, classes)
    codes = np.maximum(codes - 1, 0)  # of unequal size
    if classes == 2:
        codes = np.arange(n) % 3 // 2
    K, L = X @ X.T, (codes[:, None] == codes).astype(float)
    value = transferability.alignment(xp.asarray(X), codes, debiased=debiased)
    assert type(value) is float
    assert value == pytest.approx(hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L)), abs=1e-10)


def test_alignment_of_the_labels_is_one_and_of_wide_noise_is_zero(xp):
    codes = np.arange(60) % 3
    for debiased in (False, True):
        value = transferability.alignment(xp.asarray(one_hot(codes)), codes, debiased=debiased)
        assert value == pytest.approx(1, abs=1e-12)
    rng = np.random.default_rng(0)
    noise = [xp.asarray(rng.normal(size=(60, 1000))) for _ in range(20)]
    assert abs(np.mean([transferability.alignment(X, codes) for X in noise])) < 0.02
    assert np.mean([transferability.alignment(X, codes, debiased=False) for X in noise]) > 0.15


def test_alignment_without_structure_is_nan_and_says_so(xp):
    with pytest.warns(TransferscopeWarning, match="`features` have zero self-HSIC"):
        assert np.isnan(transferability.alignment(xp.full((10, 3), 0.7), np.arange(10) % 2))
    X = xp.asarray(task(10, 4)[0])
    with pytest.warns(TransferscopeWarning, match="`labels` have zero self-HSIC"):
        assert np.isnan(transferability.alignment(X, np.arange(10)))
    assert 0 < transferability.alignment(X, np.arange(10), debiased=False) <= 1


def test_debiased_alignment_needs_four_samples(xp):
    X = xp.asarray(task(3, 2)[0])
    with pytest.raises(InputError, match=r"at least 4 samples .* got 3"):
        transferability.alignment(X, [0, 1, 0])
    assert 0 <= transferability.alignment(X, [0, 1, 0], debiased=False) <= 1
