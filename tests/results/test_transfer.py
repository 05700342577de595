"""The result of a transfer: its figures by hand, its card and back, and what is read of it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import pyplot as plt
from rich.console import Console
from transfers import MADE

from transferscope.errors import InputError
from transferscope.report import plot
from transferscope.report.card import readme
from transferscope.report.terminal.transfer import print_transfer
from transferscope.results.transfer import Expectation, read_card


def test_figures():
    assert (MADE.measured_on, MADE.accuracy) == (30, 17 / 30)
    # Wilson's interval by its formula, with the quantile of 80 %.
    z, n, p = 1.2815515655446004, 30, 17 / 30
    middle, half = (
        (p + z**2 / (2 * n)) / (1 + z**2 / n),
        z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)),
    )
    assert MADE.interval == pytest.approx((middle - half, middle + half))
    table = MADE.by_class
    assert table["recall"].tolist() == [0.8, 0.9, 0]
    assert table["precision"].tolist()[:2] == [8 / 13, 9 / 17]
    assert math.isnan(table["precision"][2])
    assert table["taken_for"].tolist() == ["red", "b|ue", "red"]
    assert MADE.to_csv().startswith("class,images,recall,precision,taken_for\nb|ue,10,0.8,0.615385,red\n")


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        (None, "that it was not trained on."),
        (Expectation(0.6, (0.5, 0.7), 90, 1), "expected 0.600 [0.500, 0.700], so within the interval."),
        (Expectation(0.4, (0.3, 0.5), 90, 1), "so above the interval."),
        (
            Expectation(0.6, (0.5, 0.7), 90, 1, "balanced-accuracy"),
            "; balanced accuracy 0.567; expected 0.600 [0.500, 0.700], so within",
        ),
        (
            Expectation(0.8, (0.7, 0.9), 80, 1),
            "so below the interval. That was expected for 80 images to train on; it was",
        ),
    ],
)
def test_the_verdict_compares_with_what_was_expected(expected, said):
    assert said in replace(MADE, expected=expected).verdict


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({}, "cut after blocks.2 (depth 3 of 8), what is kept frozen, what follows re-initialised and trained"),
        ({"protocol": "defrost", "depth": 0, "layer": ""}, "the whole network fine-tuned with a new head"),
        ({"protocol": "scratch", "depth": 0, "layer": ""}, "its architecture re-initialised and trained"),
        ({"protocol": "svm"}, "cut after blocks.2 (depth 3 of 8), its features frozen, a linear SVM on them"),
        ({"protocol": "fne", "layer": "all"},
         "frozen, a full-network embedding of its layers (all) under a linear SVM"),
        ({"protocol": "surgical"},
         "the whole network fine-tuned, each stage at a learning rate of its own, with a new head"),
    ],
)  # fmt: skip
def test_how_in_words(changes, how):
    assert replace(MADE, **changes).how == how


def test_the_card_comes_back(tmp_path):
    (tmp_path / "card.json").write_text(MADE.to_json())
    again = read_card(tmp_path)
    assert again.to_json() == MADE.to_json()
    assert again.folder == tmp_path
    assert math.isnan(again.kgco2e)
    content = json.loads(MADE.to_json()) | {"schema_version": 99}
    (tmp_path / "card.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="its schema_version is 99, not 1"):
        read_card(tmp_path)


def test_the_readme_has_tables_that_names_cannot_break():
    text = readme(MADE)
    assert "| expected by the ranking | 0.600 | 0.500 to 0.700 | |" in text
    assert "| b\\|ue | 10 | 0.800 | 0.615 | red |" in text
    assert "| never | 10 | 0.000 |  | red |" in text
    assert "3.5 s (features 1 s, training 2.5 s), 1e-05 kWh" in text
    assert "--trust-code" not in text
    many = tuple(map(str, range(150)))
    large = replace(MADE, classes=many, confusion=np.eye(150, dtype=int))
    assert "The 100 classes with the lowest recall" in readme(large)


@pytest.mark.parametrize("width", [60, 120])
def test_a_terminal_of_any_width(width):
    console = Console(width=width, record=True)
    print_transfer(replace(MADE, classes=("[bold]", "a" * 50, "c")), console)
    text = console.export_text()
    assert "[bold]" in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("classes", [3, 30, 90])
def test_the_confusion_matrix_shows_shares_of_each_class(classes):
    made = MADE if classes == 3 else replace(
        MADE, classes=tuple(map(str, range(classes))), confusion=np.eye(classes, dtype=int)
    )  # fmt: skip
    axes = plot.confusion(made)
    cells = axes.collections[0].get_array().reshape(classes, classes)
    np.testing.assert_allclose(cells, made.confusion / made.confusion.sum(1, keepdims=True))
    assert (len(axes.texts) > 0) == (classes == 3)
    assert (len(axes.get_xticklabels()) > 0) == (classes <= 60)
    plt.close(axes.figure)
