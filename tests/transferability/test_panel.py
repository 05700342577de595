"""The panel of a source: which scores, and standard errors against the spread over samples that were really drawn."""

import numpy as np
import pytest

from transferscope import transferability
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.transferability import SCORES, Layer
from transferscope.transferability import standard_errors as errors_module
from transferscope.transferability.panel import score_source
from transferscope.transferability.scores import ACCURACIES, DEFAULT_SCORES, NEEDED, choose_scores
from transferscope.transferability.standard_errors import standard_errors


def samples(seed, n=80, width=12, classes=4, dtype=np.float64):
    """Gaussian classes around means that do not depend on the seed."""
    means = np.random.default_rng(99).normal(size=(classes, width))
    labels = np.arange(n) % classes
    return (means[labels] + np.random.default_rng(seed).normal(size=(n, width))).astype(dtype), labels


def probabilities_of(X):
    e = np.exp(X[:, :5])
    return e / e.sum(axis=1, keepdims=True)


def test_names_are_chosen_in_the_order_of_the_registry():
    assert choose_scores("default") == tuple(name for name in SCORES if name in DEFAULT_SCORES)
    assert choose_scores("all") == tuple(SCORES)
    assert choose_scores(["nce", "logme", "nce"]) == tuple(name for name in SCORES if name in (*NEEDED, "nce"))
    assert set(choose_scores([])) == set(NEEDED)
    assert choose_scores(["default", "parc"]) == tuple(name for name in SCORES if name in (*DEFAULT_SCORES, "parc"))
    with pytest.raises(InputError, match=r"'hscor'.*did you mean 'hscore'"):
        choose_scores("hscor")


def test_accuracies_are_the_four_leave_one_out_ones():
    assert ACCURACIES == ("knn", "nearest_mean", "ridge", "kernel_ridge")


def test_a_source_is_scored_as_each_function_does_alone(xp):
    X, labels = samples(0)
    own = probabilities_of(X)
    found = score_source([Layer(xp.asarray(X)), Layer(xp.asarray(X[:, :3]))], xp.asarray(own), labels, tuple(SCORES))
    for name in SCORES:
        function = getattr(transferability, name)
        if name in ("leep", "nce"):
            assert found[name].shape == ()
            assert found[name] == pytest.approx(function(own, labels))
        else:
            assert found[name] == pytest.approx([function(X, labels), function(X[:, :3], labels)], abs=1e-8)


def test_ridge_gets_right_what_a_regression_without_the_image_gets_right():
    X, labels = samples(3, n=24, width=30)
    X = X + np.random.default_rng(4).normal(0, 2, X.shape)
    share = score_source([Layer(X)], None, labels, ("ridge",))["ridge"][0]
    centred = X - X.mean(axis=0)
    eigenvalues = np.linalg.svd(centred, compute_uv=False) ** 2
    scale = eigenvalues[eigenvalues > 1e-9].mean()
    Y = np.eye(4)[labels]

    def left_out(penalty):
        rows = []
        for i in range(24):
            kept = np.arange(24) != i
            mean, target = X[kept].mean(axis=0), Y[kept].mean(axis=0)
            A, B = X[kept] - mean, Y[kept] - target
            rows.append((X[i] - mean) @ np.linalg.solve(A.T @ A + penalty * np.eye(30), A.T @ B) + target)
        return np.array(rows)

    predictions = min((left_out(scale * p) for p in np.logspace(-6, 3, 19)), key=lambda P: np.sum((P - Y) ** 2))
    assert 0 < share < 1
    assert share == pytest.approx((predictions.argmax(axis=1) == labels).mean())


def test_without_probabilities_their_scores_are_nan_and_layers_are_not_touched():
    def untouched():
        raise AssertionError("a layer was asked for")
        yield

    found = score_source(untouched(), None, np.array([0, 1, 0, 1]), ("leep", "nce"))
    assert all(np.isnan(value) for value in found.values())


def test_standard_errors_are_near_the_true_spread():
    names = ("logme", "hscore", "parc", "alignment", "leep", "knn", "nearest_mean", "ridge")
    drawn = []
    for seed in range(60):
        X, labels = samples(seed)
        drawn.append(score_source([Layer(X)], probabilities_of(X), labels, names))
    errors = []
    for seed in range(6):
        X, labels = samples(seed)
        errors.append(standard_errors(drawn[seed], {"a": X}, probabilities_of(X), labels, names, draws=12, seed=seed))
    for name in names:
        truth = np.std([float(values[name].item()) for values in drawn], ddof=1)
        estimate = np.mean([float(each[name].item()) for each in errors])
        assert 0.7 < estimate / truth < 1.6, (name, estimate, truth)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_standard_errors_run_where_the_features_are(xp, dtype):
    X, labels = samples(1, dtype=dtype)
    names = ("logme", "ridge", "leep")
    results = []
    for space in (np, xp):
        array, own = space.asarray(X), space.asarray(probabilities_of(X))
        scores = score_source([Layer(array), Layer(array)], own, labels, names)
        results.append(standard_errors(scores, {"a": array, "b": array}, own, labels, names, draws=3, seed=0))
    assert {name: errors.shape for name, errors in results[1].items()} == {"logme": (2,), "ridge": (2,), "leep": ()}
    for name in names:
        np.testing.assert_allclose(results[1][name], results[0][name], rtol=1e-5)


def test_accuracies_need_no_draws(monkeypatch):
    monkeypatch.setattr(errors_module, "stratified_draws", None)
    scores = {"ridge": np.array([1.0, 0.5])}
    errors = standard_errors(scores, {}, None, np.zeros(98), ("ridge",), draws=5, seed=0)
    # Of a beta distribution with 99 and 1, and with 50 and 50.
    np.testing.assert_allclose(errors["ridge"], np.sqrt([99 * 1 / (100**2 * 101), 50 * 50 / (100**2 * 101)]))


def test_undefined_scores_are_nan_and_draws_do_not_repeat_why():
    X, labels = samples(0, n=20)
    constant = np.ones_like(X)
    names = ("alignment", "ridge")
    with pytest.warns(TransferscopeWarning, match="NaN"):
        scores = score_source([Layer(constant)], None, labels, names)
    errors = standard_errors(scores, {"a": constant}, None, labels, names, draws=3, seed=0)
    assert np.isnan(errors["alignment"]).all()
