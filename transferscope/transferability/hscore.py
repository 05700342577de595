"""The H-score, plain and with a shrunk covariance: between-class variance in units of the total."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from transferscope.arrays.backend import Array, array_namespace
from transferscope.arrays.linalg import Factors
from transferscope.errors import TransferscopeWarning
from transferscope.transferability.labels import encode_labels, one_hot
from transferscope.transferability.layer import Layer


def hscore(features: Array, labels: Any, *, shrinkage: bool = True) -> float:
    """H-score: trace of the inverse covariance of the features times the covariance of their class means.

    Shrunk, the covariance S is replaced by (1 - α) S + α (tr S / n_features) I with the α of Ledoit and Wolf,
    and the covariance of the class means is scaled by 1 - α.

    Parameters
    ----------
    features
        (n_samples, n_features), at least 2 samples.
    labels
        (n_samples,) integers, booleans or strings, at least two classes.
    shrinkage
        False takes S as it is, with its pseudo-inverse. That score is n_classes - 1 for any features, which a
        warning says, as soon as they have n_samples - 1 independent directions.

    Returns
    -------
    float
        In [0, n_classes - 1]; higher is more transferable; 0 for constant features.

    Raises
    ------
    InputError
        When features or labels are not as above.

    References
    ----------
    Bao et al. (2019), An Information-Theoretic Approach to Transferability in Task Transfer Learning.
    Ibrahim et al. (2022), Newer is Not Always Better: Rethinking Transferability Metrics.

    Examples
    --------
    >>> import numpy as np
    >>> round(hscore(np.array([[0.0], [0.0], [1.0], [1.0]]), [0, 0, 1, 1], shrinkage=False), 6)  # n_classes - 1
    1.0
    >>> hscore(np.ones((4, 1)), [0, 0, 1, 1])
    0.0
    """
    layer = Layer(features)
    return hscore_from_layer(layer, encode_labels(labels, layer.n_samples), shrinkage=shrinkage)


def hscore_from_layer(layer: Layer, codes: np.ndarray, *, shrinkage: bool = True) -> float:
    """Do what `hscore` does, from a layer and the codes of `encode_labels`."""
    xp = array_namespace(layer.features)
    left, singular_values = layer.centred
    targets = one_hot(codes, like=left)
    # Uᵀ 1_c = n_c m_c / s, with m_c the class mean along the singular directions.
    between = xp.sum((left.T @ targets) ** 2 / xp.sum(targets, axis=0), axis=1)
    if not shrinkage:
        if left.shape[1] >= layer.n_samples - 1:
            warnings.warn(
                f"the H-score without shrinkage is {targets.shape[1] - 1} for whatever features: they have as many "
                f"directions as {layer.n_samples} samples can; take more samples, or the H-score with shrinkage",
                TransferscopeWarning,
                stacklevel=2,
            )
        return float(xp.sum(between))
    eigenvalues = singular_values**2 / layer.n_samples
    mean = xp.sum(eigenvalues) / layer.n_features
    alpha = ledoit_wolf_alpha(layer.centred, layer.n_features)
    return (1 - alpha) * float(xp.sum(eigenvalues * between / ((1 - alpha) * eigenvalues + alpha * mean)))


def ledoit_wolf_alpha(centred: Factors, n_features: int) -> float:
    """Ledoit-Wolf shrinkage intensity in [0, 1] of the covariance, from the factors of the centred features.

    References
    ----------
    Ledoit and Wolf (2004), A well-conditioned estimator for large-dimensional covariance matrices.
    """
    xp = array_namespace(centred.left)
    n = centred.left.shape[0]
    variances = centred.singular_values**2
    squared = float(xp.sum(variances**2)) / n**2
    distance = squared - (float(xp.sum(variances)) / n) ** 2 / n_features
    # A covariance that is a multiple of the identity, up to rounding, is its own target.
    if distance <= n_features * float(xp.finfo(xp.float64).eps) * squared:
        return 0.0
    norms = (centred.left**2) @ variances  # squared, of each sample
    noise = (float(xp.sum(norms**2)) / n - squared) / n
    return min(noise / distance, 1.0)
