"""Representational similarity analysis: whether two layers find the same pairs of samples alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from transferscope.arrays.backend import Array, array_namespace
from transferscope.similarity.dissimilarity import (
    DISSIMILARITIES,
    dissimilarities,
    from_upper_triangle,
    midranks,
    tie_tolerance,
    upper_triangle,
)
from transferscope.similarity.representation import (
    Report,
    Representation,
    derived,
    one_of,
    one_pair,
    products,
    silent,
    unit,
)


def rsa(
    X: Array,
    Y: Array,
    *,
    dissimilarity: str = "correlation",
    comparison: str = "spearman",
    centered: bool = False,
    standardize: bool = False,
) -> float:
    """Correlation, over all pairs of samples, of their dissimilarity in `X` with that in `Y`.

    Unchanged by isotropic scaling of the features of either. With ``"euclidean"`` also by shifts and orthogonal
    maps; with ``"cosine"`` by orthogonal maps and by scaling samples one by one; with ``"correlation"`` by reordering
    features, and by scaling samples one by one or adding a number to all features of one.

    Parameters
    ----------
    X, Y
        Features of the same samples, (n_samples, n_features_x) and (n_samples, n_features_y).
    dissimilarity
        Of two samples: ``"correlation"``, 1 minus Pearson's correlation of their feature vectors; ``"cosine"``, 1
        minus the cosine of the angle between them; ``"euclidean"``, their distance. A sample without direction (all
        features equal, or zero) has correlation and cosine 0 with all others.
    comparison
        Of the n_samples (n_samples - 1) / 2 dissimilarities: ``"spearman"``, correlation of ranks, ties sharing
        their mean rank; ``"pearson"``.
    centered
        Subtract the mean over the samples from every feature first. Adds invariance to shifts for cosine and
        correlation, makes no difference for Euclidean distances.
    standardize
        Z-score every feature first, over these samples.

    Returns
    -------
    float
        In [-1, 1]; independent features give about 0. NaN, with a warning, when all dissimilarities in one of the
        two are equal: constant features, or a single feature under ``"correlation"``.

    Raises
    ------
    InputError
        When the arrays are no finite matrices with the same n_samples, at least 3, or an option is unknown.

    References
    ----------
    Kriegeskorte, Mur and Bandettini (2008), Representational similarity analysis.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(20, 3))
    >>> round(rsa(X, 3 * X), 6)
    1.0
    """
    one_of("dissimilarity", dissimilarity, DISSIMILARITIES)
    one_of("comparison", comparison, ("spearman", "pearson"))
    pairs = partial(rsa_pairs, dissimilarity=dissimilarity, comparison=comparison, centered=centered)
    return one_pair("RSA", pairs, X, Y, standardize=standardize, min_samples=3)


def rsa_pairs(
    xs: Sequence[Representation],
    ys: Sequence[Representation],
    report: Report = silent,
    *,
    dissimilarity: str = "correlation",
    comparison: str = "spearman",
    centered: bool = False,
) -> Array:
    """`rsa` of all pairs of layers, (len(xs), len(ys)): each layer ranked once, then one matrix product."""

    def build(layer: Representation) -> Array:
        return _standard_scores(layer, dissimilarity, comparison == "spearman", centered)

    key = ("rsa", dissimilarity, comparison, centered)
    us, vs = derived(xs, ys, lambda layer: layer.matrix(key, build), report)
    return products(us, vs)


def _standard_scores(layer: Representation, dissimilarity: str, ranked: bool, centered: bool) -> Array:
    """Dissimilarities or their ranks, off the diagonal with mean 0 and sum of squares 1; NaN when all are equal."""
    D = dissimilarities(layer, dissimilarity, centered=centered)
    xp = array_namespace(D)
    values = upper_triangle(D)
    tolerance = tie_tolerance(D, layer.n_features)
    if ranked:
        values = midranks(values[None, :], tolerance)[0, :]
        tolerance = 0.0
    elif dissimilarity == "euclidean":
        values, tolerance = xp.sqrt(values), math.sqrt(tolerance)
    deviations = values - xp.mean(values)
    if float(xp.max(xp.abs(deviations))) <= tolerance:
        deviations = xp.zeros_like(deviations)
    return unit(from_upper_triangle(deviations, layer.n_samples), floor=0.0)
