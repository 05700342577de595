"""`--metric balanced-accuracy`: what is ranked by, from scores, scratch network, pilots and evidence alike."""

import json

import numpy as np
import pytest
from image_folders import coloured_noise

from transferscope.cli import run
from transferscope.protocols import finetuning

pytestmark = pytest.mark.usefixtures("unsaved")


@pytest.fixture
def uneven(tmp_path, monkeypatch):
    recipes = finetuning.recipes
    monkeypatch.setattr(finetuning, "recipes", lambda *_: recipes(epochs=1, min_steps=0))
    folder = coloured_noise(tmp_path / "uneven", per_class=26)
    for name in ("green", "red"):
        for path in sorted((folder / name).iterdir())[4:]:
            path.unlink()
    (tmp_path / "nets.py").write_text(
        "from transferscope.networks import CompactResNet\ndef build():\n    return CompactResNet(3, width=4)\n"
    )
    source = {"name": "small", "loader": "python", "factory": "nets.py:build", "transform": {"size": 16}}
    (tmp_path / "zoo.yaml").write_text(json.dumps({"version": 1, "sources": [source]}))
    return folder


def rank(target, *more):
    options = ["--device", "cpu", "--reference-epochs", "1", "--trust-code", "-o", "out", "--format", "json"]
    return run(["rank", "--target", str(target), "--sources", "zoo.yaml", *options, *more])


def test_a_hint_then_the_balanced_answer(uneven, capsys):
    assert rank(uneven, "--mode", "quick") == 0
    out, err = capsys.readouterr()
    plain = json.loads(out)
    assert plain["metric"] == "accuracy"
    assert "from 4 (green) to 26 (blue)" in " ".join(err.split())
    assert rank(uneven, "--mode", "quick", "--metric", "balanced-accuracy", "--pilots", "1") == 0
    out, err = capsys.readouterr()
    balanced = json.loads(out)
    assert balanced["metric"] == "balanced-accuracy"
    assert "--metric" not in err
    assert balanced["provenance"]["settings"]["metric"] == "balanced-accuracy"
    # A constant guess is right for 26 of 34 images, and for one class of three.
    assert balanced["reference"]["held_out_accuracy"] < plain["reference"]["held_out_accuracy"]
    for row in balanced["ranking"]:
        assert all(np.isfinite(row["interval"]))


def test_a_wrong_one_is_wrong_usage(uneven, capsys):
    assert rank(uneven, "--metric", "balanced") == 2
    assert "'balanced' is not one of 'accuracy', 'balanced-accuracy'" in capsys.readouterr().err
