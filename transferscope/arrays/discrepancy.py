"""How far two sets of features lie apart, and how varied one is: Fréchet distance, maximum mean discrepancy, diversity.

Pure array functions. Rows are samples; the two sets need not have the same number of them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import array_api_compat
import numpy as np

from transferscope.arrays.backend import Array, array_namespace, from_numpy, to_numpy
from transferscope.arrays.linalg import center, check_features, gram, squared_distances
from transferscope.errors import InputError


def frechet_distance(X: Array, Y: Array) -> float:
    """Squared Fréchet (2-Wasserstein) distance between the Gaussians fitted to two sets of features.

    ‖μ₁ - μ₂‖² + tr Σ₁ + tr Σ₂ - 2 tr (Σ₁^½ Σ₂ Σ₁^½)^½, with covariances divided by n_samples - 1. With Σ₁ = AᵀA and
    Σ₂ = BᵀB the last trace is the sum of the singular values of A Bᵀ: no root of a matrix is taken, and covariances
    without full rank (fewer samples than features) are no trouble.

    Estimated from samples it is too large, the more so the fewer there are: compare values from the same numbers of
    samples. Unchanged by a shift or an orthogonal map of both sets; scaling both by c multiplies it by c².

    Parameters
    ----------
    X, Y
        (n_samples_x, n_features) and (n_samples_y, n_features), float32 or float64; all work is in float64.

    Returns
    -------
    float
        At least 0, in squared units of the features.

    Raises
    ------
    InputError
        When the arrays are no finite matrices with at least 2 samples each and the same n_features.

    References
    ----------
    Dowson and Landau (1982), The Fréchet distance between multivariate normal distributions. Heusel et al. (2017),
    GANs trained by a two time-scale update rule converge to a local Nash equilibrium.
    """
    X, Y = _check_sets(X, Y)
    xp = array_namespace(X, Y)
    # Seen from one of the samples: features far from zero would leave few digits to a difference of means.
    x, y = (xp.astype(each, xp.float64) - xp.astype(X[:1, :], xp.float64) for each in (X, Y))
    shift = xp.mean(x, axis=0) - xp.mean(y, axis=0)
    A, B = (_thin(center(each) / math.sqrt(each.shape[0] - 1)) for each in (x, y))
    overlap = float(xp.sum(xp.linalg.svdvals(A @ B.T)))
    # Rounding alone can take it below zero.
    return max(0.0, float(xp.sum(shift**2) + xp.sum(A**2) + xp.sum(B**2)) - 2 * overlap)


def _thin(A: Array) -> Array:
    """Return a matrix with the same AᵀA and no more rows than columns."""
    return A if A.shape[0] <= A.shape[1] else array_namespace(A).linalg.qr(A).R


def maximum_mean_discrepancy(X: Array, Y: Array, *, bandwidth: float | None = None) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy, with the kernel exp(-‖x - y‖² / (2 σ²)).

    The mean kernel value of two samples of X, plus that of two samples of Y, minus twice that of one of each; no
    sample is paired with itself. Holds matrices of (n_samples_x + n_samples_y)² in float64.

    Parameters
    ----------
    X, Y
        (n_samples_x, n_features) and (n_samples_y, n_features), float32 or float64; all work is in float64.
    bandwidth
        σ in units of the features; by default the median distance between two samples of both sets pooled.

    Returns
    -------
    float
        At most 2. Zero on average for two draws from one distribution, so slightly negative about every other time.

    Raises
    ------
    InputError
        When the arrays are no finite matrices with at least 2 samples each and the same n_features, `bandwidth` is no
        positive number, or none is given and the median distance is zero.

    References
    ----------
    Gretton et al. (2012), A kernel two-sample test.
    """
    X, Y = _check_sets(X, Y)
    xp = array_namespace(X, Y)
    if bandwidth is not None and not 0 < bandwidth < math.inf:
        raise InputError(f"Expected `bandwidth` to be a positive number but got {bandwidth!r}")
    pooled = xp.concat([xp.astype(X, xp.float64), xp.astype(Y, xp.float64)], axis=0)
    squares = squared_distances(gram(pooled))
    sigma = _median_distance(squares) if bandwidth is None else bandwidth
    if sigma == 0:
        raise InputError(
            "Expected `X` and `Y` to hold different samples but at least half of the distances between them are 0; "
            "remove copies, or pass `bandwidth`"
        )
    # The kernel minus 1, which cancels in the result: a large σ would leave few digits. Zero on the diagonal.
    K = xp.expm1(squares / sigma**2 / -2)
    n, m = X.shape[0], Y.shape[0]
    within_x = float(xp.sum(K[:n, :n])) / (n * (n - 1))
    within_y = float(xp.sum(K[n:, n:])) / (m * (m - 1))
    return within_x + within_y - 2 * float(xp.sum(K[:n, n:])) / (n * m)


def _median_distance(squares: Array) -> float:
    """Return the median distance over the distinct pairs of a matrix (n, n) of squared distances."""
    xp = array_namespace(squares)
    pairs = xp.triu(xp.ones(squares.shape, dtype=xp.bool, device=array_api_compat.device(squares)), k=1)
    ordered = xp.sort(squares[pairs])
    count = ordered.shape[0]
    return (math.sqrt(float(ordered[(count - 1) // 2])) + math.sqrt(float(ordered[count // 2]))) / 2


class Diversity(NamedTuple):
    """Spread of features within and between classes, in squared units of the features; the two sum to the total."""

    within: float
    """Mean squared distance of a sample to the mean of its class."""
    between: float
    """Mean squared distance of the class means to the overall mean, each class weighted by its number of samples."""


def diversity(features: Array, labels: Any) -> Diversity:
    """Split the total variance of features, (1/n) Σᵢ ‖xᵢ - μ‖², into that within classes and that between them.

    Parameters
    ----------
    features
        (n_samples, n_features), float32 or float64; all work is in float64.
    labels
        (n_samples,) class of each sample, integers or strings.

    Raises
    ------
    InputError
        When `features` is no finite matrix or `labels` has another length.
    """
    xp = array_namespace(features)
    features = check_features(features, "features")
    host = to_numpy(labels) if array_api_compat.is_array_api_obj(labels) else np.asarray(labels)
    if host.shape != (features.shape[0],):
        raise InputError(
            f"Expected `labels` to have shape ({features.shape[0]},), one per row of the features, but got {host.shape}"
        )
    _, codes, counts = np.unique(host, return_inverse=True, return_counts=True)
    centred = center(xp.astype(features, xp.float64))
    averaging = np.eye(len(counts))[codes] / counts
    means = from_numpy(averaging, like=features).T @ centred
    deviations = centred - xp.take(means, from_numpy(codes, like=features), axis=0)
    shares = from_numpy(counts / len(codes), like=features)
    return Diversity(
        within=float(xp.sum(deviations**2)) / len(codes),
        between=float(xp.sum(shares * xp.sum(means**2, axis=1))),
    )


def _check_sets(X: Array, Y: Array) -> tuple[Array, Array]:
    array_namespace(X, Y)
    X, Y = check_features(X, "X", min_samples=2), check_features(Y, "Y", min_samples=2)
    if X.shape[1] != Y.shape[1]:
        raise InputError(
            f"Expected `X` and `Y` to have the same n_features but got {tuple(X.shape)} and {tuple(Y.shape)}; take "
            "both from the same layer of one network"
        )
    return X, Y
