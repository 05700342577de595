"""Leave-one-out error of kernel ridge regression with a Gaussian kernel: the head of top-tuning, in closed form."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from transferscope.backend import Array, array_namespace
from transferscope.transferability.labels import encode_labels, one_hot
from transferscope.transferability.layer import Layer

BANDWIDTHS = (0.5, 1.0, 2.0)
"""Kernel widths σ tried, as multiples of the median distance between samples."""

PENALTIES = tuple(10.0**exponent for exponent in range(-9, -2))
"""Ridge penalties λ tried; what is added to the diagonal of the kernel matrix is λ n_samples."""


class KernelRidgeFit(NamedTuple):
    """The best Gaussian kernel ridge regression by its leave-one-out squared error, and how good it is."""

    accuracy: float
    """Share of left-out samples classified correctly, in [0, 1]."""
    squared_error: float
    """Squared error of left-out one-hot targets, summed over classes, mean over samples; lower is better."""
    bandwidth: float
    """σ in units of the features; infinite for constant features."""
    penalty: float
    """λ, one of `PENALTIES`."""


def kernel_ridge(features: Array, labels: Any) -> float:
    """Leave-one-out accuracy of Gaussian kernel ridge regression onto one-hot targets.

    With K = exp(-d² / (2 σ²)), G = K + λ n_samples I and targets Y, the residuals of left-out samples are
    (G⁻¹ Y)_i / (G⁻¹)_ii, exactly and without refitting. σ from `BANDWIDTHS` and λ from `PENALTIES` are those of the
    least leave-one-out squared error. As in the head of top-tuning there is no intercept.

    Parameters
    ----------
    features
        (n_samples, n_features), at least 2 samples. Whatever n_features, three eigendecompositions of the kernel
        matrix take most of the time: half a second for 1000 samples on one core, a minute and a half for 5000.
    labels
        (n_samples,) integers, booleans or strings, at least two classes.

    Returns
    -------
    float
        Share of samples classified correctly, in [0, 1]. Features that carry nothing come out below chance:
        leaving a sample out makes its own class the rarer one.

    Raises
    ------
    InputError
        When features or labels are not as above.

    References
    ----------
    Alfano et al. (2022), Top-Tuning: a study on transfer learning for an efficient alternative to fine tuning for
    image classification with fast kernel methods. The grids are our instantiation.
    """
    layer = Layer(features)
    return kernel_ridge_from_layer(layer, encode_labels(labels, layer.n_samples))


def kernel_ridge_from_layer(layer: Layer, codes: np.ndarray) -> float:
    """Do what `kernel_ridge` does, from a layer and the codes of `encode_labels`."""
    return fit_kernel_ridge(layer, codes).accuracy


def fit_kernel_ridge(layer: Layer, codes: np.ndarray) -> KernelRidgeFit:
    """Fit as in `kernel_ridge`, from a layer and the codes of `encode_labels`, and return the error as well."""
    xp = array_namespace(layer.features)
    targets = one_hot(codes, like=layer.features)
    n = layer.n_samples
    median = _median_distance(layer.squared_distances)
    best, left_out = KernelRidgeFit(0.0, math.inf, math.inf, math.inf), targets
    for factor in BANDWIDTHS if median else BANDWIDTHS[:1]:
        bandwidth = factor * median or math.inf
        eigenvalues, vectors = xp.linalg.eigh(xp.exp(layer.squared_distances / (-2 * bandwidth**2)))
        # Below zero by rounding alone.
        eigenvalues = xp.where(eigenvalues > 0, eigenvalues, xp.zeros_like(eigenvalues))
        coordinates, squares = vectors.T @ targets, vectors**2
        for penalty in PENALTIES:
            inverse = 1 / (eigenvalues + penalty * n)
            residuals = (vectors @ (inverse[:, None] * coordinates)) / (squares @ inverse)[:, None]
            error = float(xp.sum(residuals**2)) / n
            if error < best.squared_error:
                best, left_out = KernelRidgeFit(0.0, error, bandwidth, penalty), residuals
    correct = xp.argmax(targets - left_out, axis=1) == xp.argmax(targets, axis=1)
    return best._replace(accuracy=float(xp.mean(xp.astype(correct, xp.float64))))


def _median_distance(squares: Array) -> float:
    """Median distance over all pairs of samples that differ; 0 when none do."""
    xp = array_namespace(squares)
    ordered = xp.sort(xp.reshape(squares, (-1,)))
    same = int(xp.sum(xp.astype(ordered == 0, xp.int64)))
    pairs = (ordered.shape[0] - same) // 2  # each is there twice
    if pairs == 0:
        return 0.0
    return (math.sqrt(float(ordered[same + pairs - 1])) + math.sqrt(float(ordered[same + pairs]))) / 2
