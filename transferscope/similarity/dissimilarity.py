"""Dissimilarities of all pairs of samples, and ranks of them in which ties stay ties in spite of rounding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

from array_api_compat import device

from transferscope.arrays import linalg
from transferscope.arrays.backend import Array, array_namespace
from transferscope.similarity.representation import Representation

DISSIMILARITIES = ("correlation", "cosine", "euclidean")


def dissimilarities(layer: Representation, kind: str, *, centered: bool = False) -> Array:
    """Dissimilarities of all pairs of samples, (n_samples, n_samples) in float64, diagonal exactly zero.

    Parameters
    ----------
    layer
        The layer.
    kind
        ``"euclidean"``: the *squared* distance. ``"cosine"``: 1 minus the cosine of the angle between two samples'
        feature vectors. ``"correlation"``: 1 minus their Pearson correlation over the features. A vector without
        direction (zero; for the correlation all features equal) counts as orthogonal to all others: 1.
    centered
        Subtract the mean over the samples from every feature first; distances do not change by it.
    """
    if kind == "euclidean":
        return layer.squared_distances
    angular = partial(_angular, correlation=kind == "correlation", centered=centered)
    return layer.matrix((kind, centered), lambda each: angular(each.features), pairwise=not centered)


def _angular(X: Array, *, correlation: bool, centered: bool) -> Array:
    """Half the squared distances of unit vectors: unlike 1 - cos, without cancellation for small angles."""
    xp = array_namespace(X)
    n, p = X.shape

    def blocks() -> Iterator[Array]:
        for block in linalg.float64_blocks(X):
            yield linalg.center(block) if centered else block

    origin = xp.zeros((n, 1), dtype=xp.float64, device=device(X))
    if correlation:
        origin = next(blocks())[:, :1]
        origin = origin + sum(xp.sum(block - origin, axis=1, keepdims=True) for block in blocks()) / p
    squares = sum(xp.sum((block - origin) ** 2, axis=1, keepdims=True) for block in blocks())
    # Shorter than rounding of the longest is no direction.
    directed = squares > (p * float(xp.finfo(xp.float64).eps)) ** 2 * xp.max(squares)
    scale = xp.astype(directed, xp.float64) / xp.sqrt(xp.where(directed, squares, xp.ones_like(squares)))
    products = xp.zeros((n, n), dtype=xp.float64, device=device(X))
    for block in blocks():
        units = linalg.center((block - origin) * scale)
        products = products + units @ units.T
    halves = linalg.squared_distances(products) / 2.0
    apart = 1.0 - xp.eye(n, dtype=xp.float64, device=device(X))
    return xp.where(directed & directed.T, halves, apart)


def tie_tolerance(D: Array, n_features: int) -> float:
    """Difference up to which two of the dissimilarities `D` of such features are equal but for rounding."""
    xp = array_namespace(D)
    return 8.0 * math.sqrt(n_features) * float(xp.finfo(xp.float64).eps) * float(xp.max(D))


def midranks(values: Array, tolerance: float) -> Array:
    """Ranks within each row of `values` (rows, m), 0 to m - 1 in float64; tied values share their mean rank.

    Tied are values of which, in ascending order, each is within `tolerance` of the next.
    """
    xp = array_namespace(values)
    rows, m = values.shape
    order = xp.argsort(values, axis=1)
    ascending = xp.take_along_axis(values, order, axis=1)
    leads = xp.ones((rows, 1), dtype=xp.bool, device=device(values))
    leads = xp.reshape(xp.concat([leads, ascending[:, 1:] - ascending[:, :-1] > tolerance], axis=1), (-1,))
    first = xp.nonzero(leads)[0]
    after = xp.concat([first[1:], xp.full((1,), rows * m, dtype=first.dtype, device=device(values))])
    middle = xp.astype(first + after - 1, xp.float64) / 2.0
    group = xp.cumulative_sum(xp.astype(leads, xp.int64)) - 1
    start = xp.astype(xp.arange(rows, device=device(values)), xp.float64)[:, None] * m
    ranks = xp.reshape(xp.take(middle, group), (rows, m)) - start
    return xp.take_along_axis(ranks, xp.argsort(order, axis=1), axis=1)


def upper_triangle(M: Array) -> Array:
    """Entries above the diagonal of `M` (n, n), row by row, as a vector of n (n - 1) / 2."""
    xp = array_namespace(M)
    return M[xp.triu(xp.ones(M.shape, dtype=xp.bool, device=device(M)), k=1)]


def from_upper_triangle(values: Array, n: int) -> Array:
    """Symmetric matrix (n, n) with zero diagonal and `values` above it, row by row."""
    xp = array_namespace(values)
    above = xp.triu(xp.ones((n, n), dtype=xp.bool, device=device(values)), k=1)
    position = xp.reshape(xp.cumulative_sum(xp.astype(xp.reshape(above, (-1,)), xp.int64)) - 1, (n, n))
    position = xp.where(above, position, xp.zeros_like(position))
    filled = xp.reshape(xp.take(values, xp.reshape(position + position.T, (-1,))), (n, n))
    return xp.where(above | above.T, filled, xp.zeros_like(filled))
