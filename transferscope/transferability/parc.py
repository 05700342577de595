"""PARC: whether samples that look alike to the network are those of one class."""

from __future__ import annotations

from typing import Any

import numpy as np

from transferscope.arrays.backend import Array, array_namespace, from_numpy
from transferscope.errors import InputError, check_whole
from transferscope.transferability.labels import encode_labels, one_hot
from transferscope.transferability.layer import Layer
from transferscope.transferability.principal import principal_components

_ROWS = 1024
"""Rows of the correlation matrix held at once."""


def parc(features: Array, labels: Any, *, n_components: int = 32) -> float:
    """Spearman correlation, over pairs of samples, of the features' dissimilarities with the labels'.

    A dissimilarity is 1 minus Pearson's correlation of two rows: of the first principal components of the
    features, and of the one-hot labels, where it only tells same class from different class.

    Parameters
    ----------
    features
        (n_samples, n_features), at least 2 samples.
    labels
        (n_samples,) integers, booleans or strings, at least two classes, one of them with 2 samples or more.
    n_components
        Principal components kept, 32 as published, at least 2. Their signs matter to the correlation of rows;
        see `principal.principal_components`.

    Returns
    -------
    float
        In [-1, 1] (published times 100); higher is more transferable; 0 when all pairs are equally alike, as they
        are for constant features and for features that vary in one direction only, where rows have no correlation.

    Raises
    ------
    InputError
        When features, labels or `n_components` are not as above.

    References
    ----------
    Bolya et al. (2021), Scalable Diverse Model Selection for Accessible Transfer Learning.

    Examples
    --------
    >>> import numpy as np
    >>> parc(np.ones((4, 3)), [0, 0, 1, 1])  # all pairs are equally alike
    0.0
    """
    layer = Layer(features)
    return parc_from_layer(layer, encode_labels(labels, layer.n_samples), n_components=n_components)


def parc_from_layer(layer: Layer, codes: np.ndarray, *, n_components: int = 32) -> float:
    """Do what `parc` does, from a layer and the codes of `encode_labels`."""
    n_components = check_whole("n_components", n_components, 2)
    xp = array_namespace(layer.features)
    sizes = xp.sum(one_hot(codes, like=layer.features), axis=0)
    if not xp.any(sizes > 1):
        raise InputError(
            f"Expected `labels` to name a class with at least 2 samples but all {sizes.shape[0]} classes have one; "
            "PARC needs pairs of one class: take more samples or coarser classes"
        )
    points = principal_components(layer, n_components)
    if points.shape[1] < 2:
        return 0.0
    everything, same = _correlations(points, codes)
    return _spearman(everything, same)


def _correlations(points: Array, codes: np.ndarray) -> tuple[Array, Array]:
    """Pearson's correlations of the pairs of rows, of all pairs and of those of one class: two flat arrays."""
    xp = array_namespace(points)
    rows = points - xp.mean(points, axis=1, keepdims=True)
    norms = xp.linalg.vector_norm(rows, axis=1, keepdims=True)
    # A row without spread has no direction: its correlations are taken to be 0.
    spread = norms > 64 * float(xp.finfo(xp.float64).eps) * xp.max(norms)
    rows = xp.where(spread, rows / xp.where(spread, norms, xp.ones_like(norms)), xp.zeros_like(rows))
    classes, place = from_numpy(codes, like=points), from_numpy(np.arange(len(codes)), like=points)
    everything, same = [], []
    for start in range(0, len(codes), _ROWS):
        here = slice(start, min(start + _ROWS, len(codes)))
        # Rounded, so that equal pairs stay equal: what they differ by after a product of matrices is no order.
        block = xp.round((rows[here, :] @ rows[start:, :].T) * 2.0**40)
        later = place[here, None] < place[None, start:]
        everything.append(block[later])
        same.append(block[later & (classes[here, None] == classes[None, start:])])
    return xp.concat(everything), xp.concat(same)


def _spearman(everything: Array, same: Array) -> float:
    """Spearman correlation (midranks) of the values in `everything` with being one of those that are in `same`.

    With a variable of two values it is the mean rank of the second kind, measured in standard deviations of all
    ranks, times the root of the odds of that kind.
    """
    xp = array_namespace(everything, same)
    n = everything.shape[0]
    # A sorted search in sorted values is the quick one, and so is a sort that may swap equals.
    values, same = xp.sort(everything, stable=False), xp.sort(same, stable=False)
    starts = xp.nonzero(xp.concat([values[:1] == values[:1], values[1:] != values[:-1]]))[0]
    if starts.shape[0] == 1:
        return 0.0
    ties = xp.concat([starts[1:], xp.full_like(starts[:1], n)]) - starts
    ties = xp.astype(ties[ties > 1], xp.float64)
    variance = (n**2 - 1 - float(xp.sum(ties**3 - ties)) / n) / 12
    ranks = xp.searchsorted(values, same) + xp.searchsorted(values, same, side="right")
    mean = (float(xp.mean(xp.astype(ranks, xp.float64))) - n) / 2  # from the mean of all ranks
    correlation = mean / variance**0.5 * (same.shape[0] / (n - same.shape[0])) ** 0.5
    return min(max(correlation, -1.0), 1.0)
