"""LogME: the best evidence that a Bayesian linear model of the labels can reach."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import device

from transferscope.arrays.backend import Array, array_namespace
from transferscope.arrays.linalg import center, thin_svd
from transferscope.errors import TransferscopeWarning
from transferscope.transferability.labels import encode_labels, one_hot
from transferscope.transferability.layer import Layer

_WIDEST = 1e4
"""Ratio of the centred singular values up to which the factors of the centred features are enough."""
_GRID_STEP = 0.5
_VALLEYS = 2
"""Local minima looked at: the lowest on the grid need not be the lowest."""
_BISECTIONS = 20


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

    Examples
    --------
    >>> import numpy as np
    >>> round(logme(np.zeros((4, 2)), [0, 0, 1, 1]), 4)  # no help at all: -½ ln(2πe ½)
    -1.0724
    >>> logme(np.array([[0.0], [0.1], [1.0], [1.1]]), [0, 0, 1, 1]) > -1.0724
    True
    """
    layer = Layer(features)
    return logme_from_layer(layer, encode_labels(labels, layer.n_samples))


def logme_from_layer(layer: Layer, codes: np.ndarray) -> float:
    """Do what `logme` does, from a layer and the codes of `encode_labels`."""
    return evidence(layer, one_hot(codes, like=layer.features))


def evidence(layer: Layer, targets: Array) -> float:
    """Return the log maximum evidence per sample of targets (n_samples, n_targets), the mean over them; see `logme`."""
    xp = array_namespace(layer.features)
    squares = xp.sum(targets**2, axis=0)
    n = layer.n_samples
    model = _model(layer, targets)
    if model is None:
        return -0.5 * float(xp.mean(xp.log(2 * math.pi * math.e * squares / n)))
    # What is left of each target as λ goes to 0: rounding alone, where a linear map of the features reproduces it.
    missed = model.rest if model.outside > 0 else model.rest + _missed_by_mean(model)
    if not model.full and xp.any(missed <= n * float(xp.finfo(xp.float64).eps) * squares):
        warnings.warn(
            "LogME is infinite: a linear map of the features reproduces the labels of a class exactly; look "
            "for labels among the features or for samples that occur twice",
            TransferscopeWarning,
            stacklevel=2,
        )
        return math.inf
    return -float(xp.mean(_least_cost(model, n))) / n


class _Model(NamedTuple):
    """Features and targets in the basis [1/√n, U], U the left singular vectors (n_samples, rank) of the centred ones.

    With F = 1 μᵀ + U diag(s) Vᵀ, m = Vᵀ μ and o the part of μ outside of V, F Fᵀ is in this basis an arrow: the
    corner n (‖m‖² + ‖o‖²), the edge √n s m and the diagonal s². Determinant and inverse of I + F Fᵀ/λ then follow
    from those of its diagonal and one number more, its Schur complement 1 + n ‖o‖²/λ + Σ n m²/(λ + s²), without
    another factorisation. λ and what is squared of the features are in units of the largest of s² and n ‖μ‖².
    """

    values: Array
    """s², (rank,)."""
    means: Array
    """n m², (rank,)."""
    outside: float
    """n ‖o‖²."""
    coordinates: Array
    """Uᵀ t of every target t, (rank, n_classes)."""
    edges: Array
    """√n s m times the coordinates, (rank, n_classes)."""
    ones: Array
    """1ᵀt/√n, (n_classes,)."""
    rest: Array
    """What is left of the squared norms of the targets outside the basis, (n_classes,); zero where it is rounding."""
    full: bool
    """Whether the features have n_samples independent directions."""


def _model(layer: Layer, targets: Array) -> _Model | None:
    """Bring features and targets together; None when all features are zero."""
    xp = array_namespace(layer.features)
    n, p = layer.features.shape
    left, s = layer.centred
    sums, squares = xp.sum(targets, axis=0), xp.sum(targets**2, axis=0)
    spread = float(s[0] / s[-1]) if s.shape[0] else 1.0
    if spread > _WIDEST:
        # The coordinates of the mean would lose as many digits as the singular values span, twice. In the basis of the
        # features as they are, U alone, there is no mean beside them.
        left, s = thin_svd(layer.features, centered=False)
        along, outside, ones = xp.zeros_like(s), 0.0, xp.zeros_like(squares)
        scale = float(s[0]) ** 2
        full = span = s.shape[0] == n
    else:
        wide = xp.astype(layer.features, xp.float64)
        centred = center(wide)
        mean = wide[0, :] - centred[0, :]
        along = (left.T @ (centred @ mean)) / s
        outside = float(xp.linalg.vector_norm(mean - centred.T @ (left @ (along / s))))
        eps = max(float(xp.finfo(layer.features.dtype).eps), spread * float(xp.finfo(xp.float64).eps))
        norm = float(xp.linalg.vector_norm(mean))
        if s.shape[0] == p or outside <= max(n, p) * eps * norm:
            outside = 0.0
        scale = max(float(s[0]) ** 2 if s.shape[0] else 0.0, n * norm**2)
        if scale == 0:
            return None
        ones = sums / math.sqrt(n)
        span = s.shape[0] == n - 1
        full = span and outside > 0
    coordinates = left.T @ targets
    rest = squares - ones**2 - xp.sum(coordinates**2, axis=0)
    # Rounding aside, nothing is outside the span of n directions, or of a target that they reproduce.
    keep = (rest > n * float(xp.finfo(xp.float64).eps) * squares) & (not span)
    return _Model(
        s**2 / scale,
        n * along**2 / scale,
        n * outside**2 / scale,
        coordinates,
        (math.sqrt(n) / scale * s * along)[:, None] * coordinates,
        ones,
        xp.where(keep, rest, xp.zeros_like(rest)),
        full,
    )


def _missed_by_mean(model: _Model) -> Array:
    """Squared norm of the targets within the basis but outside the span of the features; `outside` being zero."""
    xp = array_namespace(model.values)
    gap = model.ones - xp.sum(model.edges / model.values[:, None], axis=0)
    return gap**2 / (1 + xp.sum(model.means / model.values))


def _least_cost(model: _Model, n: int) -> Array:
    """Minimise -log evidence over λ = α/β for every target, (n_classes,): a grid of ln λ, then bisection."""
    xp = array_namespace(model.values)
    # The least eigenvalue of F Fᵀ, from below. A least λ under the grid would take a rest below its rounding; above
    # it the cost is within e^-24 of its limit.
    least = [float(model.values[-1])] if model.values.shape[0] else []
    if model.outside > 0:
        least.append(model.outside / (1 + float(xp.sum(model.means / model.values))))
    start, stop = math.log(min(least)) - 40, math.log(2 * model.values.shape[0] + 2) + 24
    grid = xp.arange(start, stop, _GRID_STEP, dtype=xp.float64, device=device(model.values))
    coarse = _cost(model, n, grid, per_target=False)
    least_cost = xp.min(coarse, axis=0)
    # Rising on both sides: the directions of very different sizes that a layer may have each make a valley.
    beyond = xp.full_like(coarse[:1, :], math.inf)
    before, after = xp.concat([beyond, coarse[:-1, :]]), xp.concat([coarse[1:, :], beyond])
    valleys = xp.where((coarse <= before) & (coarse <= after), coarse, beyond)
    for _ in range(_VALLEYS):
        best = xp.take(grid, xp.argmin(valleys, axis=0))
        valleys = xp.where(grid[:, None] == best[None, :], beyond, valleys)
        low, high = best - _GRID_STEP, best + _GRID_STEP
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            rises = _slope(model, n, middle) > 0
            low, high = xp.where(rises, low, middle), xp.where(rises, middle, high)
        least_cost = xp.minimum(least_cost, _cost(model, n, (low + high) / 2, per_target=True))
    return least_cost


def _cost(model: _Model, n: int, log_penalties: Array, *, per_target: bool) -> Array:
    """½ n ln(2πe q/n) + ½ ln det(I + F Fᵀ/λ) with q = tᵀ (I + F Fᵀ/λ)⁻¹ t, for targets t and penalties λ.

    Parameters
    ----------
    model, n
        Features and targets, and their n_samples.
    log_penalties
        ln λ, (n_penalties,); or one for every target, (n_classes,).
    per_target
        Whether every target has a penalty of its own.

    Returns
    -------
    Array
        (n_penalties, n_classes); or (n_classes,).
    """
    xp = array_namespace(model.values)
    penalties = xp.exp(log_penalties)
    inverse = 1 / (penalties[None, :] + model.values[:, None])

    def total(terms: Array) -> Array:
        return xp.sum(inverse * terms, axis=0) if per_target else inverse.T @ terms

    schur = 1 + model.outside / penalties + xp.sum(inverse * model.means[:, None], axis=0)
    volume = xp.sum(xp.log1p(model.values[:, None] / penalties[None, :]), axis=0) + xp.log(schur)
    if not per_target:
        penalties, schur, volume = penalties[:, None], schur[:, None], volume[:, None]
    gap = model.ones - total(model.edges)
    left_over = model.rest + penalties * total(model.coordinates**2) + gap**2 / schur
    return 0.5 * (n * xp.log(2 * math.pi * math.e / n * left_over) + volume)


def _slope(model: _Model, n: int, log_penalties: Array) -> Array:
    """Twice the derivative of `_cost` in ln λ, for a penalty of its own for every target."""
    xp = array_namespace(model.values)
    penalties = xp.exp(log_penalties)
    inverse = 1 / (penalties[None, :] + model.values[:, None])
    shrinkage, fitted = penalties * inverse, model.values[:, None] * inverse
    squares, means = model.coordinates**2, model.means[:, None]
    schur = 1 + model.outside / penalties + xp.sum(means * inverse, axis=0)
    schur_slope = -model.outside / penalties - xp.sum(means * inverse * shrinkage, axis=0)
    gap = model.ones - xp.sum(model.edges * inverse, axis=0)
    gap_slope = xp.sum(model.edges * inverse * shrinkage, axis=0)
    left_over = model.rest + xp.sum(squares * shrinkage, axis=0) + gap**2 / schur
    slope = xp.sum(squares * shrinkage * fitted, axis=0) + gap * (2 * gap_slope - gap * schur_slope / schur) / schur
    return n * slope / left_over - xp.sum(fitted, axis=0) + schur_slope / schur
