"""The H-score with a shrunk covariance: between-class variance in units of the total."""

from __future__ import annotations

from typing import Any

import numpy as np

from transferscope.backend import Array, array_namespace
from transferscope.linalg import Factors, check_features, thin_svd
from transferscope.transferability.labels import encode_labels, one_hot


def hscore(features: Array, labels: Any) -> float:
    """Shrunk H-score: trace of the inverse shrunk covariance times the shrunk covariance of the class means.

    The covariance S is replaced by (1 - α) S + α (tr S / n_features) I with the α of Ledoit and Wolf, and the
    covariance of the class means is scaled by 1 - α.

    Parameters
    ----------
    features
        (n_samples, n_features), at least 2 samples.
    labels
        (n_samples,) integers, booleans or strings, at least two classes.

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
    """
    features = check_features(features, "features", min_samples=2)
    codes = encode_labels(labels, features.shape[0])
    return hscore_from_factors(thin_svd(features), features.shape[1], codes)


def hscore_from_factors(centred: Factors, n_features: int, codes: np.ndarray) -> float:
    """Do what `hscore` does, from the factors of the centred features and the codes of `encode_labels`."""
    xp = array_namespace(centred.left)
    n = centred.left.shape[0]
    targets = one_hot(codes, like=centred.left)
    counts = xp.sum(targets, axis=0)
    eigenvalues = centred.singular_values**2 / n
    mean = xp.sum(eigenvalues) / n_features
    alpha = ledoit_wolf_alpha(centred, n_features)
    # Uᵀ 1_c = n_c m_c / s, with m_c the class mean along the singular directions.
    between = eigenvalues * xp.sum((centred.left.T @ targets) ** 2 / counts, axis=1)
    return (1 - alpha) * float(xp.sum(between / ((1 - alpha) * eigenvalues + alpha * mean)))


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
