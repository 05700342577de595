"""Scores of several labels an image: against scikit-learn, and the scores of each label alone."""

import sys

import array_api_strict
import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score, f1_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict

import transferscope as ts
from transferscope.errors import InputError
from transferscope.runtime.metrics import F1, average_precision, mean_average_precision
from transferscope.transferability.layer import Layer
from transferscope.transferability.multi_label import MULTI_LABEL
from transferscope.transferability.panel import score_source

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 5))
Y = X[:, :3] + 0.7 * RNG.normal(size=(40, 3)) > [0.0, 0.5, 1.0]


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_that_of_scikit_learn(ties):
    for _ in range(20):
        truth = RNG.random(30) < RNG.uniform(0.1, 0.9)
        truth[3] = True
        scores = RNG.normal(size=30).round(0 if ties else 9)
        assert average_precision(scores, truth) == pytest.approx(average_precision_score(truth, scores))
    scores = RNG.normal(size=(40, 3))
    assert mean_average_precision(scores, Y) == pytest.approx(average_precision_score(Y, scores, average="macro"))


def test_ridge_is_that_of_refitting_without_each_sample(monkeypatch):
    monkeypatch.setattr(sys.modules[ts.transferability.ridge.__module__], "PENALTIES", (0.01,))
    penalty = 0.01 * ((X - X.mean(axis=0)) ** 2).sum() / 5
    predicted = cross_val_predict(Ridge(alpha=penalty), X, Y.astype(float), cv=LeaveOneOut())
    expected = average_precision_score(Y, predicted, average="macro")
    assert MULTI_LABEL.panel(X, Y, "ridge")["ridge"] == pytest.approx(expected)
    macro = f1_score(Y, predicted > 0.5, average="macro")
    assert score_source([Layer(X)], None, Y, ["ridge"], metric=F1)["ridge"] == pytest.approx([macro])


def test_others_are_means_over_the_scores_of_each_label():
    scores = MULTI_LABEL.panel(X, Y)
    labels = [label.astype(int) for label in Y.T]
    assert scores["hscore"] == pytest.approx(np.mean([ts.transferability.hscore(X, label) for label in labels]))
    means = [ts.transferability.nearest_mean(X, label, balanced=True) for label in labels]
    assert scores["nearest_mean"] == pytest.approx(np.mean(means))
    # Of two classes LogME takes the indicators of both.
    both = [MULTI_LABEL.panel(X, np.column_stack([label, 1 - label]), "logme")["logme"] for label in labels]
    assert both == pytest.approx([ts.transferability.logme(X, label) for label in labels])
    assert scores["alignment"] == pytest.approx(ts.similarity.linear_cka(X, Y.astype(float), debiased=True))
    assert tuple(scores) == tuple(MULTI_LABEL.scores)
    assert MULTI_LABEL.panel(array_api_strict.asarray(X), Y.astype(int)) == pytest.approx(scores)


def test_one_label_of_two_classes_is_the_one_hot_alignment():
    assert MULTI_LABEL.panel(X, Y[:, :1], "alignment")["alignment"] == pytest.approx(
        ts.transferability.alignment(X, Y[:, 0].astype(int))
    )


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (Y[:, 0], r"to have shape \(40, n_labels\), one row per row of the features, but got \(40,\)"),
        (Y[:9], r"but got \(9, 3\)"),
        (Y * 2, "to be 0 and 1, or bools, but got .*2.*; give each label a column"),
        (np.where(Y, np.nan, 1.0), "to be 0 and 1, or bools, but got .*nan"),
        (Y.astype(str), "to be 0 and 1, or bools, but got"),
        (Y & [True, True, False], "no sample has label 2 of 3; leave its column out"),
        (Y | [True, False, False], "all samples have label 0 of 3"),
    ],
)
def test_labels_of_no_use_are_refused(labels, said):
    with pytest.raises(InputError, match=said):
        MULTI_LABEL.panel(X, labels)


def test_scores_of_classes_are_left_out_by_name():
    with pytest.raises(
        InputError, match="scores of several labels an image but 'transrate' is one of classes; there are"
    ):
        MULTI_LABEL.panel(X, Y, ["transrate"])
    assert ts.score(X, Y, "ridge", task="multi-label").loc["features", "ridge"] > 0.5
