"""Projection weighted CCA: canonical correlations weighted by how much of a layer they account for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from transferscope.arrays.backend import Array, array_namespace
from transferscope.arrays.linalg import center, float64_blocks
from transferscope.similarity.representation import Report, Representation, derived, one_of, one_pair, silent


def pwcca(X: Array, Y: Array, *, weights: str = "x", standardize: bool = False) -> float:
    """Projection weighted CCA, Σ αᵢ ρᵢ / Σ αᵢ over the min(rank X, rank Y) canonical correlations ρᵢ.

    αᵢ = Σⱼ abs⟨hᵢ, xⱼ⟩, where hᵢ are the canonical variates of the weighting side (unit vectors over the samples) and
    xⱼ its centred features. Not symmetric. Unchanged by shifts and isotropic scaling of the weighting side, and by
    invertible linear maps and shifts of the other. Variates of equal correlation are not unique, nor then are their
    weights.

    Parameters
    ----------
    X, Y
        Features of the same samples, (n_samples, n_features_x) and (n_samples, n_features_y).
    weights
        The weighting side, ``"x"`` or ``"y"``. (The code of the paper takes the one with fewer directions.)
    standardize
        Z-score every feature first, over these samples; it changes the weights.

    Returns
    -------
    float
        In [0, 1]; NaN, with a warning, for constant features. When rank X + rank Y > n_samples - 1 some
        correlations are trivially 1; `cca` warns of it.

    Raises
    ------
    InputError
        When the arrays are no finite matrices with the same n_samples, at least 2, or `weights` is unknown.

    References
    ----------
    Morcos, Raghu and Bengio (2018), Insights on representational similarity in neural networks with canonical
    correlation.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(20, 3))
    >>> round(pwcca(X, X @ np.diag([1.0, 10.0, 100.0])), 6)
    1.0
    """
    one_of("weights", weights, ("x", "y"))
    return one_pair("PWCCA", partial(pwcca_pairs, weights=weights), X, Y, standardize=standardize)


def pwcca_pairs(
    xs: Sequence[Representation], ys: Sequence[Representation], report: Report = silent, *, weights: str = "x"
) -> Array:
    """`pwcca` of all pairs of layers, none of them constant, (len(xs), len(ys)): each layer factored once."""
    if weights == "y":
        return pwcca_pairs(ys, xs, report).T
    xp = array_namespace(*(layer.features for layer in (*xs, *ys)))
    derived(xs, ys, lambda layer: layer.factors, report, n_more=len(xs))
    done, total = len(xs) + len(ys), 2 * len(xs) + len(ys)
    rows = []
    for number, x in enumerate(xs, 1):
        rows.append(_weighted_by(x, ys))
        report(done + number, total)
    return xp.stack(rows)


def _weighted_by(x: Representation, ys: Sequence[Representation]) -> Array:
    """`pwcca` of one layer, which weights, with each of `ys`: a vector."""
    U = x.factors.left
    xp = array_namespace(U)
    decompositions = [xp.linalg.svd(U.T @ y.factors.left, full_matrices=False) for y in ys]
    alphas = [xp.zeros_like(rho) for _, rho, _ in decompositions]
    for block in float64_blocks(x.features):
        # The variates are U @ rotation; what of the features lies outside of U is orthogonal to them.
        coordinates = U.T @ center(block)
        alphas = [
            alpha + xp.sum(xp.abs(rotation.T @ coordinates), axis=1)
            for alpha, (rotation, _, _) in zip(alphas, decompositions, strict=True)
        ]
    return xp.stack(
        [xp.sum(alpha * rho) / xp.sum(alpha) for alpha, (_, rho, _) in zip(alphas, decompositions, strict=True)]
    )
