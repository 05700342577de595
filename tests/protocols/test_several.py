"""Heads and training for several labels and for numbers, beside scikit-learn and plain formulas."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.preprocessing import StandardScaler
from torch import nn

from transferscope.errors import InputError
from transferscope.protocols.heads.fitting import fit_protocol
from transferscope.protocols.heads.several import ALPHAS
from transferscope.protocols.training.loop import Member
from transferscope.protocols.training.objective import OBJECTIVES, Scale
from transferscope.protocols.training.recipe import Recipe
from transferscope.protocols.training.single import evaluate, fit, predicted
from transferscope.protocols.training.together import fit_together
from transferscope.runtime.metrics import mean_average_precision, r_squared

RNG = np.random.default_rng(0)
X, TEST = RNG.normal(size=(60, 5)).astype(np.float32), RNG.normal(size=(200, 5)).astype(np.float32)
MAP = RNG.normal(size=(5, 3))
NUMBERS = X @ MAP * [1, 10, 100] + [5, 0, -900] + RNG.normal(size=(60, 3)) * [0.1, 1, 10]
LABELS = (X @ MAP + 0.3 * RNG.normal(size=(60, 3)) > [0, 1, -1]).astype(float)
TRUE_NUMBERS, TRUE_LABELS = TEST @ MAP * [1, 10, 100] + [5, 0, -900], (TEST @ MAP > [0, 1, -1]).astype(float)
FROZEN = ("truncate", "toptuning", "fne", "svm", "nearest_mean")


def fitted(protocol, values, task, validation=None):
    return fit_protocol(protocol, [X[:, :2], X], 2, values, task, validation, 0)


def test_the_head_of_numbers_is_the_ridge_of_least_error_on_left_out_images():
    Z, scale = StandardScaler().fit_transform(X), StandardScaler().fit(NUMBERS)
    Y = scale.transform(NUMBERS)
    errors = [np.mean((cross_val_predict(Ridge(a), Z, Y, cv=LeaveOneOut()) - Y) ** 2) for a in ALPHAS]
    best = Ridge(ALPHAS[np.argmin(errors)]).fit(Z, Y)
    expected = scale.inverse_transform(best.predict(StandardScaler().fit(X).transform(TEST)))
    head = fitted("truncate", NUMBERS, "regression")
    np.testing.assert_allclose(head.predict(TEST), expected, rtol=1e-4)
    assert head.validation_accuracy == pytest.approx(1 - min(errors), rel=1e-4)


def test_the_head_of_labels_is_a_logistic_regression_of_each():
    Z = StandardScaler().fit(X)
    held = np.arange(0, 60, 5)
    losses = []
    rest = np.setdiff1d(np.arange(60), held)
    inner = StandardScaler().fit(X[rest])
    for C in (1e-3, 1e-2, 1e-1, 1.0, 10.0):
        models = [LogisticRegression(C=C).fit(inner.transform(X[rest]), column[rest]) for column in LABELS.T]
        chances = [model.predict_proba(inner.transform(X[held])) for model in models]
        truth = LABELS[held].T.astype(int)
        losses.append(-np.mean([np.log(p[np.arange(12), t]) for p, t in zip(chances, truth, strict=True)]))
    C = (1e-3, 1e-2, 1e-1, 1.0, 10.0)[np.argmin(losses)]
    head = fitted("truncate", LABELS, "multi-label", held)
    for column, label in enumerate(LABELS.T):
        model = LogisticRegression(C=C, tol=1e-6).fit(Z.transform(X), label)
        scores = head.predict(TEST)[:, column]
        np.testing.assert_allclose(1 / (1 + np.exp(-scores)), model.predict_proba(Z.transform(TEST))[:, 1], atol=1e-3)


@pytest.mark.parametrize("protocol", FROZEN)
def test_every_frozen_head_learns_labels_and_numbers_if_they_mean_something(protocol):
    labels = np.column_stack([LABELS, np.zeros(60), np.ones(60)])  # what none has, or all, is said of none or all
    test = [TEST[:, :2], TEST] if protocol == "fne" else TEST
    scores = fitted(protocol, labels, "multi-label").predict(test)
    assert mean_average_precision(scores[:, :3], TRUE_LABELS) > 0.85
    assert (scores[:, 3] < 0).all()
    assert (scores[:, 4] > 0).all()
    if protocol in ("svm", "nearest_mean"):
        with pytest.raises(InputError, match=f"{protocol} tells classes apart and has no meaning for a regression"):
            fitted(protocol, NUMBERS, "regression")
        return
    assert r_squared(fitted(protocol, NUMBERS, "regression").predict(test), TRUE_NUMBERS) > 0.6


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_networks_learn_them_alone_and_together(task):
    values = LABELS if task == "multi-label" else Scale.of(NUMBERS).applied(NUMBERS)
    objective = OBJECTIVES[task]
    images, truth = torch.from_numpy(X).double(), objective.tensor(values)
    recipe = Recipe(epochs=15, optimiser="adamw", learning_rate=0.05, precision="float32")

    def net():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double()

    alone, beside = net(), [net(), net()]
    untrained = evaluate(alone, images, truth, objective=objective)
    held = images[:20], truth[:20]
    record = fit(alone, images, truth, held, recipe=recipe, seed=0, objective=objective)
    fit_together([Member(each, images, truth, held, 0, objective=objective) for each in beside], recipe=recipe)
    outputs = predicted(alone, images, objective=objective)
    torch.testing.assert_close(predicted(beside[1], images, objective=objective), outputs)
    loss, right = evaluate(alone, images, truth, objective=objective)
    assert loss < untrained[0] / 2
    if task == "regression":
        apart = (outputs - truth).abs()
        assert loss == pytest.approx(float(torch.where(apart < 1, apart**2 / 2, apart - 0.5).mean()), rel=1e-5)
        assert right == pytest.approx(1 - float((apart**2).mean()), rel=1e-5)
    else:
        chance = torch.sigmoid(outputs.double())
        assert loss == pytest.approx(-float((truth * chance.log() + (1 - truth) * (1 - chance).log()).mean()), rel=1e-5)
        assert right == pytest.approx(float(((chance > 0.5) == truth.bool()).double().mean()))
    assert record.validation_accuracy == pytest.approx(evaluate(alone, *held, objective=objective)[1], abs=1e-5)
