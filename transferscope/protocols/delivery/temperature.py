"""Probabilities that can be believed: one number that the logits of a network are divided by."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from transferscope.errors import InputError

_WIDEST = 12.0
"""Natural logarithm of the largest temperature, and of one over the smallest."""


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature at which the softmax of logits / temperature fits labels best, by their log loss.

    It changes no order of classes, and so no prediction. Labels count as Laplace's rule has them, (n + 1) / (n + k) for
    the true one of k classes, so that the temperature stays above 0 where all of few images are classified correctly
    (after Platt 1999).

    Parameters
    ----------
    logits : numpy.ndarray
        (n_samples, n_classes), of images that the network was not trained on.
    labels : numpy.ndarray
        (n_samples,) class codes; or (n_samples, n_labels) 0 and 1, of labels whose probabilities are sigmoids.

    References
    ----------
    Guo et al. (2017), On Calibration of Modern Neural Networks, arXiv 1706.04599.
    """
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or len(values) != len(labels) or not len(labels) or not np.isfinite(values).all():
        raise InputError(
            f"Expected `logits` to be a finite row for each of at least one label, but got shape {values.shape} for "
            f"{len(labels)} labels"
        )
    n_samples, n_classes = values.shape
    # Logits of one spread, so that the search covers scores of every unit.
    spread = float(np.ptp(values, axis=1).mean()) or 1.0
    if np.ndim(labels) == 2:
        truth = np.asarray(labels, dtype=np.float64)
        had = truth.sum(axis=0)
        certain = np.where(truth > 0, (had + 1) / (had + 2), 1 / (n_samples - had + 2))
        spread = float(np.abs(values).mean()) or 1.0

        def loss(log_temperature: float) -> float:
            scores = values / spread / np.exp(log_temperature)
            return float(np.mean(np.logaddexp(0, scores) - certain * scores))
    else:
        wanted = np.full(values.shape, 1 / (n_samples + n_classes))
        wanted[np.arange(n_samples), labels] = (n_samples + 1) / (n_samples + n_classes)

        def loss(log_temperature: float) -> float:
            likely = log_softmax(values / spread / np.exp(log_temperature), axis=1)
            return -float(np.mean(np.sum(wanted * likely, axis=1)))

    found = minimize_scalar(loss, bounds=(-_WIDEST, _WIDEST), method="bounded", options={"xatol": 1e-6})
    return float(spread * np.exp(found.x))
