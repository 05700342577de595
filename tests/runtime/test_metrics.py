"""Metrics: what guessing gives, and how many images a mean over classes is worth."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score, f1_score, r2_score

from transferscope.errors import InputError
from transferscope.runtime.metrics import (
    ACCURACY,
    AVERAGE_PRECISION,
    BALANCED,
    F1,
    R2,
    SPEARMAN,
    metric_of,
    uneven_hint,
)


def test_guessing_one_class():
    counts = np.array([6, 3, 1, 0])
    assert ACCURACY.guessing(counts) == 0.6
    assert BALANCED.guessing(counts) == pytest.approx(1 / 3)


def test_a_balanced_accuracy_is_measured_as_exactly_as_by_so_many_images():
    assert ACCURACY.worth(np.array([90, 10])) == 100
    assert BALANCED.worth(np.array([50, 50])) == 100
    counts, share = np.array([90, 10]), 0.7
    draws = np.random.default_rng(0).binomial(counts, share, (20_000, 2)) / counts
    assert BALANCED.worth(counts) == pytest.approx(share * (1 - share) / draws.mean(axis=1).var(), rel=0.05)


def test_figures_are_those_of_scikit_learn_and_scipy():
    rng = np.random.default_rng(0)
    codes, truth = rng.integers(0, 4, (2, 50))
    assert ACCURACY.of(codes, truth) == accuracy_score(truth, codes)
    assert BALANCED.of(codes, truth) == pytest.approx(balanced_accuracy_score(truth, codes))
    scores, has = np.round(rng.normal(size=(50, 3)), 1), (rng.random((50, 3)) < 0.3).astype(float)
    assert AVERAGE_PRECISION.of(scores, has) == pytest.approx(average_precision_score(has, scores, average="macro"))
    assert F1.of(scores, has) == pytest.approx(f1_score(has, scores > 0, average="macro"))
    guessed, numbers = np.round(rng.normal(size=(2, 50, 2)), 1)
    assert R2.of(guessed, numbers) == pytest.approx(r2_score(numbers, guessed))
    expected = [spearmanr(guessed[:, i], numbers[:, i]).statistic for i in (0, 1)]
    assert SPEARMAN.of(guessed, numbers) == pytest.approx(np.mean(expected))
    for metric, values, same in (
        (AVERAGE_PRECISION, has, np.ones((50, 3))), (F1, has, np.ones((50, 3))),
        (R2, numbers, numbers.mean(0) + np.zeros((50, 2))), (SPEARMAN, numbers, np.zeros((50, 2))),
        (ACCURACY, truth, np.full(50, np.bincount(truth).argmax())),
    ):  # fmt: skip
        assert metric.without_looking(values) == pytest.approx(metric.of(same, values))


def test_a_hint_where_classes_differ_by_more_than_five_times():
    classes = ("oak", "elm", "ash")
    assert uneven_hint(ACCURACY, classes, np.array([50, 10, 0])) == ""
    said = uneven_hint(ACCURACY, classes, np.array([51, 10, 0]))
    assert "from 10 (elm) to 51 (oak)" in said
    assert "--metric balanced-accuracy" in said
    assert uneven_hint(BALANCED, classes, np.array([51, 10, 0])) == ""


def test_an_unknown_metric_names_the_others():
    with pytest.raises(
        InputError, match=r"`metric` to be one of accuracy, balanced-accuracy, but got 'balanced' \(did"
    ):
        metric_of("balanced")
    assert metric_of(None, "regression") is R2
    with pytest.raises(InputError, match=r"one of r2, spearman for the task regression, but accuracy is one of class"):
        metric_of("accuracy", "regression")
