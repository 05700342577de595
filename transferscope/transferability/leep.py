"""LEEP and NCE: how well a source's predicted classes foretell the target's."""

from __future__ import annotations

from typing import Any

import numpy as np

from transferscope.arrays.backend import Array, array_namespace, from_numpy, to_numpy
from transferscope.arrays.linalg import check_features
from transferscope.errors import InputError
from transferscope.transferability.labels import encode_labels, one_hot

_TOLERANCE = 1e-3
"""How far a row of probabilities may be from summing to 1: what a softmax in half precision leaves."""


def leep(source_probabilities: Array, labels: Any) -> float:
    """Log expected empirical prediction: mean log-likelihood of the labels through the source's classes.

    A sample's target class is predicted by Σ_z P(y | z) θ(z), with θ the source's probabilities for the sample
    and P(y | z) the empirical conditional distribution of target given source class, formed from all samples.

    Parameters
    ----------
    source_probabilities
        (n_samples, n_source_classes), what the source predicts for the target's images: rows of nonnegative
        numbers that sum to 1. At least 2 samples. Source classes without any probability count for nothing.
    labels
        (n_samples,) integers, booleans or strings, at least two classes; one sample of a class is enough.

    Returns
    -------
    float
        In [-ln n_samples, 0]; higher is more transferable. Predictions that do not depend on the sample give
        minus the entropy of the labels.

    Raises
    ------
    InputError
        When probabilities or labels are not as above.

    References
    ----------
    Nguyen et al. (2020), LEEP: A New Measure to Evaluate Transferability of Learned Representations.

    Examples
    --------
    >>> import numpy as np
    >>> round(leep(np.full((4, 2), 0.5), [0, 0, 1, 1]), 4)  # ln ½: the source tells nothing apart
    -0.6931
    >>> leep(np.eye(2)[[0, 0, 1, 1]], [0, 0, 1, 1])  # every class of its own is one of the target
    0.0
    """
    probabilities = _check_probabilities(source_probabilities)
    return leep_from_codes(probabilities, encode_labels(labels, probabilities.shape[0]))


def leep_from_codes(probabilities: Array, codes: np.ndarray) -> float:
    """Do what `leep` does, from float64 probabilities known to be such and the codes of `encode_labels`."""
    xp = array_namespace(probabilities)
    mass = xp.sum(probabilities, axis=0)
    joint = one_hot(codes, like=probabilities).T @ probabilities
    conditional = xp.where(mass > 0, joint / xp.where(mass > 0, mass, xp.ones_like(mass)), xp.zeros_like(joint))
    likelihoods = xp.take(conditional, from_numpy(codes, like=probabilities), axis=0)
    # A sample vouches for itself: with S(z) the sum of θ(z) over samples, its expected prediction is at least
    # Σ θ(z)²/S(z) >= (Σ θ(z))²/Σ S(z) = 1/n. So nothing underflows and no logarithm of small sums is needed.
    return min(0.0, float(xp.mean(xp.log(xp.vecdot(likelihoods, probabilities)))))


def nce(source_probabilities: Array, labels: Any) -> float:
    """Negative conditional entropy of the target's classes given the most probable class of the source.

    Parameters
    ----------
    source_probabilities
        (n_samples, n_source_classes), as for `leep`; or the source's predicted classes themselves, (n_samples,)
        integers. At least 2 samples.
    labels
        (n_samples,) integers, booleans or strings, at least two classes; one sample of a class is enough.

    Returns
    -------
    float
        In [-ln n_classes, 0]; higher is more transferable. 0 when the source's class determines the target's, as
        it does when every sample has a source class of its own.

    Raises
    ------
    InputError
        When probabilities or labels are not as above.

    References
    ----------
    Tran et al. (2019), Transferability and Hardness of Supervised Classification Tasks.

    Examples
    --------
    >>> import numpy as np
    >>> round(nce(np.array([0, 1, 0, 1]), [0, 0, 1, 1]), 4)  # ln ½: the source tells nothing apart
    -0.6931
    """
    xp = array_namespace(source_probabilities)
    if source_probabilities.ndim == 1 and xp.isdtype(source_probabilities.dtype, "integral"):
        predicted = to_numpy(source_probabilities)
    else:
        probabilities, _ = _checked(source_probabilities)
        predicted = to_numpy(xp.argmax(probabilities, axis=1))
    codes = encode_labels(labels, predicted.shape[0])
    _, sources = np.unique(predicted, return_inverse=True)
    width = int(codes.max()) + 1
    counts = np.bincount(sources * width + codes, minlength=width * (int(sources.max()) + 1)).reshape(-1, width)
    given = np.broadcast_to(counts.sum(axis=1, keepdims=True), counts.shape)
    met = counts > 0
    return float(np.sum(counts[met] * np.log(counts[met] / given[met]))) / len(codes)


def _check_probabilities(probabilities: Array) -> Array:
    """Return the probabilities in float64, every row summing to 1 up to rounding."""
    probabilities, sums = _checked(probabilities)
    xp = array_namespace(probabilities)
    return xp.astype(probabilities, xp.float64) / sums


def _checked(probabilities: Array) -> tuple[Array, Array]:
    """Return the probabilities as they are, and the sums of their rows, (n_samples, 1) in float64."""
    xp = array_namespace(probabilities)
    floats = xp.isdtype(probabilities.dtype, "real floating") and probabilities.ndim == 2
    if floats and probabilities.shape[0] > 1 and probabilities.shape[1]:
        sums = xp.sum(probabilities, axis=1, keepdims=True, dtype=xp.float64)
        # Finite sums of what is not negative are of finite numbers.
        if xp.all(xp.abs(sums - 1) <= _TOLERANCE) and xp.all(xp.min(probabilities) >= 0):
            return probabilities, sums
    probabilities = check_features(probabilities, "source_probabilities", min_samples=2)
    sums = xp.sum(probabilities, axis=1, keepdims=True, dtype=xp.float64)
    if xp.any(probabilities < 0) or xp.any(xp.abs(sums - 1) > _TOLERANCE):
        raise InputError(
            "Expected the rows of `source_probabilities` to be nonnegative and to sum to 1 but got entries from "
            f"{float(xp.min(probabilities)):.4g} to {float(xp.max(probabilities)):.4g} and row sums from "
            f"{float(xp.min(sums)):.4g} to {float(xp.max(sums)):.4g}; if these are logits, apply softmax"
        )
    return probabilities, sums
