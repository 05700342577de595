import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled_features import one_hot, task
from scipy.optimize import minimize, minimize_scalar
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.linear_model import Ridge

from transferscope import transferability
from transferscope.arrays.backend import to_numpy
from transferscope.arrays.linalg import thin_svd
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.transferability.hscore import ledoit_wolf_alpha
from transferscope.transferability.labels import one_hot as coded
from transferscope.transferability.ridge import leave_one_out

SCORES = {name: getattr(transferability, name) for name in ("logme", "hscore", "ridge")}


def slow_logme(X, codes):
    """Maximise ln N(t; 0, I/β + X Xᵀ/α) over (ln α, ln β) with dense covariances, for each one-hot target."""
    n = len(X)

    def cost(logs, t):
        covariance = np.eye(n) * np.exp(-logs[1]) + X @ X.T * np.exp(-logs[0])
        return 0.5 * (n * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + t @ np.linalg.solve(covariance, t))

    def least(t):
        starts = [(a, b) for a in (-4, 0, 4, 8) for b in (-2, 1, 4)]
        start = min(starts, key=lambda logs: cost(logs, t))
        tight = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 5000}
        return minimize(cost, start, args=(t,), method="Nelder-Mead", options=tight).fun

    return -np.mean([least(t) for t in one_hot(codes).T]) / n


def slow_hscore(X, codes):
    """The trace with explicit n_features × n_features matrices and scikit-learn's shrinkage."""
    X = X - X.mean(axis=0)
    n, p = X.shape
    alpha, S = ledoit_wolf_shrinkage(X), X.T @ X / n
    shrunk = (1 - alpha) * S + alpha * np.trace(S) / p * np.eye(p)
    means = np.stack([X[codes == c].mean(axis=0) for c in codes])
    return np.trace(np.linalg.solve(shrunk, (1 - alpha) * means.T @ means / n))


def refitted(X, T, penalty):
    """Leave-one-out predictions by really leaving one out."""
    everyone = np.arange(len(X))
    models = [Ridge(penalty, solver="svd").fit(X[everyone != i], T[everyone != i]) for i in everyone]
    return np.stack([model.predict(X[i : i + 1])[0] for i, model in enumerate(models)])


# LogME --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", [0.3, 2.0])
@pytest.mark.parametrize(("n", "p"), [(24, 4), (24, 23), (24, 24), (16, 40)])
def test_logme_is_the_greatest_evidence(xp, n, p, signal):
    X, codes = task(n, p, signal=signal)
    value = transferability.logme(xp.asarray(X), codes)
    assert type(value) is float
    assert value == pytest.approx(slow_logme(X, codes), abs=1e-6)


def test_logme_of_noise_with_more_features_than_samples_is_that_of_no_features(xp):
    """The published fixed-point iteration says +26 to +40 here."""
    rng = np.random.default_rng(0)
    value = transferability.logme(xp.asarray(rng.normal(size=(300, 2048))), np.arange(300) % 5)
    assert value == pytest.approx(-0.61, abs=0.01)
    without = -0.5 * np.log(2 * np.pi * np.e / 5)
    assert value >= without - 1e-9
    assert transferability.logme(xp.zeros((300, 4)), np.arange(300) % 5) == pytest.approx(without, abs=1e-12)


def svd_logme(X, codes):
    """The evidence by the thin SVD of the features as they are; its least cost by SciPy from the best of a grid."""
    n = len(X)
    U, s, _ = np.linalg.svd(X.astype(np.float64), full_matrices=False)
    rank = np.count_nonzero(s > max(X.shape) * np.finfo(X.dtype).eps * s[0])
    U, ratios = U[:, :rank], (s[:rank] / s[0]) ** 2

    def least(t):
        z = (U.T @ t) ** 2
        outside = t @ t - z.sum() if rank < n else 0.0

        def cost(log):
            shrink = 1 + ratios / np.exp(np.expand_dims(log, -1))
            left = outside + np.sum(z / shrink, axis=-1)
            return 0.5 * (n * np.log(2 * np.pi * np.e / n * left) + np.log(shrink).sum(axis=-1))

        grid = np.arange(-60, 15, 0.1)
        start = grid[cost(grid).argmin()]
        return minimize_scalar(cost, bounds=(start - 0.1, start + 0.1), method="bounded", options={"xatol": 1e-9}).fun

    return -np.mean([least(t) for t in one_hot(codes).T]) / n


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset", [0.0, 0.5, 30.0])
@pytest.mark.parametrize("kind", ["zero columns", "few directions", "falling", "very different sizes"])
@pytest.mark.parametrize("shape", [(30, 6), (30, 29), (30, 30), (20, 60)])
def test_logme_needs_no_factorisation_of_features_that_are_not_centred(xp, shape, kind, offset, dtype):
    X, codes = task(*shape)
    rng = np.random.default_rng(1)
    if kind == "few directions":
        X = X[:, :3] @ rng.normal(size=(3, shape[1]))
    X = X * {"falling": np.logspace(-2, 0, shape[1]), "very different sizes": np.logspace(0, -5, shape[1])}.get(kind, 1)
    X = (X + offset * rng.normal(size=shape[1])).astype(dtype)
    if kind == "zero columns":
        X[:, shape[1] // 2 :] = 0
    # How much of what is below the rounding of its dtype counts as a direction is for either to say.
    tolerance = 1e-6 if dtype == "float64" or kind != "very different sizes" else 2e-2
    assert transferability.logme(xp.asarray(X), codes) == pytest.approx(svd_logme(X, codes), abs=tolerance)


@pytest.mark.parametrize(("dtype", "offset"), [("float32", 1e3), ("float64", 1e3), ("float64", 1e7)])
@pytest.mark.parametrize("shape", [(30, 6), (20, 60)])
def test_logme_beside_a_huge_mean(xp, shape, dtype, offset):
    X, codes = task(*shape)
    X = (X + offset * np.random.default_rng(1).normal(size=shape[1])).astype(dtype)
    assert transferability.logme(xp.asarray(X), codes) == pytest.approx(svd_logme(X, codes), abs=1e-6)


def test_logme_of_two_valleys_takes_the_deeper(xp):
    """Beside a large mean the evidence may have two maxima in λ."""
    X, codes = task(20, 60)
    rng = np.random.default_rng(1)
    X = X[:, :3] @ rng.normal(size=(3, 60)) + 1e3 * rng.normal(size=60)
    assert transferability.logme(xp.asarray(X), codes) == pytest.approx(svd_logme(X, codes), abs=1e-6)


def test_logme_of_constant_features(xp):
    """One direction, that of the ones."""
    X, codes = np.full((12, 3), 0.1), np.arange(12) % 3
    assert transferability.logme(xp.asarray(X), codes) == pytest.approx(svd_logme(X, codes), abs=1e-9)


@pytest.mark.parametrize("p", [4, 17, 18])
def test_logme_of_labels_among_the_features_is_infinite_and_says_so(xp, p):
    """With one feature less than samples no direction is left outside of the mean and the centred features."""
    X, codes = task(20, p)
    leaking = np.column_stack([X, codes == 1])
    with pytest.warns(TransferscopeWarning, match="labels among the features"):
        assert transferability.logme(xp.asarray(leaking), codes) == np.inf


def test_logme_of_samples_that_occur_twice_is_infinite_and_says_so(xp):
    X, codes = (np.repeat(each, 2, axis=0) for each in task(10, 40))
    with pytest.warns(TransferscopeWarning, match="samples that occur twice"):
        assert transferability.logme(xp.asarray(X), codes) == np.inf


# H-score ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", [0.3, 2.0])
@pytest.mark.parametrize(("n", "p"), [(40, 6), (20, 20), (20, 50)])
def test_hscore_is_the_explicit_trace(xp, n, p, signal):
    X, codes = task(n, p, classes=4, signal=signal)
    X = X * np.logspace(0, -1, p)
    value = transferability.hscore(xp.asarray(X), codes)
    assert type(value) is float
    assert 0 <= value <= 3
    assert value == pytest.approx(slow_hscore(X, codes), abs=1e-9)


@pytest.mark.parametrize(("n", "p"), [(200, 3), (30, 8), (10, 60)])
def test_shrinkage_is_that_of_ledoit_and_wolf(xp, n, p):
    X = task(n, p)[0] * np.logspace(0, -1, p)
    alpha = ledoit_wolf_alpha(thin_svd(xp.asarray(X)), p)
    assert 0 < alpha <= 1
    assert alpha == pytest.approx(ledoit_wolf_shrinkage(X), abs=1e-12)


def test_hscore_of_one_feature_is_the_between_class_share_of_its_variance(xp):
    X, codes = task(30, 1)
    means = np.array([X[codes == c, 0].mean() for c in codes])
    assert transferability.hscore(xp.asarray(X), codes) == pytest.approx(means.var() / X.var(), abs=1e-12)


def test_hscore_of_features_that_are_the_classes_is_its_bound(xp):
    codes = np.arange(4000) % 4
    value = transferability.hscore(xp.asarray(one_hot(codes)), codes)
    assert 2.99 < value <= 3  # short of it by the shrinkage


@pytest.mark.parametrize(("n", "p"), [(40, 6), (40, 30)])
def test_plain_hscore_is_the_trace_with_the_inverse_covariance(xp, n, p):
    X, codes = task(n, p, classes=4, signal=0.5)
    centred = X - X.mean(axis=0)
    means = np.stack([centred[codes == c].mean(axis=0) for c in codes])
    value = transferability.hscore(xp.asarray(X), codes, shrinkage=False)
    assert value == pytest.approx(np.trace(np.linalg.solve(centred.T @ centred, means.T @ means)), abs=1e-9)
    assert 0 < value < 3
    twice = np.column_stack([X, X[:, :3]])
    assert transferability.hscore(xp.asarray(twice), codes, shrinkage=False) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("p", [29, 30, 200])
def test_plain_hscore_of_as_many_directions_as_samples_is_its_bound_and_says_so(xp, p):
    X = np.random.default_rng(0).normal(size=(30, p))
    with pytest.warns(TransferscopeWarning, match="without shrinkage is 2 for whatever features"):
        value = transferability.hscore(xp.asarray(X), np.arange(30) % 3, shrinkage=False)
    assert value == pytest.approx(2, abs=1e-9)


# Ridge --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [1e-13, 1e-7, 1e-2, 1.0, 1e3])
@pytest.mark.parametrize(("n", "p"), [(20, 3), (12, 11), (12, 12), (10, 40)])
def test_left_out_residuals_are_those_of_refitting(xp, n, p, penalty):
    X, codes = task(n, p)
    T = one_hot(codes)
    residuals = next(leave_one_out(thin_svd(xp.asarray(X)), xp.asarray(T), [penalty]))
    np.testing.assert_allclose(T - to_numpy(residuals), refitted(X, T, penalty), atol=1e-6)


def test_leverage_of_one_divides_nothing_by_zero(xp):
    """The last feature is there in one sample only: left out, it has no weight."""
    X, codes = task(20, 4)
    X = np.column_stack([X, np.arange(20) == 7])
    T = one_hot(codes)
    for penalty in (1e-6, 1.0):
        residuals = next(leave_one_out(thin_svd(xp.asarray(X)), xp.asarray(T), [penalty]))
        np.testing.assert_allclose(T - to_numpy(residuals), refitted(X, T, penalty), atol=1e-6)


@pytest.mark.parametrize(("n", "p"), [(30, 4), (12, 40)])
def test_a_prediction_never_uses_its_own_label(xp, n, p):
    X, codes = task(n, p)
    T = one_hot(codes)
    changed = T.copy()
    changed[5] = [9.0, -3.0, 1.0]
    factors = thin_svd(xp.asarray(X))
    for penalty in (1e-5, 1.0):
        before, after = (to_numpy(next(leave_one_out(factors, xp.asarray(t), [penalty]))) for t in (T, changed))
        np.testing.assert_allclose((T - before)[5], (changed - after)[5], atol=1e-6)
        assert np.abs((T - before) - (changed - after)).max() > 1e-3


@pytest.mark.parametrize(("n", "p", "seed"), [(30, 3, 12), (30, 30, 24), (24, 60, 0)])
def test_ridge_is_the_accuracy_at_the_least_squared_error(xp, n, p, seed):
    """The first two are tasks where another penalty has the greatest accuracy."""
    X, codes = task(n, p, seed=seed, signal=0.7)
    T = one_hot(codes)
    eigenvalues = np.linalg.svd(X - X.mean(axis=0), compute_uv=False) ** 2
    scale = eigenvalues[: min(n - 1, p)].mean()
    predictions = [refitted(X, T, scale * penalty) for penalty in np.logspace(-6, 3, 19)]
    best = min(predictions, key=lambda P: np.sum((P - T) ** 2))
    value = transferability.ridge(xp.asarray(X), codes)
    assert type(value) is float
    assert value == pytest.approx(np.mean(best.argmax(axis=1) == codes), abs=1e-12)


# All three ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(60, 12), (40, 90)])
def test_float32_features_score_like_float64(xp, shape):
    X, codes = task(*shape, signal=0.5)
    wide, narrow = (transferability.panel(xp.asarray(X.astype(t)), codes, SCORES) for t in (np.float64, np.float32))
    assert narrow == pytest.approx(wide, abs=1e-6)


@pytest.mark.parametrize("name", SCORES)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-6, 1e6))
def test_invariances_of_every_score(xp, name, seed, scale):
    X, codes = task(30, 6, seed=seed, signal=0.8)
    rng = np.random.default_rng(seed)
    score = lambda A, c: SCORES[name](xp.asarray(A), c)  # noqa: E731
    value = score(X, codes)
    order, rotation = rng.permutation(30), np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert score(X[order], codes[order]) == pytest.approx(value, abs=1e-9)
    assert score(scale * (X @ rotation), codes) == pytest.approx(value, abs=1e-9)
    assert score(X, 2 - codes) == pytest.approx(value, abs=1e-9)
    if name != "logme":  # LogME sees the features as they are
        assert score(X + rng.normal(size=6), codes) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("name", SCORES)
def test_a_stronger_signal_scores_higher(xp, name):
    weak, strong = (task(80, 10, signal=signal) for signal in (0.1, 1.5))
    assert SCORES[name](xp.asarray(strong[0]), strong[1]) > SCORES[name](xp.asarray(weak[0]), weak[1])


def test_constant_features_carry_nothing(xp):
    codes = np.arange(12) % 3
    scores = transferability.panel(xp.full((12, 4), 0.1), codes, SCORES)
    assert scores["hscore"] == 0
    # Left out, a sample's own class is the rarest: the mean of the others never names it.
    assert scores["ridge"] == 0
    assert np.isfinite(scores["logme"])


# Labels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        [3, 7, 3, -1],
        (True, False, True, False),
        ["b", "c", "b", "a"],
        np.array(["b", "c", "b", "a"], dtype=object),
        np.array(["é", "ü", "é", "a"], dtype=np.dtypes.StringDType()),
        np.array([200, 255, 200, 0], dtype=np.uint8),
    ],
)
def test_labels_of_any_kind_become_codes(labels):
    codes = transferability.encode_labels(labels, 4)
    assert codes.dtype == np.int64
    assert codes.tolist() in ([1, 2, 1, 0], [1, 0, 1, 0])
    assert codes[0] == codes[2] != codes[1]


def test_labels_may_be_an_array_of_the_features_kind(xp):
    assert transferability.encode_labels(xp.asarray([5, 2, 5]), 3).tolist() == [1, 0, 1]


@pytest.mark.parametrize("name", [*SCORES, "panel"])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 0], r"`labels` to have shape \(4,\).*got \(3,\)"),
        ([[0], [1], [0], [1]], r"`labels` to have shape \(4,\)"),
        ([1, 1, 1, 1], "at least 2 classes but got only 1"),
        (["cat"] * 4, "at least 2 classes but got only 'cat'"),
        ([0.0, 1.0, 0.0, 1.0], "integers, booleans or strings but got dtype float64"),
        (np.array(["a", None, "a", "b"], dtype=object), "but got dtype object"),
    ],
)
def test_wrong_labels_raise(name, labels, message):
    with pytest.raises(InputError, match=message):
        getattr(transferability, name)(np.eye(4), labels)


@pytest.mark.parametrize("name", [*SCORES, "panel"])
def test_wrong_features_raise(xp, name):
    score = getattr(transferability, name)
    with pytest.raises(InputError, match="`features` to have shape"):
        score(xp.ones(4), [0, 1, 0, 1])
    with pytest.raises(InputError, match=r"`features`.*NaN"):
        score(xp.full((4, 2), np.nan), [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([0, 2, 2, 0], "2 of 3 occur"),
        ([0, 0, 0, 0], "1 of 1 occur"),
        ([0, -1, 0, 1], "from 0"),
        ([0, 1], "4 integers"),
    ],
)
def test_codes_with_gaps_raise(codes, message):
    with pytest.raises(InputError, match=message):
        coded(np.array(codes), like=np.eye(4))
