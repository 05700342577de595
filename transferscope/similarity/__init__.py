"""Similarity of two representations of the same samples: pure array functions on NumPy and CuPy."""

from transferscope.similarity.cca import (
    cca,
    mean_canonical_correlation,
    subspace_from_factors,
    svcca,
    svcca_matrix,
    svcca_subspace,
)
from transferscope.similarity.cka import linear_cka
from transferscope.similarity.measures import MEASURES, Measure
from transferscope.similarity.neighbors import information_imbalance, mutual_knn
from transferscope.similarity.procrustes import procrustes, procrustes_distance
from transferscope.similarity.pwcca import pwcca
from transferscope.similarity.rbf import rbf_cka
from transferscope.similarity.representation import Representation
from transferscope.similarity.rsa import rsa
from transferscope.similarity.streaming import MinibatchCKA

__all__ = [
    "MEASURES",
    "Measure",
    "MinibatchCKA",
    "Representation",
    "cca",
    "information_imbalance",
    "linear_cka",
    "mean_canonical_correlation",
    "mutual_knn",
    "procrustes",
    "procrustes_distance",
    "pwcca",
    "rbf_cka",
    "rsa",
    "subspace_from_factors",
    "svcca",
    "svcca_matrix",
    "svcca_subspace",
]
