"""GBC: how much the classes overlap, each taken for a Gaussian."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from transferscope.arrays.backend import Array, array_namespace, from_numpy
from transferscope.errors import InputError, check_whole
from transferscope.transferability.labels import encode_labels, one_hot
from transferscope.transferability.layer import Layer

_FLOOR = 1e-6
"""Least variance of a class along a component, as a share of the largest variance of a component."""
_BLOCK = 2**22
"""Numbers held at once for the pairs of classes."""

Covariance = Literal["diagonal", "spherical"]


def gbc(features: Array, labels: Any, *, covariance: Covariance = "diagonal", n_components: int = 64) -> float:
    """Gaussian Bhattacharyya coefficient: minus the sum over class pairs of exp(-Bhattacharyya distance).

    Every class is a Gaussian with its own mean and (maximum likelihood) variances over the first principal
    components of all features; every unordered pair counts once.

    Parameters
    ----------
    features
        (n_samples, n_features), at least 2 samples.
    labels
        (n_samples,) integers, booleans or strings, at least two classes, one of them with 2 samples or more. A
        class with a single sample gets the variances within the other classes, pooled.
    covariance
        ``"diagonal"``, a variance per class and component, or ``"spherical"``, their mean over the components.
    n_components
        Principal components kept, 64 as published.

    Returns
    -------
    float
        In [-n_classes (n_classes - 1) / 2, 0]; higher is more transferable; the least for constant features.

    Raises
    ------
    InputError
        When features, labels or options are not as above.

    References
    ----------
    Pándy et al. (2022), Transferability Estimation using Bhattacharyya Class Separability. That variances below
    1e-6 of the largest component's are raised to it is ours, and so is the rule for single samples.

    Examples
    --------
    >>> import numpy as np
    >>> round(gbc(np.array([[-1.0], [1.0], [-1.0], [1.0]]), [0, 0, 1, 1]), 6)  # one pair of classes, all the same
    -1.0
    """
    layer = Layer(features)
    codes = encode_labels(labels, layer.n_samples)
    return gbc_from_layer(layer, codes, covariance=covariance, n_components=n_components)


def gbc_from_layer(
    layer: Layer, codes: np.ndarray, *, covariance: Covariance = "diagonal", n_components: int = 64
) -> float:
    """Do what `gbc` does, from a layer and the codes of `encode_labels`."""
    if covariance not in ("diagonal", "spherical"):
        raise InputError(f"Expected `covariance` to be 'diagonal' or 'spherical' but got {covariance!r}")
    n_components = check_whole("n_components", n_components, 1)
    counts = np.bincount(codes)
    if counts.max() == 1:
        raise InputError(
            f"Expected `labels` to name a class with at least 2 samples but all {len(counts)} classes have one; "
            "GBC needs the spread within classes: take more samples or coarser classes"
        )
    classes = len(counts)
    rank = layer.centred.singular_values.shape[0]
    if rank == 0:
        return -classes * (classes - 1) / 2
    points = layer.coordinates[:, : min(n_components, rank)]
    means, variances = _gaussians(points, codes, counts)
    if covariance == "spherical":
        xp = array_namespace(variances)
        variances = xp.zeros_like(variances) + xp.mean(variances, axis=1, keepdims=True)
    return 0.0 - _overlap(means, variances)


def _gaussians(points: Array, codes: np.ndarray, counts: np.ndarray) -> tuple[Array, Array]:
    """Means and variances of the classes, both (n_classes, n_components)."""
    xp = array_namespace(points)
    members = one_hot(codes, like=points).T
    sizes = from_numpy(counts[:, None].astype(np.float64), like=points)
    means = members @ points / sizes
    squares = members @ (points - xp.take(means, from_numpy(codes, like=points), axis=0)) ** 2
    variances = squares / sizes
    pooled = xp.sum(squares, axis=0, keepdims=True) / int(counts[counts > 1].sum())
    variances = xp.where(sizes > 1, variances, pooled)
    floor = _FLOOR * xp.max(xp.mean(points**2, axis=0))
    return means, xp.where(variances > floor, variances, floor)


def _overlap(means: Array, variances: Array) -> float:
    """Sum of exp(-D) over class pairs, D = Σ δ²/(8 v) + ½ Σ ln v - ¼ Σ (ln v₁ + ln v₂), v the mean of v₁ and v₂."""
    xp = array_namespace(means)
    classes, components = means.shape
    volumes = xp.sum(xp.log(variances), axis=1) / 4
    rows = max(1, _BLOCK // (classes * components))
    total = 0.0
    for start in range(0, classes, rows):
        here = slice(start, min(start + rows, classes))
        between = (variances[here, None, :] + variances[None, start:, :]) / 2
        apart = (means[here, None, :] - means[None, start:, :]) ** 2 / (8 * between)
        distances = xp.sum(apart + xp.log(between) / 2, axis=2) - volumes[here, None] - volumes[None, start:]
        distances = xp.where(distances > 0, distances, xp.zeros_like(distances))
        total += float(xp.sum(xp.triu(xp.exp(-distances), k=1)))
    return total
