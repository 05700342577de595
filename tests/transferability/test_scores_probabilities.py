"""LEEP, NCE and N-LEEP."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.metrics import mutual_info_score
from sklearn.mixture import GaussianMixture

from transferscope.errors import InputError
from transferscope.transferability.layer import Layer
from transferscope.transferability.leep import leep, nce
from transferscope.transferability.nleep import nleep
from transferscope.transferability.principal import principal_components


def task(n, source_classes=7, classes=3, *, seed=0, sharpness=2.0):
    """Source probabilities that know something of the labels, read-only, and labels that name every class."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.arange(n) % classes)
    logits = rng.normal(size=(n, source_classes)) + sharpness * rng.normal(size=(classes, source_classes))[codes]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probabilities.flags.writeable = codes.flags.writeable = False
    return probabilities, codes


def entropy(codes):
    shares = np.unique(codes, return_counts=True)[1] / len(codes)
    return -np.sum(shares * np.log(shares))


def slow_leep(probabilities, codes):
    n, source_classes = probabilities.shape
    joint = np.zeros((max(codes) + 1, source_classes))
    for theta, y in zip(probabilities, codes, strict=True):
        joint[y] += theta / n
    total = 0.0
    for theta, y in zip(probabilities, codes, strict=True):
        total += np.log(sum(joint[y, z] / joint[:, z].sum() * theta[z] for z in range(source_classes) if theta[z]))
    return total / n


# LEEP ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "source_classes", "classes"), [(40, 7, 3), (9, 50, 4), (30, 1, 5)])
def test_leep_is_the_mean_log_of_the_expected_prediction(xp, n, source_classes, classes):
    probabilities, codes = task(n, source_classes, classes)
    value = leep(xp.asarray(probabilities), codes)
    assert type(value) is float
    assert value == pytest.approx(slow_leep(probabilities, codes), abs=1e-12)
    assert value <= 0


def test_source_classes_without_mass_change_nothing(xp):
    probabilities, codes = task(30)
    padded = np.insert(probabilities, [0, 3], 0.0, axis=1)
    assert leep(xp.asarray(padded), codes) == pytest.approx(slow_leep(probabilities, codes), abs=1e-12)


def test_leep_reaches_its_bounds(xp):
    codes = np.arange(12) % 3
    assert leep(xp.asarray(np.eye(3)[codes]), codes) == 0
    assert leep(xp.full((12, 4), 0.25), codes) == pytest.approx(-np.log(3), abs=1e-12)
    # One source class for all, and as many target classes as samples.
    assert leep(xp.ones((12, 1)), np.arange(12)) == pytest.approx(-np.log(12), abs=1e-12)


def test_hard_predictions_give_nce(xp):
    """With one-hot probabilities the expected prediction is the empirical conditional probability."""
    probabilities, codes = task(50)
    predicted = probabilities.argmax(axis=1)
    hard = xp.asarray(np.eye(7)[predicted])
    expected = mutual_info_score(codes, predicted) - entropy(codes)
    assert leep(hard, codes) == pytest.approx(expected, abs=1e-12)
    assert nce(hard, codes) == pytest.approx(expected, abs=1e-12)


@given(seed=st.integers(0, 2**32 - 1))
def test_leep_and_nce_know_neither_order_nor_names(xp, seed):
    probabilities, codes = task(30, seed=seed)
    rng = np.random.default_rng(seed)
    order, columns, names = rng.permutation(30), rng.permutation(7), rng.permutation(["a", "b", "c"])
    for score in (leep, nce):
        value = score(xp.asarray(probabilities), codes)
        assert score(xp.asarray(probabilities[order][:, columns]), names[codes[order]]) == pytest.approx(value)


def test_half_precision_softmax_is_taken_for_probabilities():
    probabilities, codes = task(40, 1000)
    assert leep(probabilities.astype(np.float16), codes) == pytest.approx(leep(probabilities, codes), abs=1e-3)


# NCE ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "source_classes", "classes"), [(60, 7, 3), (9, 50, 4)])
def test_nce_is_minus_the_conditional_entropy(xp, n, source_classes, classes):
    probabilities, codes = task(n, source_classes, classes)
    predicted = probabilities.argmax(axis=1)
    expected = mutual_info_score(codes, predicted) - entropy(codes)
    for source in (probabilities, predicted, predicted * 1000 - 5):
        value = nce(xp.asarray(source), codes)
        assert type(value) is float
        assert value == pytest.approx(expected, abs=1e-12)


def test_nce_reaches_its_bounds(xp):
    codes = np.arange(12) % 3
    assert nce(xp.asarray(codes), codes) == 0
    assert nce(xp.arange(12), codes) == 0
    assert nce(xp.zeros(12, dtype=xp.int64), codes) == pytest.approx(-np.log(3), abs=1e-12)


@pytest.mark.parametrize("score", [leep, nce])
def test_a_thousand_classes_with_one_sample_each(score):
    probabilities, codes = task(1000, 20, 1000)
    assert -np.log(1000) <= score(probabilities, codes) < 0


# Input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", [leep, nce])
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.array([[2.0, -1.0], [0.5, 3.0], [1.0, 1.0]]), r"from -1 to 3 and row sums from 1 to 3.5.*apply softmax"),
        (np.array([[0.5, 0.4], [0.5, 0.5], [1.0, 0.0]]), r"row sums from 0.9 to 1; if these are logits"),
        (np.log(np.full((3, 2), 0.5)), "apply softmax"),
        (np.array([[0.5, np.nan], [0.5, 0.5], [1.0, 0.0]]), "`source_probabilities`.*1 NaN"),
        (np.array([0.5, 0.5, 1.0]), "`source_probabilities` to have shape"),
        (np.array([[1.0]]), "at least 2 samples"),
    ],
)
def test_what_is_no_probability_raises(score, source, message):
    with pytest.raises(InputError, match=message):
        score(source, [0, 1, 0])


@pytest.mark.parametrize("score", [leep, nce, nleep])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 0], r"`labels` to have shape \(4,\)"),
        (["cat"] * 4, "at least 2 classes but got only 'cat'"),
        ([0.0, 1.0, 0.0, 1.0], "integers, booleans or strings"),
    ],
)
def test_wrong_labels_raise(score, labels, message):
    with pytest.raises(InputError, match=message):
        score(np.eye(4), labels)


# N-LEEP -------------------------------------------------------------------------------------------


def blobs(n, p, classes=3, *, seed=0, signal=1.0):
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.arange(n) % classes)
    X = (rng.normal(size=(n, p)) + signal * rng.normal(size=(classes, p))[codes]) * np.linspace(1, 0.3, p) + 5
    X.flags.writeable = codes.flags.writeable = False
    return X, codes


def oriented(points):
    return points * np.where(points.max(axis=0) >= -points.min(axis=0), 1, -1)


@pytest.mark.parametrize(("n", "p", "gaussians"), [(200, 6, 15), (40, 100, 8), (9, 3, 2)])
def test_nleep_is_leep_of_the_posteriors_of_a_mixture(xp, n, p, gaussians):
    X, codes = blobs(n, p)
    points = oriented(PCA(0.8, svd_solver="full").fit_transform(X))
    order = np.argsort(points[:, 0])
    points = points[order] / np.sqrt((points**2).mean())
    mixture = GaussianMixture(gaussians, covariance_type="diag", reg_covar=1e-3, random_state=3)
    expected = slow_leep(mixture.fit(points).predict_proba(points), codes[order])
    value = nleep(xp.asarray(X), codes, seed=3)
    assert type(value) is float
    assert value == pytest.approx(expected, abs=1e-6)


def test_principal_components_are_those_of_scikit_learn(xp):
    X, _ = blobs(30, 50)
    points = principal_components(Layer(xp.asarray(X)), 8)
    np.testing.assert_allclose(np.asarray(points), oriented(PCA(8, svd_solver="full").fit_transform(X)), atol=1e-9)


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-6, 1e6))
def test_nleep_invariances(xp, seed, scale):
    X, codes = blobs(60, 6, seed=seed)
    rng = np.random.default_rng(seed)
    value = nleep(xp.asarray(X), codes)
    order, rotation = rng.permutation(60), np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert nleep(xp.asarray(X[order]), 2 - codes[order]) == pytest.approx(value, abs=1e-6)
    assert nleep(xp.asarray(scale * (X @ rotation + rng.normal(size=6))), codes) == pytest.approx(value, abs=1e-6)


def test_nleep_depends_on_the_seed_alone():
    X, codes = blobs(60, 6)
    assert nleep(X, codes, seed=1) == nleep(X, codes, seed=1) != nleep(X, codes, seed=2)
    np.random.seed(0)  # noqa: NPY002
    first = nleep(X, codes)
    np.random.seed(1)  # noqa: NPY002
    assert nleep(X, codes) == first
    for seed in (-1, 2**32, None, 0.5):
        with pytest.raises(InputError, match="`seed`"):
            nleep(X, codes, seed=seed)


def test_nleep_of_few_distinct_samples_is_quiet(xp):
    """More Gaussians than distinct samples make k-means warn; the answer is that of two source classes."""
    codes = np.arange(60) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = nleep(xp.asarray(np.eye(3)[np.minimum(codes, 1)]), codes)
    assert value == pytest.approx(-2 / 3 * np.log(2), abs=1e-6)


def test_nleep_bounds(xp):
    codes = np.arange(12) % 3
    assert nleep(xp.full((12, 4), 0.1), codes) == pytest.approx(-np.log(3), abs=1e-12)
    X, codes = blobs(300, 4, signal=100.0)
    assert nleep(xp.asarray(X), codes) == pytest.approx(0, abs=1e-9)
    X, codes = blobs(5, 2000, 5)
    assert -np.log(5) <= nleep(xp.asarray(X), codes) <= 0
