"""How features suit labels of which an image may have several: the scores of each label, averaged."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from transferscope.arrays.backend import Array, array_namespace, to_numpy
from transferscope.errors import InputError
from transferscope.runtime import metrics
from transferscope.transferability.effective_rank import effective_rank_from_layer
from transferscope.transferability.hscore import hscore_from_layer
from transferscope.transferability.kernel_ridge import left_out_by_kernel_ridge
from transferscope.transferability.knn import nearest_mean_from_layer
from transferscope.transferability.layer import Layer
from transferscope.transferability.logme import evidence
from transferscope.transferability.regression import alignment_with
from transferscope.transferability.ridge import left_out_by_ridge
from transferscope.transferability.task import Task, TaskScore


def encode_indicators(labels: Any, n_samples: int) -> np.ndarray:
    """Return which labels each sample has, (n_samples, n_labels) float64 of 0 and 1.

    Parameters
    ----------
    labels
        (n_samples, n_labels) bools, or 0 and 1.
    n_samples
        How many rows there have to be.

    Raises
    ------
    InputError
        When `labels` are of another kind or shape, or all samples or none have a label.
    """
    host = to_numpy(labels) if array_api_compat.is_array_api_obj(labels) else np.asarray(labels)
    if host.ndim != 2 or host.shape[0] != n_samples or 0 in host.shape:
        raise InputError(
            f"Expected `labels` of several labels an image to have shape ({n_samples}, n_labels), one row per "
            f"row of the features, but got {host.shape}"
        )
    if host.dtype.kind not in "biuf" or not np.isin(host, (0, 1)).all():
        odd = host.flat[0] if host.dtype.kind not in "biuf" else host[~np.isin(host, (0, 1))][0]
        raise InputError(
            f"Expected `labels` of several labels an image to be 0 and 1, or bools, but got {odd!r}; give each label "
            "a column that says which images have it"
        )
    indicators = host.astype(np.float64)
    shares = indicators.mean(axis=0)
    for wrong, who in ((shares == 0, "no sample has"), (shares == 1, "all samples have")):
        if wrong.any():
            raise InputError(
                f"Expected `labels` to tell samples apart but {who} label {int(wrong.argmax())} of {len(shares)}; "
                "leave its column out"
            )
    return indicators


_HALF = 0.5
"""What regressions onto 0 and 1 predict where either is as likely; metrics take scores above 0 for a label."""


def telling(labels: np.ndarray) -> np.ndarray:
    """Return which columns of 0 and 1, (n_samples, n_labels), have both, (n_labels,)."""
    shares = labels.mean(axis=0)
    return np.asarray((shares > 0) & (shares < 1))


def _logme(layer: Layer, targets: Array) -> float:
    return evidence(layer, targets)


def _ridge(layer: Layer, targets: Array) -> Array:
    return targets - left_out_by_ridge(layer, targets) - _HALF


def _kernel_ridge(layer: Layer, targets: Array) -> Array:
    codes = np.zeros(layer.n_samples, dtype=np.int64)
    return targets - left_out_by_kernel_ridge(layer, targets, codes)[1] - _HALF


def _nearest_mean(layer: Layer, targets: Array) -> float:
    return float(np.mean([nearest_mean_from_layer(layer, codes, balanced=True) for codes in _codes(targets)]))


def _hscore(layer: Layer, targets: Array) -> float:
    return float(np.mean([hscore_from_layer(layer, codes) for codes in _codes(targets)]))


def _alignment(layer: Layer, targets: Array) -> float:
    xp = array_namespace(targets)
    return alignment_with(layer, targets - xp.mean(targets, axis=0, keepdims=True))


def _effective_rank(layer: Layer, _targets: Array) -> float:
    return effective_rank_from_layer(layer)


def _codes(targets: Array) -> list[np.ndarray]:
    return list(to_numpy(targets).T.astype(np.int64))


MULTI_LABEL_SCORES: dict[str, TaskScore] = {
    "logme": TaskScore("LogME (nats per sample), mean over labels", "(-∞, ∞)", _logme),
    "hscore": TaskScore("H-score, shrunk, mean over labels", "[0, 1]", _hscore),
    "nearest_mean": TaskScore(
        "Nearest mean, leave-one-out balanced accuracy, mean over labels", "[0, 1]", _nearest_mean
    ),
    "ridge": TaskScore("Linear ridge, leave-one-out mean average precision", "(0, 1]", _ridge, judged=True),
    "kernel_ridge": TaskScore(
        "Gaussian kernel ridge, leave-one-out mean average precision", "(0, 1]", _kernel_ridge, judged=True
    ),
    "alignment": TaskScore("Alignment with the labels' kernel, debiased CKA", "[-1, 1]", _alignment),
    "effective_rank": TaskScore("Effective rank (looks at no labels)", "[0, n)", _effective_rank),
}
"""Of the scores in `SCORES` those that can be averaged over labels, by the same names."""

MULTI_LABEL = Task(
    metrics.MULTI_LABEL,
    "several labels an image",
    encode_indicators,
    telling,
    MULTI_LABEL_SCORES,
    metrics.AVERAGE_PRECISION,
)
"""An image may have several labels, or none. The average precision of features that carry nothing is about the share of
images that have the label."""
