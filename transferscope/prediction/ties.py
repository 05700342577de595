"""Whether one source is really better than another, or the two cannot be told apart."""

import numpy as np
from scipy.special import ndtr

from transferscope.transferability.standard_errors import posterior

TIE = (0.1, 0.9)
"""Two candidates are tied while the probability that the first is better lies within these."""


def is_tie(probability: float) -> bool:
    """Whether a probability that one is better leaves it open which of the two is."""
    return TIE[0] <= probability <= TIE[1]


def beats_unpaired(accuracy: np.ndarray, n_samples: int, other: float, n_other: int) -> np.ndarray:
    """Return the probability that accuracies are really higher than another one that was measured on other images.

    The two are independent, each with a uniform prior; the difference of their posteriors (beta distributions) is
    taken for normal.

    Parameters
    ----------
    accuracy : numpy.ndarray
        Any shape, each measured on `n_samples` images.
    n_samples : int
        At least 1.
    other : float
        Measured on `n_other` images.
    n_other : int
        At least 1.

    Returns
    -------
    numpy.ndarray
        In (0, 1), of the shape of `accuracy`; NaN where that is.
    """
    mean, variance = posterior(np.asarray(accuracy, dtype=np.float64), n_samples)
    other_mean, other_variance = posterior(np.asarray(other, dtype=np.float64), n_other)
    return ndtr((mean - other_mean) / np.sqrt(variance + other_variance))
