"""One layer's features, factored once for all scores."""

from __future__ import annotations

from functools import cached_property

from transferscope.arrays.backend import Array, array_namespace
from transferscope.arrays.linalg import Factors, check_features, squared_distances, thin_svd
from transferscope.errors import InputError


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
        return _squared_distances(self.coordinates)

    def squared_distances_of(self, places: Array) -> Array:
        """Return the same of some samples, by their indices: (n_places, n_places), without those of all others."""
        return _squared_distances(array_namespace(self.features).take(self.coordinates, places, axis=0))


def _squared_distances(points: Array) -> Array:
    xp = array_namespace(points)
    squares = squared_distances(points @ points.T)
    rounding = points.shape[0] * float(xp.finfo(xp.float64).eps) * xp.max(squares)
    squares[squares <= rounding] = 0.0
    return squares
