"""One layer's features, factored once: every part against what it is by definition."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from transferscope.arrays.backend import to_numpy
from transferscope.arrays.linalg import thin_svd
from transferscope.errors import InputError
from transferscope.transferability import Layer


def features(n, p, *, offset, dtype="float64"):
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(n, p)) + offset * rng.normal(size=p)).astype(dtype)
    X.flags.writeable = False
    return X


@pytest.mark.parametrize("shape", [(30, 6), (20, 60)])
def test_coordinates_keep_distances_and_products(xp, shape):
    X = features(*shape, offset=3.0)
    layer = Layer(xp.asarray(X))
    centred = X - X.mean(axis=0)
    points = to_numpy(layer.coordinates)
    np.testing.assert_allclose(points @ points.T, centred @ centred.T, atol=1e-10)
    np.testing.assert_allclose(to_numpy(layer.squared_distances), cdist(X, X, "sqeuclidean"), atol=1e-9)
    assert (layer.n_samples, layer.n_features) == shape


def test_equal_rows_have_no_distance_at_all(xp):
    X = np.repeat(features(10, 40, offset=100.0), 2, axis=0)
    squares = to_numpy(Layer(xp.asarray(X)).squared_distances)
    assert np.count_nonzero(squares == 0) == 40


def test_factors_at_hand_are_used(xp, monkeypatch):
    X = xp.asarray(features(30, 6, offset=0.5, dtype="float32"))
    factors = thin_svd(X)
    monkeypatch.setattr("transferscope.transferability.layer.thin_svd", None)
    layer = Layer.from_factors(X, factors)
    assert layer.centred is factors
    with pytest.raises(InputError, match="factors of 20 samples but got those of 30"):
        Layer.from_factors(X[:20, :], factors)


def test_one_sample_is_no_layer(xp):
    with pytest.raises(InputError, match=r"`features` .* at least 2 samples"):
        Layer(xp.ones((1, 4)))
