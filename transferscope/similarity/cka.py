"""Centred kernel alignment with the linear kernel, for one pair of representations."""

from __future__ import annotations

import math
import warnings

from transferscope.arrays.backend import Array, array_namespace
from transferscope.arrays.linalg import center, check_paired, hsic_bias
from transferscope.arrays.linalg import standardize as z_score
from transferscope.errors import TransferscopeWarning


def linear_cka(X: Array, Y: Array, *, debiased: bool = False, standardize: bool = False) -> float:
    """Linear centred kernel alignment, HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = X Xᵀ and L = Y Yᵀ.

    Unchanged by shifts, orthogonal maps and isotropic scaling of the features. Computed in float64 in feature
    or sample space, whichever is cheaper.

    Parameters
    ----------
    X, Y
        Features of the same samples, (n_samples, n_features_x) and (n_samples, n_features_y).
    debiased
        Use the unbiased HSIC of Song et al. (2012). The biased default rises towards 1 as features outnumber
        samples.
    standardize
        Z-score every feature first; features without variance become 0.

    Returns
    -------
    float
        In [0, 1]; debiased at most 1 and possibly negative. NaN, with a warning, when one of the two has no
        similarity structure: constant features, or for the debiased form features whose unbiased self-HSIC
        is zero (a single sample that differs from the rest, say).

    Raises
    ------
    InputError
        When the arrays are no finite matrices with the same n_samples (at least 2, debiased at least 4).

    References
    ----------
    Kornblith et al. (2019), Similarity of Neural Network Representations Revisited.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(20, 3))
    >>> round(linear_cka(X, 2 * X[:, ::-1] + 5), 6)  # the same but for shifts, scale and the order of the features
    1.0
    """
    xp = array_namespace(X, Y)
    X, Y = check_paired(X, Y, min_samples=4 if debiased else 2)
    X, Y = (center(xp.astype(z_score(each) if standardize else each, xp.float64)) for each in (X, Y))
    n, p, q = X.shape[0], X.shape[1], Y.shape[1]
    if p * p + q * q + p * q < n * (p + q):
        biased = [xp.sum((A.T @ B) ** 2) for A, B in ((X, Y), (X, X), (Y, Y))]
    else:
        K, L = X @ X.T, Y @ Y.T
        biased = [xp.sum(A * B) for A, B in ((K, L), (K, K), (L, L))]
    hsic_xy, hsic_xx, hsic_yy = (float(value) for value in biased)
    floor_x = floor_y = 0.0
    if debiased:
        # What is left of a zero after the subtraction below is rounding of what it is subtracted from.
        rounding = n * float(xp.finfo(xp.float64).eps)
        floor_x, floor_y = rounding * hsic_xx, rounding * hsic_yy
        norms_x, norms_y = xp.sum(X * X, axis=1), xp.sum(Y * Y, axis=1)
        hsic_xy -= hsic_bias(norms_x, norms_y)
        hsic_xx -= hsic_bias(norms_x, norms_x)
        hsic_yy -= hsic_bias(norms_y, norms_y)
    if hsic_xx <= floor_x or hsic_yy <= floor_y:
        name = "X" if hsic_xx <= floor_x else "Y"
        warnings.warn(
            f"linear CKA is NaN: `{name}` has zero self-HSIC, and constant features have no similarity to anything",
            TransferscopeWarning,
            stacklevel=2,
        )
        return math.nan
    return hsic_xy / (math.sqrt(hsic_xx) * math.sqrt(hsic_yy))
