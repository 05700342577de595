"""N-LEEP: LEEP with clusters of the features in place of the source's classes."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import numpy as np

from transferscope.arrays.backend import Array, to_numpy
from transferscope.errors import InputError, is_whole
from transferscope.transferability.labels import encode_labels
from transferscope.transferability.layer import Layer
from transferscope.transferability.leep import leep_from_codes
from transferscope.transferability.principal import principal_components

_SHARE = 0.8
"""Share of the variance that the principal components keep, as published."""
_WIDEST = 64
"""Principal components at most."""
_PER_CLASS = 5
"""Mixture components per target class, as published."""
_PER_COMPONENT = 5
"""Samples per mixture component at least, on average."""
_FLOOR = 1e-3
"""What is added to the variances of the mixture, as a share of the mean variance of the principal components."""

_filters = threading.Lock()
"""Those of warnings are of the process: layers that are scored side by side change them one after the other."""


def nleep(features: Array, labels: Any, *, seed: int = 0) -> float:
    """LEEP of the posteriors of a Gaussian mixture fitted to the features.

    Published: principal components with 80 % of the variance, a mixture of 5 n_classes Gaussians, LEEP of their
    posteriors. Our instantiation bounds the principal components by 64 and the Gaussians by n_samples / 5 (but 2
    at least), and gives them diagonal covariances with 1e-3 of the mean variance added.

    Unchanged by scaling, shifts and orthogonal maps of the features; by another order of the samples too, for
    they are sorted along the first principal component before the seed comes into play.

    Parameters
    ----------
    features
        (n_samples, n_features), at least 2 samples.
    labels
        (n_samples,) integers, booleans or strings, at least two classes; one sample of a class is enough.
    seed
        Of the k-means start of the mixture, run by scikit-learn on the CPU.

    Returns
    -------
    float
        In [-ln n_samples, 0]; higher is more transferable; minus the entropy of the labels for constant features.

    Raises
    ------
    InputError
        When features or labels are not as above, or `seed` is no integer from 0 to 2³² - 1.

    References
    ----------
    Li et al. (2021), Ranking Neural Checkpoints.

    Examples
    --------
    >>> import numpy as np
    >>> round(nleep(np.ones((4, 2)), [0, 0, 1, 1]), 4)  # ln ½: minus the entropy of the labels
    -0.6931
    """
    layer = Layer(features)
    return nleep_from_layer(layer, encode_labels(labels, layer.n_samples), seed=seed)


def nleep_from_layer(layer: Layer, codes: np.ndarray, *, seed: int = 0) -> float:
    """Do what `nleep` does, from a layer and the codes of `encode_labels`."""
    if not is_whole(seed, 0) or seed >= 2**32:
        raise InputError(f"Expected `seed` to be an integer from 0 to 2**32 - 1 but got {seed!r}")
    variances = to_numpy(layer.centred.singular_values) ** 2
    if not len(variances):
        return leep_from_codes(np.ones((len(codes), 1)), codes)
    needed = int(np.searchsorted(np.cumsum(variances), _SHARE * np.sum(variances))) + 1
    points = to_numpy(principal_components(layer, min(needed, _WIDEST)))
    order = np.lexsort(points.T[::-1])
    gaussians = max(2, min(_PER_CLASS * (int(codes.max()) + 1), len(codes) // _PER_COMPONENT))
    return leep_from_codes(_posteriors(points[order], gaussians, int(seed)), codes[order])


def _posteriors(points: np.ndarray, gaussians: int, seed: int) -> np.ndarray:
    """Fit a mixture and return the probability of each of its Gaussians for each point, (n, gaussians)."""
    # Here and not above: importing it takes longer than most scores.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    scaled = points / np.sqrt(np.mean(points**2))
    mixture = GaussianMixture(gaussians, covariance_type="diag", reg_covar=_FLOOR, random_state=seed)
    with _filters, warnings.catch_warnings():
        # Neither a fit cut off after 100 steps nor fewer distinct points than Gaussians makes LEEP less defined.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(scaled).predict_proba(scaled)
