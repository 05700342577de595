"""Top-tuning: scikit-learn's checks of an estimator, its kernel ridge and SVM beside ours, and the choice redone."""

import pickle

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from transferscope.arrays.backend import to_numpy
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.protocols.heads import toptuning
from transferscope.protocols.heads.toptuning import (
    BANDWIDTHS,
    PENALTIES,
    NystromKernelRidge,
    TopTuning,
    fit_top_tuning_head,
)

pytestmark = pytest.mark.bounds


def task(n, p=6, classes=3, *, seed=0, signal=1.0):
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.arange(n) % classes)
    X = rng.normal(size=(n, p)) + signal * np.random.default_rng(9).normal(size=(classes, p))[codes]
    X.flags.writeable = codes.flags.writeable = False
    return X, codes


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return train_test_split(X.astype(np.float32), y, test_size=0.5, stratify=y, random_state=0)


@parametrize_with_checks([NystromKernelRidge(), NystromKernelRidge(solver="conjugate_gradient"), TopTuning()])
def test_scikit_learn_takes_it_for_an_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("solver", ["direct", "conjugate_gradient"])
def test_all_samples_as_centers_are_scikit_learns_kernel_ridge(solver):
    X, y = task(80)
    ours = NystromKernelRidge(sigma=2.0, penalty=1e-3, solver=solver, tol=1e-12).fit(X, y)
    theirs = KernelRidge(alpha=1e-3 * len(X), kernel="rbf", gamma=1 / 8).fit(X, np.eye(3)[y])
    Q = task(30, seed=1)[0]
    np.testing.assert_allclose(ours.decision_function(Q), theirs.predict(Q), rtol=0, atol=1e-8)
    np.testing.assert_array_equal(ours.predict(Q), theirs.predict(Q).argmax(axis=1))
    assert ours.solver_ == solver
    assert ours.n_iter_ >= 1


def test_digits_as_well_as_others_do(digits):
    X, Q, y, truth = digits
    svm = SVC(C=10).fit(X, y).score(Q, truth)
    exact = NystromKernelRidge(penalty=1e-5).fit(X, y).score(Q, truth)
    some = NystromKernelRidge(200, penalty=1e-5).fit(X, y).score(Q, truth)
    chosen = TopTuning().fit(X, y)
    assert svm > 0.98
    assert exact > svm - 0.01
    assert some > svm - 0.02
    assert chosen.score(Q, truth) > svm - 0.01
    assert chosen.validation_accuracy_ > 0.97


def test_sigma_is_the_median_distance_of_pairs_that_differ():
    X, y = task(50)
    assert NystromKernelRidge().fit(X, y).sigma_ == pytest.approx(np.median(pdist(X)), rel=1e-12)
    repeated = np.repeat(np.arange(3.0), [10, 2, 1])[:, None] * np.full((1, 7), 0.1) + 0.7
    # 20 pairs at 1, 10 at 2 and 2 at 1, in units of √7 / 10
    sigma = NystromKernelRidge().fit(repeated, np.arange(13) % 2).sigma_
    assert sigma == pytest.approx(0.1 * np.sqrt(7), rel=1e-9)


def test_the_median_of_many_samples_is_that_of_a_part():
    X, y = task(3000)
    sigma = NystromKernelRidge(10).fit(X, y).sigma_
    assert sigma == pytest.approx(np.median(pdist(X)), rel=0.02)
    assert sigma != NystromKernelRidge(10, random_state=1).fit(X, y).sigma_


def test_centers_are_samples_and_no_class_is_without():
    X, _ = task(400)
    y = np.zeros(400, int)
    y[[7, 300]] = 1, 2
    for seed in range(5):
        centers = NystromKernelRidge(5, random_state=seed).fit(X, y).centers_
        rows = [int(np.flatnonzero((center == X).all(axis=1))[0]) for center in centers]
        assert len(set(rows)) == 5
        assert {7, 300} < set(rows)
    assert NystromKernelRidge(2, random_state=0).fit(X, y).centers_.shape == (2, 6)
    np.testing.assert_array_equal(NystromKernelRidge(401).fit(X, y).centers_, X)


def test_centers_are_drawn_in_proportion():
    codes = np.repeat([0, 1], [80, 20])
    drawn = [toptuning._draw_centers(codes, 20, np.random.RandomState(seed)) for seed in range(400)]
    assert np.mean([np.sum(rows < 80) for rows in drawn]) == pytest.approx(16, abs=0.3)
    assert np.bincount(np.concatenate(drawn), minlength=100) == pytest.approx(80, abs=32)  # four standard deviations


@pytest.mark.parametrize("solver", ["direct", "conjugate_gradient"])
def test_every_array_library_predicts_the_same_labels(xp, solver):
    X, codes = task(90)
    names = np.array(["cat", "dog", "eel"])[codes]
    Q = task(40, seed=1)[0]
    expected = NystromKernelRidge(30, solver=solver).fit(X, names)
    model = NystromKernelRidge(30, solver=solver).fit(xp.asarray(X), names)
    assert type(model.centers_) is type(xp.asarray(X))
    for features in (xp.asarray(Q), Q):
        predictions = model.predict(features)
        assert type(predictions) is np.ndarray
        np.testing.assert_array_equal(predictions, expected.predict(Q))
        # Conjugate gradients stop at a residual of 1e-7, each library's at one of its own.
        np.testing.assert_allclose(model.decision_function(features), expected.decision_function(Q), atol=1e-7)
    np.testing.assert_array_equal(expected.predict(xp.asarray(Q)), expected.predict(Q))


def test_top_tuning_takes_every_array_library(xp):
    X, codes = task(60)
    expected, model = TopTuning(20).fit(X, codes), TopTuning(20).fit(xp.asarray(X), xp.asarray(codes))
    assert model.best_params_ == pytest.approx(expected.best_params_)
    np.testing.assert_array_equal(model.predict(xp.asarray(X)), expected.predict(X))


@pytest.mark.parametrize("labels", [[False, True], ["b", "a"], [5, -3], [np.str_("x"), np.str_("y")]])
def test_labels_of_any_kind_come_back(labels):
    X, codes = task(40, classes=2, signal=5.0)
    y = np.array(labels)[codes]
    for model in (NystromKernelRidge(), TopTuning()):
        predictions = model.fit(X, y).predict(X)
        np.testing.assert_array_equal(predictions, y)
        assert predictions.dtype == y.dtype
        assert model.decision_function(X).shape == (40,)


@pytest.mark.parametrize("model", [NystromKernelRidge(), NystromKernelRidge(solver="conjugate_gradient"), TopTuning()])
def test_one_image_of_each_class_is_learnt_by_heart(model):
    X = np.random.default_rng(0).normal(size=(40, 20)).astype(np.float32)
    names = [f"class {i}" for i in range(40)]
    np.testing.assert_array_equal(model.fit(X, names).predict(X), names)


@pytest.mark.parametrize("model", [NystromKernelRidge(), NystromKernelRidge(solver="conjugate_gradient"), TopTuning()])
def test_constant_features_predict_the_most_frequent_class(model):
    X, y = np.full((30, 3), 0.1), np.repeat([0, 1], [10, 20])
    fitted = model.fit(X, y)
    assert np.all(fitted.predict(X) == 1)
    assert np.isinf(fitted.best_params_["sigma"] if isinstance(fitted, TopTuning) else fitted.sigma_)


def test_random_state_decides_and_the_global_one_is_left_alone():
    X, y = task(60)
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    for kind in (NystromKernelRidge, TopTuning):
        one, same, other = (kind(20, random_state=seed).fit(X, y).decision_function(X) for seed in (3, 3, 4))
        np.testing.assert_array_equal(one, same)
        assert np.any(one != other)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("kind", [NystromKernelRidge, TopTuning])
def test_models_survive_pickling(kind):
    X, y = task(40)
    model = kind(10).fit(X, y)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).decision_function(X), model.decision_function(X))


def test_very_many_samples_are_solved_by_gradients(monkeypatch):
    X, y = task(60)
    monkeypatch.setattr(toptuning, "_DIRECT", 59)
    assert NystromKernelRidge().fit(X, y).solver_ == "conjugate_gradient"
    assert NystromKernelRidge().fit(X[:59], y[:59]).solver_ == "direct"


def test_too_few_iterations_are_told():
    X, y = task(60)
    with pytest.warns(TransferscopeWarning, match="stopped after 1 iterations"):
        NystromKernelRidge(20, solver="conjugate_gradient", max_iter=1).fit(X, y)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sigma": 0}, "`sigma` to be positive but got 0.0"),
        ({"sigma": -1.0}, "`sigma` to be positive"),
        ({"sigma": "mean"}, "`sigma` to be a number or 'median' but got 'mean'"),
        ({"penalty": 0.0}, "`penalty` to be positive and finite but got 0.0"),
        ({"penalty": "small"}, "`penalty` to be a number but got 'small'"),
        ({"centers": 0}, "`centers` to be an integer, at least 1, but got 0"),
        ({"centers": 2.5}, "`centers` to be an integer, at least 1, but got 2.5"),
        ({"solver": "magic"}, "`solver` to be 'auto', .* but got 'magic'"),
    ],
)
def test_bad_parameters(parameters, message):
    X, y = task(20)
    with pytest.raises(InputError, match=message):
        NystromKernelRidge(**parameters).fit(X, y)


@pytest.mark.parametrize("kind", [NystromKernelRidge, TopTuning])
def test_bad_data(kind, xp):
    X, y = np.ones((6, 2)), np.arange(6) % 2
    bad = X.copy()
    bad[0, 0] = np.nan
    for features, labels, message in [
        (bad, y, "NaN"),
        (X, y[:5], "inconsistent numbers of samples"),
        (X, np.zeros(6), "at least 2 classes in `y` but got 1 class"),
        (X[:0], y[:0], r"minimum of 1|at least 1"),
        (X[0], y, "1D array|shape"),
        (X, y + 0.5, "Unknown label type"),
    ]:
        with pytest.raises(ValueError, match=message):
            kind().fit(xp.asarray(features), labels)
    model = kind().fit(xp.asarray(X), y)
    with pytest.raises(ValueError, match=r"3 features, but .* is expecting 2 features"):
        model.predict(xp.ones((4, 3)))


def choice(X, y, held_out):
    """The choice by exact kernel ridge of scikit-learn: the best pair, its accuracy."""
    rest, T = np.setdiff1d(np.arange(len(y)), held_out), np.eye(y.max() + 1)[y]
    tried = {}
    for sigma in np.median(pdist(X)) * np.array(BANDWIDTHS):
        for penalty in PENALTIES:
            model = KernelRidge(alpha=penalty * len(rest), kernel="rbf", gamma=1 / (2 * sigma**2))
            values = model.fit(X[rest], T[rest]).predict(X[held_out])
            accuracy = np.mean(values.argmax(axis=1) == y[held_out])
            tried[accuracy, -np.sum((values - T[held_out]) ** 2)] = sigma, penalty
    best = max(tried)
    return *tried[best], best[0]


@pytest.mark.parametrize("signal", [0.3, 1.0])
def test_the_choice_is_that_of_refits_on_the_rest(signal):
    X, y = task(100, signal=signal)
    held_out = np.arange(0, 100, 4)
    sigma, penalty, accuracy = choice(X, y, held_out)
    model = TopTuning(random_state=7).fit(X, y, held_out)
    assert model.best_params_ == pytest.approx({"sigma": sigma, "penalty": penalty, "centers": 2000})
    assert model.validation_accuracy_ == pytest.approx(accuracy)
    assert model.n_trials_ == 21
    exact = KernelRidge(alpha=penalty * len(X), kernel="rbf", gamma=1 / (2 * sigma**2)).fit(X, np.eye(3)[y])
    np.testing.assert_allclose(model.decision_function(X), exact.predict(X), rtol=0, atol=1e-6)
    mask = np.isin(np.arange(100), held_out)
    np.testing.assert_array_equal(
        TopTuning(random_state=7).fit(X, y, mask).decision_function(X), model.decision_function(X)
    )


def test_between_equals_the_larger_penalty_is_chosen():
    """Far from all samples every regression says 0: accuracy and squared error are the same for all penalties."""
    X, y = task(20)
    X = np.concatenate([X, X[:5] + 1e6])
    y = np.concatenate([y, y[:5]])
    model = TopTuning(bandwidths=(1e-5,), penalties=(1e-6, 1e-3, 1e-9)).fit(X, y, np.arange(20, 25))
    assert model.best_params_["penalty"] == 1e-3


def test_samples_are_set_aside_class_by_class():
    X, y = task(100)
    model = TopTuning(validation_share=0.3)
    held_out = model._draw_validation(y, np.random.RandomState(0))
    np.testing.assert_array_equal(np.bincount(y[held_out]), [10, 10, 10])
    assert model.fit(X, y).validation_accuracy_ * 30 == pytest.approx(round(model.validation_accuracy_ * 30))


def test_with_few_samples_nothing_is_chosen():
    X, y = task(14)  # five, five and four of a class
    model = TopTuning().fit(X, y)
    assert model.n_trials_ == 1
    assert model.validation_accuracy_ is None
    np.testing.assert_allclose(model.decision_function(X), NystromKernelRidge().fit(X, y).decision_function(X))
    assert TopTuning().fit(*task(15)).n_trials_ == 21


def test_the_final_fit_is_that_of_its_estimator():
    X, y = task(90)
    model = TopTuning(25).fit(X, y)
    assert (
        model.estimator_.get_params()
        == NystromKernelRidge(**model.best_params_, random_state=model.estimator_.random_state).get_params()
    )
    again = clone(model.estimator_).fit(X, y)
    np.testing.assert_array_equal(again.decision_function(X), model.decision_function(X))


@pytest.mark.parametrize(
    "validation", [[], [20], [-1], [0.5], [[1]], np.arange(20), np.ones(20, bool), np.zeros(20, bool), np.ones(3, bool)]
)
def test_bad_validation(validation):
    X, y = task(20)
    with pytest.raises(InputError, match=r"`validation` to be a boolean mask or indices of some, but not all, of 20"):
        TopTuning().fit(X, y, validation)


def test_empty_grids():
    X, y = task(20)
    with pytest.raises(InputError, match="`bandwidths` and `penalties` to hold at least one"):
        TopTuning(penalties=()).fit(X, y)


def test_the_head_is_top_tuning(xp):
    X, y = task(60)
    Q = task(20, seed=1)[0]
    held_out = np.arange(0, 60, 5)
    head = fit_top_tuning_head(xp.asarray(X), y, held_out, 4)
    predictions, trials, accuracy = head.predict(xp.asarray(Q)), head.trials, head.validation_accuracy
    model = TopTuning(random_state=4).fit(X, y, held_out)
    np.testing.assert_array_equal(predictions, model.predict(Q))
    assert (predictions.dtype, trials, accuracy) == (np.int64, 21, model.validation_accuracy_)
    head = fit_top_tuning_head(xp.asarray(X), y, None, 4)
    predictions, trials, accuracy = head.predict(xp.asarray(Q)), head.trials, head.validation_accuracy
    np.testing.assert_array_equal(predictions, NystromKernelRidge(random_state=4).fit(X, y).predict(Q))
    assert (trials, accuracy) == (1, None)


def test_features_stay_as_they_were():
    X, y = task(40)
    X = X.copy()
    before = X.copy()
    TopTuning(10).fit(X, y).predict(X)
    np.testing.assert_array_equal(X, before)
    assert to_numpy(NystromKernelRidge(10).fit(X, y).centers_).base is not X
