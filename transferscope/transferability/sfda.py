"""SFDA: the likelihood of the labels in a Fisher space, after samples hard to tell were made harder."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from transferscope.arrays.backend import Array, array_namespace, from_numpy
from transferscope.errors import InputError, check_whole
from transferscope.transferability.labels import encode_labels, one_hot
from transferscope.transferability.layer import Layer

_SAMPLES_PER_COMPONENT = 10
"""Samples per principal component kept, at least: with fewer, noise separates the classes of its own samples."""
_FLOOR = 1e-6
"""Least variance within classes, as a share of the whole: classes may be points."""


def sfda(features: Array, labels: Any, *, n_components: int | None = None, steepness: float = 5.0) -> float:
    """Self-challenging Fisher discriminant analysis: mean log-likelihood of the labels of its second round.

    Our instantiation. The features are centred, reduced to principal components and scaled to a total variance of
    1. With S the pooled covariance within classes, σ its largest eigenvalue and μ their mean,
    λ = exp(-steepness σ) shrinks it to (1 - λ) S + λ μ I; the classes are Gaussians with that covariance in common,
    weighted by their sizes, which is Fisher's projection followed by a softmax of distances to the projected means.
    Every sample x is then moved toward the mean m of the samples of all other classes, to p x + (1 - p) m, p being
    the probability just given to its own class. The discriminant is fitted once more to the moved samples, with the
    same λ, and the mean of ln p is the score. As published, samples are judged by the discriminant fitted to them.

    Parameters
    ----------
    features
        (n_samples, n_features), at least 2 samples.
    labels
        (n_samples,) integers, booleans or strings, at least two classes, one of them with 2 samples or more. A
        class with a single sample has it for its mean and tells nothing of the spread.
    n_components
        Principal components kept at most; default n_samples / 10, at least 1, so that every feature counts when
        there are ten samples for each.
    steepness
        How fast a large variance within classes takes the shrinkage away; 0 shrinks S to μ I altogether.

    Returns
    -------
    float
        At most 0; higher is more transferable; minus the entropy of the labels for constant features.

    Raises
    ------
    InputError
        When features, labels or options are not as above.

    References
    ----------
    Shao et al. (2022), Not All Models Are Equal: Predicting Model Transferability in a Self-challenging Fisher
    Space. The scaling to unit variance, without which λ would depend on the units of the features, the target μ I
    of the shrinkage and the default of `n_components` are ours.

    Examples
    --------
    >>> import numpy as np
    >>> features = np.array([[0.0], [0.1], [1.0], [1.1]])
    >>> sfda(features, [0, 0, 1, 1]) > sfda(features, [0, 1, 0, 1])
    True
    """
    layer = Layer(features)
    codes = encode_labels(labels, layer.n_samples)
    return sfda_from_layer(layer, codes, n_components=n_components, steepness=steepness)


def sfda_from_layer(
    layer: Layer, codes: np.ndarray, *, n_components: int | None = None, steepness: float = 5.0
) -> float:
    """Do what `sfda` does, from a layer and the codes of `encode_labels`."""
    if n_components is None:
        n_components = max(1, layer.n_samples // _SAMPLES_PER_COMPONENT)
    n_components = check_whole("n_components", n_components, 1)
    if not 0 <= steepness < math.inf:
        raise InputError(f"Expected `steepness` to be a number from 0 but got {steepness!r}")
    xp = array_namespace(layer.features)
    members = one_hot(codes, like=layer.features)
    sizes = xp.sum(members, axis=0)
    shares = sizes / layer.n_samples
    if not xp.any(sizes > 1):
        raise InputError(
            f"Expected `labels` to name a class with at least 2 samples but all {members.shape[1]} classes have one; "
            "SFDA needs the spread within classes: take more samples or coarser classes"
        )
    rank = min(n_components, layer.centred.singular_values.shape[0])
    if rank == 0:
        return float(xp.sum(shares * xp.log(shares)))

    points = layer.coordinates[:, :rank]
    points = points / xp.sqrt(xp.sum(points**2) / layer.n_samples)
    classes = _Classes(members, sizes, from_numpy(codes, like=points))
    means, values, vectors = _within(points, classes)
    shrinkage = math.exp(-steepness * float(values[-1]))
    sure = xp.exp(_log_likelihoods(points, classes, means, values, vectors, shrinkage))[:, None]
    others = -means * (sizes / (layer.n_samples - sizes))[:, None]  # for the mean of all is 0
    moved = sure * points + (1 - sure) * xp.take(others, classes.codes, axis=0)
    moved = moved - xp.mean(moved, axis=0)
    return float(xp.mean(_log_likelihoods(moved, classes, *_within(moved, classes), shrinkage)))


class _Classes(NamedTuple):
    """One-hot labels (n_samples, n_classes), class sizes (n_classes,), codes (n_samples,), where the features are."""

    members: Array
    sizes: Array
    codes: Array


def _within(points: Array, classes: _Classes) -> tuple[Array, Array, Array]:
    """Class means (n_classes, rank), then eigenvalues, ascending, and -vectors of the covariance within classes."""
    xp = array_namespace(points)
    means = classes.members.T @ points / classes.sizes[:, None]
    residuals = points - xp.take(means, classes.codes, axis=0)
    values, vectors = xp.linalg.eigh(residuals.T @ residuals / points.shape[0])
    return means, xp.where(values > 0, values, xp.zeros_like(values)), vectors


def _log_likelihoods(
    points: Array, classes: _Classes, means: Array, values: Array, vectors: Array, shrinkage: float
) -> Array:
    """Log-probability of every sample's own class, (n_samples,), accurate down to the least doubt."""
    xp = array_namespace(points)
    n, rank = points.shape
    mean_variance = max(float(xp.sum(values)), _FLOOR * float(xp.sum(points**2)) / n) / rank
    # The eigenvectors of Fisher's problem span what the class means differ in, relative to the shrunk covariance:
    # whitened by it, distances to the means are those of Fisher's space, up to what all classes have in common.
    white = vectors / xp.sqrt((1 - shrinkage) * values + shrinkage * mean_variance)
    centres = means @ white
    logits = (points @ white) @ centres.T - xp.sum(centres**2, axis=1) / 2 + xp.log(classes.sizes / n)
    true_logits = xp.sum(logits * classes.members, axis=1, keepdims=True)
    rivals = xp.where(classes.members > 0, -xp.inf, logits - true_logits)
    best = xp.max(rivals, axis=1)
    against = best + xp.log(xp.sum(xp.exp(rivals - best[:, None]), axis=1))
    return -xp.logaddexp(xp.zeros_like(against), against)
