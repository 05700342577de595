"""One layer's features, factored once: every part against what it is by definition."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from transferscope.backend import to_numpy
from transferscope.errors import InputError
from transferscope.linalg import thin_svd
from transferscope.transferability import Layer

KINDS = ("plain", "zero columns", "few directions", "falling")


def features(n, p, kind, *, offset=0.0, dtype="float64"):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p))
    if kind == "few directions":
        X = rng.normal(size=(n, 3)) @ rng.normal(size=(3, p))
    if kind == "falling":
        X *= np.logspace(0, -2, p)
    X += offset * rng.normal(size=p)
    if kind == "zero columns":
        X[:, p // 2 :] = 0
    X = X.astype(dtype)
    X.flags.writeable = False
    return X


def assert_factors(found, X, rank, *, tolerance):
    """Compare with the singular values of `X` itself, and the projection on its left singular vectors."""
    left, s = (to_numpy(each) for each in found)
    expected = np.linalg.svd(X.astype(np.float64), full_matrices=False)
    assert left.shape == (len(X), rank)
    np.testing.assert_allclose(s, expected.S[:rank], rtol=tolerance)
    np.testing.assert_allclose(left.T @ left, np.eye(rank), atol=tolerance)
    np.testing.assert_allclose(left @ left.T, expected.U[:, :rank] @ expected.U[:, :rank].T, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset", [0.0, 0.5, 30.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(30, 6), (30, 29), (30, 30), (20, 60), (5, 100)])
def test_raw_is_the_svd_of_the_features_as_they_are(xp, shape, kind, offset, dtype):
    X = features(*shape, kind, offset=offset, dtype=dtype)
    rank = thin_svd(X, centered=False).left.shape[1]
    if kind in ("plain", "falling") and dtype == "float64":
        assert rank == min(shape)
    # Rounding to float32 adds directions at the edge of what is kept, on which the projection depends.
    assert_factors(Layer(xp.asarray(X)).raw, X, rank, tolerance=1e-8 if dtype == "float64" else 1e-6)


@pytest.mark.parametrize(("dtype", "offset"), [("float32", 1e3), ("float64", 1e3), ("float64", 1e7)])
@pytest.mark.parametrize("shape", [(30, 6), (20, 60)])
def test_raw_keeps_the_small_directions_beside_a_huge_mean(xp, shape, dtype, offset):
    """Where a Gram matrix of features not centred has lost them: their squares are 1e-18 of the mean's."""
    X = features(*shape, "plain", offset=offset, dtype=dtype)
    assert_factors(Layer(xp.asarray(X)).raw, X, min(shape), tolerance=1e-6)


def test_raw_of_float64_features_of_very_different_sizes(xp):
    X = features(20, 60, "plain", offset=1.0) * np.logspace(0, -9, 60)
    assert_factors(Layer(xp.asarray(X)).raw, X, 20, tolerance=1e-6)


def test_raw_of_constant_and_of_zero_features(xp):
    left, s = Layer(xp.full((6, 3), 0.1)).raw
    np.testing.assert_allclose(to_numpy(s), [0.1 * 18**0.5], rtol=1e-12)
    np.testing.assert_allclose(np.abs(to_numpy(left)), 6**-0.5, rtol=1e-12)
    assert Layer(xp.zeros((6, 3))).raw.left.shape == (6, 0)


@pytest.mark.parametrize("shape", [(30, 6), (20, 60)])
def test_coordinates_keep_distances_and_products(xp, shape):
    X = features(*shape, "plain", offset=3.0)
    layer = Layer(xp.asarray(X))
    centred = X - X.mean(axis=0)
    points = to_numpy(layer.coordinates)
    np.testing.assert_allclose(points @ points.T, centred @ centred.T, atol=1e-10)
    np.testing.assert_allclose(to_numpy(layer.squared_distances), cdist(X, X, "sqeuclidean"), atol=1e-9)
    assert (layer.n_samples, layer.n_features) == shape


def test_equal_rows_have_no_distance_at_all(xp):
    X = np.repeat(features(10, 40, "plain", offset=100.0), 2, axis=0)
    squares = to_numpy(Layer(xp.asarray(X)).squared_distances)
    assert np.count_nonzero(squares == 0) == 40


def test_factors_at_hand_are_used(xp, monkeypatch):
    X = xp.asarray(features(30, 6, "plain", dtype="float32"))
    factors = thin_svd(X)
    monkeypatch.setattr("transferscope.transferability.layer.thin_svd", None)
    layer = Layer.from_factors(X, factors)
    assert layer.centred is factors
    assert layer.raw.left.shape == (30, 6)
    assert layer.raw is layer.raw
    with pytest.raises(InputError, match="factors of 20 samples but got those of 30"):
        Layer.from_factors(X[:20, :], factors)


def test_one_sample_is_no_layer(xp):
    with pytest.raises(InputError, match=r"`features` .* at least 2 samples"):
        Layer(xp.ones((1, 4)))
