"""Leave-one-out error of kernel ridge regression with a Gaussian kernel: the head of top-tuning, in closed form."""

from __future__ import annotations

import math
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import device

from transferscope.arrays.backend import Array, array_namespace, from_numpy, to_numpy
from transferscope.arrays.linalg import in_places, squared_distances_between
from transferscope.arrays.positive import solve_positive
from transferscope.transferability.labels import encode_labels, one_hot
from transferscope.transferability.layer import Layer
from transferscope.transferability.principal import principal_components
from transferscope.transferability.shares import share_correct

BANDWIDTHS = (0.5, 1.0, 2.0)
"""Kernel widths σ tried, as multiples of the median distance between samples."""

PENALTIES = tuple(10.0**exponent for exponent in range(-9, -2))
"""Ridge penalties λ tried; what is added to the diagonal of the kernel matrix is λ n_samples."""

_WHOLE, _SEARCHED = 200, 1500
"""Samples up to which the whole grid is looked at, and those that width and penalty are chosen on; of more, a part."""

_SINGLE = 2e-6
"""λ from which float32 will do: below it the rounding of kernel values, 6e-8, would begin to show."""

_BLOCK = 2**21
"""Distances that are held at a time where there are many samples (16 MiB)."""


class KernelRidgeFit(NamedTuple):
    """The best Gaussian kernel ridge regression by its leave-one-out squared error, and how good it is."""

    accuracy: float
    """Share of left-out samples classified correctly, in [0, 1], or the mean of the shares of all classes."""
    squared_error: float
    """Squared error of left-out one-hot targets, summed over classes, mean over samples; lower is better."""
    bandwidth: float
    """σ in units of the features; infinite for constant features."""
    penalty: float
    """λ, one of `PENALTIES`; less where it was chosen on a part of the samples."""


def kernel_ridge(features: Array, labels: Any, *, balanced: bool = False) -> float:
    """Leave-one-out accuracy of Gaussian kernel ridge regression onto one-hot targets.

    With K = exp(-d² / (2 σ²)), G = K + λ n_samples I and targets Y, the residuals of left-out samples are
    (G⁻¹ Y)_i / (G⁻¹)_ii, exactly and without refitting. σ from `BANDWIDTHS` and λ from `PENALTIES` are those of the
    least leave-one-out squared error. As in the head of top-tuning there is no intercept.

    Of more than 200 samples the least is found by walking over the grid downhill, from the better of two places: no
    neighbour in the grid is below it. Of more than 1500 σ and λ n_samples are chosen on about 1500. Such parts have as
    many of each class as is its share and two at least, evenly spaced along the first principal component: no chance is
    in it, and no order of samples. The accuracy is that of all samples. But for the smallest λ, float32 does the work.

    Parameters
    ----------
    features
        (n_samples, n_features), at least 2 samples. Whatever n_features, the kernel matrix takes most of the time:
        half a dozen Cholesky factors of up to 1500 samples, and one of all if there are more.
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

    References
    ----------
    Alfano et al. (2022), Top-Tuning: a study on transfer learning for an efficient alternative to fine tuning for
    image classification with fast kernel methods. The grids are our instantiation.

    Examples
    --------
    >>> import numpy as np
    >>> kernel_ridge(np.array([[0.0], [1.0], [9.0], [10.0]]), ["cat", "cat", "dog", "dog"])
    1.0
    """
    layer = Layer(features)
    return kernel_ridge_from_layer(layer, encode_labels(labels, layer.n_samples), balanced=balanced)


def kernel_ridge_from_layer(layer: Layer, codes: np.ndarray, *, balanced: bool = False) -> float:
    """Do what `kernel_ridge` does, from a layer and the codes of `encode_labels`."""
    return fit_kernel_ridge(layer, codes, balanced=balanced).accuracy


def fit_kernel_ridge(layer: Layer, codes: np.ndarray, *, balanced: bool = False) -> KernelRidgeFit:
    """Fit as in `kernel_ridge`, from a layer and the codes of `encode_labels`, and return the error as well."""
    xp = array_namespace(layer.features)
    targets = one_hot(codes, like=layer.features)
    fit, left_out = left_out_by_kernel_ridge(layer, targets, codes)
    correct = xp.argmax(targets - left_out, axis=1) == xp.argmax(targets, axis=1)
    return fit._replace(accuracy=share_correct(correct, codes, balanced=balanced))


def left_out_by_kernel_ridge(layer: Layer, targets: Array, codes: np.ndarray) -> tuple[KernelRidgeFit, Array]:
    """Fit as in `kernel_ridge` to targets (n_samples, n_targets); return the fit and residuals of left-out samples.

    Of many samples width and penalty are chosen on a part of each of the groups that `codes` tell. The fit has no
    accuracy yet.
    """
    all_searched = layer.n_samples <= _SEARCHED
    squares, known = (layer.squared_distances, targets) if all_searched else _part(layer, targets, codes, _SEARCHED)
    bandwidths = _bandwidths(squares)
    if len(bandwidths) == 1 or layer.n_samples <= _WHOLE:
        chosen, left_out = _best_of_grid(squares, known, bandwidths)
    else:
        start, _ = _best_of_grid(*_part(layer, targets, codes, _WHOLE), bandwidths)
        chosen, left_out = _walk(squares, known, bandwidths, start)
    if all_searched:
        return chosen, left_out
    penalty = chosen.penalty * squares.shape[0] / layer.n_samples
    kernel = _kernel_of(layer.coordinates, chosen.bandwidth, _dtype(penalty, like=targets))
    return _solved(kernel, targets, chosen.bandwidth, penalty)


def _part(layer: Layer, targets: Array, codes: np.ndarray, size: int) -> tuple[Array, Array]:
    """Return squared distances and targets of about so many samples."""
    places = from_numpy(_representatives(layer, codes, size), like=targets)
    return layer.squared_distances_of(places), array_namespace(targets).take(targets, places, axis=0)


def _bandwidths(squares: Array) -> list[float]:
    """Return the kernel widths that are tried, rising; only an infinite one where all samples are the same."""
    median = _median_distance(squares)
    return [factor * median for factor in BANDWIDTHS] if median else [math.inf]


def _best_of_grid(squares: Array, targets: Array, bandwidths: list[float]) -> tuple[KernelRidgeFit, Array]:
    """Fit with each σ and every λ; return the fit of least error and its residuals of left-out samples.

    Parameters
    ----------
    squares
        Squared distances between the samples, (n_samples, n_samples).
    targets
        (n_samples, n_targets).
    bandwidths
        Kernel widths σ, rising.
    """
    xp = array_namespace(squares)
    n = squares.shape[0]
    best, left_out = KernelRidgeFit(0.0, math.inf, math.inf, math.inf), targets
    for bandwidth in bandwidths:
        eigenvalues, vectors = xp.linalg.eigh(_kernel(squares, bandwidth))
        # Below zero by rounding alone.
        eigenvalues = xp.where(eigenvalues > 0, eigenvalues, xp.zeros_like(eigenvalues))
        coordinates, weights = vectors.T @ targets, vectors**2
        for penalty in PENALTIES:
            inverse = 1 / (eigenvalues + penalty * n)
            residuals = (vectors @ (inverse[:, None] * coordinates)) / (weights @ inverse)[:, None]
            error = float(xp.sum(residuals**2)) / n
            if error < best.squared_error:
                best, left_out = KernelRidgeFit(0.0, error, bandwidth, penalty), residuals
    return best, left_out


def _walk(
    squares: Array, targets: Array, bandwidths: list[float], start: KernelRidgeFit
) -> tuple[KernelRidgeFit, Array]:
    """Do what `_best_of_grid` does, of many samples, by walking over the grid to ever smaller errors.

    It begins at the better of two places: where `start` has its σ and λ, and at the smallest σ and the largest λ, where
    networks have their least error most often. It ends where none of the eight neighbours is better, after a quarter of
    the grid: `benchmarks/scores.py` counts how often that is the best of it.
    """
    kernel = cache(lambda i: _kernel(squares, bandwidths[i]))
    grid = list(product(range(len(bandwidths)), range(len(PENALTIES))))
    best, left_out = KernelRidgeFit(0.0, math.inf, math.inf, math.inf), targets
    seen: set[tuple[int, int]] = set()
    place = 0, len(PENALTIES) - 1
    ahead = sorted({place, (bandwidths.index(start.bandwidth), PENALTIES.index(start.penalty))})
    while ahead:
        for i, j in ahead:
            fit, residuals = _fit(kernel(i), targets, bandwidths[i], PENALTIES[j])
            if fit.squared_error < best.squared_error:
                best, left_out, place = fit, residuals, (i, j)
        seen.update(ahead)
        ahead = [(i, j) for i, j in grid if max(abs(i - place[0]), abs(j - place[1])) == 1 and (i, j) not in seen]
    return best, left_out


def _fit(kernel: Array, targets: Array, bandwidth: float, penalty: float) -> tuple[KernelRidgeFit, Array]:
    """Fit with one σ, that of `kernel`, and one λ."""
    return _solved(array_namespace(kernel).astype(kernel, _dtype(penalty, like=kernel)), targets, bandwidth, penalty)


def _solved(kernel: Array, targets: Array, bandwidth: float, penalty: float) -> tuple[KernelRidgeFit, Array]:
    """Do the same in the precision of the kernel, which is written over."""
    xp = array_namespace(kernel)
    n = kernel.shape[0]
    xp.reshape(kernel, (n * n,), copy=False)[:: n + 1] += penalty * n
    solution, diagonal = solve_positive(kernel, xp.astype(targets, kernel.dtype))
    residuals = xp.astype(solution, xp.float64) / xp.astype(diagonal, xp.float64)[:, None]
    return KernelRidgeFit(0.0, float(xp.sum(residuals**2)) / n, bandwidth, penalty), residuals


def _dtype(penalty: float, like: Array) -> Any:
    xp = array_namespace(like)
    return xp.float32 if penalty >= _SINGLE else xp.float64


def _kernel(squares: Array, bandwidth: float) -> Array:
    return array_namespace(squares).exp(squares / (-2 * bandwidth**2))


def _kernel_of(points: Array, bandwidth: float, dtype: Any) -> Array:
    """Return the kernel of so many samples that nothing else as large should be held."""
    xp = array_namespace(points)
    n = points.shape[0]
    kernel = xp.empty((n, n), dtype=dtype, device=device(points))
    for start in range(0, n, step := max(1, _BLOCK // n)):
        stop = min(start + step, n)
        squares = squared_distances_between(points[start:stop, :], points[:stop, :])
        block = xp.astype(_kernel(squares, bandwidth), dtype)
        kernel[start:stop, :stop] = block
        kernel[:stop, start:stop] = block.T
    return kernel


def _representatives(layer: Layer, codes: np.ndarray, size: int) -> np.ndarray:
    """Choose about `size` samples as in `kernel_ridge`, whatever their order; their indices."""
    components = to_numpy(principal_components(layer, 1))
    # Constant features have no component.
    order = np.lexsort((components[:, 0], codes)) if components.shape[1] else np.argsort(codes, kind="stable")
    chosen, stop = [], 0
    for count in np.bincount(codes):
        start, stop = stop, stop + count
        quota = min(count, max(2, math.ceil(count * size / len(codes))))
        chosen.append(order[start + np.floor((np.arange(quota) + 0.5) * count / quota).astype(np.int64)])
    return np.concatenate(chosen)


def _median_distance(squares: Array) -> float:
    """Median distance over all pairs of samples that differ; 0 when none do."""
    place = from_numpy(np.arange(squares.shape[0]), like=squares)
    pairs = squares[(place[:, None] < place[None, :]) & (squares > 0)]
    count = pairs.shape[0]
    if count == 0:
        return 0.0
    middle = [(count - 1) // 2, count // 2]
    ordered = in_places(pairs, middle)
    return sum(math.sqrt(float(ordered[place])) for place in middle) / 2
