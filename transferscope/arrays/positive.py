"""Symmetric positive definite matrices: solving with them, and the diagonal of their inverse."""

from __future__ import annotations

import numpy as np
from array_api_compat import is_numpy_array

from transferscope.arrays.backend import Array, array_namespace


def solve_positive(G: Array, T: Array) -> tuple[Array, Array]:
    """Return G⁻¹ T (n, m) and the diagonal of G⁻¹ (n,) for a symmetric positive definite `G` (n, n), float64.

    Raises
    ------
    numpy.linalg.LinAlgError
        When it is not positive definite, which a GPU does not tell.
    """
    xp = array_namespace(G, T)
    if not is_numpy_array(G):
        inverse = xp.linalg.inv(G)
        return inverse @ T, xp.linalg.diagonal(inverse)
    # A third of the operations of an inverse that knows of no symmetry: the diagonal needs that of the factor alone.
    from scipy.linalg import lapack

    factor, failed = lapack.dpotrf(G.T, lower=1, clean=1)
    if failed:
        raise np.linalg.LinAlgError("the matrix is not positive definite")
    solution, _ = lapack.dpotrs(factor, T, lower=1)
    inverse, _ = lapack.dtrtri(factor, lower=1, overwrite_c=1)
    return solution, np.einsum("ij,ij->j", inverse, inverse)
