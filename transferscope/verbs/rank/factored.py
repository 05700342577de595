"""The layers of two networks, each factored once: for scores, and for their similarities."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from transferscope import similarity
from transferscope.arrays import backend
from transferscope.arrays.linalg import Factors, thin_svd
from transferscope.transferability import Layer


@dataclass(frozen=True)
class Factored:
    """The layers of a network, each factored once for all scores and all the pairs it takes part in."""

    features: Mapping[str, Any]
    """Layer name to (n_samples, n_features)."""
    factors: tuple[Factors, ...]
    """Of each layer's centred features."""
    subspaces: tuple[Any, ...]
    """Of each layer: an orthonormal basis of the directions that hold 0.99 of its variance."""


def layers_of(factored: Factored) -> Iterator[Layer]:
    """Yield each layer with its factors, for scores."""
    for array, centred in zip(factored.features.values(), factored.factors, strict=True):
        yield Layer.from_factors(array, centred)


def factor(features: Mapping[str, Any]) -> Factored:
    """Factor every layer's features (n_samples, n_features)."""
    factors = tuple(thin_svd(array) for array in features.values())
    return Factored(features, factors, tuple(similarity.subspace_from_factors(each) for each in factors))


def compare_layers(x: Factored, y: Factored) -> dict[str, np.ndarray]:
    """Return every similarity of all layer pairs: measure to (layers of x, layers of y)."""
    cka = similarity.MinibatchCKA(debiased=True)
    cka.update(list(x.features.values()), list(y.features.values()))
    return {
        "linear_cka": backend.to_numpy(cka.result()),
        "svcca": backend.to_numpy(similarity.svcca_matrix(x.subspaces, y.subspaces)),
    }
