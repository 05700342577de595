import numpy as np
import pytest

from transferscope.arrays.backend import to_numpy
from transferscope.arrays.positive import solve_positive


def test_it_solves_and_gives_the_diagonal_of_the_inverse(xp):
    A = np.random.default_rng(0).normal(size=(7, 7))
    G, T = A @ A.T + np.eye(7), A[:, :2]
    before = G.copy()
    solution, diagonal = solve_positive(xp.asarray(G), xp.asarray(T))
    np.testing.assert_allclose(to_numpy(solution), np.linalg.solve(G, T), rtol=1e-9)
    np.testing.assert_allclose(to_numpy(diagonal), np.diag(np.linalg.inv(G)), rtol=1e-9)
    np.testing.assert_array_equal(G, before)


def test_what_is_not_positive_definite_is_refused():
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        solve_positive(np.diag([1.0, -1.0]), np.ones((2, 1)))
