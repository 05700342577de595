import numpy as np
import pytest

from transferscope.backend import to_numpy
from transferscope.errors import InputError
from transferscope.linalg import center, check_features, check_paired, gram, thin_svd, u_center


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
