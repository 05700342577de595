"""Nyström kernel ridge: against plain solves in kernel space, and against scikit-learn."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.kernel_approximation import Nystroem
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge

from transferscope.arrays import nystrom
from transferscope.arrays.backend import to_numpy
from transferscope.errors import InputError, TransferscopeWarning

SIGMA = 4.0


def task(n, p, classes=3, *, seed=0, dtype="float64", offset=0.5):
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.arange(n) % classes)
    X = (rng.normal(size=(n, p)) + 0.8 * rng.normal(size=(classes, p))[codes] + offset).astype(dtype)
    T = np.eye(classes)[codes]
    X.flags.writeable = T.flags.writeable = False
    return X, T


def kernel(A, B, sigma):
    return np.exp(-cdist(A, B, "sqeuclidean") / (2 * sigma**2))


def plain(X, T, C, sigma, penalty, Q):
    """Predictions from the formula as it stands."""
    K = kernel(X, C, sigma)
    alpha = np.linalg.solve(K.T @ K + penalty * len(X) * kernel(C, C, sigma), K.T @ T)
    return kernel(Q, C, sigma) @ alpha


def direct(xp, X, T, C, sigma, penalty, Q):
    X, T, C, Q = (xp.asarray(each) for each in (X, T, C, Q))
    return to_numpy(nystrom.predict(Q, C, sigma, nystrom.fit(X, T, C, sigma).solve(penalty)))


def by_gradients(xp, X, T, C, sigma, penalty, Q, **options):
    X, T, C, Q = (xp.asarray(each) for each in (X, T, C, Q))
    coefficients, _ = nystrom.conjugate_gradient(X, T, C, sigma, penalty, **options)
    return to_numpy(nystrom.predict(Q, C, sigma, coefficients))


@pytest.mark.parametrize("penalty", [1e-2, 1e-5, 1e-9])
def test_with_all_samples_as_centers_it_is_exact_kernel_ridge(xp, penalty):
    X, T = task(60, 8)
    Q = task(20, 8, seed=1)[0]
    exact = kernel(Q, X, SIGMA) @ np.linalg.solve(kernel(X, X, SIGMA) + penalty * len(X) * np.eye(len(X)), T)
    for centers in (X, X[::-1]):  # told to be the samples, and not
        np.testing.assert_allclose(direct(xp, X, T, centers.copy(), SIGMA, penalty, Q), exact, rtol=0, atol=1e-9)
    theirs = KernelRidge(alpha=penalty * len(X), kernel="rbf", gamma=1 / (2 * SIGMA**2)).fit(X, T).predict(Q)
    np.testing.assert_allclose(direct(xp, X, T, X, SIGMA, penalty, Q), theirs, rtol=0, atol=1e-8)


@pytest.mark.parametrize("penalty", [1e-2, 1e-5, 1e-8])
def test_it_is_the_formula(xp, penalty):
    X, T = task(120, 8)
    Q = task(20, 8, seed=1)[0]
    expected = plain(X, T, X[:25], SIGMA, penalty, Q)
    np.testing.assert_allclose(direct(xp, X, T, X[:25], SIGMA, penalty, Q), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("penalty", [1e-2, 1e-5])
def test_it_is_a_ridge_on_the_features_of_scikit_learn(xp, penalty):
    """In Z = K U s^(-1/2) the penalty αᵀ K α is ‖w‖²: their alpha is λ n, without an intercept."""
    X, T = task(90, 8)
    Q = task(20, 8, seed=1)[0]
    mapping = Nystroem(gamma=1 / (2 * SIGMA**2), n_components=30, random_state=0).fit(X)
    ridge = Ridge(alpha=penalty * len(X), fit_intercept=False).fit(mapping.transform(X), T)
    ours = direct(xp, X, T, mapping.components_, SIGMA, penalty, Q)
    np.testing.assert_allclose(ours, ridge.predict(mapping.transform(Q)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("penalty", [1e-2, 1e-4, 1e-6])
def test_conjugate_gradients_agree_with_the_direct_solve(xp, penalty):
    X, T = task(150, 8)
    Q = task(20, 8, seed=1)[0]
    solved = direct(xp, X, T, X[:40], SIGMA, penalty, Q)
    np.testing.assert_allclose(
        by_gradients(xp, X, T, X[:40], SIGMA, penalty, Q, tolerance=1e-12), solved, rtol=0, atol=1e-9
    )


def test_the_preconditioner_makes_few_iterations_do():
    X, T = task(400, 8)
    _, iterations = nystrom.conjugate_gradient(X, T, X[:200], SIGMA, 1e-4, tolerance=1e-8)
    K = kernel(X, X[:200], SIGMA)
    plain_system = K.T @ K / len(X) + 1e-4 * kernel(X[:200], X[:200], SIGMA)
    assert iterations < 40
    assert np.linalg.cond(plain_system) > 1e6


def test_with_all_samples_as_centers_one_iteration_does():
    """The preconditioner is the inverse then."""
    X, T = task(50, 8)
    assert nystrom.conjugate_gradient(X, T, X, SIGMA, 1e-4)[1] == 1


def test_gradients_that_do_not_arrive_say_so():
    X, T = task(100, 8)
    with pytest.warns(TransferscopeWarning, match=r"after 2 iterations with a relative residual .* above .* 1\.0e-12"):
        nystrom.conjugate_gradient(X, T, X[:30], SIGMA, 1e-6, tolerance=1e-12, max_iterations=2)


def test_targets_of_zero_have_coefficients_of_zero(xp):
    X, T = task(40, 4)
    T = np.concatenate([T, np.zeros((40, 1))], axis=1)
    for values in (
        direct(xp, X, T, X[:10], SIGMA, 1e-3, X),
        by_gradients(xp, X, T, X[:10], SIGMA, 1e-3, X, tolerance=1e-10),
    ):
        assert np.all(values[:, 3] == 0)
        np.testing.assert_allclose(values[:, :3], plain(X, T, X[:10], SIGMA, 1e-3, X)[:, :3], atol=1e-7)


@pytest.mark.parametrize("kept", [0, 2**27])
def test_blocks_change_nothing(xp, kept, monkeypatch):
    X, T = task(53, 5)
    values = direct(xp, X, T, X[:12], SIGMA, 1e-4, X), by_gradients(xp, X, T, X[:12], SIGMA, 1e-4, X)
    monkeypatch.setattr(nystrom, "BLOCK", 12 * 7)
    monkeypatch.setattr(nystrom, "KEPT", kept)
    in_blocks = direct(xp, X, T, X[:12], SIGMA, 1e-4, X), by_gradients(xp, X, T, X[:12], SIGMA, 1e-4, X)
    np.testing.assert_allclose(in_blocks[0], values[0], rtol=0, atol=1e-12)
    # Gradients magnify rounding, and stop at a residual of 1e-7.
    np.testing.assert_allclose(in_blocks[1], values[1], rtol=0, atol=1e-8)


def test_float32_features_are_solved_in_float64(xp):
    X, T = task(80, 6, dtype="float32", offset=300.0)
    Q = X[:10]
    single = nystrom.fit(xp.asarray(X), xp.asarray(T.astype("float32")), xp.asarray(X[:30]), SIGMA).solve(1e-6)
    assert single.dtype == xp.float64
    wide = X.astype(np.float64)
    expected = plain(wide, T, wide[:30], SIGMA, 1e-6, wide[:10])
    np.testing.assert_allclose(direct(xp, X, T, X[:30], SIGMA, 1e-6, Q), expected, rtol=0, atol=1e-8)


def test_the_same_center_twice_is_as_good_as_once(xp):
    X, T = task(60, 6)
    once = direct(xp, X, T, X[:20], SIGMA, 1e-6, X)
    twice = np.concatenate([X[:20], X[:20], X[:1]])
    np.testing.assert_allclose(direct(xp, X, T, twice, SIGMA, 1e-6, X), once, rtol=0, atol=1e-9)
    ours = by_gradients(xp, X, T, twice, SIGMA, 1e-6, X, tolerance=1e-12)
    np.testing.assert_allclose(ours, once, rtol=0, atol=1e-8)


@pytest.mark.parametrize("sigma", [1.0, np.inf])
def test_constant_features_give_the_shrunk_mean_of_the_targets(xp, sigma):
    """All kernel values are 1: the regression is w = Σ t / (n + λ n) for every sample."""
    T = np.eye(2)[[0, 0, 0, 1]]
    X = np.full((4, 3), 0.3)
    for solve in (direct, by_gradients):
        np.testing.assert_allclose(solve(xp, X, T, X, sigma, 0.01, X), np.tile([0.75, 0.25], (4, 1)) / 1.01, rtol=1e-12)


def test_very_narrow_and_very_wide_kernels(xp):
    X, T = task(30, 4)
    narrow = direct(xp, X, T, X, 0.01, 0.5, X)  # K = I: each sample for itself
    np.testing.assert_allclose(narrow, T / (1 + 0.5 * 30), rtol=0, atol=1e-10)
    wide = direct(xp, X, T, X, 1e150, 1e-9, X)
    np.testing.assert_allclose(wide, np.tile(T.mean(axis=0), (30, 1)), rtol=1e-6)


def test_badly_conditioned_kernels_keep_their_digits():
    """Few dimensions, a wide kernel and a tiny penalty, against the same formula in 60 digits."""
    mpmath = pytest.importorskip("mpmath")
    X, T = task(30, 4, classes=2)
    sigma, penalty, centers = 10.0, 1e-9, X[:12]

    def exact_kernel(A, B):
        squares = [
            [mpmath.fsum((mpmath.mpf(a) - mpmath.mpf(b)) ** 2 for a, b in zip(x, c, strict=True)) for c in B] for x in A
        ]
        return mpmath.matrix(
            [[mpmath.exp(-square / (2 * mpmath.mpf(sigma) ** 2)) for square in row] for row in squares]
        )

    with mpmath.workdps(60):
        K = exact_kernel(X.tolist(), centers.tolist())
        system = K.T * K + mpmath.mpf(penalty) * 30 * exact_kernel(centers.tolist(), centers.tolist())
        fitted = K * mpmath.lu_solve(system, K.T * mpmath.matrix(T[:, 0].tolist()))
    values = direct(np, X, T, centers, sigma, penalty, X)
    np.testing.assert_allclose(values[:, 0], [float(value) for value in fitted], rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.ones((5, 3))}, r"same n_samples but got \(5, 3\) and \(6, 2\)"),
        ({"centers": np.ones((2, 4))}, r"same n_features but got \(6, 3\) and \(2, 4\)"),
        ({"centers": np.ones((0, 3))}, r"`centers` to have shape .* at least 1"),
        ({"features": np.full((6, 3), np.nan)}, r"`features`.*18 NaN or infinite"),
        ({"targets": np.full((6, 2), np.inf)}, r"`targets`.*12 NaN or infinite"),
        ({"sigma": 0.0}, "`sigma` to be positive but got 0.0"),
        ({"sigma": np.nan}, "`sigma` to be positive but got nan"),
        ({"penalty": 0.0}, "`penalty` to be positive and finite but got 0.0"),
        ({"penalty": -1e-6}, "`penalty` to be positive and finite but got -1e-06"),
        ({"penalty": np.inf}, "`penalty` to be positive and finite but got inf"),
    ],
)
def test_bad_input(change, message):
    given = {"features": np.eye(6, 3), "targets": np.ones((6, 2)), "centers": np.eye(3), "sigma": 1.0, "penalty": 1e-3}
    given |= change
    penalty = given.pop("penalty")
    with pytest.raises(InputError, match=message):
        nystrom.fit(**given).solve(penalty)
    with pytest.raises(InputError, match=message):
        nystrom.conjugate_gradient(**given, penalty=penalty)


@pytest.mark.parametrize("option", ["tolerance", "max_iterations"])
def test_options_of_gradients_are_positive(option):
    X, T = task(6, 2)
    with pytest.raises(InputError, match=f"`{option}` to be positive and finite but got 0"):
        nystrom.conjugate_gradient(X, T, X, 1.0, 1e-3, **{option: 0})
