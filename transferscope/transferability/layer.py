"""One layer's features, factored once for all scores."""

from __future__ import annotations

import math
from functools import cached_property

from array_api_compat import device

from transferscope.backend import Array, array_namespace
from transferscope.errors import InputError
from transferscope.linalg import Factors, center, check_features, squared_distances, thin_svd

_WIDEST = 1e4
"""Ratio of the centred singular values up to which float64 features need no factorisation of their own for `raw`."""


class Layer:
    """The features of one layer, with what several scores need of them: each part computed once, when first used.

    Everything derived is float64, in the namespace and on the device of the features.

    Parameters
    ----------
    features
        (n_samples, n_features), at least 2 samples; anything that `linalg.check_features` takes.

    Raises
    ------
    InputError
        When the features are not as above.
    """

    def __init__(self, features: Array) -> None:
        self.features: Array = check_features(features, "features", min_samples=2)
        """(n_samples, n_features), float32 or float64, as given."""

    @classmethod
    def from_factors(cls, features: Array, centred: Factors) -> Layer:
        """Make a layer whose centred features are factored already, as `linalg.thin_svd` does it.

        Raises
        ------
        InputError
            When the features are not those of the class, or the factors have another number of samples.
        """
        layer = cls(features)
        if centred.left.shape[0] != layer.n_samples:
            raise InputError(
                f"Expected `centred` to be the factors of {layer.n_samples} samples but got those of "
                f"{centred.left.shape[0]}; factor the same features"
            )
        layer.centred = centred
        return layer

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return self.features.shape[0]

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return self.features.shape[1]

    @cached_property
    def centred(self) -> Factors:
        """Thin SVD of the features minus their column means: left (n_samples, rank) and s (rank,)."""
        return thin_svd(self.features)

    @cached_property
    def coordinates(self) -> Array:
        """Centred features in the basis of their right singular vectors, U s, (n_samples, rank).

        Distances and inner products between samples are those of the centred features.
        """
        return self.centred.left * self.centred.singular_values

    @cached_property
    def squared_distances(self) -> Array:
        """Squared Euclidean distances between all samples, (n_samples, n_samples); zero where they are rounding."""
        xp = array_namespace(self.features)
        squares = squared_distances(self.coordinates @ self.coordinates.T)
        rounding = self.n_samples * float(xp.finfo(xp.float64).eps) * xp.max(squares)
        return xp.where(squares > rounding, squares, xp.zeros_like(squares))

    @cached_property
    def raw(self) -> Factors:
        """Thin SVD of the features as they are, not centred: `linalg.thin_svd` with ``centered=False``.

        With Q = [1/√n_samples, U], U the left singular vectors of the centred features, the features are Q B for
        a B of rank + 1 rows, so that the factors of B give theirs without a second factorisation of all features.
        """
        xp = array_namespace(self.features)
        left, s = self.centred
        n, p = self.features.shape
        eps = float(xp.finfo(self.features.dtype).eps)
        spread = float(s[0] / s[-1]) if s.shape[0] else 1.0
        if eps < 1e-8 and spread > _WIDEST:
            # The coordinates of the mean would lose as many digits as the singular values span, twice.
            return thin_svd(self.features, centered=False)

        wide = xp.astype(self.features, xp.float64)
        centred = center(wide)
        mean = wide[0, :] - centred[0, :]
        projected = left.T @ (centred @ mean)  # s times the coordinates of the mean along the right vectors
        diagonal = xp.eye(s.shape[0], dtype=xp.float64, device=device(s)) * s
        if eps > 1e-8:
            # Through B Bᵀ, an arrow, which is enough for float32 features for the reason given in `thin_svd`.
            edge = math.sqrt(n) * projected
            top = xp.concat([xp.reshape(n * (mean @ mean), (1,)), edge])
            arrow = xp.concat([top[None, :], xp.concat([edge[:, None], diagonal**2], axis=1)])
            values, vectors = xp.linalg.eigh(arrow)
            values, vectors = xp.flip(values), xp.flip(vectors, axis=1)
            values = xp.sqrt(xp.where(values > 0, values, xp.zeros_like(values)))
        else:
            along = projected / s
            outside = xp.linalg.vector_norm(mean - centred.T @ (left @ (along / s)))
            rounding = max(n, p) * eps * spread * xp.linalg.vector_norm(mean)
            if s.shape[0] == p or outside <= rounding:
                outside = xp.zeros_like(outside)
            top = math.sqrt(n) * xp.concat([along, xp.reshape(outside, (1,))])
            below = xp.concat([diagonal, xp.zeros_like(along)[:, None]], axis=1)
            vectors, values, _ = xp.linalg.svd(xp.concat([top[None, :], below]), full_matrices=False)
        kept = values > max(n, p) * eps * values[0]
        rank = int(xp.sum(xp.astype(kept, xp.int64)))
        ones = xp.full((n, 1), 1 / math.sqrt(n), dtype=xp.float64, device=device(left))
        return Factors(xp.concat([ones, left], axis=1) @ vectors[:, :rank], values[:rank])
