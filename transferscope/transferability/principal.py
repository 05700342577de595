"""Principal components whose signs are settled, for the scores that depend on them."""

from __future__ import annotations

from transferscope.arrays.backend import Array, array_namespace
from transferscope.transferability.layer import Layer


def principal_components(layer: Layer, limit: int) -> Array:
    """Return the first principal components of the features, (n_samples, at most `limit`), by falling variance.

    The sign of a component is arbitrary; here its entry of largest magnitude is positive. That rule looks at
    the samples alone, so orthogonal maps of the features and another order of the samples change nothing.
    """
    xp = array_namespace(layer.centred.left)
    n_components = min(limit, layer.centred.singular_values.shape[0])
    if n_components == 0:
        return layer.coordinates
    left, s = layer.centred.left[:, :n_components], layer.centred.singular_values[:n_components]
    upright = xp.max(left, axis=0) >= -xp.min(left, axis=0)
    return left * xp.where(upright, s, -s)
