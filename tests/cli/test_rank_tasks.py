"""`rank` of several labels an image and of numbers: from a table to the answer, in the words of their metrics."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

import transferscope as ts
from transferscope.cli import run
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.protocols import finetuning
from transferscope.protocols.training.recipe import Recipe
from transferscope.report.terminal.ranking import print_ranking
from transferscope.verbs.bench import Bench
from transferscope.verbs.rank.request import RankRequest

pytestmark = pytest.mark.usefixtures("unsaved")
SCORES = {"logme", "ridge", "kernel_ridge", "alignment", "effective_rank"}


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Pictures whose brightness, with an error, is a number, and says which of two labels they have."""
    recipes = finetuning.recipes
    monkeypatch.setattr(finetuning, "recipes", lambda *_: recipes(epochs=1, min_steps=0))
    rng = np.random.default_rng(0)
    shades = np.linspace(20, 220, 48).round()
    for place, shade in enumerate(shades):
        pixels = np.clip(shade + rng.normal(0, 12, (12, 12, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{place:02}.png")
    (tmp_path / "nets.py").write_text(
        "from transferscope.networks import CompactResNet\n"
        "def build(width=4):\n    return CompactResNet(3, width=width)\n"
    )
    source = {"name": "small", "loader": "python", "factory": "nets.py:build", "transform": {"size": 16}}
    other = {**source, "name": "smaller", "kwargs": {"width": 3}}
    (tmp_path / "zoo.yaml").write_text(json.dumps({"version": 1, "sources": [source, other]}))
    numbers = shades + rng.normal(0, 30, 48)
    rows = pd.DataFrame({"path": [f"{place:02}.png" for place in range(48)], "shade": numbers})
    rows.assign(bright=(shades > 120).astype(int), middle=(np.abs(shades - 120) < 50).astype(int)).to_csv(
        tmp_path / "labels.csv", index=False
    )
    return tmp_path / "labels.csv"


def rank(table, *more):
    options = ["--device", "cpu", "--reference-epochs", "2", "--trust-code", "-o", "out", "--format", "json"]
    return run(["rank", "--target", str(table), "--sources", "zoo.yaml", *options, *more])


def test_several_labels(table, capsys):
    assert rank(table, "--labels", "bright,middle") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["metric"], found["target"]["classes"]) == ("mean-average-precision", 2)
    best = next(row for row in found["ranking"] if row["source"] == "small")
    assert {name for name in best["scores"] if "scratch" not in name} == {*SCORES, "hscore", "nearest_mean"}
    for row in found["ranking"]:
        assert 0 < row["interval"][0] < row["expected_accuracy"] < row["interval"][1] < 1
    assert 0 < found["reference"]["held_out_accuracy"] <= 1
    assert found["provenance"]["settings"]["metric"] == "mean-average-precision"
    assert set(found["provenance"]["settings"]["scores"]) == {*SCORES, "hscore", "nearest_mean"}
    assert "bright" not in best["reason"]
    assert "leave-one-out mean average precision of" in best["reason"]
    # A score of classes, a metric of numbers.
    assert rank(table, "--labels", "bright,middle", "--scores", "leep") == 2
    assert "'leep' is one of classes; there are logme" in " ".join(capsys.readouterr().err.split())
    assert rank(table, "--labels", "bright,middle", "--metric", "r2") == 2
    assert "one of mean-average-precision, macro-f1 for the task multi-label, but r2 is one of regression" in " ".join(
        capsys.readouterr().err.split()
    )


def test_numbers_with_a_pilot(table):
    target = ts.load_target(table, labels="shade", task="regression")
    options = {"device": "cpu", "progress": False, "trust_code": True, "recipe": Recipe(epochs=2)}
    ranking = ts.rank(target, "zoo.yaml", protocol="truncate", pilots=1, uncertainty=2, **options)
    assert ranking.metric.name == "r2"
    pick = next(pick for pick in ranking.recommendations if pick.layer is not None)
    assert set(pick.scores) > SCORES
    assert all(np.isfinite(pick.scores[f"{name}_standard_error"]) for name in SCORES)
    # Of the variance a fifth is error, and brightness is what every layer shows.
    assert 0.5 < pick.scores["ridge"] < 0.9
    (pilot,) = ranking.pilots
    assert 0.2 < pilot.accuracy < 1
    assert ranking.scores["ridge"].attrs["long_name"] == "Linear ridge, leave-one-out R²"
    assert ranking.scores["upper"].attrs["long_name"] == "expected R², upper end"
    print_ranking(ranking, Console(width=400, file=(printed := io.StringIO())), detailed=True)
    for shown in (printed.getvalue(), ranking._repr_html_(), pick._repr_html_()):
        assert "R²" in shown
        assert "ccurac" not in shown
        assert " class" not in shown.replace("<th class", "").replace(' class="', "")
    again = ts.rank(target, "zoo.yaml", protocol="truncate", pilots=1, uncertainty=2, **options)
    assert again.to_json() == ranking.to_json()
    with pytest.raises(InputError, match="one class each, but the task of 'labels' is regression"):
        ts.advise(target, "zoo.yaml", **options)


def test_labels_that_tell_no_image_apart_are_left_out(table):
    target = ts.load_target(table, labels=["bright", "middle"])
    dark = target.subset(np.flatnonzero(target.values[:, 0] == 0))
    asked = {"zoo": "zoo.yaml", "device": "cpu", "progress": False, "trust_code": True}
    with pytest.warns(TransferscopeWarning, match="The 24 images that are looked at are all alike in bright: no score"):
        bench = Bench.set_up(RankRequest(target=dark, **asked))
    assert bench.values.tolist() == bench.probe.values[:, 1:].tolist()
    neither = dark.subset(np.flatnonzero(dark.values[:, 1] == 0))
    with pytest.raises(InputError, match="images that are looked at apart, but bright, middle cannot"):
        Bench.set_up(RankRequest(target=neither, **asked))
