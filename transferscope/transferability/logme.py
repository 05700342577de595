"""LogME: the best evidence that a Bayesian linear model of the labels can reach."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from array_api_compat import device

from transferscope.backend import Array, array_namespace
from transferscope.errors import TransferscopeWarning
from transferscope.transferability.labels import encode_labels, one_hot
from transferscope.transferability.layer import Layer

_GRID_STEP = 0.5
_BISECTIONS = 30


def logme(features: Array, labels: Any) -> float:
    """Log maximum evidence per sample of the labels given the features, averaged over one-hot targets.

    Each target t is modelled as t ~ N(0, I/β + F Fᵀ/α); the evidence is maximised exactly over (α, β), for
    n_samples below and above n_features. Neither features nor targets are centred, as published.

    Parameters
    ----------
    features
        (n_samples, n_features), at least 2 samples.
    labels
        (n_samples,) integers, booleans or strings, at least two classes.

    Returns
    -------
    float
        Nats per sample; higher is more transferable. ``inf``, with a warning, when the evidence has no
        maximum: a linear map of the features reproduces a target exactly although their rank is below
        n_samples. Labels among the features do that, and equal rows with n_samples <= n_features.

    Raises
    ------
    InputError
        When features or labels are not as above.

    References
    ----------
    You et al. (2021), LogME: Practical Assessment of Pre-trained Models for Transfer Learning. The
    fixed-point iteration published there does not reach the maximum for n < n_features.
    """
    layer = Layer(features)
    return logme_from_layer(layer, encode_labels(labels, layer.n_samples))


def logme_from_layer(layer: Layer, codes: np.ndarray) -> float:
    """Do what `logme` does, from a layer and the codes of `encode_labels`."""
    xp = array_namespace(layer.features)
    raw = layer.raw
    n, rank = raw.left.shape
    targets = one_hot(codes, like=raw.left)
    counts = xp.sum(targets, axis=0)  # the squared norms of the targets
    power = (raw.left.T @ targets) ** 2
    rest = counts - xp.sum(power, axis=0)
    # Rounding aside, nothing is outside the span of n directions, or of a target that they reproduce.
    rest = xp.where(rest <= n * float(xp.finfo(xp.float64).eps) * counts, xp.zeros_like(rest), rest)
    if rank == n:
        rest = xp.zeros_like(rest)
    elif xp.any(rest == 0):
        warnings.warn(
            "LogME is infinite: a linear map of the features reproduces the labels of a class exactly; look "
            "for labels among the features or for samples that occur twice",
            TransferscopeWarning,
            stacklevel=2,
        )
        return math.inf
    if rank == 0:
        return -0.5 * float(xp.mean(xp.log(2 * math.pi * math.e * counts / n)))

    return -float(xp.mean(_least_cost(raw.singular_values, power, rest, n))) / n


def _least_cost(singular_values: Array, power: Array, rest: Array, n: int) -> Array:
    """Minimise -log evidence over λ = α/β for every target: a grid of ln λ, then bisection of the slope.

    Parameters
    ----------
    singular_values
        s, (rank,).
    power
        Squared coordinates of the targets along the left singular vectors, (rank, n_classes).
    rest
        What is left of the squared norm of each target outside their span, (n_classes,).
    n
        Number of samples.

    Returns
    -------
    Array
        (n_classes,): ½ n ln(2πe q/n) + ½ Σ ln(1 + s²/λ) at its least, with q = rest + Σ power/(1 + s²/λ).
    """
    xp = array_namespace(singular_values, power, rest)
    # Relative to the largest eigenvalue, which drops out. A least λ below the grid would take a rest below
    # its rounding; above it the cost is within e^-24 of its limit.
    sigma = (singular_values[:, None] / singular_values[0]) ** 2
    start, stop = float(xp.log(sigma[-1, 0])) - 40, math.log(sigma.shape[0]) + 24
    grid = xp.arange(start, stop, _GRID_STEP, dtype=xp.float64, device=device(sigma))

    def cost(explained: Array, ratio: Array) -> Array:
        volume = xp.sum(xp.log1p(ratio), axis=0)
        if explained.ndim == 2:
            volume = volume[:, None]
        return 0.5 * (n * xp.log(2 * math.pi * math.e / n * (rest + explained)) + volume)

    ratio = sigma / xp.exp(grid)[None, :]
    coarse = cost((1 / (1 + ratio)).T @ power, ratio)
    best = xp.take(grid, xp.argmin(coarse, axis=0))
    low, high = best - _GRID_STEP, best + _GRID_STEP
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        ratio = sigma / xp.exp(middle)[None, :]
        shrink = 1 / (1 + ratio)
        kept, fitted = power * shrink, ratio * shrink
        slope = n * xp.sum(kept * fitted, axis=0) / (rest + xp.sum(kept, axis=0)) - xp.sum(fitted, axis=0)
        low, high = xp.where(slope > 0, low, middle), xp.where(slope > 0, middle, high)
    ratio = sigma / xp.exp((low + high) / 2)[None, :]
    return xp.minimum(cost(xp.sum(power / (1 + ratio), axis=0), ratio), xp.min(coarse, axis=0))
