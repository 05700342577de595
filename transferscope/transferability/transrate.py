"""TransRate: how much shorter the code of the features gets when the classes are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from transferscope.arrays.backend import Array, array_namespace, from_numpy, to_numpy
from transferscope.errors import InputError
from transferscope.transferability.labels import encode_labels, one_hot
from transferscope.transferability.layer import Layer


def transrate(features: Array, labels: Any, *, epsilon: float = 1.0) -> float:
    """Coding rate of the features minus the mean coding rate of the classes, weighted by their sizes.

    R(F) = ½ ln det(I + FᵀF / (n ε)) for the centred features F, scaled to a mean squared norm of 1, and the
    same for the rows F_c of a class with its n_c, from which the mean of all samples (not that of the class) was
    subtracted: R(F) - Σ_c (n_c/n) R(F_c).

    Parameters
    ----------
    features
        (n_samples, n_features), at least 2 samples.
    labels
        (n_samples,) integers, booleans or strings, at least two classes; one sample of a class is enough.
    epsilon
        Distortion ε, in units of the mean squared norm. One far below 1 rewards features for the number of their
        directions: at 1e-4 noise beats classes that are well apart unless n_samples is many times n_features.

    Returns
    -------
    float
        Nats, at least 0; higher is more transferable; 0 for constant features.

    Raises
    ------
    InputError
        When features or labels are not as above, or `epsilon` is not positive.

    References
    ----------
    Huang et al. (2022), Frustratingly Easy Transferability Estimation. The scaling and the default ε, which
    belongs to it, are ours.

    Examples
    --------
    >>> import numpy as np
    >>> features = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> round(transrate(features, [0, 0, 1, 1]), 4)  # ln 1.5 - ½ ln 2
    0.0589
    """
    layer = Layer(features)
    return transrate_from_layer(layer, encode_labels(labels, layer.n_samples), epsilon=epsilon)


def transrate_from_layer(layer: Layer, codes: np.ndarray, *, epsilon: float = 1.0) -> float:
    """Do what `transrate` does, from a layer and the codes of `encode_labels`."""
    if not 0 < epsilon < math.inf:
        raise InputError(f"Expected `epsilon` to be a positive number but got {epsilon!r}")
    points = layer.coordinates
    xp = array_namespace(points)
    n, rank = points.shape
    sizes = to_numpy(xp.sum(one_hot(codes, like=points), axis=0))
    if rank == 0:
        return 0.0
    points = points / xp.sqrt(xp.sum(points**2) / n * epsilon)
    rate = float(xp.sum(xp.log1p(xp.sum(points**2, axis=0) / n)))
    ordered = xp.take(points, from_numpy(np.argsort(codes, kind="stable"), like=points), axis=0)
    stop = 0
    for count in sizes.astype(int).tolist():
        start, stop = stop, stop + count
        rows = ordered[start:stop, :]
        square = (rows @ rows.T if count < rank else rows.T @ rows) / count
        identity = from_numpy(np.eye(square.shape[0]), like=points)
        rate -= count / n * float(xp.linalg.slogdet(identity + square).logabsdet)
    return max(rate / 2, 0.0)
