"""GBC, PARC, TransRate and SFDA; and, with N-LEEP, what all scores of features have to do."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from transferscope.errors import InputError
from transferscope.transferability.gbc import gbc
from transferscope.transferability.nleep import nleep
from transferscope.transferability.parc import parc
from transferscope.transferability.sfda import sfda
from transferscope.transferability.transrate import transrate

SCORES = {"gbc": gbc, "parc": parc, "sfda": sfda, "transrate": transrate}
ALL = {**SCORES, "nleep": nleep}


def task(n, p, classes=3, *, seed=0, signal=1.0):
    """Features with a class signal and no two equal variances, read-only, and labels that name every class."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.arange(n) % classes)
    X = (rng.normal(size=(n, p)) + signal * rng.normal(size=(classes, p))[codes]) * np.linspace(1, 0.3, p) + 0.5
    X.flags.writeable = codes.flags.writeable = False
    return X, codes


def components(X, k):
    return PCA(min(k, *X.shape), svd_solver="full").fit_transform(X)[:, : np.linalg.matrix_rank(X - X.mean(axis=0))]


# GBC ----------------------------------------------------------------------------------------------


def slow_gbc(points, codes, spherical=False):
    floor = 1e-6 * points.var(axis=0).max()
    spreads = [points[codes == c] - points[codes == c].mean(axis=0) for c in range(max(codes) + 1)]
    pooled = np.concatenate([spread for spread in spreads if len(spread) > 1]).var(axis=0)
    total = 0.0
    for c in range(max(codes) + 1):
        for other in range(c):
            covariances = []
            for d in (c, other):
                variances = np.maximum(spreads[d].var(axis=0) if len(spreads[d]) > 1 else pooled, floor)
                covariances.append(np.diag(np.full_like(variances, variances.mean()) if spherical else variances))
            S, T = covariances
            gap = points[codes == c].mean(axis=0) - points[codes == other].mean(axis=0)
            volume = [np.linalg.slogdet(covariance)[1] for covariance in ((S + T) / 2, S, T)]
            distance = gap @ np.linalg.solve((S + T) / 2, gap) / 8 + (volume[0] - (volume[1] + volume[2]) / 2) / 2
            total -= np.exp(-distance)
    return total


@pytest.mark.parametrize("covariance", ["diagonal", "spherical"])
@pytest.mark.parametrize(("n", "p", "k"), [(60, 5, 64), (20, 50, 64), (90, 80, 10)])
def test_gbc_is_the_sum_over_pairs(xp, n, p, k, covariance):
    X, codes = task(n, p, 4, signal=0.3)
    value = gbc(xp.asarray(X), codes, covariance=covariance, n_components=k)
    assert type(value) is float
    assert value == pytest.approx(slow_gbc(components(X, k), codes, covariance == "spherical"), abs=1e-9)


def test_gbc_of_a_class_with_one_sample_takes_the_pooled_variance(xp):
    X, codes = task(40, 5, signal=0.3)
    codes = np.where(np.arange(40) == 7, 3, codes)
    assert gbc(xp.asarray(X), codes) == pytest.approx(slow_gbc(components(X, 64), codes), abs=1e-9)


def test_gbc_in_blocks_of_classes(xp, monkeypatch):
    X, codes = task(60, 5, 11, signal=0.3)
    monkeypatch.setattr(sys.modules[gbc.__module__], "_BLOCK", 3 * 11 * 5)
    assert gbc(xp.asarray(X), codes) == pytest.approx(slow_gbc(components(X, 64), codes), abs=1e-9)


def test_gbc_reaches_its_bounds(xp):
    codes = np.arange(30) % 3
    assert gbc(xp.asarray(np.eye(3)[codes]), codes) == pytest.approx(0, abs=1e-100)
    doubled = np.tile(np.random.default_rng(0).normal(size=(5, 4)), (2, 1))
    assert gbc(xp.asarray(doubled), np.arange(10) // 5) == pytest.approx(-1, abs=1e-12)


# PARC ---------------------------------------------------------------------------------------------


def slow_parc(X, codes, k=32):
    points = components(X, k)
    points = points * np.where(points.max(axis=0) >= -points.min(axis=0), 1, -1)
    pairs = np.triu_indices(len(X), 1)
    of_features, of_labels = (1 - np.corrcoef(rows) for rows in (points, np.eye(max(codes) + 1)[codes]))
    return spearmanr(np.round(of_features[pairs], 10), np.round(of_labels[pairs], 10)).statistic


@pytest.mark.parametrize(("n", "p", "classes"), [(40, 6, 3), (30, 100, 2), (50, 60, 20), (20, 2, 3), (5, 9, 2)])
def test_parc_is_the_spearman_correlation_over_pairs(xp, n, p, classes):
    """The fourth has correlations of ±1 only, and so nothing but ties."""
    X, codes = task(n, p, classes, signal=0.5)
    value = parc(xp.asarray(X), codes)
    assert type(value) is float
    assert value == pytest.approx(slow_parc(X, codes), abs=1e-12)


def test_parc_with_repeated_samples_takes_midranks(xp):
    X, codes = task(12, 6, signal=0.5)
    X, codes = np.tile(X, (3, 1)), np.tile(codes, 3)
    assert parc(xp.asarray(X), codes, n_components=4) == pytest.approx(slow_parc(X, codes, 4), abs=1e-12)


def test_parc_in_blocks_of_rows(xp, monkeypatch):
    X, codes = task(50, 6)
    monkeypatch.setattr(sys.modules[parc.__module__], "_ROWS", 7)
    assert parc(xp.asarray(X), codes) == pytest.approx(slow_parc(X, codes), abs=1e-12)


def test_parc_of_one_direction_is_zero(xp):
    codes = np.arange(12) % 3
    assert parc(xp.asarray(np.outer(codes + 0.5, [1.0, 2.0])), codes) == 0
    with pytest.raises(InputError, match="`n_components` to be a whole number of at least 2"):
        parc(xp.asarray(np.eye(12)), codes, n_components=1)


# TransRate ----------------------------------------------------------------------------------------


def slow_transrate(X, codes, epsilon):
    X = X - X.mean(axis=0)
    X = X / np.sqrt((X**2).sum() / len(X))

    def rate(F):
        return np.linalg.slogdet(np.eye(F.shape[1]) + F.T @ F / (len(F) * epsilon))[1] / 2

    return rate(X) - sum(np.mean(codes == c) * rate(X[codes == c]) for c in range(max(codes) + 1))


@pytest.mark.parametrize("epsilon", [1e-4, 1.0, 10.0])
@pytest.mark.parametrize(("n", "p", "classes"), [(60, 5, 3), (20, 50, 3), (40, 15, 20), (8, 4, 8)])
def test_transrate_is_the_difference_of_rates(xp, n, p, classes, epsilon):
    X, codes = task(n, p, classes)
    value = transrate(xp.asarray(X), codes, epsilon=epsilon)
    assert type(value) is float
    assert value >= 0
    assert value == pytest.approx(slow_transrate(X, codes, epsilon), abs=1e-9)


@pytest.mark.parametrize("epsilon", [0, -1.0, np.nan, np.inf])
def test_transrate_needs_a_positive_distortion(epsilon):
    with pytest.raises(InputError, match="`epsilon`"):
        transrate(*task(12, 3), epsilon=epsilon)


# SFDA ---------------------------------------------------------------------------------------------


def slow_sfda(X, codes, k, steepness=5.0):
    """Both rounds by scikit-learn's discriminant analysis with the same shrinkage."""
    points = components(X, k)
    points = points / np.sqrt(points.var(axis=0).sum())
    spread = points - np.stack([points[codes == c].mean(axis=0) for c in codes])
    shrinkage = np.exp(-steepness * np.linalg.eigvalsh(spread.T @ spread / len(X))[-1])
    everyone = np.arange(len(X))
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
    p = model.fit(points, codes).predict_proba(points)[everyone, codes][:, None]
    moved = p * points + (1 - p) * np.stack([points[codes != c].mean(axis=0) for c in codes])
    logits = model.fit(moved, codes).decision_function(moved)
    if logits.ndim == 1:  # of two classes, the second against the first
        logits = np.stack([np.zeros_like(logits), logits], axis=1)
    against = logits - logits[everyone, codes][:, None]
    against[everyone, codes] = -np.inf
    return -np.logaddexp(0, logsumexp(against, axis=1)).mean()


@pytest.mark.parametrize("signal", [0.0, 0.3, 0.6])
@pytest.mark.parametrize(("n", "p", "k", "classes"), [(80, 8, 8, 3), (60, 100, 6, 4), (60, 40, 6, 2)])
def test_sfda_is_two_rounds_of_discriminant_analysis(xp, n, p, k, classes, signal):
    X, codes = task(n, p, classes, signal=signal)
    value = sfda(xp.asarray(X), codes)
    assert type(value) is float
    assert value == pytest.approx(slow_sfda(X, codes, k), abs=1e-9)


def test_sfda_options(xp):
    X, codes = task(50, 8, signal=0.3)
    value = sfda(xp.asarray(X), codes, n_components=7, steepness=0.5)
    assert value == pytest.approx(slow_sfda(X, codes, 7, 0.5), abs=1e-9)
    for options in ({"n_components": 0}, {"steepness": -1.0}, {"steepness": np.nan}):
        with pytest.raises(InputError, match=next(iter(options))):
            sfda(X, codes, **options)


@pytest.mark.parametrize("signal", [9.0, 12.0])
def test_sfda_tells_apart_what_is_nearly_certain(xp, signal):
    """Likelihoods nearer to 1 than float64 can say."""
    X, codes = task(100, 6, signal=signal)
    value = sfda(xp.asarray(X), codes)
    assert -1e-16 < value < 0
    assert value == pytest.approx(slow_sfda(X, codes, 6), rel=1e-6)


# All of them --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCORES)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-6, 1e6))
def test_invariances(xp, name, seed, scale):
    X, codes = task(40, 6, seed=seed, signal=0.8)
    rng = np.random.default_rng(seed)
    value = SCORES[name](xp.asarray(X), codes)
    order, rotation = rng.permutation(40), np.linalg.qr(rng.normal(size=(6, 6)))[0]
    mapped = scale * (X[order] @ rotation + rng.normal(size=6))
    assert SCORES[name](xp.asarray(mapped), np.array(["b", "c", "a"])[codes[order]]) == pytest.approx(value, abs=1e-8)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("shape", [(60, 12), (40, 90)])
def test_float32_features_score_like_float64(xp, name, shape):
    X, codes = task(*shape, signal=0.3)
    wide, narrow = (SCORES[name](xp.asarray(X.astype(dtype)), codes) for dtype in (np.float64, np.float32))
    assert narrow == pytest.approx(wide, abs=1e-5)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("n", "classes"), [(200, 4), (200, 40)])
def test_noise_never_beats_what_is_informative(name, n, classes):
    for ratio in (0.05, 0.3, 1, 4, 20):
        p = int(n / ratio)
        rng = np.random.default_rng(0)
        codes = rng.permutation(np.arange(n) % classes)
        noise, means = rng.normal(size=(n, p)), rng.normal(size=(classes, p))[codes]
        worse, better = (ALL[name](noise + signal * means, codes) for signal in (0, 1))
        assert worse < better, ratio


@pytest.mark.parametrize("name", ALL)
def test_wide_noise_does_not_beat_narrow_features_that_inform(name):
    """As layers of one network have to be compared: here 4000 directions of nothing against 8 of something."""
    rng = np.random.default_rng(0)
    codes = np.arange(200) % 4
    informative = rng.normal(size=(200, 8)) + rng.normal(size=(4, 8))[codes]
    assert ALL[name](rng.normal(size=(200, 4000)), codes) < ALL[name](informative, codes)


@pytest.mark.parametrize(
    ("name", "value"), [("gbc", -3), ("parc", 0), ("transrate", 0), ("sfda", -1.0397207708399179), ("nleep", None)]
)
def test_constant_features_carry_nothing(xp, name, value):
    codes = np.array([0, 0, 1, 2] * 5)
    value = -1.0397207708399179 if value is None else value  # minus the entropy of the labels, -3/2 ln 2
    assert ALL[name](xp.full((20, 4), 0.1), codes) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_features_that_are_the_classes_score_highest(xp, name):
    """Nothing varies within a class: no division by zero, and better than features that also hold noise."""
    X, codes = task(40, 6, signal=0.5)
    pure = ALL[name](xp.asarray(np.eye(3)[codes]), codes)
    assert np.isfinite(pure)
    assert pure > ALL[name](xp.asarray(X), codes)


@pytest.mark.parametrize("name", ALL)
def test_a_class_with_one_sample_is_no_obstacle(xp, name):
    X, codes = task(40, 6)
    assert np.isfinite(ALL[name](xp.asarray(X), np.where(np.arange(40) == 7, 3, codes)))


@pytest.mark.parametrize("name", ALL)
def test_nothing_but_classes_with_one_sample(xp, name):
    X = xp.asarray(task(6, 4)[0])
    if name in ("gbc", "parc", "sfda"):
        with pytest.raises(InputError, match=r"at least 2 samples but all 6 classes have one.*coarser classes"):
            ALL[name](X, np.arange(6))
    else:
        assert np.isfinite(ALL[name](X, np.arange(6)))


@pytest.mark.parametrize("name", ALL)
def test_five_samples_in_many_dimensions(xp, name):
    X, _ = task(5, 3000)
    assert np.isfinite(ALL[name](xp.asarray(X), [True, False, True, False, True]))


@pytest.mark.parametrize("name", ALL)
def test_a_thousand_classes(name):
    X, codes = task(2000, 24, 1000, signal=3.0)
    noise = task(2000, 24, 1000, signal=0.0)[0]
    assert ALL[name](X, codes) > ALL[name](noise, codes)


@pytest.mark.parametrize("name", ALL)
def test_wrong_input_raises(xp, name):
    score = ALL[name]
    with pytest.raises(InputError, match="`features` to have shape"):
        score(xp.ones(4), [0, 1, 0, 1])
    with pytest.raises(InputError, match=r"`features`.*NaN"):
        score(xp.full((4, 2), np.nan), [0, 1, 0, 1])
    with pytest.raises(InputError, match=r"`labels` to have shape \(4,\)"):
        score(xp.ones((4, 2)), [0, 1, 0])
    with pytest.raises(InputError, match="at least 2 classes"):
        score(xp.ones((4, 2)), [1, 1, 1, 1])


@pytest.mark.parametrize(("options", "message"), [({"covariance": "full"}, "full"), ({"n_components": 0}, "got 0")])
def test_wrong_options_of_gbc_raise(options, message):
    with pytest.raises(InputError, match=message):
        gbc(*task(12, 3), **options)
