"""Traps that break existing tools, by their number in the project's list, without those of capture."""

import numpy as np
import pytest

from transferscope import similarity
from transferscope.arrays.backend import to_numpy
from transferscope.arrays.linalg import u_center
from transferscope.errors import TransferscopeWarning


def pair(n=64, p=1000, q=1200, seed=0):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 10))
    return [0.3 * shared @ rng.normal(size=(10, width)) + rng.normal(size=(n, width)) for width in (p, q)]


def streamed(xp, X, Y, batches, **options):
    accumulator = similarity.MinibatchCKA(**options)
    for rows in batches:
        accumulator.update([xp.asarray(X[rows])], [xp.asarray(Y[rows])])
    return float(accumulator.result()[0, 0])


@pytest.mark.parametrize("ratio", [100, 1000])
def test_trap_2_float32_features_far_from_zero(xp, ratio):
    """Uncentred float32 Grams cancel: self-HSIC goes negative there and CKA becomes NaN."""
    X, Y = pair()
    far = [(A + ratio * A.std()).astype(np.float32) for A in (X, Y)]
    everything = [slice(None)]
    for debiased in (False, True):
        expected = similarity.linear_cka(X, Y, debiased=debiased)
        value = similarity.linear_cka(*map(xp.asarray, far), debiased=debiased)
        assert value == pytest.approx(expected, abs=1e-6)
        assert streamed(xp, *far, everything, debiased=debiased) == pytest.approx(expected, abs=1e-6)
    if ratio == 100:
        # That the trap is there at all: the same formula without centring is far off in float32.
        K, L = (A @ A.T for A in far)
        n = np.float32(len(K))
        H = np.eye(len(K), dtype=np.float32) - 1 / n
        K, L = (H @ A @ H for A in (K, L))
        assert not abs(np.sum(K * L) / np.sqrt(np.sum(K * K) * np.sum(L * L)) - expected) < 1e-4


@pytest.mark.parametrize("tail", [1, 2, 3])
def test_trap_4_a_short_tail_batch_is_left_out_with_a_warning(xp, tail):
    X, Y = pair(n=40 + tail, p=20, q=30)
    whole = [slice(0, 20), slice(20, 40)]
    with pytest.warns(TransferscopeWarning, match=f"batch of {tail} rows was left out"):
        value = streamed(xp, X, Y, [*whole, slice(40, None)])
    assert value == streamed(xp, X, Y, whole)


def test_trap_4_a_tail_of_four_counts(xp):
    X, Y = pair(n=44, p=20, q=30)
    whole = [slice(0, 20), slice(20, 40)]
    value = streamed(xp, X, Y, [*whole, slice(40, None)])
    assert np.isfinite(value)
    assert value != streamed(xp, X, Y, whole)


def test_trap_6_sums_are_divided_not_ratios_averaged(xp):
    """Batches of unlike scale and size: neither the last one nor the mean of their ratios is the answer."""
    X, Y = pair(n=60, p=20, q=30)
    X[:15] *= 5
    Y[15:] = Y[15:][::-1].copy()
    batches = [slice(0, 15), slice(15, 35), slice(35, 60)]

    def unbiased(K, L):
        n = len(K)
        K, L = K * (1 - np.eye(n)), L * (1 - np.eye(n))
        total = np.trace(K @ L) + K.sum() * L.sum() / ((n - 1) * (n - 2)) - 2 * (K @ L).sum() / (n - 2)
        return total / (n * (n - 3))

    hsic, weights = [], []
    for rows in batches:
        K, L = X[rows] @ X[rows].T, Y[rows] @ Y[rows].T
        hsic.append([unbiased(K, L), unbiased(K, K), unbiased(L, L)])
        weights.append(len(K) * (len(K) - 3))
    xy, xx, yy = np.average(hsic, axis=0, weights=weights)
    ratios = [a / np.sqrt(b * c) for a, b, c in hsic]
    value = streamed(xp, X, Y, batches)
    assert value == pytest.approx(xy / np.sqrt(xx * yy), abs=1e-12)
    assert abs(value - ratios[-1]) > 0.01
    assert abs(value - np.mean(ratios)) > 0.01


def test_trap_7_the_threshold_is_on_squared_singular_values(xp):
    """Fifty equal directions: 47 reach 0.94 of the variance, neither 1 nor a share of the sum of s."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(np.column_stack([np.ones(200), rng.normal(size=(200, 50))]))[0][:, 1:]
    assert similarity.svcca_subspace(xp.asarray(basis), 0.935).shape == (200, 47)
    # s² = 90, 9, 0.9, 0.1 … : two directions hold 99 of 100; by s it would take all four.
    falling = basis[:, :4] * np.sqrt([90.0, 9.0, 0.9, 0.1])
    U = to_numpy(similarity.svcca_subspace(xp.asarray(falling), 0.9899))
    assert U.shape == (200, 2)
    np.testing.assert_allclose(np.abs(U.T @ basis[:, :2]), np.eye(2), atol=1e-12)


@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1e6])
def test_trap_8_no_epsilon_in_the_denominators(xp, scale):
    X, Y = pair(n=30, p=12, q=10)
    small, other = xp.asarray(scale * X), xp.asarray(Y)
    for debiased in (False, True):
        expected = similarity.linear_cka(xp.asarray(X), other, debiased=debiased)
        assert similarity.linear_cka(small, other, debiased=debiased) == pytest.approx(expected, rel=1e-9)
        batches = [slice(0, 15), slice(15, 30)]
        expected = streamed(xp, X, Y, batches, debiased=debiased)
        assert streamed(xp, scale * X, Y, batches, debiased=debiased) == pytest.approx(expected, rel=1e-9)
    assert similarity.svcca(small, other) == pytest.approx(similarity.svcca(xp.asarray(X), other), rel=1e-9)


def test_debiased_values_are_not_clamped(xp):
    """The rational example of test_similarity, streamed: -3/10 over the root of 9/10 · 7/6."""
    X = np.array([[1.0, 0], [0, 1], [1, 1], [2, 1], [0, 3]])
    Y = np.array([[1.0], [0], [2], [1], [3]])
    assert streamed(xp, X, Y, [slice(None)]) == pytest.approx(-0.3 / np.sqrt(0.9 * 7 / 6), abs=1e-12)


def test_self_hsic_is_never_negative_by_rounding(xp):
    """Far more features than samples: the unbiased part is a sliver of the Gram's norm."""
    X = np.random.default_rng(0).normal(size=(8, 20_000)).astype(np.float32)
    K = u_center(xp.asarray((X @ X.T).astype(np.float64)))
    assert float(xp.sum(K * K)) > 0
    assert streamed(xp, X, X, [slice(None)]) == pytest.approx(1, abs=1e-9)
