"""Leave-one-out accuracy of a ridge regression onto the labels, in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from transferscope.arrays.backend import Array, array_namespace
from transferscope.arrays.linalg import Factors
from transferscope.transferability.labels import encode_labels, one_hot
from transferscope.transferability.layer import Layer
from transferscope.transferability.shares import share_correct

PENALTIES = tuple(float(penalty) for penalty in np.logspace(-6, 3, 19))
"""Ridge penalties tried, as multiples of the mean eigenvalue of the centred features' scatter matrix."""


def ridge(features: Array, labels: Any, *, balanced: bool = False) -> float:
    """Leave-one-out accuracy of ridge regression onto one-hot targets with an unpenalised intercept.

    Every sample is classified by the regression fitted to all others, exactly and without refitting. The
    penalty is the one of `PENALTIES` with the least leave-one-out squared error.

    Parameters
    ----------
    features
        (n_samples, n_features), at least 2 samples.
    labels
        (n_samples,) integers, booleans or strings, at least two classes.
    balanced
        Whether the shares of all classes are averaged (balanced accuracy), not counted by their samples.

    Returns
    -------
    float
        Share of samples classified correctly, in [0, 1]. Features that carry nothing come out below chance:
        leaving a sample out makes its own class the rarer one.

    Raises
    ------
    InputError
        When features or labels are not as above.

    Examples
    --------
    >>> import numpy as np
    >>> ridge(np.array([[0.0], [1.0], [9.0], [10.0]]), ["cat", "cat", "dog", "dog"])
    1.0
    """
    layer = Layer(features)
    return ridge_from_layer(layer, encode_labels(labels, layer.n_samples), balanced=balanced)


def ridge_from_layer(layer: Layer, codes: np.ndarray, *, balanced: bool = False) -> float:
    """Do what `ridge` does, from a layer and the codes of `encode_labels`."""
    xp = array_namespace(layer.features)
    targets = one_hot(codes, like=layer.centred.left)
    predictions = targets - left_out_by_ridge(layer, targets)
    correct = xp.argmax(predictions, axis=1) == xp.argmax(targets, axis=1)
    return share_correct(correct, codes, balanced=balanced)


def left_out_by_ridge(layer: Layer, targets: Array) -> Array:
    """Return the residuals of left-out samples, (n_samples, n_targets), with the penalty of the least squared error."""
    xp = array_namespace(layer.features)
    centred = layer.centred
    scale = float(xp.sum(centred.singular_values**2)) / max(centred.singular_values.shape[0], 1)
    penalties = [scale * penalty for penalty in PENALTIES]
    errors = xp.stack([xp.sum(left_out**2) for left_out in leave_one_out(centred, targets, penalties)])
    best = penalties[int(xp.argmin(errors))]
    return next(leave_one_out(centred, targets, [best]))


def leave_one_out(centred: Factors, targets: Array, penalties: Sequence[float]) -> Iterator[Array]:
    """Residuals of every sample under the ridge regression fitted to all other samples.

    The regression minimises ‖targets - X w - b‖² + penalty ‖w‖². With the hat matrix H the residual is
    (targets - H targets)_i / (1 - H_ii). Both are formed as what H leaves over, outside the span of the
    features and shrunk inside of it, and not as differences from 1: so a leverage near 1 loses no digits.

    Parameters
    ----------
    centred
        Factors of the centred features, (n_samples, rank) and (rank,).
    targets
        (n_samples, n_targets).
    penalties
        Positive, in units of the squared features.

    Yields
    ------
    Array
        (n_samples, n_targets), for each penalty.
    """
    xp = array_namespace(centred.left, targets)
    left, eigenvalues = centred.left, centred.singular_values**2
    n, rank = left.shape
    targets = targets - xp.mean(targets, axis=0, keepdims=True)
    coordinates = left.T @ targets
    squares = left**2
    # The intercept and n - 1 directions leave nothing over; rounding must not pose as it.
    outside = targets - left @ coordinates if rank < n - 1 else xp.zeros_like(targets)
    free = 1 - 1 / n - xp.sum(squares, axis=1) if rank < n - 1 else xp.zeros_like(targets[:, 0])
    free = xp.where(free > 0, free, xp.zeros_like(free))
    for penalty in penalties:
        shrink = penalty / (eigenvalues + penalty)
        residuals = outside + left @ (shrink[:, None] * coordinates)
        yield residuals / (free + squares @ shrink)[:, None]
