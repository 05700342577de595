"""Balanced leave-one-out accuracies: against scikit-learn's on predictions that are really left out."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import NearestCentroid

import transferscope as ts
from transferscope.errors import TransferscopeWarning
from transferscope.transferability import panel
from transferscope.transferability.scores import ACCURACIES

RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1, 2], [40, 12, 6])
X = RNG.normal(size=(58, 5)) + 1.2 * np.eye(3, 5)[LABELS]


def test_the_nearest_mean():
    predicted = cross_val_predict(NearestCentroid(), X, LABELS, cv=LeaveOneOut())
    expected = balanced_accuracy_score(LABELS, predicted)
    assert ts.transferability.nearest_mean(X, LABELS, balanced=True) == pytest.approx(expected)
    assert expected != pytest.approx(ts.transferability.nearest_mean(X, LABELS))


def test_ridge_with_the_penalty_that_it_chooses(monkeypatch):
    import sys

    centred = X - X.mean(axis=0)
    module = sys.modules[ts.transferability.ridge.__module__]
    monkeypatch.setattr(module, "PENALTIES", (0.1,))
    penalty = 0.1 * (centred**2).sum() / 5
    fitted = cross_val_predict(Ridge(alpha=penalty), X, np.eye(3)[LABELS], cv=LeaveOneOut())
    expected = balanced_accuracy_score(LABELS, fitted.argmax(axis=1))
    assert ts.transferability.ridge(X, LABELS, balanced=True) == pytest.approx(expected)


@pytest.mark.parametrize("name", ACCURACIES)
def test_with_equal_classes_both_are_one_and_a_panel_passes_it_on(name):
    score = getattr(ts.transferability, name)
    even = np.concatenate([np.flatnonzero(label == LABELS)[:6] for label in range(3)])
    assert score(X[even], LABELS[even], balanced=True) == pytest.approx(score(X[even], LABELS[even]))
    uneven = score(X, LABELS, balanced=True)
    assert panel(X, LABELS, [name, "logme"], balanced=True)[name] == uneven
    assert panel(X, LABELS, [name])[name] == score(X, LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TransferscopeWarning)
        assert 0 <= uneven <= 1
