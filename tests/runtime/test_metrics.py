"""Metrics: what guessing gives, and how many images a mean over classes is worth."""

import numpy as np
import pytest

from transferscope.errors import InputError
from transferscope.runtime.metrics import ACCURACY, BALANCED, metric_of, uneven_hint


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
