"""`transferscope transfer` and `transferscope predict`: what is printed and written, exit codes and errors."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from transferscope.cli import run
from transferscope.cli.transfer import FORMATS, PROTOCOLS
from transferscope.protocols import finetuning
from transferscope.protocols.delivery import export
from transferscope.verbs.running import run as runs

FACTORY = """
from transferscope.networks import CompactResNet

def build():
    print("factories print")
    return CompactResNet(3, width=4)
"""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr("transferscope.activations.timing._SECONDS", 0.0)
    short = finetuning.recipes(epochs=1, min_steps=0)
    monkeypatch.setattr("transferscope.verbs.measure.request.recipes", lambda *_: short)
    Path("nets.py").write_text(FACTORY)
    entry = {"name": "ours", "loader": "python", "factory": "nets.py:build", "transform": {"size": 16}}
    Path("zoo.yaml").write_text(yaml.safe_dump({"version": 1, "sources": [entry]}))


def transfer(target, *more):
    return run(
        ["transfer", "--target", str(target), "--sources", "zoo.yaml", "--trust-code", "--source", "ours", *more]
    )


def test_from_images_to_predictions_on_new_ones(target, capsys):
    assert transfer(target, "--protocol", "truncate", "--depth", "3", "-o", "out model", "--evidence", "known") == 0
    shown = capsys.readouterr()
    assert "ours: cut after blocks.1 (depth 3 of 8), its features frozen, logistic regression on them." in shown.out
    assert "Measured accuracy 1.000" in shown.out
    assert "factories print" not in shown.out
    assert "transferscope predict --trust-code 'out model' IMAGES -o predictions.csv" in shown.err
    assert "--evidence known --trust-code" in shown.err
    assert {path.name for path in Path("out model").iterdir()} == {
        "model.json", "model.safetensors", "code", "card.json", "README.md", "confusion.png", "runs.csv",
        "measure.json", ".transferscope",
    }  # fmt: skip
    assert Path("known/runs.csv").is_file()

    broken = target / "green" / "broken.jpg"
    broken.write_bytes(b"")
    predict = ["predict", "out model", str(target), "--trust-code"]
    assert run([*predict, "-o", "new/predictions.csv"]) == 3
    shown = capsys.readouterr()
    assert "… and 16 more; all are in new/predictions.csv." in shown.out
    assert "36 images: blue 12, green 12, red 12." in shown.out
    assert "Wrote 36 predictions to new/predictions.csv." in shown.err
    assert f"1 of 37 images cannot be read:\n  {broken}: the file is empty" in shown.err
    table = pd.read_csv("new/predictions.csv")
    assert list(table) == ["path", "label", "probability", "blue", "green", "red"]
    assert (table["label"] == table["path"].map(lambda path: Path(path).parent.name)).all()
    broken.unlink()

    assert run([*predict, "--format", "json", "-q"]) == 0
    shown = capsys.readouterr()
    assert shown.err == "factories print\n"
    record = json.loads(shown.out)
    assert len(record["predictions"]) == 36
    assert record["unreadable"] == []
    assert run([*predict[:1], "out model", str(target)]) == 2
    assert "allow it with --trust-code" in capsys.readouterr().err


def test_other_formats(target, capsys):
    assert transfer(target, "--protocol", "svm", "--depth", "-1", "--format", "json", "-q") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["protocol"], record["depth"]) == ("svm", 8)
    assert transfer(target, "--protocol", "svm", "--depth", "-1", "--format", "csv") == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("class,images,recall,precision,taken_for\nblue,3,1")
    assert "transferscope-model holds this model already; nothing is trained." in shown.err
    assert "rank" not in shown.err  # svm is none of its protocols


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--protocol", "truncate"], 2, "Expected `depth` to be from 1 to 8"),
        (["--ranking", "nowhere"], 2, "either `ranking` or `source`"),
        (["--protocol", "none"], 2, "'none' is not one of"),
        ([], 2, "Expected `protocol` beside `source`"),
    ],
)
def test_what_goes_wrong(target, capsys, more, code, message):
    assert transfer(target, *more) == code
    assert message in capsys.readouterr().err
    assert not Path("transferscope-model").exists()


def test_no_model(target, capsys):
    assert run(["predict", "nowhere", str(target)]) == 2
    assert "Expected nowhere to be the folder of a model" in capsys.readouterr().err


def test_choices_are_those_that_there_are():
    assert tuple(runs.PROTOCOLS) == PROTOCOLS
    assert tuple(export.FORMATS) == FORMATS
