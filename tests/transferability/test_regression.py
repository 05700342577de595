"""Scores of a regression: against scikit-learn refitted without each sample, brute force, and CKA."""

import math

import array_api_strict
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, spearmanr
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict

import transferscope as ts
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.runtime.metrics import SPEARMAN
from transferscope.transferability import kernel_ridge as kernel_ridge_function
from transferscope.transferability import ridge as ridge_function
from transferscope.transferability.kernel_ridge import KernelRidgeFit
from transferscope.transferability.layer import Layer
from transferscope.transferability.panel import score_source
from transferscope.transferability.regression import REGRESSION, encode_targets

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6))
Y = X[:, :2] @ RNG.normal(size=(2, 2)) + 0.3 * RNG.normal(size=(24, 2)) + [5.0, -2.0]
Z = (Y - Y.mean(axis=0)) / Y.std(axis=0)


def module_of(function):
    import sys

    return sys.modules[function.__module__]


def test_targets_are_standardised():
    assert encode_targets(Y, 24) == pytest.approx(Z)
    assert encode_targets(Y[:, 0], 24) == pytest.approx(Z[:, :1])
    assert encode_targets(list(range(24)), 24).std() == pytest.approx(1)


def test_ridge_is_the_r_squared_of_refitting_without_each_sample(monkeypatch):
    monkeypatch.setattr(module_of(ridge_function), "PENALTIES", (0.01,))
    penalty = 0.01 * ((X - X.mean(axis=0)) ** 2).sum() / 6
    predicted = cross_val_predict(Ridge(alpha=penalty), X, Z, cv=LeaveOneOut())
    assert REGRESSION.panel(X, Y, "ridge")["ridge"] == pytest.approx(r2_score(Z, predicted))
    by_rank = np.mean([spearmanr(*columns).statistic for columns in zip(Z.T, predicted.T, strict=True)])
    assert score_source([Layer(X)], None, Y, ["ridge"], metric=SPEARMAN)["ridge"] == pytest.approx([by_rank])


def test_kernel_ridge_is_the_r_squared_of_refitting_without_each_sample(monkeypatch):
    module = module_of(kernel_ridge_function)
    monkeypatch.setattr(module, "PENALTIES", (1e-3,))
    monkeypatch.setattr(module, "BANDWIDTHS", (1.0,))
    distances = np.sqrt(((X[:, None] - X) ** 2).sum(axis=2))[np.triu_indices(24, 1)]
    gamma = 1 / (2 * np.median(distances) ** 2)
    model = KernelRidge(alpha=1e-3 * 24, kernel="rbf", gamma=gamma)
    predicted = cross_val_predict(model, X, Z, cv=LeaveOneOut())
    assert REGRESSION.panel(X, Y, "kernel_ridge")["kernel_ridge"] == pytest.approx(r2_score(Z, predicted))


@pytest.mark.parametrize("width", [3, 40])
def test_logme_is_the_greatest_evidence(width):
    features = RNG.normal(size=(12, width)) + 0.5
    target = features[:, 0] + 0.5 * RNG.normal(size=12)
    scaled = (target - target.mean()) / target.std()

    def cost(logs):
        alpha, beta = np.exp(logs)
        covariance = np.eye(12) / beta + features @ features.T / alpha
        return -multivariate_normal(np.zeros(12), covariance, allow_singular=True).logpdf(scaled) / 12

    best = min(minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).fun
               for start in ([0.0, 0.0], [2.0, 2.0]))  # fmt: skip
    assert REGRESSION.panel(features, target, "logme")["logme"] == pytest.approx(-best, abs=1e-6)


def test_alignment_is_debiased_cka_with_the_targets():
    expected = ts.similarity.linear_cka(X, Z, debiased=True)
    assert REGRESSION.panel(X, Y, "alignment")["alignment"] == pytest.approx(expected)


def test_units_and_order_do_not_count_and_noise_is_no_better_than_the_mean():
    scores = REGRESSION.panel(X, Y)
    order = RNG.permutation(24)
    assert REGRESSION.panel(X[order], 3 * Y[order] + 7) == pytest.approx(scores)
    assert tuple(scores) == tuple(REGRESSION.scores)
    noise = REGRESSION.panel(RNG.normal(size=(200, 30)), RNG.normal(size=200))
    assert abs(noise["alignment"]) < 0.1
    assert max(noise["ridge"], noise["kernel_ridge"]) < 0.1
    strict = REGRESSION.panel(array_api_strict.asarray(X), Y)
    assert strict == pytest.approx(scores)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (np.ones(24), "to differ between samples but column 0 of 1 is 1 in all of them"),
        (np.column_stack([np.arange(24), np.full(24, 0.1)]), "column 1 of 2 is 0.1 in all"),
        (np.arange(23.0), r"shape \(24,\) or \(24, n_targets\), one row per row of the features, but got \(23,\)"),
        (np.full((24, 2, 2), 1.0), r"but got \(24, 2, 2\)"),
        (np.zeros((24, 0)), r"but got \(24, 0\)"),
        (["a"] * 24, "to be numbers but got dtype <U1 .the first is .*'a'.*; for classes leave the task out"),
        ([True, False] * 12, "to be numbers but got dtype bool"),
        (np.where(np.arange(24) < 2, math.nan, 1.0), "to be finite but 2 of 24 are not; leave their samples"),
    ],
)
def test_targets_of_no_use_are_refused(targets, said):
    with pytest.raises(InputError, match=said):
        REGRESSION.panel(X, targets)


@pytest.mark.parametrize(
    ("measures", "said"),
    [
        (["hscore"], "'hscore' is one of classes; there are logme, ridge"),
        (["leep"], "'leep' is one of classes"),
        (["rigde"], r"'rigde' is none \(did you mean 'ridge'\?\)"),
        ([], "at least one score but got none"),
    ],
)
def test_scores_of_classes_are_left_out_by_name(measures, said):
    with pytest.raises(InputError, match=said):
        REGRESSION.panel(X, Y, measures)


def test_what_is_not_defined_is_nan_and_said():
    with pytest.warns(TransferscopeWarning, match="the score alignment is NaN: .* zero self-HSIC"):
        assert math.isnan(REGRESSION.panel(np.ones((24, 3)), Y, ["alignment"])["alignment"])
    with pytest.warns(TransferscopeWarning, match="at least 4 samples"):
        REGRESSION.panel(X[:3], Y[:3, 0], ["alignment"])


def test_of_many_samples_the_width_is_chosen_on_a_part(monkeypatch):
    for name in ("_WHOLE", "_SEARCHED"):
        monkeypatch.setattr(module_of(kernel_ridge_function), name, 12)
    assert 0 < REGRESSION.panel(X, Y, "kernel_ridge")["kernel_ridge"] < 1
    assert KernelRidgeFit._fields[0] == "accuracy"
