"""Parameter transferability on the terminal: T by layer or over targets, why a number is missing, lines that fit."""

import math

import pandas as pd
import pytest
from parameter_transfers import (
    SETTINGS,
    UNMOVED,
    flat,
    printed,
    result,
    stuck_transfers,
    transfer,
    transferred_grid,
    words,
)

from transferscope.results.parameters import ParameterTransfer
from transferscope.runtime.failures import Failure


@pytest.fixture(scope="module")
def grid():
    return transferred_grid()


@pytest.fixture(scope="module")
def stuck():
    return stuck_transfers()


def test_one_transfer_is_printed_layer_by_layer():
    text = printed(result(transfer([1.0, 5.0, 3.0], spread=0.25)))
    assert text.splitlines()[0].startswith(
        "birds: mean T 3.00 after 40 epochs; most transferable blocks.1 (5.00), least"
    )
    assert "least blocks.0 (1.00)." in flat(text)
    lines = words(text)
    assert ["shells", "20", "epochs", "80", "0.500", "3.00", "±0.25", "0.750"] in lines
    assert ["steps", "20", "1.000", "6.00", "±0.25"] in lines
    assert ["loss", "12.5", "1.500", "9.00", "±0.25"] in lines
    assert ["layer", "T", "epochs", "T", "steps", "T", "loss", "change", "CKA", "SNR"] in lines
    assert ["blocks.1", "5.00", "10.00", "15.00", "0.020", "0.800", "0.250"] in lines
    whole = flat(text)
    assert "matched steps (1,200)" in whole
    assert "matched training loss (0.250 of that of guessing)" in whole
    assert "Initial weights of birds: redrawn, seeds 0 to 4." in whole
    assert "from those of birds is unknown: no `images` in the zoo" in whole
    assert "No regression of T for birds (steps): 2 targets, and at least 4 are needed." in whole
    assert "over seeds" not in whole


def test_several_targets_and_sizes_are_printed_without_layers(grid):
    text = printed(grid)
    # Layers at 1, 2 and 2 and at 4, 8 and 2, once and twice: means 5/3 × 1.5 and 14/3 × 1.5.
    assert "birds: mean T 4.75 after 40 epochs (2.50 to 7.00 over targets and images)" in flat(text)
    assert ["shells", "5", "epochs", "80", "0.500", "2.50", "±0.83", "±0.10", "0.755"] in words(text)
    assert ["20", "epochs", "80", "0.500", "2.50", "±0.83", "±0.10", "0.755"] in words(text)
    assert "CKA" not in text
    assert "±0.83: standard error" not in text
    assert "standard error over seeds" in flat(text)
    assert "Initial weights of plain: given: plain.initial.pt." in text


def test_what_is_known_of_the_source_images_and_initial_weights_is_not_said_to_be_missing():
    found = result(transfer([1.0, 2.0], spread=math.nan))
    text = printed(ParameterTransfer(
        found.layers, found.runs.assign(frechet=0.5), found.trajectory, pd.DataFrame(), pd.DataFrame(), SETTINGS
    ))  # fmt: skip
    assert "zoo" not in text
    assert "redraws" not in text
    assert "regression" not in text


def test_infinite_layers_and_failures_are_listed_with_their_reasons(stuck):
    text = flat(printed(stuck))
    assert "mean T ∞ after 40 epochs (2.00 to ∞" in text
    assert f"birds on shells: T of blocks.1 is infinite or unknown: {UNMOVED}" in text
    assert "birds on signs: T of every layer is infinite or unknown: never reached" in text
    many = result(transfer([1.0, 2.0]), failed=[Failure(f"net{number}", "No file.") for number in range(12)])
    assert "net9 failed: No file. … and 2 more; all are in parameters.json." in flat(printed(many))


def test_what_goes_with_t_is_printed_in_short():
    fit = {"source": "birds", "r_squared": 0.625, "n_targets": 5}
    fits = pd.DataFrame([
        {**fit, "criterion": "epochs", "predictor": "within", "coefficient": 9.0, "lower": 8.0, "upper": 10.0},
        {**fit, "criterion": "steps", "predictor": "log_samples", "coefficient": -0.5, "lower": -0.75, "upper": 0.25},
        {**fit, "criterion": "steps", "predictor": "within", "coefficient": 0.25, "lower": math.nan, "upper": math.nan},
    ])  # fmt: skip
    rank = {"source": "birds", "criterion": "steps", "lower": 0.0, "upper": 1.0}
    ranks = pd.DataFrame([
        {**rank, "level": "runs", "companion": "mmd", "before_transfer": True, "spearman": 0.5},
        {**rank, "level": "runs", "companion": "frechet", "before_transfer": True, "spearman": math.nan},
        {**rank, "level": "runs", "companion": "later", "before_transfer": False, "spearman": 0.5},
    ])  # fmt: skip
    text = flat(printed(result(transfer([1.0, 2.0]), regression=fits, correlations=ranks)))
    assert "standard deviation of log_samples -0.50 (-0.75 to +0.25), within +0.25; R² 0.62 over 5 targets." in text
    assert "rank correlation of T over runs with mmd +0.50 (+0.00 to +1.00)." in text


def test_names_that_look_like_markup_are_printed_as_they_are():
    text = printed(result(transfer([1.0, 2.0], "[b]net[/b]", "[red]", layers=["[a]", "[/b]"])))
    for name in ("[b]net[/b]: mean T", "[red]", "[a]", "[/b]"):
        assert name in text


def test_lines_fit_into_80_columns_and_numbers_are_whole():
    name = "a-data-set-with-quite-a-long-name"
    layers = [f"encoder.layers.encoder_layer_{number}.self_attention.projection" for number in range(2)]
    found = result(*(transfer([1234.0, 5.0], target=name, size=5000, seed=seed, layers=layers) for seed in (0, 1)))
    text = printed(found)
    assert max(map(len, text.splitlines())) <= 80
    for whole in ("5000", "epochs", "620 ±0.00", "±0.10", "0.755", "1,234"):
        assert whole in text
