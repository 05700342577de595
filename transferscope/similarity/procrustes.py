"""Orthogonal Procrustes: how well one layer can be rotated onto another."""

from __future__ import annotations

from collections.abc import Sequence

from transferscope.arrays.backend import Array, array_namespace
from transferscope.similarity.representation import Report, Representation, one_pair, pair_by_pair, silent


def procrustes(X: Array, Y: Array, *, standardize: bool = False) -> float:
    """Nuclear norm of Xᵀ Y, for features centred and scaled to Frobenius norm 1.

    Unchanged by shifts, orthogonal maps and isotropic scaling of the features of either. It is the largest value of
    <X Q, Y> over orthogonal Q (the narrower of the two padded with zeros). Rises towards 1 as features outnumber
    samples, whatever they are.

    Parameters
    ----------
    X, Y
        Features of the same samples, (n_samples, n_features_x) and (n_samples, n_features_y).
    standardize
        Z-score every feature first, over these samples.

    Returns
    -------
    float
        In [0, 1]; NaN, with a warning, for constant features.

    Raises
    ------
    InputError
        When the arrays are no finite matrices with the same n_samples, at least 2.

    References
    ----------
    Schönemann (1966), A generalized solution of the orthogonal Procrustes problem; Ding, Denain and Steinhardt (2021),
    Grounding Representation Similarity Through Statistical Testing.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(20, 3))
    >>> round(procrustes(X, -3 * X + 1), 6)
    1.0
    """
    return one_pair("Procrustes similarity", procrustes_pairs, X, Y, standardize=standardize)


def procrustes_distance(X: Array, Y: Array, *, standardize: bool = False) -> float:
    """Squared orthogonal Procrustes distance 2 - 2 ‖Xᵀ Y‖_* of features centred and scaled to Frobenius norm 1.

    This is min ‖X Q - Y‖² over orthogonal Q, as Ding et al. (2021) define it; lower means more similar. Parameters,
    invariances, errors and warnings are those of `procrustes`.

    Returns
    -------
    float
        In [0, 2]; NaN, with a warning, for constant features.
    """
    return 2.0 - 2.0 * one_pair("Procrustes distance", procrustes_pairs, X, Y, standardize=standardize)


def procrustes_pairs(xs: Sequence[Representation], ys: Sequence[Representation], report: Report = silent) -> Array:
    """`procrustes` of all pairs of layers, none of them constant, (len(xs), len(ys)): each layer factored once."""
    return pair_by_pair(xs, ys, _scaled, _nuclear_norm, report)


def _scaled(layer: Representation) -> Array:
    """Centred features of Frobenius norm 1, rotated into as few columns as they have directions."""
    left, singular_values = layer.factors
    return left * (singular_values / array_namespace(left).linalg.vector_norm(singular_values))


def _nuclear_norm(U: Array, V: Array) -> Array:
    xp = array_namespace(U, V)
    return xp.sum(xp.linalg.svdvals(U.T @ V))
