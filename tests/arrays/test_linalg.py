import tracemalloc

import numpy as np
import pytest
import scipy.linalg
from scipy.spatial.distance import cdist

from transferscope.arrays.backend import to_numpy
from transferscope.arrays.linalg import (
    center,
    check_features,
    check_paired,
    gram,
    is_constant,
    sketched_svd,
    squared_distances,
    squared_distances_between,
    standardize,
    thin_svd,
    u_center,
)
from transferscope.errors import InputError


def features(n, p, *, seed=0, dtype="float64", offset=0.0):
    X = np.random.default_rng(seed).normal(size=(n, p)).astype(dtype) + np.asarray(offset, dtype)
    X.flags.writeable = False
    return X


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("bool", "float64"),
        ("int8", "float64"),
        ("uint16", "float64"),
        ("float32", "float32"),
        ("float64", "float64"),
    ],
)
def test_features_become_real_floating(xp, dtype, expected):
    X = check_features(xp.ones((3, 2), dtype=getattr(xp, dtype)))
    assert X.dtype == getattr(xp, expected)
    assert X.shape == (3, 2)


def test_half_precision_becomes_float32():
    assert check_features(np.ones((3, 2), np.float16)).dtype == np.float32


@pytest.mark.parametrize("shape", [(3,), (3, 0), (2, 3, 4), (0, 3), ()])
def test_wrong_shape_raises(xp, shape):
    with pytest.raises(InputError, match=r"Expected `feats` to have shape \(n_samples, n_features\).*got \("):
        check_features(xp.ones(shape), "feats")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_features_raise(xp, value):
    X = np.ones((3, 2))
    X[1, 1] = value
    with pytest.raises(InputError, match=r"`X`.*1 NaN or infinite"):
        check_features(xp.asarray(X))


@pytest.mark.parametrize("X", [np.ones((2, 2), complex), np.array([["a", "b"]]), np.array([[None]])])
def test_other_dtypes_raise(X):
    with pytest.raises(InputError, match="real numbers but got dtype"):
        check_features(X)


def test_paired_features_share_their_samples(xp):
    with pytest.raises(InputError, match=r"same n_samples but got \(3, 2\) and \(4, 2\)"):
        check_paired(xp.ones((3, 2)), xp.ones((4, 2)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_center_subtracts_the_column_means(xp, dtype):
    X = features(50, 7, dtype=dtype, offset=3.0)
    Z = center(xp.asarray(X))
    assert Z.dtype == getattr(xp, dtype)
    np.testing.assert_allclose(to_numpy(Z), X - X.mean(axis=0, dtype=np.float64), atol=10 * np.finfo(dtype).eps)


def test_center_keeps_the_digits_of_float32_features_far_from_zero(xp):
    X = features(200, 5, dtype="float32", offset=1e4)
    exact = X.astype(np.float64) - X.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(to_numpy(center(xp.asarray(X))), exact, atol=1e-6)


def test_center_makes_constant_features_exactly_zero(xp):
    X = np.full((7, 3), 0.1)
    assert not np.any(to_numpy(center(xp.asarray(X))))


def test_gram_is_that_of_doubly_centred_products(xp):
    X = features(9, 4, offset=2.0)
    H = np.eye(9) - 1 / 9
    np.testing.assert_allclose(to_numpy(gram(xp.asarray(X))), H @ X @ X.T @ H, atol=1e-12)
    assert gram(xp.asarray(X.astype(np.float32))).dtype == xp.float64


def test_u_centred_products_are_the_unbiased_hsic(xp):
    """Against Song et al. (2012), equation 5, from Gram matrices that are not centred."""
    X, Y = features(9, 4, offset=1.0), features(9, 3, seed=1, offset=-2.0)
    n = 9
    K, L = X @ X.T, Y @ Y.T
    np.fill_diagonal(K, 0)
    np.fill_diagonal(L, 0)
    expected = np.trace(K @ L) + K.sum() * L.sum() / ((n - 1) * (n - 2)) - 2 * (K @ L).sum() / (n - 2)
    first, second = (to_numpy(u_center(gram(xp.asarray(A)))) for A in (X, Y))
    assert np.sum(first * second) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(first.sum(axis=0), 0, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("shape", [(40, 12), (30, 30), (20, 60)])
def test_thin_svd_factors_the_features(xp, shape, centered, dtype):
    X = features(*shape, dtype=dtype, offset=0.5)
    left, s = (to_numpy(factor) for factor in thin_svd(xp.asarray(X), centered=centered))
    wide = X.astype(np.float64)
    if centered:
        wide = wide - wide.mean(axis=0)
    expected = np.linalg.svd(wide, compute_uv=False)
    rank = min(shape[0] - centered, shape[1])
    assert left.dtype == s.dtype == np.float64
    assert left.shape == (shape[0], rank)
    np.testing.assert_allclose(s, expected[:rank], rtol=1e-9)
    np.testing.assert_allclose(left.T @ left, np.eye(rank), atol=1e-10)
    np.testing.assert_allclose((left * s**2) @ left.T, wide @ wide.T, atol=1e-9)


@pytest.mark.parametrize("shape", [(60, 200), (200, 60)])
def test_rounding_of_float32_features_is_no_direction(xp, shape):
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(shape[0], 5)) @ rng.normal(size=(5, shape[1]))).astype(np.float32)
    assert thin_svd(xp.asarray(X)).left.shape[1] == 5
    # In float64 the same numbers are taken at their word: rounding has filled the other directions.
    assert thin_svd(xp.asarray(X.astype(np.float64))).left.shape[1] > 5


def test_small_directions_of_float64_features_are_kept(xp):
    X = features(20, 60) * np.logspace(0, -9, 60)
    left, s = thin_svd(xp.asarray(X))
    expected = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)
    assert left.shape[1] == 19
    np.testing.assert_allclose(to_numpy(s), expected[:19], rtol=1e-6)


def test_constant_features_have_rank_zero(xp):
    assert thin_svd(xp.full((6, 3), 0.1)).left.shape == (6, 0)
    assert thin_svd(xp.full((6, 3), 0.1), centered=False).left.shape == (6, 1)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_standardized_features_have_mean_0_and_deviation_1(xp, dtype, tolerance, scale):
    X = (features(50, 4, offset=3.0) * np.array([1, 10, 0.1, 1]) * scale).astype(dtype)
    Z = standardize(xp.asarray(X))
    assert Z.dtype == getattr(xp, dtype)
    wide = X.astype(np.float64) / scale
    np.testing.assert_allclose(to_numpy(Z), (wide - wide.mean(axis=0)) / wide.std(axis=0), atol=tolerance)


def test_features_without_variance_standardize_to_zero(xp):
    X = np.column_stack([features(20, 1), np.full(20, 0.1), 1e9 + 1e-7 * features(20, 1, seed=1)])
    Z = to_numpy(standardize(xp.asarray(X)))
    assert not np.any(Z[:, 1:])
    assert np.std(Z[:, 0]) == pytest.approx(1)


def test_constant_features_are_told_from_others(xp):
    X = np.full((9, 200), 0.1)
    assert is_constant(xp.asarray(X))
    X[3, 150] = 0.2
    assert not is_constant(xp.asarray(X))
    assert is_constant(xp.asarray(X), xp.asarray([1, 2, 2, 8]))
    assert not is_constant(xp.asarray(X), xp.asarray([1, 3]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gram_in_double_precision_by_blocks(xp, dtype, monkeypatch):
    X = features(12, 300, dtype=dtype, offset=1e3)
    wide = X.astype(np.float64)
    centred = wide - wide.mean(axis=0)
    whole = to_numpy(gram(xp.asarray(X), double=True))
    np.testing.assert_allclose(whole, centred @ centred.T, rtol=1e-9, atol=1e-9)
    monkeypatch.setattr("transferscope.arrays.linalg.BLOCK", 12 * 7)
    np.testing.assert_allclose(to_numpy(gram(xp.asarray(X), double=True)), whole, rtol=1e-12, atol=1e-12)


def test_squared_distances_come_from_the_gram_matrix(xp):
    X = features(15, 4, offset=5.0)
    X = np.concatenate([X, X[:3]])
    distances = to_numpy(squared_distances(gram(xp.asarray(X))))
    np.testing.assert_allclose(distances, [[np.sum((a - b) ** 2) for b in X] for a in X], atol=1e-12)
    assert np.all(distances >= 0)
    assert not np.any(np.diag(distances))


def test_thin_svd_from_a_gram_matrix_that_is_there(xp):
    X = xp.asarray(features(20, 60, dtype="float32"))
    asked = []
    expected = thin_svd(X)
    given = thin_svd(X, gram=lambda: asked.append(1) or gram(X, double=True))
    assert asked == [1]
    np.testing.assert_allclose(to_numpy(given.singular_values), to_numpy(expected.singular_values), rtol=1e-12)
    # Float64 features and tall ones need more digits than their Gram matrix has.
    thin_svd(xp.astype(X, xp.float64), gram=lambda: pytest.fail("not accurate enough"))
    thin_svd(xp.asarray(features(60, 20, dtype="float32")), gram=lambda: pytest.fail("not the cheaper way"))


def decaying(n, p, decay, *, seed=0):
    """Features whose centred singular values are k^-decay, away from the origin; and their exact SVD."""
    rng = np.random.default_rng(seed)
    k = min(n - 1, p)
    left = np.linalg.qr(np.column_stack([np.ones(n), rng.normal(size=(n, k))]))[0][:, 1:]
    right = np.linalg.qr(rng.normal(size=(p, k)))[0]
    s = np.arange(1.0, k + 1) ** -decay
    return (left * s) @ right.T + 3.0, left, s


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "p"), [(100, 400), (300, 80)])
@pytest.mark.parametrize("decay", [1.0, 2.0])
def test_sketch_of_a_decaying_spectrum(xp, n, p, decay, dtype):
    X, left, s = decaying(n, p, decay)
    factors, total, captured = sketched_svd(xp.asarray(X.astype(dtype)), 30)
    U, values = (to_numpy(factor) for factor in factors)
    assert U.shape == (n, 30)
    np.testing.assert_allclose(U.T @ U, np.eye(30), atol=1e-9)
    np.testing.assert_allclose(U.sum(axis=0), 0, atol=1e-6)
    assert total == pytest.approx(np.sum(s**2), rel=1e-5)
    # What is said of the sketch is exact: the features along its directions, and their share of the total.
    wide = X.astype(dtype).astype(np.float64)
    wide = wide - wide.mean(axis=0)
    np.testing.assert_allclose(values, np.linalg.norm(U.T @ wide, axis=1), rtol=1e-7)
    assert captured == pytest.approx(np.sum((U.T @ wide) ** 2) / np.sum(wide**2), abs=1e-12)
    # How good it is: never more than the true SVD, and hardly less.
    best = np.cumsum(s**2) / np.sum(s**2)
    shares = np.cumsum(values**2) / total
    assert np.all(shares <= best[:30] + 1e-6)
    np.testing.assert_allclose(shares, best[:30], atol=1e-3)
    assert np.max(scipy.linalg.subspace_angles(U[:, :5], left[:, :5])) < 0.05 / decay
    for threshold in (0.5, 0.7, 0.8, 0.9):
        if captured >= threshold:
            assert np.sum(shares < threshold) == np.sum(best < threshold)


def test_more_power_iterations_come_closer(xp):
    X, *_ = decaying(150, 500, 0.5)
    shares = [sketched_svd(xp.asarray(X), 20, power_iterations=q).captured for q in (0, 1, 4)]
    assert shares[0] < shares[1] < shares[2]


def test_a_sketch_of_full_size_is_the_svd(xp):
    X, left, s = decaying(30, 50, 1.0)
    factors, _, captured = sketched_svd(xp.asarray(X), 100)
    assert captured == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(to_numpy(factors.singular_values), s, rtol=1e-9)
    np.testing.assert_allclose(np.abs(np.sum(to_numpy(factors.left) * left, axis=0)), 1, atol=1e-9)


def test_sketches_are_reproducible_and_scale_with_the_features(xp):
    X = decaying(40, 90, 1.0)[0]
    first = sketched_svd(xp.asarray(X), 5, seed=7)
    again = sketched_svd(xp.asarray(X), 5, seed=np.random.default_rng(7))
    np.testing.assert_array_equal(to_numpy(first.factors.left), to_numpy(again.factors.left))
    other = sketched_svd(xp.asarray(X), 5, seed=8)
    assert np.any(to_numpy(first.factors.left) != to_numpy(other.factors.left))
    for scale in (1e-30, 1e30):
        scaled = sketched_svd(xp.asarray(scale * X), 5, seed=7)
        assert scaled.captured == pytest.approx(first.captured, rel=1e-9)
        np.testing.assert_allclose(to_numpy(scaled.factors.left), to_numpy(first.factors.left), atol=1e-9)


def test_sketch_of_few_or_no_directions(xp):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 90))
    assert sketched_svd(xp.asarray(X), 10).factors.left.shape == (40, 3)
    constant = sketched_svd(xp.full((6, 3), 0.1), 2)
    assert constant.factors.left.shape == (6, 0)
    assert (constant.total, constant.captured) == (0.0, 1.0)


@pytest.mark.parametrize("options", [{"rank": 0}, {"rank": 2, "oversampling": -1}, {"rank": 2, "power_iterations": -1}])
def test_sketch_counts_are_checked(xp, options):
    with pytest.raises(InputError, match="`rank` to be at least 1"):
        sketched_svd(xp.asarray(features(9, 4)), **options)
    with pytest.raises(InputError, match="NaN"):
        sketched_svd(xp.full((9, 4), np.nan), 2)


def test_sketch_reads_features_from_disk_by_blocks(tmp_path, monkeypatch):
    """Never a copy of all features: not centred, not in float64, not even one byte for each."""
    monkeypatch.setattr("transferscope.arrays.linalg.BLOCK", 2**17)
    n, p = 200, 40_000
    X = np.memmap(tmp_path / "layer", dtype=np.float16, mode="w+", shape=(n, p))
    small = decaying(n, 100, 1.0)[0]
    X[:] = np.tile(small, p // 100)
    tracemalloc.start()
    sketch = sketched_svd(X, 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * p
    centred = np.asarray(X, dtype=np.float64) - np.mean(X, axis=0, dtype=np.float64)
    s = np.linalg.svd(centred[:, :100], compute_uv=False) * np.sqrt(p / 100)
    np.testing.assert_allclose(to_numpy(sketch.factors.singular_values)[:10], s[:10], rtol=1e-3)


def test_distances_between_two_sets_are_those_of_scipy_and_never_below_zero(xp):
    X = np.random.default_rng(0).normal(size=(7, 3)) + 1e6
    Y = np.concatenate([X[:4], X[:2] + 50])
    squares = to_numpy(squared_distances_between(xp.asarray(X), xp.asarray(Y)))
    np.testing.assert_allclose(squares, cdist(X, Y) ** 2, rtol=1e-2, atol=0.02)  # of squares of 3e12
    assert (squares >= 0).all()
