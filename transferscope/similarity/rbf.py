"""Centred kernel alignment with the Gaussian kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from transferscope.arrays.backend import Array, array_namespace
from transferscope.arrays.linalg import u_center
from transferscope.errors import InputError
from transferscope.similarity.dissimilarity import upper_triangle
from transferscope.similarity.representation import (
    Report,
    Representation,
    derived,
    doubly_centered,
    one_pair,
    products,
    silent,
    unit,
)


def rbf_cka(
    X: Array,
    Y: Array,
    *,
    bandwidth: float = 0.5,
    sigma: float | None = None,
    debiased: bool = False,
    standardize: bool = False,
) -> float:
    """Centred kernel alignment with Gaussian kernels exp(-d² / (2 σ²)) of Euclidean distances d.

    Unchanged by shifts and orthogonal maps of the features, and by isotropic scaling as long as σ follows their scale.

    Parameters
    ----------
    X, Y
        Features of the same samples, (n_samples, n_features_x) and (n_samples, n_features_y).
    bandwidth
        σ as a multiple of the median distance, where σ² = bandwidth² × the median over all n_samples² squared
        distances, those of samples to themselves included, as in the code of the paper.
    sigma
        A fixed σ for both, in the unit of the features, in place of `bandwidth`.
    debiased
        Use the unbiased HSIC of Song et al. (2012), which needs at least 4 samples and can be negative.
    standardize
        Z-score every feature first, over these samples.

    Returns
    -------
    float
        In [0, 1]; debiased at most 1 and possibly negative. NaN, with a warning, when one of the two has no
        similarity structure: constant features, a median distance of zero (the same few images again and again), or
        for the debiased form a σ so small that every sample is similar to itself alone.

    Raises
    ------
    InputError
        When the arrays are no finite matrices with the same n_samples (at least 2, debiased at least 4), or
        `bandwidth` or `sigma` is not positive.

    References
    ----------
    Kornblith et al. (2019), Similarity of Neural Network Representations Revisited.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(20, 3))
    >>> round(rbf_cka(X, 2 * X + 5), 6)
    1.0
    """
    for name, value in (("bandwidth", bandwidth), ("sigma", sigma)):
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"Expected `{name}` to be a positive number but got {value!r}")
    pairs = partial(rbf_cka_pairs, bandwidth=bandwidth, sigma=sigma, debiased=debiased)
    return one_pair("RBF-CKA", pairs, X, Y, standardize=standardize, min_samples=4 if debiased else 2)


def rbf_cka_pairs(
    xs: Sequence[Representation],
    ys: Sequence[Representation],
    report: Report = silent,
    *,
    bandwidth: float = 0.5,
    sigma: float | None = None,
    debiased: bool = True,
) -> Array:
    """`rbf_cka` of all pairs of layers, (len(xs), len(ys)): one kernel matrix each, then one matrix product."""

    def build(layer: Representation) -> Array:
        squares = layer.squared_distances
        squared_sigma = bandwidth**2 * _median(squares) if sigma is None else sigma**2
        return _unit_kernel(squares, squared_sigma, debiased)

    key = ("rbf", bandwidth if sigma is None else None, sigma, debiased)
    us, vs = derived(xs, ys, lambda layer: layer.matrix(key, build), report)
    return products(us, vs)


def _unit_kernel(squares: Array, squared_sigma: float, debiased: bool) -> Array:
    xp = array_namespace(squares)
    if squared_sigma <= 0.0:
        return xp.full_like(squares, math.nan)
    # Centring takes away what expm1 leaves out; without it a large sigma would leave no digits.
    K = doubly_centered(xp.expm1(squares / (-2.0 * squared_sigma)))
    rounding = K.shape[0] * float(xp.finfo(xp.float64).eps) * float(xp.linalg.matrix_norm(K))
    return unit(u_center(K), floor=rounding) if debiased else unit(K, floor=0.0)


def _median(squares: Array) -> float:
    """Median of all n² entries: n zeros on the diagonal, and every entry of the upper triangle twice."""
    n = squares.shape[0]
    xp = array_namespace(squares)
    ordered = xp.sort(upper_triangle(squares), stable=False)
    middle = [0.0 if i < n else float(ordered[(i - n) // 2]) for i in ((n * n - 1) // 2, n * n // 2)]
    return sum(middle) / 2
