"""Centred kernel alignment with the Gaussian kernel."""

from __future__ import annotations

import math
import warnings

from transferscope.backend import Array, array_namespace
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.linalg import center, check_paired, u_center


def rbf_cka(X: Array, Y: Array, *, bandwidth: float = 0.5, debiased: bool = False) -> float:
    """Centred kernel alignment with Gaussian kernels exp(-d² / (2 σ²)) of Euclidean distances d.

    Unchanged by shifts, orthogonal maps and isotropic scaling of the features, for σ follows their scale.

    Parameters
    ----------
    X, Y
        Features of the same samples, (n_samples, n_features_x) and (n_samples, n_features_y).
    bandwidth
        σ as a multiple of the median distance, where σ² = bandwidth² × the median over all n_samples² squared
        distances, those of samples to themselves included, as in the code of the paper.
    debiased
        Use the unbiased HSIC of Song et al. (2012), which needs at least 4 samples and can be negative.

    Returns
    -------
    float
        In [0, 1]; debiased at most 1 and possibly negative. NaN, with a warning, when the median distance is
        zero: constant features, or the same few images again and again.

    Raises
    ------
    InputError
        When the arrays are no finite matrices with the same n_samples (at least 2, debiased at least 4), or
        `bandwidth` is not positive.

    References
    ----------
    Kornblith et al. (2019), Similarity of Neural Network Representations Revisited.
    """
    if not 0 < bandwidth < math.inf:
        raise InputError(f"Expected `bandwidth` to be a positive number but got {bandwidth!r}")
    X, Y = check_paired(X, Y, min_samples=4 if debiased else 2)
    xp = array_namespace(X, Y)
    kernels = [_gaussian(features, bandwidth) for features in (X, Y)]
    for name, kernel in zip(("X", "Y"), kernels, strict=True):
        if kernel is None:
            warnings.warn(
                f"RBF-CKA is NaN: the median distance in `{name}` is zero, and constant features have no similarity to "
                "anything",
                TransferscopeWarning,
                stacklevel=2,
            )
            return math.nan
    K, L = (_doubly_centered(kernel) for kernel in kernels)
    if debiased:
        K, L = u_center(K), u_center(L)
    hsic_xy, hsic_xx, hsic_yy = (float(xp.sum(A * B)) for A, B in ((K, L), (K, K), (L, L)))
    return hsic_xy / (math.sqrt(hsic_xx) * math.sqrt(hsic_yy))


def _gaussian(X: Array, bandwidth: float) -> Array | None:
    """Return the kernel matrix, float64; None when the median distance is zero."""
    xp = array_namespace(X)
    # Distances do not change with the origin, and features near it lose no digits in the products below.
    X = center(xp.astype(X, xp.float64))
    norms = xp.sum(X * X, axis=1, keepdims=True)
    squares = norms + norms.T - 2.0 * (X @ X.T)
    squares = xp.where(squares > 0.0, squares, xp.zeros_like(squares))
    ordered = xp.sort(xp.reshape(squares, (-1,)))
    middle = ordered.shape[0] // 2
    median = float(ordered[middle]) if ordered.shape[0] % 2 else float(ordered[middle - 1] + ordered[middle]) / 2
    if median <= 0.0:
        return None
    return xp.exp(squares / (-2.0 * bandwidth**2 * median))


def _doubly_centered(K: Array) -> Array:
    rows = center(K)
    return center(rows.T)
