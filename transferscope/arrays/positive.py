"""Symmetric positive definite matrices: solving with them, and the diagonal of their inverse."""

from __future__ import annotations

import numpy as np
from array_api_compat import is_numpy_array

from transferscope.arrays.backend import Array, array_namespace

_HALVED, _WHOLE = 750, 128
"""Rows from which matrices are worked on by halves, and up to which LAPACK takes a part: its routines let no other
thread work, which costs more than halves do where there are many rows."""


def solve_positive(G: Array, T: Array) -> tuple[Array, Array]:
    """Return G⁻¹ T (n, m) and the diagonal of G⁻¹ (n,) for a symmetric positive definite `G` (n, n).

    Both float64, or both float32, which takes half the time.

    Raises
    ------
    numpy.linalg.LinAlgError
        When it is not positive definite, which a GPU does not tell.
    """
    xp = array_namespace(G, T)
    if not is_numpy_array(G):
        inverse = xp.linalg.inv(G)
        return inverse @ T, xp.linalg.diagonal(inverse)
    root = _root_of_inverse(G) if G.shape[0] > _HALVED else _by_lapack(G)
    return root.T @ (root @ T), np.einsum("ij,ij->j", root, root)


def _root_of_inverse(G: np.ndarray) -> np.ndarray:
    """Return the inverse of the Cholesky factor, lower triangular, by halves: W with WᵀW = G⁻¹."""
    n = G.shape[0]
    if n <= _WHOLE:
        return _by_lapack(G)
    first, second = slice(0, n // 2), slice(n // 2, n)
    root = np.zeros((n, n), G.dtype)
    root[first, first] = _root_of_inverse(G[first, first])
    below = _lower_times(root[first, first], G[first, second]).T
    root[second, second] = _root_of_inverse(G[second, second] - below @ below.T)
    root[second, first] = -_lower_times(root[second, second], _times_lower(below, root[first, first]))
    return root


def _lower_times(L: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return L B, of a lower triangular L, without most of the products with zeros."""
    if (n := len(L)) <= _WHOLE:
        return L @ B
    upper, lower = slice(0, n // 2), slice(n // 2, n)
    return np.concatenate(
        [_lower_times(L[upper, upper], B[upper]), L[lower, upper] @ B[upper] + _lower_times(L[lower, lower], B[lower])]
    )


def _times_lower(A: np.ndarray, L: np.ndarray) -> np.ndarray:
    """Return A L in the same way."""
    if (n := len(L)) <= _WHOLE:
        return A @ L
    left, right = slice(0, n // 2), slice(n // 2, n)
    return np.concatenate(
        [
            _times_lower(A[:, left], L[left, left]) + A[:, right] @ L[right, left],
            _times_lower(A[:, right], L[right, right]),
        ],
        axis=1,
    )


def _by_lapack(G: np.ndarray) -> np.ndarray:
    from scipy.linalg import get_lapack_funcs

    factored, inverted = get_lapack_funcs(("potrf", "trtri"), (G,))
    factor, failed = factored(G.T, lower=1, clean=1)
    if failed:
        raise np.linalg.LinAlgError("the matrix is not positive definite")
    return inverted(factor, lower=1, overwrite_c=1)[0]
