"""`transfer` and `predict` of several labels an image and of numbers: the model, its card and its files."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, r2_score
from small_zoo import write_zoo

import transferscope as ts
from transferscope.cli import run
from transferscope.data.splits import hold_out
from transferscope.errors import InputError

N = 48
RNG = np.random.default_rng(0)
COLOURS = RNG.uniform(0, 1, (N, 3))
PIXELS = np.clip(255 * (COLOURS[:, None, None] + RNG.normal(0, 0.05, (N, 12, 12, 3))), 0, 255).astype(np.uint8)
NAMES = ("red", "green", "blue")
LABELS = COLOURS > [0.5, 0.4, 0.7]
NUMBERS = COLOURS[:, :2] * [1000, 1] + [5000, 0]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_zoo()
    Path("images").mkdir()
    for i, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(f"images/{i:02}.png")
    table = {
        "path": [f"images/{i:02}.png" for i in range(N)],
        "label": ["|".join(np.array(NAMES)[row]) for row in LABELS],
    }
    pd.DataFrame({**table, "level": NUMBERS[:, 0], "green": NUMBERS[:, 1]}).to_csv("t.csv", index=False)


ASKED = {"source": "small", "depth": -1, "trust_code": True, "device": "cpu", "progress": False}


@pytest.mark.parametrize("protocol", ["truncate", "finetune", "reinit"])
def test_a_model_of_numbers(place, protocol):
    target = ts.load_target("t.csv", labels=["level", "green"], task="regression")
    at = {**ASKED, "depth": 1} if protocol == "reinit" else ASKED
    done = ts.transfer(target, "zoo.yaml", "model", protocol=protocol, export=["torchscript"], **at)
    _, test = hold_out(target)
    predictions = ts.load_transfer("model", device="cpu", trust_code=True).predict("images", progress=False)
    values = predictions.table[["level", "green"]].to_numpy()
    # In the units of the table, by a scale that the network itself has.
    assert done.reached == pytest.approx(r2_score(target.values[test], values[test]), abs=1e-4)
    assert done.reached > 0.3
    low, high = done.interval
    assert low < done.reached < high
    card = json.loads(Path("model/card.json").read_text(encoding="utf-8"))
    assert card["measured"]["r2"] == pytest.approx(done.reached, rel=1e-5)
    assert card["confusion"] is None
    again = ts.transfer(target, "zoo.yaml", "model", protocol=protocol, **at)
    assert again.by_class["number"].tolist() == ["level", "green"]
    errors = np.abs(target.values[test] - values[test]).mean(axis=0)
    np.testing.assert_allclose(again.by_class["mean_absolute_error"], errors, rtol=1e-3)
    readme = Path("model/README.md").read_text(encoding="utf-8")
    assert "It predicts level, green, and was made from" in readme
    assert "![Predicted and true numbers](numbers.png)" in readme
    assert "temperature" not in readme
    assert Path("model/numbers.png").stat().st_size > 1000
    with pytest.raises(InputError, match="this one is a regression without confusion matrix"):
        ts.plot.confusion(done)


def test_a_model_of_several_labels_on_the_command_line(place, capsys):
    options = ["--target", "t.csv", "--sources", "zoo.yaml", "--trust-code", "--device", "cpu", "-q", "-o", "model"]
    options += ["--labels", "label", "--task", "multi-label", "--source", "small", "--depth", "-1"]
    assert run(["transfer", *options, "--protocol", "toptuning"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    target = ts.load_target("t.csv", labels="label", task="multi-label")
    test = hold_out(target)[1]
    card = ts.load_transfer("model", device="cpu", trust_code=True).card
    assert f"Measured mean average precision {card.reached:.3f} [" in out
    assert "label images average precision recall precision" in out
    assert run(["predict", "model", "images", "--trust-code", "--device", "cpu", "-q", "-o", "p.csv"]) == 0
    assert "path labels" in " ".join(capsys.readouterr().out.split())
    found = pd.read_csv("p.csv", keep_default_na=False)
    chances = found[list(target.classes)].to_numpy()
    assert ((chances > 0) & (chances < 1)).all()
    assert found["label"].tolist() == ["|".join(np.array(target.classes)[row >= 0.5]) for row in chances]
    truth = target.values[test]
    assert card.reached == pytest.approx(average_precision_score(truth, chances[test]), abs=1e-5)
    assert card.reached > 0.75
    recall = ((chances[test] >= 0.5) & (truth > 0)).sum(axis=0) / truth.sum(axis=0)
    np.testing.assert_allclose(card.by_class["recall"], recall)
    assert Path("model/labels.png").exists()
    (row,) = pd.read_csv("model/runs.csv").to_dict("records")
    assert row["mean_average_precision"] == pytest.approx(card.reached)
    numbers = ["level" if word == "label" else "regression" if word == "multi-label" else word for word in options]
    assert run(["transfer", *numbers, "--protocol", "svm"]) == 2
    assert "svm tells classes apart" in capsys.readouterr().err


def test_the_temperature_of_labels_is_that_of_least_log_loss():
    from transferscope.protocols.delivery.temperature import fit_temperature

    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3))
    truth = (rng.random((4000, 3)) < 1 / (1 + np.exp(-logits))).astype(float)
    assert fit_temperature(5 * logits, truth) == pytest.approx(5, rel=0.1)
