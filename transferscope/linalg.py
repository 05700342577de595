"""Checking, centring, Gram matrices and the thin SVD of feature matrices: pure array functions."""

from __future__ import annotations

from typing import NamedTuple

from array_api_compat import device

from transferscope.backend import Array, array_namespace
from transferscope.errors import InputError


def check_features(X: Array, name: str = "X", *, min_samples: int = 1) -> Array:
    """Return `X` as a finite matrix of float32 or float64, shape (n_samples, n_features).

    Integers and booleans become float64, half precision becomes float32; `X` itself is never written to.

    Raises
    ------
    InputError
        When `X` is not a matrix of real numbers with at least `min_samples` rows and one column, or holds NaN
        or infinite values.
    """
    xp = array_namespace(X)
    if X.ndim != 2 or X.shape[0] < min_samples or X.shape[1] < 1:
        raise InputError(
            f"Expected `{name}` to have shape (n_samples, n_features) with at least {min_samples} "
            f"samples and 1 feature but got {tuple(X.shape)}; rows are samples, flatten or pool everything "
            "else into columns"
        )
    if xp.isdtype(X.dtype, ("bool", "integral")):
        return xp.astype(X, xp.float64)
    if not xp.isdtype(X.dtype, "real floating"):
        raise InputError(
            f"Expected `{name}` to hold real numbers but got dtype {X.dtype}; cast it to float32 or float64"
        )
    if X.dtype not in (xp.float32, xp.float64):
        X = xp.astype(X, xp.float32 if xp.finfo(X.dtype).bits < 32 else xp.float64)
    finite = xp.isfinite(X)
    if not xp.all(finite):
        count = int(xp.sum(xp.astype(~finite, xp.int64)))
        raise InputError(
            f"Expected `{name}` to have shape (n_samples, n_features) and finite values but got {count} NaN "
            f"or infinite values in {tuple(X.shape)}; look at the network or the images they come from"
        )
    return X


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


def gram(X: Array) -> Array:
    """Gram matrix (n, n) of the centred features: multiplied in the precision of `X`, then float64."""
    xp = array_namespace(X)
    centred = center(X)
    return xp.astype(centred @ centred.T, xp.float64)


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


class Factors(NamedTuple):
    """Left half of a thin SVD: what every measure here needs of a feature matrix."""

    left: Array
    """Left singular vectors, (n_samples, rank), float64."""
    singular_values: Array
    """Singular values above the rank tolerance, (rank,), float64, descending."""


def thin_svd(X: Array, *, centered: bool = True) -> Factors:
    """Factor `X` (n_samples, n_features) in float64, keeping only directions above the numerical rank.

    Singular values at or below max(n, p) eps s[0] are dropped, with the eps of the dtype of `X`: the rounding
    noise of float32 features is no direction.

    Parameters
    ----------
    X
        Anything that `check_features` takes.
    centered
        Subtract the column means first.

    Raises
    ------
    InputError
        When `X` fails `check_features`.
    """
    xp = array_namespace(X)
    X = check_features(X)
    n, p = X.shape
    eps = float(xp.finfo(X.dtype).eps)
    wide = xp.astype(X, xp.float64)
    if centered:
        wide = center(wide)
    if eps > 1e-8 and n <= p:
        # The cheaper way. The Gram matrix squares the condition number, which float64 can bear for float32
        # features: what is kept has s^2 > (p eps32)^2 s[0]^2, which is 64 p times p eps64 s[0]^2. For n > p
        # the p x p one would give left vectors only after a division by s, and those are not orthonormal.
        values, vectors = xp.linalg.eigh(wide @ wide.T)
        values, left = xp.flip(values), xp.flip(vectors, axis=1)
        singular_values = xp.sqrt(xp.where(values > 0, values, xp.zeros_like(values)))
    else:
        left, singular_values, _ = xp.linalg.svd(wide, full_matrices=False)
    kept = singular_values > max(n, p) * eps * singular_values[0]
    rank = int(xp.sum(xp.astype(kept, xp.int64)))
    return Factors(left[:, :rank], singular_values[:rank])
