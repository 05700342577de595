"""Leave-one-out error of ridge regression with a kernel that is given as a matrix, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from transferscope.arrays.backend import Array, array_namespace
from transferscope.arrays.linalg import Factors
from transferscope.errors import InputError
from transferscope.transferability.labels import one_hot
from transferscope.transferability.ridge import PENALTIES, leave_one_out


class KernelFit(NamedTuple):
    """How well labels that were left out are predicted from a kernel."""

    squared_error: float
    """Of left-out one-hot targets, as a share of that of predicting the mean of the others; lower is better, and 1 what
    a kernel reaches that tells nothing."""
    accuracy: float
    """Share of left-out samples classified correctly, in [0, 1]."""


def fit_kernel(kernel: Array, codes: np.ndarray) -> KernelFit:
    """Predict every sample by the kernel ridge regression with an intercept that is fitted to all others.

    The kernel is centred and divided by the mean of its diagonal; the penalty, one of `ridge.PENALTIES`, is that of the
    least leave-one-out squared error.

    Parameters
    ----------
    kernel
        Inner products, (n_samples, n_samples), symmetric and positive semi-definite but for rounding.
    codes
        (n_samples,), as `encode_labels` gives them.

    Raises
    ------
    InputError
        When `kernel` is no square matrix of finite numbers, or `codes` do not belong to it.
    """
    xp = array_namespace(kernel)
    shape, finite = tuple(kernel.shape), bool(xp.all(xp.isfinite(kernel)))
    if len(shape) != 2 or shape[0] != shape[1] or not finite:
        raise InputError(
            f"Expected `kernel` to be a matrix of finite inner products, (n_samples, n_samples), but got {shape}"
            f"{'' if finite else ' with NaN or infinite values'}; look at the network that it comes from"
        )
    kernel = xp.astype(kernel, xp.float64)
    targets = one_hot(codes, like=kernel)
    errors, residuals = [], []
    for left_out in leave_one_out(_factors(kernel), targets, PENALTIES):
        errors.append(float(xp.sum(left_out**2)))
        residuals.append(left_out)
    best = int(np.argmin(errors))
    n = shape[0]
    # The mean of the others is n / (n - 1) times as far away as that of all.
    of_the_mean = float(xp.sum((targets - xp.mean(targets, axis=0, keepdims=True)) ** 2)) * (n / (n - 1)) ** 2
    correct = xp.argmax(targets - residuals[best], axis=1) == xp.argmax(targets, axis=1)
    return KernelFit(errors[best] / of_the_mean, float(xp.mean(xp.astype(correct, xp.float64))))


def _factors(kernel: Array) -> Factors:
    """Factor features of which `kernel`, centred and divided by its mean diagonal, holds the inner products."""
    xp = array_namespace(kernel)
    n, eps = kernel.shape[0], float(xp.finfo(kernel.dtype).eps)
    before = float(xp.sum(xp.linalg.diagonal(kernel)))
    kernel = kernel - xp.mean(kernel, axis=0, keepdims=True)
    kernel = kernel - xp.mean(kernel, axis=1, keepdims=True)
    total = float(xp.sum(xp.linalg.diagonal(kernel)))
    if total <= n * eps * before:  # nothing but rounding is left
        return Factors(kernel[:, :0], kernel[0, :0])
    values, vectors = xp.linalg.eigh((kernel + kernel.T) * (n / (2 * total)))
    # The direction of the ones, in which a centred kernel has nothing, must not count.
    kept = int(xp.sum(xp.astype(values > n * eps * values[-1], xp.int64)))
    return Factors(xp.flip(vectors[:, n - kept :], axis=1), xp.sqrt(xp.flip(values[n - kept :])))


def extrapolate(errors: Sequence[float], sizes: Sequence[int], n: int) -> float:
    """Return what errors at some numbers of samples come to at `n`, on a straight line in the logarithm of the number.

    Least squares if there are more than two. It may fall below zero far away.

    Parameters
    ----------
    errors
        At each of `sizes`.
    sizes
        At least two different ones, each at least 1.
    n
        At least 1.

    Raises
    ------
    InputError
        When there are no two different sizes, or a number is below 1.
    """
    if len(set(sizes)) < 2 or len(errors) != len(sizes) or min(*sizes, n) < 1:
        raise InputError(
            f"Expected an error for each of at least two different sizes of 1 or more, and `n` likewise, but got "
            f"{len(errors)} errors, sizes {list(sizes)} and n = {n}"
        )
    slope, intercept = np.polyfit(np.log(sizes), errors, 1)
    return float(intercept + slope * np.log(n))
