"""The share of samples that are classified correctly, each counted alike or each class."""

from __future__ import annotations

import numpy as np

from transferscope.arrays.backend import Array, array_namespace, from_numpy


def share_correct(correct: Array, codes: np.ndarray, *, balanced: bool = False) -> float:
    """Return the share of samples, in [0, 1], that are classified correctly.

    Parameters
    ----------
    correct
        (n_samples,) bool.
    codes
        (n_samples,) class of each, as of `labels.encode_labels`; without gaps.
    balanced
        Whether the shares of all classes are averaged (balanced accuracy, the mean recall).
    """
    xp = array_namespace(correct)
    hits = xp.astype(correct, xp.float64)
    if not balanced:
        return float(xp.mean(hits))
    counts = np.bincount(codes)
    weights = from_numpy(1 / (len(counts) * counts[codes]), like=hits)
    return float(xp.sum(hits * weights))
