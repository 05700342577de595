"""Checking, centring, Gram matrices, distances and the thin SVD of feature matrices: pure array functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from array_api_compat import device

from transferscope.arrays.backend import Array, array_namespace, from_numpy, row_products
from transferscope.errors import InputError, is_whole

BLOCK = 2**23
"""Numbers that a temporary copy of a part of the features may hold (64 MiB in float64)."""

LARGEST = 1e50
"""Largest value of features in magnitude, and one over the smallest that the largest may be."""


def check_features(X: Array, name: str = "X", *, min_samples: int = 1) -> Array:
    """Return `X` as a finite matrix of float32 or float64, shape (n_samples, n_features).

    Integers and booleans become float64, half precision becomes float32; `X` itself is never written to.

    Raises
    ------
    InputError
        When `X` is not a matrix of real numbers with at least `min_samples` rows and one column, holds NaN
        or infinite values, or such as their powers overflow or vanish.
    """
    xp = array_namespace(X)
    _require_features(X, name, min_samples)
    return xp.astype(X, _working_dtype(X), copy=False)


def _working_dtype(X: Array) -> Array:
    xp = array_namespace(X)
    if X.dtype in (xp.float32, xp.float64):
        return X.dtype
    half = xp.isdtype(X.dtype, "real floating") and xp.finfo(X.dtype).bits < 32
    return xp.float32 if half else xp.float64


def _require_features(X: Array, name: str, min_samples: int) -> None:
    if len(X.shape) != 2 or X.shape[0] < min_samples or X.shape[1] < 1:
        raise InputError(
            f"Expected `{name}` to have shape (n_samples, n_features) with at least {min_samples} "
            f"samples and 1 feature but got {tuple(X.shape)}; rows are samples, flatten or pool everything "
            "else into columns"
        )
    first = X[0:1, :]
    xp = array_namespace(first)
    if xp.isdtype(first.dtype, ("bool", "integral")):
        return
    if not xp.isdtype(first.dtype, "real floating"):
        raise InputError(
            f"Expected `{name}` to hold real numbers but got dtype {first.dtype}; cast it to float32 or float64"
        )
    finite = [xp.all(xp.isfinite(rows)) for rows in _row_blocks(X)]
    if not all(finite):
        count = sum(int(xp.sum(xp.astype(~xp.isfinite(rows), xp.int64))) for rows in _row_blocks(X))
        raise InputError(
            f"Expected `{name}` to have shape (n_samples, n_features) and finite values but got {count} NaN "
            f"or infinite values in {tuple(X.shape)}; look at the network or the images they come from"
        )
    if float(xp.finfo(first.dtype).max) > LARGEST:
        largest = max(max(float(xp.max(rows)), -float(xp.min(rows))) for rows in _row_blocks(X))
        if largest > LARGEST or 0 < largest < 1 / LARGEST:
            raise InputError(
                f"Expected the largest value of `{name}` to lie between {1 / LARGEST:g} and {LARGEST:g} in magnitude, "
                f"but it is {largest:.3g}, whose powers fit into no floating-point number; scale the features"
            )


def _row_blocks(X: Array) -> Iterator[Array]:
    step = max(1, BLOCK // X.shape[1])
    for start in range(0, X.shape[0], step):
        yield X[start : min(start + step, X.shape[0]), :]


def float64_blocks(X: Array) -> Iterator[Array]:
    """Yield `X` (n_samples, n_features) in float64, a block of columns at a time, so that no whole copy is made."""
    step = max(1, BLOCK // X.shape[0])
    for start in range(0, X.shape[1], step):
        block = X[:, start : min(start + step, X.shape[1])]
        xp = array_namespace(block)
        yield xp.astype(block, xp.float64, copy=False)


def check_paired(X: Array, Y: Array, *, min_samples: int = 2) -> tuple[Array, Array]:
    """Return `X` and `Y` as finite feature matrices whose rows belong to the same samples.

    Raises
    ------
    InputError
        When one of them fails `check_features`, they differ in n_samples, or in library or device.
    """
    array_namespace(X, Y)
    X, Y = check_features(X, "X", min_samples=min_samples), check_features(Y, "Y", min_samples=min_samples)
    if X.shape[0] != Y.shape[0]:
        raise InputError(
            f"Expected `X` and `Y` to have the same n_samples but got {tuple(X.shape)} and {tuple(Y.shape)}; "
            "row i of both must come from the same image"
        )
    return X, Y


def center(X: Array) -> Array:
    """Subtract the column means, summed in float64, from `X` (n_samples, n_features); the dtype stays.

    The first row is subtracted before the mean is formed: features far from zero then keep all their digits,
    in float32 too, and constant features become exactly zero.
    """
    xp = array_namespace(X)
    shifted = X - X[:1, :]
    mean = xp.sum(shifted, axis=0, keepdims=True, dtype=xp.float64) / X.shape[0]
    return shifted - xp.astype(mean, X.dtype)


def is_constant(X: Array, rows: Array | None = None) -> bool:
    """Whether all samples of `X` (n_samples, n_features), or those of the integer array `rows`, are equal."""
    xp = array_namespace(X)
    start, width = 0, 64
    while start < X.shape[1]:
        # Most features vary in their first columns: a copy of these is all that it takes to see it.
        columns = X[:, start : min(start + width, X.shape[1])]
        taken = columns if rows is None else xp.take(columns, rows, axis=0)
        if not xp.all(taken == taken[:1, :]):
            return False
        start, width = start + width, max(64, BLOCK // X.shape[0])
    return True


def standardize(X: Array) -> Array:
    """Z-score every feature of `X` (n_samples, n_features) with its own mean and population standard deviation.

    Features that vary by no more than the rounding of their dtype become 0; float32 and float64 stay what they are.

    Raises
    ------
    InputError
        When `X` fails `check_features`.
    """
    xp = array_namespace(X)
    X = check_features(X)
    centred = center(X)
    largest = xp.max(xp.abs(centred), axis=0, keepdims=True)
    varies = largest > float(xp.finfo(X.dtype).eps) * xp.max(xp.abs(X), axis=0, keepdims=True)
    # First to at most 1, for the squares of very small or very large features are outside the range of float32.
    unit = xp.where(varies, centred, xp.zeros_like(centred)) / xp.where(varies, largest, xp.ones_like(largest))
    variance = xp.sum(unit * unit, axis=0, keepdims=True, dtype=xp.float64) / X.shape[0]
    deviation = xp.sqrt(xp.where(varies, variance, xp.ones_like(variance)))
    return unit / xp.astype(deviation, X.dtype, copy=False)


def gram(X: Array, *, double: bool = False) -> Array:
    """Gram matrix (n, n) of the centred features, float64.

    Parameters
    ----------
    X
        Features, (n_samples, n_features), float32 or float64.
    double
        Multiply in float64 too, a block of columns at a time; else in the precision of `X`.
    """
    xp = array_namespace(X)
    if not double:
        centred = center(X)
        return xp.astype(row_products(centred, centred), xp.float64)
    products = xp.zeros((X.shape[0], X.shape[0]), dtype=xp.float64, device=device(X))
    for block in float64_blocks(X):
        centred = center(block)
        products = products + centred @ centred.T
    return products


def squared_distances(K: Array) -> Array:
    """Squared Euclidean distances (n, n) of the samples with Gram matrix `K`: symmetric, diagonal exactly zero.

    With the Gram matrix of centred features, in float64, their rounding is that of the largest distance.
    """
    xp = array_namespace(K)
    norms = xp.linalg.diagonal(K)[:, None]
    # In place, for matrices of many samples take longer to be handed out than to be filled.
    squares = norms + norms.T
    squares -= K + K.T
    squares[squares < 0.0] = 0.0
    return squares


def squared_distances_between(X: Array, Y: Array) -> Array:
    """Squared Euclidean distances (n_rows_x, n_rows_y) of all rows of `X` to all of `Y`, which are no less than 0."""
    xp = array_namespace(X, Y)
    squares = xp.sum(X**2, axis=1, keepdims=True) + xp.sum(Y**2, axis=1) - 2 * (X @ Y.T)
    return xp.where(squares > 0, squares, xp.zeros_like(squares))


def in_places(X: Array, places: Sequence[int]) -> Array:
    """Return `X` with the values at these places of the last axis that it would have there if it were sorted."""
    xp = array_namespace(X)
    if hasattr(xp, "partition"):  # which NumPy and CuPy have beside the array API, and is no sort of everything
        return xp.partition(X, places, axis=-1)
    return xp.sort(X, axis=-1, stable=False)


def u_center(K: Array) -> Array:
    """U-centre a Gram matrix of centred features (rows summing to zero), n_samples at least 4.

    The sum of products of two such matrices is n (n - 3) times the unbiased HSIC of Song et al. (2012), here
    without the subtraction of large terms: only entries off the diagonal are used.
    """
    xp = array_namespace(K)
    n = K.shape[0]
    diagonal = xp.linalg.diagonal(K)
    row = diagonal[:, None] / (n - 2)
    full = K + row + row.T - xp.sum(diagonal) / ((n - 1) * (n - 2))
    return full * (1.0 - xp.eye(n, dtype=full.dtype, device=device(full)))


def hsic_bias(norms_x: Array, norms_y: Array) -> float:
    """Return what the product of two centred Gram matrices has more than n (n - 3) times their unbiased HSIC.

    Parameters
    ----------
    norms_x, norms_y
        Diagonals of the matrices, (n_samples,).
    """
    xp = array_namespace(norms_x, norms_y)
    n = norms_x.shape[0]
    diagonals, traces = xp.sum(norms_x * norms_y), xp.sum(norms_x) * xp.sum(norms_y)
    return float(n * diagonals / (n - 2) - traces / ((n - 1) * (n - 2)))


class Factors(NamedTuple):
    """Left half of a thin SVD: what every measure here needs of a feature matrix."""

    left: Array
    """Left singular vectors, (n_samples, rank), float64."""
    singular_values: Array
    """Singular values above the rank tolerance, (rank,), float64, descending."""


def thin_svd(X: Array, *, centered: bool = True, gram: Callable[[], Array] | None = None) -> Factors:
    """Factor `X` (n_samples, n_features) in float64, keeping only directions above the numerical rank.

    Singular values at or below max(n, p) eps s[0] are dropped, with the eps of the dtype of `X`: the rounding
    noise of float32 features is no direction.

    Parameters
    ----------
    X
        Anything that `check_features` takes.
    centered
        Subtract the column means first.
    gram
        Returns the Gram matrix of the features to be factored, (n_samples, n_samples), multiplied in float64; asked
        only where that is good enough, for callers who need it anyway.

    Raises
    ------
    InputError
        When `X` fails `check_features`.
    """
    xp = array_namespace(X)
    X = check_features(X)
    n, p = X.shape
    eps = float(xp.finfo(X.dtype).eps)
    # The cheaper way. The Gram matrix squares the condition number, which float64 can bear for float32
    # features: what is kept has s^2 > (p eps32)^2 s[0]^2, which is 64 p times p eps64 s[0]^2. For n > p
    # the p x p one would give left vectors only after a division by s, and those are not orthonormal.
    squared = eps > 1e-8 and n <= p
    if squared and gram is not None:
        left, singular_values = _roots(gram())
    else:
        wide = xp.astype(X, xp.float64)
        if centered:
            wide = center(wide)
        if squared:
            left, singular_values = _roots(wide @ wide.T)
        else:
            left, singular_values, _ = xp.linalg.svd(wide, full_matrices=False)
    return _above(max(n, p) * eps, left, singular_values)


def _roots(K: Array) -> tuple[Array, Array]:
    """Eigenvectors of a positive semidefinite matrix and the roots of its eigenvalues, descending."""
    xp = array_namespace(K)
    values, vectors = xp.linalg.eigh(K)
    values = xp.flip(values)
    return xp.flip(vectors, axis=1), xp.sqrt(xp.where(values > 0, values, xp.zeros_like(values)))


def _above(tolerance: float, left: Array, singular_values: Array) -> Factors:
    xp = array_namespace(left)
    rank = int(xp.sum(xp.astype(singular_values > tolerance * singular_values[0], xp.int64)))
    return Factors(left[:, :rank], singular_values[:rank])


class Sketch(NamedTuple):
    """Leading part of a thin SVD, and how much of the features it holds."""

    factors: Factors
    """Approximate leading left singular vectors, orthonormal, each with the norm of the features along it."""
    total: float
    """Squared Frobenius norm of the centred features: all of their variance, times n_samples."""
    captured: float
    """Share of `total` that lies along `factors.left`, in [0, 1]; what the sketch leaves out is 1 minus it."""


def sketched_svd(
    X: Array,
    rank: int,
    *,
    seed: int | np.random.Generator = 0,
    oversampling: int = 10,
    power_iterations: int = 2,
) -> Sketch:
    """Approximate the `rank` leading factors of the centred features of a wide layer by a randomised SVD.

    A random projection of the features finds a subspace of the samples, power iterations turn it towards the
    leading directions, and the features are diagonalised within it. All in float64, block of columns by block
    of columns in 2 + `power_iterations` passes, so that `X` may be larger than memory (a `numpy.memmap`).

    `X` may also be anything whose slices `[rows, columns]` are arrays.

    Which directions are found is approximate, but not what is said of them: `singular_values` are the norms of
    the features along `left`, and `captured` is their exact share of the exact total (up to float64 rounding).
    Every partial sum of squares is at most that of the true SVD.

    Parameters
    ----------
    X
        Features, (n_samples, n_features), of any real dtype.
    rank
        How many directions are wanted, at least 1. Fewer come back where the features have no more: directions
        at or below 1e-8 √rank of the largest, or below the rank tolerance of `thin_svd`, are dropped.
    seed
        Seed, or numpy Generator, of the random projection.
    oversampling
        Directions that are sketched beside the wanted ones and dropped at the end.
    power_iterations
        Passes that sharpen the subspace; 0 is enough only where the spectrum falls steeply.

    Raises
    ------
    InputError
        When `X` is no finite matrix of real numbers with at least 2 rows, or a count is off.

    References
    ----------
    Halko, Martinsson and Tropp (2011), Finding structure with randomness.
    """
    _require_features(X, "X", 2)
    like = X[0:1, :]
    xp = array_namespace(like)
    if not (is_whole(rank, 1) and is_whole(oversampling, 0) and is_whole(power_iterations, 0)):
        raise InputError(
            "Expected `rank` to be at least 1 and `oversampling` and `power_iterations` at least 0, all whole, but got "
            f"{rank!r}, {oversampling!r} and {power_iterations!r}"
        )
    n, p = X.shape
    size = min(rank + oversampling, n, p)
    generator = np.random.default_rng(seed)
    image = xp.zeros((n, size), dtype=xp.float64, device=device(like))
    for block in float64_blocks(X):
        directions = from_numpy(generator.standard_normal((block.shape[1], size)), like=like)
        image = image + center(block) @ directions
    basis = xp.linalg.qr(image).Q
    for _ in range(power_iterations):
        image = xp.zeros_like(basis)
        for block in float64_blocks(X):
            centred = center(block)
            image = image + centred @ (centred.T @ basis)
        basis = xp.linalg.qr(image).Q
    within = xp.zeros((size, size), dtype=xp.float64, device=device(like))
    total = 0.0
    for block in float64_blocks(X):
        centred = center(block)
        total += float(xp.sum(centred * centred))
        coordinates = basis.T @ centred
        within = within + coordinates @ coordinates.T
    vectors, singular_values = _roots(within)
    eps = float(xp.finfo(_working_dtype(like)).eps)
    tolerance = max(max(n, p) * eps, math.sqrt(size * float(xp.finfo(xp.float64).eps)))
    n_directions = min(rank, size)
    factors = _above(tolerance, basis @ vectors[:, :n_directions], singular_values[:n_directions])
    captured = min(1.0, float(xp.sum(factors.singular_values**2)) / total) if total > 0 else 1.0
    return Sketch(factors, total, captured)
