"""Symmetric positive definite matrices: solving with them, and the diagonal of their inverse."""

from __future__ import annotations

import numpy as np
from array_api_compat import is_numpy_array

from transferscope.arrays.backend import Array, array_namespace

_HALVED, _WHOLE = (750, 1000), 200
"""Rows of matrices that are worked on by halves, and of a part that LAPACK takes: its routines let no other thread
work, which costs more than halves do where there are many rows. Still more rows have all threads anyway."""


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
    root = _root_of_inverse(G) if _HALVED[0] < G.shape[0] <= _HALVED[1] else _by_lapack(G)
    return root.T @ (root @ T), np.einsum("ij,ij->j", root, root)


def _root_of_inverse(G: np.ndarray) -> np.ndarray:
    """Return the inverse of the Cholesky factor, lower triangular, by halves: W with WᵀW = G⁻¹."""
    n = G.shape[0]
    if n <= _WHOLE:
        return _by_lapack(G)
    first, second = slice(0, n // 2), slice(n // 2, n)
    root = np.zeros((n, n), G.dtype)
    root[first, first] = _root_of_inverse(G[first, first])
    below = G[second, first] @ root[first, first].T
    root[second, second] = _root_of_inverse(G[second, second] - below @ below.T)
    root[second, first] = -(root[second, second] @ (below @ root[first, first]))
    return root


def _by_lapack(G: np.ndarray) -> np.ndarray:
    from scipy.linalg import get_lapack_funcs

    factored, inverted = get_lapack_funcs(("potrf", "trtri"), (G,))
    factor, failed = factored(G.T, lower=1, clean=1)
    if failed:
        raise np.linalg.LinAlgError("the matrix is not positive definite")
    return inverted(factor, lower=1, overwrite_c=1)[0]
