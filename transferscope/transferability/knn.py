"""Leave-one-out accuracy of the nearest neighbours and of the nearest class mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from transferscope.arrays.backend import Array, array_namespace
from transferscope.arrays.linalg import in_places
from transferscope.errors import InputError, is_whole
from transferscope.transferability.labels import encode_labels, one_hot
from transferscope.transferability.layer import Layer
from transferscope.transferability.shares import share_correct

METRICS = ("cosine", "euclidean")

_BLOCK = 2**19
"""Pairs of samples that are worked off at a time, which the processor's own memory holds."""

_SMALLEST = 1e-200
"""Squared length of features below which they are scaled before they are squared."""

_SAME = 1e-12
"""Relative difference up to which two distances are a tie: rounding must not decide who is nearer."""


def knn(features: Array, labels: Any, *, k: int = 5, metric: str = "cosine", balanced: bool = False) -> float:
    """Leave-one-out accuracy of the majority among the k nearest other samples.

    Ties are settled without regard to the order of samples or classes: all samples as near as the k-th nearest
    vote; of classes with equal votes the one whose voters are nearer, on the sum of their similarities, is
    taken; and where that is equal too, the sample counts as wrong.

    Parameters
    ----------
    features
        (n_samples, n_features), at least 2 samples.
    labels
        (n_samples,) integers, booleans or strings, at least two classes.
    k
        How many neighbours vote, at least 1; with fewer than k other samples all of them do.
    metric
        ``"cosine"``, of the features as they are, not centred (a row of zeros is at right angles to all), or
        ``"euclidean"``.
    balanced
        Whether the shares of all classes are averaged (balanced accuracy), not counted by their samples.

    Returns
    -------
    float
        Share of samples classified correctly, in [0, 1]; a class with a single sample is never right.

    Raises
    ------
    InputError
        When features, labels, `k` or `metric` are not as above.

    References
    ----------
    Cover and Hart (1967), Nearest neighbor pattern classification.

    Examples
    --------
    >>> import numpy as np
    >>> knn(np.array([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [0.1, 3.0]]), ["cat", "cat", "dog", "dog"], k=1)
    1.0
    """
    layer = Layer(features)
    return knn_from_layer(layer, encode_labels(labels, layer.n_samples), k=k, metric=metric, balanced=balanced)


def knn_from_layer(
    layer: Layer, codes: np.ndarray, *, k: int = 5, metric: str = "cosine", balanced: bool = False
) -> float:
    """Do what `knn` does, from a layer and the codes of `encode_labels`."""
    if not is_whole(k, 1):
        raise InputError(f"Expected `k` to be a whole number of neighbours, at least 1, but got {k!r}")
    if metric not in METRICS:
        raise InputError(f"Expected `metric` to be 'cosine' or 'euclidean' but got {metric!r}")
    xp = array_namespace(layer.features)
    targets = one_hot(codes, like=layer.features)
    n = layer.n_samples
    nearness = _cosines(layer) if metric == "cosine" else _euclidean(layer)
    votes = []
    for start in range(0, n, step := max(1, _BLOCK // n)):
        near = nearness(slice(start, min(start + step, n)))
        others = xp.asarray(near, copy=True)
        # Below every nearness, which is at least 0.
        xp.reshape(others, (near.shape[0] * n,), copy=False)[start :: n + 1] = -1.0
        last = _kth_largest(others, min(k, n - 1))
        voters = xp.astype(others >= (last - _SAME)[:, None], xp.float64)
        # Nearness is at most 1, so that its share stays below the difference that one vote makes.
        near = near / (1 + xp.sum(voters, axis=1, keepdims=True))
        votes.append((voters + voters * near) @ targets)
    return share_correct(_greatest(xp.concat(votes), targets, _SAME), codes, balanced=balanced)


def nearest_mean(features: Array, labels: Any, *, balanced: bool = False) -> float:
    """Leave-one-out accuracy of the class whose mean is nearest in Euclidean distance.

    Every sample is left out of the mean of its own class, in closed form.

    Parameters
    ----------
    features
        (n_samples, n_features), at least 2 samples.
    labels
        (n_samples,) integers, booleans or strings, at least two classes.
    balanced
        Whether the shares of all classes are averaged (balanced accuracy), not counted by their samples.

    Returns
    -------
    float
        Share of samples classified correctly, in [0, 1]. The sample of a class with no other counts as wrong, and
        so does one as far from the mean of another class as from its own: 0 for constant features.

    Raises
    ------
    InputError
        When features or labels are not as above.

    References
    ----------
    Mensink et al. (2013), Distance-Based Image Classification: Generalizing to New Classes at Near-Zero Cost.

    Examples
    --------
    >>> import numpy as np
    >>> nearest_mean(np.array([[0.0], [1.0], [9.0], [10.0]]), ["cat", "cat", "dog", "dog"])
    1.0
    """
    layer = Layer(features)
    return nearest_mean_from_layer(layer, encode_labels(labels, layer.n_samples), balanced=balanced)


def nearest_mean_from_layer(layer: Layer, codes: np.ndarray, *, balanced: bool = False) -> float:
    """Do what `nearest_mean` does, from a layer and the codes of `encode_labels`."""
    xp = array_namespace(layer.features)
    targets = one_hot(codes, like=layer.features)
    counts = xp.sum(targets, axis=0)
    points = layer.coordinates
    means = (targets.T @ points) / counts[:, None]
    norms = xp.sum(points**2, axis=1)
    squares = norms[:, None] + xp.sum(means**2, axis=1)[None, :] - 2 * (points @ means.T)
    # Without the sample the mean of its class is further off by n_c / (n_c - 1), and without any there is none.
    alone = counts == 1
    stretch = (counts / xp.where(alone, counts, counts - 1)) ** 2
    squares = xp.where(targets > 0, stretch[None, :] * squares, squares)
    squares = xp.where((targets > 0) & alone[None, :], xp.full_like(squares, math.inf), squares)
    nearest = _greatest(-squares, targets, _SAME * float(xp.max(norms)))
    return share_correct(nearest, codes, balanced=balanced)


def _cosines(layer: Layer) -> Callable[[slice], Array]:
    """Cosine similarity of some samples with all, moved to [0, 1]; (n_rows, n_samples)."""
    xp = array_namespace(layer.features)
    rows = xp.astype(layer.features, xp.float64)
    squares = xp.vecdot(rows, rows)[:, None]
    if xp.any(squares < _SMALLEST):
        # Squares of what is far below 1 vanish.
        largest = xp.max(xp.abs(rows), axis=1, keepdims=True)
        rows = rows / xp.where(largest > 0, largest, xp.ones_like(largest))
        squares = xp.vecdot(rows, rows)[:, None]
    rows = rows / xp.sqrt(xp.where(squares > 0, squares, xp.ones_like(squares)))
    return lambda part: (rows[part, :] @ rows.T + 1) / 2


def _euclidean(layer: Layer) -> Callable[[slice], Array]:
    """Squared distances of some samples to all turned into similarities in [0, 1]; (n_rows, n_samples)."""
    squares = layer.squared_distances
    largest = float(array_namespace(squares).max(squares))
    return lambda part: 1 - squares[part, :] / (largest or 1.0)


def _greatest(scores: Array, targets: Array, tie: float) -> Array:
    """Whether the own class of each sample scores higher than every other, by more than `tie`; (n_samples,)."""
    xp = array_namespace(scores, targets)
    lowest = xp.full_like(scores, -math.inf)
    true_scores = xp.max(xp.where(targets > 0, scores, lowest), axis=1)
    other = xp.max(xp.where(targets > 0, lowest, scores), axis=1)
    return true_scores > other + tie


def _kth_largest(X: Array, k: int) -> Array:
    """Return the `k`-th largest value of each row of `X` (n_rows, n_columns), (n_rows,); k from 1 to n_columns."""
    place = X.shape[1] - k
    return in_places(X, [place])[:, place]
