"""Heads on frozen features: what they compute, what the validation rows may decide, and what they refuse."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from transferscope.errors import InputError, TransferscopeWarning
from transferscope.protocols.heads import linear
from transferscope.protocols.heads.linear import PENALTIES, LinearHead, fit_head, linear_svm, rotated, statistics

pytestmark = pytest.mark.bounds

HEADS = ["truncate", "svm", "nearest_mean"]


def clusters(n=60, features=8, classes=3, spread=1.0, seed=0, dtype=np.float32):
    """Return features around a mean for every class, and the labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    means = np.random.default_rng(99).normal(0, 1.5, (classes, features))
    return (means[labels] + spread * rng.normal(size=(n, features))).astype(dtype), labels


def z_scored(train, test):
    """Return both z-scored by scikit-learn, with the statistics of `train`."""
    scaler = StandardScaler().fit(train.astype(np.float64))
    return scaler.transform(train.astype(np.float64)), scaler.transform(test.astype(np.float64))


# --- what is computed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(60, 8), (30, 200)])
def test_truncate_is_logistic_regression_on_z_scored_features(shape):
    train, labels = clusters(*shape, spread=3)
    test, _ = clusters(400, shape[1], spread=3, seed=1)
    a, b = z_scored(train, test)
    reference = LogisticRegression(C=0.1, tol=1e-9, max_iter=5000).fit(a, labels).predict(b)
    fit = fit_head("truncate", train, labels, None, 0)
    predictions = fit.predict(test)
    np.testing.assert_array_equal(predictions, reference)
    assert (fit.trials, fit.validation_accuracy) == (1, None)
    assert predictions.dtype == np.int64


@pytest.mark.parametrize("shape", [(60, 8), (30, 200)])
def test_svm_is_a_linear_svm_on_z_scored_features(shape):
    train, labels = clusters(*shape, spread=2)
    test, _ = clusters(400, shape[1], spread=2, seed=1)
    a, b = z_scored(train, test)
    scores = LinearSVC(C=0.01, dual=False, tol=1e-9, max_iter=5000).fit(a, labels).decision_function(b)
    predictions = fit_head("svm", train, labels, None, 0).predict(test)
    # The loose tolerance may show where two classes are about as likely.
    ranked = np.sort(scores, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] > 0.02
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(predictions[clear], scores.argmax(axis=1)[clear])


def test_nearest_mean_is_scikit_learns():
    train, labels = clusters(spread=3)
    test, _ = clusters(400, spread=3, seed=1)
    fit = fit_head("nearest_mean", train, labels, None, 0)
    np.testing.assert_array_equal(fit.predict(test), NearestCentroid().fit(train, labels).predict(test))
    assert (fit.trials, fit.validation_accuracy) == (1, None)


def test_nearest_mean_tells_classes_apart_far_from_the_origin():
    train, labels = clusters(spread=0.1, dtype=np.float64)
    for features in (train, train + 1e6):
        predictions = fit_head("nearest_mean", features, labels, None, 0).predict(features)
        np.testing.assert_array_equal(predictions, labels)


def test_the_rotation_keeps_inner_products_and_linear_models():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(20, 300)), rng.normal(size=(50, 300))
    labels = np.arange(20) % 4
    a, rotate = rotated(train)
    b = rotate(test)
    assert (a.shape, b.shape) == ((20, 20), (50, 20))
    np.testing.assert_allclose(a @ a.T, train @ train.T, atol=1e-10)
    np.testing.assert_allclose(b @ a.T, test @ train.T, atol=1e-10)
    logistic = LogisticRegression(C=0.1, tol=1e-10, max_iter=5000)
    np.testing.assert_allclose(
        logistic.fit(a, labels).decision_function(b), logistic.fit(train, labels).decision_function(test), atol=1e-6
    )
    # The dual solver sees inner products alone: the same steps, not only the same optimum.
    np.testing.assert_allclose(
        linear_svm(0.01, 0).fit(a, labels).decision_function(b),
        linear_svm(0.01, 0).fit(train, labels).decision_function(test),
        atol=1e-10,
    )


def test_the_rotation_leaves_few_features_and_takes_features_that_depend_on_each_other():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(9, 9)), rng.normal(size=(2, 9))
    kept, leave = rotated(train)
    assert kept is train
    assert leave(test) is test
    doubled, once = np.tile(train[:4], 2), np.tile(test, 2)
    a, rotate = rotated(doubled)
    np.testing.assert_allclose(rotate(once) @ a.T, once @ doubled.T, atol=1e-12)


# --- features that do not vary -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["truncate", "svm"])
def test_a_feature_that_is_constant_in_training_changes_nothing(name):
    train, labels = clusters()
    test, _ = clusters(100, seed=1)
    constant, wild = np.full((60, 1), 0.1, np.float32), np.linspace(-1e6, 1e6, 100, dtype=np.float32)[:, None]
    with_constant = fit_head(name, np.hstack([train, constant]), labels, None, 0).predict(np.hstack([test, wild]))
    np.testing.assert_array_equal(with_constant, fit_head(name, train, labels, None, 0).predict(test))


def test_statistics_are_those_of_the_column_and_rounding_is_no_variation():
    values = np.array([[0.1, 1, 5], [0.1, 2, 5], [0.1, 6, 5]], dtype=np.float32)
    values[0, 2] = np.nextafter(np.float32(5), np.float32(6))
    mean, deviation = statistics(values)
    np.testing.assert_allclose(mean, [0.1, 3, 5], rtol=1e-6)
    np.testing.assert_allclose(deviation, [np.inf, np.sqrt(14 / 3), np.inf])
    # In double precision the same difference is one.
    assert np.isfinite(statistics(values.astype(np.float64))[1][2])


@pytest.mark.parametrize("name", HEADS)
def test_features_that_carry_nothing_still_give_a_class(name):
    labels = np.arange(12) % 3
    fit = fit_head(name, np.ones((12, 4)), labels, np.arange(3), 0)
    assert set(fit.predict(np.ones((5, 4)))) <= {0, 1, 2}


# --- classes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HEADS)
def test_a_class_without_training_images_is_never_predicted(name):
    train, labels = clusters(60, classes=5)
    test, truth = clusters(200, classes=5, seed=1)
    kept = (labels == 1) | (labels == 4)
    predictions = fit_head(name, train[kept], labels[kept], None, 0).predict(test)
    assert set(predictions) == {1, 4}
    seen = (truth == 1) | (truth == 4)
    assert np.mean(predictions[seen] == truth[seen]) > 0.95


@pytest.mark.parametrize("name", HEADS)
def test_one_image_of_each_class_is_enough(name):
    train, labels = clusters(4, 50, classes=4, spread=0.3)
    test, truth = clusters(80, 50, classes=4, spread=0.3, seed=1)
    assert np.mean(fit_head(name, train, labels, None, 0).predict(test) == truth) > 0.95


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_class_with_validation_images_alone_counts_as_missed(name, classes):
    train, labels = clusters(40, classes=classes, spread=0.1)
    labels[:10] = 7
    fit = fit_head(name, train, labels, np.arange(20), 0)
    assert fit.validation_accuracy == 0.5


# --- validation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(60, 8), (40, 200)])
def test_the_penalty_is_chosen_by_accuracy_then_by_loss(shape):
    train, labels = clusters(*shape, spread=3)
    test, _ = clusters(300, shape[1], spread=3, seed=1)
    held = np.arange(shape[0]) % 4 == 0
    a, b = z_scored(train[~held], train[held])
    trials = []
    for penalty in PENALTIES["truncate"]:
        model = LogisticRegression(C=penalty, tol=1e-8, max_iter=5000).fit(a, labels[~held])
        loss = log_loss(labels[held], model.predict_proba(b), labels=model.classes_)
        trials.append((model.score(b, labels[held]), -loss, penalty))
    accuracy, _, best = max(trials)
    whole, outside = z_scored(train, test)
    reference = LogisticRegression(C=best, tol=1e-8, max_iter=5000).fit(whole, labels).predict(outside)
    fit = fit_head("truncate", train, labels, np.flatnonzero(held), 0)
    assert (fit.trials, fit.validation_accuracy) == (len(trials), accuracy)
    np.testing.assert_array_equal(fit.predict(test), reference)


def test_the_losses_are_those_of_their_definition():
    train, labels = clusters(40, classes=3, spread=2)
    held, truth = clusters(20, classes=3, spread=2, seed=1)
    logistic = LinearHead(LogisticRegression(), train, labels)
    assert logistic.loss(held, truth) == pytest.approx(log_loss(truth, logistic.model.predict_proba(held)))
    for classes in (2, 3):
        rows, others = labels < classes, truth < classes
        svm = LinearHead(linear_svm(0.1, 0), train[rows], labels[rows])
        expected = 0.0
        for features, own in zip(held[others], truth[others], strict=True):
            margins = svm.model.decision_function(features[None])[0]
            for label, margin in enumerate([-margins, margins] if classes == 2 else margins):
                expected += max(0.0, 1 - (margin if label == own else -margin)) / others.sum()
        assert svm.loss(held[others], truth[others]) == pytest.approx(expected)


@pytest.mark.parametrize("name", HEADS)
def test_validation_rows_are_in_the_final_fit_and_a_mask_says_the_same_as_numbers(name):
    train, labels = clusters(60, spread=0.1)
    held = np.flatnonzero(labels == 2)[:19]
    test, truth = clusters(90, spread=0.1, seed=1)
    few = np.ones(60, bool)
    few[held] = False
    fit = fit_head(name, train, labels, held, 0)
    masked = fit_head(name, train, labels, ~few, 0)
    np.testing.assert_array_equal(fit.predict(test), masked.predict(test))
    assert fit.validation_accuracy == masked.validation_accuracy
    assert np.mean(fit.predict(test) == truth) == 1
    moved = train.copy()
    moved[held] += 100
    assert np.mean(fit_head(name, moved, labels, held, 0).predict(test) == truth) < 1


@pytest.mark.parametrize("name", HEADS)
def test_test_images_do_not_influence_each_other(name):
    train, labels = clusters(60, spread=3)
    test, _ = clusters(50, spread=3, seed=1)
    fit = fit_head(name, train, labels, np.arange(0, 60, 5), 0)
    whole = fit.predict(test)
    beside_outliers = fit.predict(np.vstack([test[:10], 1e6 * test[10:]]))
    np.testing.assert_array_equal(beside_outliers[:10], whole[:10])
    np.testing.assert_array_equal(np.concatenate([fit.predict(row[None]) for row in test]), whole)


@pytest.mark.parametrize("name", HEADS)
def test_a_fit_repeats_and_leaves_its_input_and_the_random_state_alone(name):
    train, labels = clusters(40, 100, spread=5)
    test, _ = clusters(100, 100, spread=5, seed=1)
    before = train.copy(), test.copy()
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    one, two = (fit_head(name, train, labels, np.arange(0, 40, 4), 3) for _ in range(2))
    np.testing.assert_array_equal(one.predict(test), two.predict(test))
    assert one.validation_accuracy == two.validation_accuracy
    np.testing.assert_array_equal(before[0], train)
    np.testing.assert_array_equal(before[1], test)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@pytest.mark.parametrize(("name", "least"), [("truncate", 0.9), ("svm", 0.89), ("nearest_mean", 0.83)])
def test_digits_are_read(name, least):
    pixels, labels = load_digits(return_X_y=True)
    fit = fit_head(name, pixels[:900], labels[:900], np.arange(0, 900, 6), 0)
    assert np.mean(fit.predict(pixels[900:]) == labels[900:]) > least
    assert fit.validation_accuracy > least


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_solver_that_stops_early_is_said_once_in_our_words(monkeypatch):
    def impatient(penalty, seed):
        return LinearSVC(C=penalty, dual=True, tol=1e-9, max_iter=1, random_state=seed)

    monkeypatch.setattr(linear, "linear_svm", impatient)
    train, labels = clusters(spread=5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = fit_head("svm", train, labels, np.arange(0, 60, 5), 0)
    assert [warning.category for warning in caught] == [TransferscopeWarning]
    assert "LinearSVC has not converged in 1 iterations" in str(caught[0].message)
    assert len(fit.predict(train)) == 60


def test_an_unknown_head_is_an_input_error():
    with pytest.raises(InputError, match="Expected a head of truncate, svm, nearest_mean, but got 'ridge'"):
        fit_head("ridge", np.eye(4), np.arange(4), None, 0)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_an_input_error(name, bad):
    train, labels = clusters()
    broken = train.copy()
    broken[3, 1] = bad
    with pytest.raises(InputError, match="`features`"):
        fit_head(name, broken, labels, None, 0)
    fit = fit_head(name, train, labels, None, 0)
    with pytest.raises(InputError, match="`test_features`"):
        fit.predict(broken)


def test_features_of_another_layer_are_an_input_error():
    train, labels = clusters()
    fit = fit_head("svm", train, labels, None, 0)
    with pytest.raises(InputError, match="`test_features` to have the 8 columns of `features`, but got 7"):
        fit.predict(train[:, :7])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(60, int), "name at least 2 classes, but got only 0"),
        (np.arange(59), r"60 whole numbers, .* shape \(59,\)"),
        (np.linspace(0, 1, 60), "whole numbers.* but got float64"),
    ],
)
def test_labels_that_are_none_are_an_input_error(labels, message):
    with pytest.raises(InputError, match=message):
        fit_head("svm", clusters()[0], labels, None, 0)


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (np.array([60]), r"row numbers below 60 or a mask \(60,\)"),
        (np.array([-1]), "row numbers below 60"),
        (np.array([0.5]), "but got float64"),
        (np.zeros(59, bool), r"but got bool of shape \(59,\)"),
        (np.zeros(60, bool), "set some rows aside .* takes 0 of 60"),
        (np.arange(59), "leave 2 classes to fit to, but it takes 59 of 60; pass None"),
    ],
)
def test_validation_rows_that_cannot_be_set_aside_are_an_input_error(validation, message):
    train, labels = clusters()
    with pytest.raises(InputError, match=message):
        fit_head("svm", train, labels, validation, 0)
