import numpy as np
import pytest

from transferscope.arrays.backend import to_numpy
from transferscope.arrays.positive import solve_positive


@pytest.mark.parametrize(("dtype", "precision"), [("float64", 1e-9), ("float32", 2e-5)])
@pytest.mark.parametrize("n", [7, 801])
def test_it_solves_and_gives_the_diagonal_of_the_inverse(xp, n, dtype, precision):
    A = np.random.default_rng(0).normal(size=(n, n)) / n**0.5
    G, T = A @ A.T + np.eye(n), A[:, :2]
    before = G.copy()
    solution, diagonal = solve_positive(*(xp.astype(xp.asarray(each), getattr(xp, dtype)) for each in (G, T)))
    assert solution.dtype == diagonal.dtype == getattr(xp, dtype)
    np.testing.assert_allclose(to_numpy(solution), np.linalg.solve(G, T), rtol=precision, atol=precision / 1000)
    np.testing.assert_allclose(to_numpy(diagonal), np.diag(np.linalg.inv(G)), rtol=precision)
    np.testing.assert_array_equal(G, before)


@pytest.mark.parametrize("n", [2, 801])
def test_what_is_not_positive_definite_is_refused(n):
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        solve_positive(np.diag([*np.ones(n - 1), -1.0]), np.ones((n, 1)))
