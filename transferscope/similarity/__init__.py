"""Similarity of two representations of the same samples: pure array functions on NumPy and CuPy."""

from transferscope.similarity.cca import (
    cca,
    mean_canonical_correlation,
    subspace_from_factors,
    svcca,
    svcca_matrix,
    svcca_subspace,
)
from transferscope.similarity.cka import MinibatchCKA, linear_cka
from transferscope.similarity.rbf import rbf_cka

__all__ = [
    "MinibatchCKA",
    "cca",
    "linear_cka",
    "mean_canonical_correlation",
    "rbf_cka",
    "subspace_from_factors",
    "svcca",
    "svcca_matrix",
    "svcca_subspace",
]
