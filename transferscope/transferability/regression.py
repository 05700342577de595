"""How features suit numbers rather than classes: the scores that have a meaning for a regression.

All take targets in one column or several, each brought to mean 0 and variance 1, so that no unit counts; a score is the
mean over columns.
"""

from __future__ import annotations

import math
from typing import Any

import array_api_compat
import numpy as np

from transferscope.arrays.backend import Array, array_namespace, to_numpy
from transferscope.arrays.linalg import hsic_bias
from transferscope.errors import InputError
from transferscope.runtime import metrics
from transferscope.transferability.effective_rank import effective_rank_from_layer
from transferscope.transferability.kernel_ridge import left_out_by_kernel_ridge
from transferscope.transferability.layer import Layer
from transferscope.transferability.logme import evidence
from transferscope.transferability.ridge import left_out_by_ridge
from transferscope.transferability.task import Task, TaskScore


def encode_targets(targets: Any, n_samples: int) -> np.ndarray:
    """Return targets of a regression, (n_samples, n_targets) float64, each column of mean 0 and variance 1.

    Parameters
    ----------
    targets
        (n_samples,) or (n_samples, n_targets): whole or other numbers, all finite.
    n_samples
        How many there have to be.

    Raises
    ------
    InputError
        When `targets` are of another kind or shape, or a column is the same for all samples.
    """
    host = to_numpy(targets) if array_api_compat.is_array_api_obj(targets) else np.asarray(targets)
    if host.ndim not in (1, 2) or host.shape[0] != n_samples or 0 in host.shape:
        raise InputError(
            f"Expected `labels` of a regression to have shape ({n_samples},) or ({n_samples}, n_targets), one row per "
            f"row of the features, but got {host.shape}"
        )
    if host.dtype.kind not in "iuf":
        raise InputError(
            f"Expected `labels` of a regression to be numbers but got dtype {host.dtype} (the first is "
            f"{host.flat[0]!r}); for classes leave the task out"
        )
    wide = host.astype(np.float64).reshape(n_samples, -1)
    if count := int(np.count_nonzero(~np.isfinite(wide))):
        raise InputError(
            f"Expected `labels` of a regression to be finite but {count} of {wide.size} are not; leave their "
            "samples out"
        )
    if (constant := np.flatnonzero(~telling(wide))).size:
        raise InputError(
            f"Expected `labels` of a regression to differ between samples but column {constant[0]} of {wide.shape[1]} "
            f"is {wide[0, constant[0]]:g} in all of them; leave it out"
        )
    centred = wide - wide.mean(axis=0)
    return centred / centred.std(axis=0)


def telling(labels: np.ndarray) -> np.ndarray:
    """Return which columns of numbers (n_samples, n_targets) differ between samples, (n_targets,)."""
    noise = 8 * np.finfo(np.float64).eps * np.abs(labels).max(axis=0)
    return np.asarray(labels.std(axis=0) > noise)


def _logme(layer: Layer, targets: Array) -> float:
    return evidence(layer, targets)


def _ridge(layer: Layer, targets: Array) -> Array:
    return targets - left_out_by_ridge(layer, targets)


def _kernel_ridge(layer: Layer, targets: Array) -> Array:
    codes = np.zeros(layer.n_samples, dtype=np.int64)
    return targets - left_out_by_kernel_ridge(layer, targets, codes)[1]


def alignment_with(layer: Layer, targets: Array) -> float:
    """Return the debiased linear CKA of features and centred targets, (n_samples, n_targets)."""
    n = layer.n_samples
    if n < 4:
        raise InputError(
            f"Expected `features` to have at least 4 samples for the debiased alignment but got {n}; take more"
        )
    xp = array_namespace(layer.features)
    left, singular_values = layer.centred
    variances = singular_values**2
    norms, target_norms = left**2 @ variances, xp.sum(targets**2, axis=1)
    cross = float(xp.sum(variances * xp.sum((left.T @ targets) ** 2, axis=1))) - hsic_bias(norms, target_norms)
    selves = []
    for raw, diagonal in (
        (float(xp.sum(variances**2)), norms),
        (float(xp.sum((targets.T @ targets) ** 2)), target_norms),
    ):
        value = raw - hsic_bias(diagonal, diagonal)
        if value <= n * float(xp.finfo(xp.float64).eps) * raw:
            raise InputError("features or targets have zero self-HSIC, as constant features do")
        selves.append(value)
    return cross / math.sqrt(selves[0] * selves[1])


def _effective_rank(layer: Layer, _targets: Array) -> float:
    return effective_rank_from_layer(layer)


REGRESSION_SCORES: dict[str, TaskScore] = {
    "logme": TaskScore("LogME of standardised targets (nats per sample)", "(-∞, ∞)", _logme),
    "ridge": TaskScore("Linear ridge, leave-one-out R²", "(-∞, 1]", _ridge, judged=True),
    "kernel_ridge": TaskScore("Gaussian kernel ridge, leave-one-out R²", "(-∞, 1]", _kernel_ridge, judged=True),
    "alignment": TaskScore("Alignment with the targets' kernel, debiased CKA", "[-1, 1]", alignment_with),
    "effective_rank": TaskScore("Effective rank (looks at no targets)", "[0, n)", _effective_rank),
}
"""Of the scores in `SCORES` those that have a meaning for numbers, by the same names."""


REGRESSION = Task(metrics.REGRESSION, "a regression", encode_targets, telling, REGRESSION_SCORES, metrics.R2)
"""Labels are numbers. The R² are those of samples that are left out, at most 1, below 0 where the mean of all samples
is the better guess."""
