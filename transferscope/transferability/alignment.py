"""Alignment of the features' kernel with that of the labels: CKA between features and one-hot labels."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from transferscope.arrays.backend import Array, array_namespace
from transferscope.arrays.linalg import hsic_bias
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.transferability.labels import encode_labels, one_hot
from transferscope.transferability.layer import Layer


def alignment(features: Array, labels: Any, *, debiased: bool = True) -> float:
    """Centred kernel alignment HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), K = F Fᵀ, L = 1 for pairs of one class.

    This is linear CKA between the features and the one-hot labels, in closed form.

    Parameters
    ----------
    features
        (n_samples, n_features), at least 2 samples, debiased at least 4.
    labels
        (n_samples,) integers, booleans or strings, at least two classes.
    debiased
        Use the unbiased HSIC of Song et al. (2012), with which noise comes out around 0 whatever n_features. The
        biased form rises with n_features, and so prefers wide layers.

    Returns
    -------
    float
        Higher is more transferable; biased in [0, 1], debiased in [-1, 1]. NaN, with a warning, when one of the
        two has no structure: constant features, or for the debiased form a class for every sample.

    Raises
    ------
    InputError
        When features or labels are not as above.

    References
    ----------
    Cortes et al. (2012), Algorithms for Learning Kernels Based on Centered Alignment.

    Examples
    --------
    >>> import numpy as np
    >>> round(alignment(np.eye(2)[[0, 0, 1, 1]], [0, 0, 1, 1]), 6)  # the features are the classes
    1.0
    """
    layer = Layer(features)
    return alignment_from_layer(layer, encode_labels(labels, layer.n_samples), debiased=debiased)


def alignment_from_layer(layer: Layer, codes: np.ndarray, *, debiased: bool = True) -> float:
    """Do what `alignment` does, from a layer and the codes of `encode_labels`."""
    n = layer.n_samples
    if debiased and n < 4:
        raise InputError(
            f"Expected `features` to have at least 4 samples for the debiased alignment but got {n}; take more, or "
            "pass debiased=False"
        )
    xp = array_namespace(layer.features)
    left, singular_values = layer.centred
    targets = one_hot(codes, like=left)
    counts = xp.sum(targets, axis=0)
    variances, shares = singular_values**2, counts / n
    cross = float(xp.sum(variances * xp.sum((left.T @ targets) ** 2, axis=1)))
    features_self = float(xp.sum(variances**2))
    # Of the centred one-hot labels: the squared norm of their scatter matrix.
    labels_self = float(xp.sum(counts**2 * (1 - 2 * shares)) + xp.sum(counts * shares) ** 2)
    floors = [0.0, 0.0]
    if debiased:
        # What is left of a zero after the subtraction below is rounding of what it is subtracted from.
        rounding = n * float(xp.finfo(xp.float64).eps)
        floors = [rounding * features_self, rounding * labels_self]
        features_norms = left**2 @ variances
        labels_norms = 1 - 2 * (targets @ shares) + xp.sum(shares**2)
        cross -= hsic_bias(features_norms, labels_norms)
        features_self -= hsic_bias(features_norms, features_norms)
        labels_self -= hsic_bias(labels_norms, labels_norms)
    for name, value, floor in (("features", features_self, floors[0]), ("labels", labels_self, floors[1])):
        if value <= floor:
            warnings.warn(
                f"the alignment is NaN: the `{name}` have zero self-HSIC, as constant features and a class for every "
                "sample do",
                TransferscopeWarning,
                stacklevel=2,
            )
            return math.nan
    return cross / (math.sqrt(features_self) * math.sqrt(labels_self))
