"""`measure` of several labels an image and of numbers: each run beside what its metric says, and every view of it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score, r2_score
from small_zoo import write_zoo

import transferscope as ts
from transferscope.cli import run
from transferscope.data.splits import hold_out
from transferscope.errors import InputError
from transferscope.verbs.running.executor import Executor

N = 48
RNG = np.random.default_rng(0)
COLOURS = RNG.uniform(0, 1, (N, 3))
PIXELS = np.clip(COLOURS[:, None, None] + RNG.normal(0, 0.05, (N, 12, 12, 3)), 0, 1).astype(np.float32)
LABELS = (COLOURS > [0.5, 0.4, 0.7]).astype(int)
BRIGHTNESS = 100 + 50 * COLOURS.mean(axis=1)
PROTOCOLS = ("truncate", "toptuning", "fne", "reinit", "finetune", "defrost", "surgical", "scratch")
OPTIONS = {"device": "cpu", "trust_code": True, "progress": False}
CELL = ["protocol", "depth", "layer", "samples_per_class"]


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_zoo()


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_every_protocol_is_measured_by_the_figures_of_its_task(zoo, task, monkeypatch):
    said = {}
    row = Executor.row

    def noted(executor, run, predictions, footprint, share=1.0):
        said[tuple(getattr(run, name) for name in CELL)] = predictions
        return row(executor, run, predictions, footprint, share)

    monkeypatch.setattr(Executor, "row", noted)
    target = ts.load_target((PIXELS, LABELS if task == "multi-label" else BRIGHTNESS), task=task)
    asked = {"protocols": PROTOCOLS, "samples_per_class": (3, "all"), "depths": (1, -1), "seeds": 1, **OPTIONS}
    asked |= {"epochs": 1, "min_steps": 0}
    measured = ts.measure(target, zoo, "out", **asked)
    assert (measured.runs["status"] == "done").all(), measured.failed_runs["error"].tolist()
    truth = target.values[hold_out(target)[1]]
    assert len(said) == len(measured.runs)
    for found in measured.runs.to_dict("records"):
        predictions = said[tuple(found[name] for name in CELL)]
        if task == "multi-label":
            expected = average_precision_score(truth, predictions), f1_score(truth, predictions > 0, average="macro")
            assert (found["mean_average_precision"], found["macro_f1"]) == pytest.approx(expected)
        else:
            assert found["r2"] == pytest.approx(r2_score(truth, predictions))
    judged = "mean_average_precision" if task == "multi-label" else "r2"
    top = measured.table[judged].max()
    assert top > (0.75 if task == "multi-label" else 0.5)
    assert measured.settings["chance"] == pytest.approx(truth.mean() if task == "multi-label" else 0)
    assert "accuracy" not in measured.runs
    again = ts.measure(target, zoo, "out", **asked)
    pd.testing.assert_frame_equal(again.runs, measured.runs)
    names = {path.name for path in measured.save("out")}
    assert {"accuracy-by-depth.png", "report.html", "measurement.json"} <= names
    title = "mean average precision" if task == "multi-label" else "R²"
    assert f"{title} {top:.3f}" in Path("out/report.html").read_text(encoding="utf-8")
    assert json.loads(Path("out/measurement.json").read_text(encoding="utf-8"))["target"]["task"] == task
    assert json.loads(Path("out/measure.json").read_text(encoding="utf-8"))["task"] == task


def test_the_command_line_says_what_it_is_judged_by(zoo, monkeypatch, capsys):
    monkeypatch.setattr("transferscope.results.measurement.Measurement.save", lambda _self, _folder: [])
    for i, pixels in enumerate(PIXELS):
        Image.fromarray((255 * pixels).astype(np.uint8)).save(f"{i}.png")
    pd.DataFrame({"path": [f"{i}.png" for i in range(N)], "light": BRIGHTNESS}).to_csv("t.csv", index=False)
    asked = ["measure", "--target", "t.csv", "--sources", zoo, "--trust-code", "--device", "cpu", "-q", "--labels"]
    asked += ["light", "--task", "regression", "--depths", "1", "--seeds", "1", "--samples-per-class", "4", "-o", "out"]
    assert run([*asked, "--protocols", "truncate", "--metric", "spearman"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "images: of each range, to train on." in out
    assert "Rank correlation: on 12 test images of t (1 number; the same answer for all images gives 0.000)" in out
    assert run([*asked, "--metric", "macro-f1"]) == 2
    assert "one of r2, spearman for the task regression, but macro-f1 is one of multi-label" in capsys.readouterr().err
    assert run([*asked, "--protocols", "svm"]) == 2
    assert "svm tells classes apart and has no meaning for a regression" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [ts.advise, ts.parameters.measure], ids=["advise", "parameters"])
def test_verbs_of_classes_refuse_others_in_a_sentence(zoo, verb):
    target = ts.load_target((PIXELS, BRIGHTNESS), task="regression")
    with pytest.raises(InputError, match="one class each, but the task of 'arrays' is regression"):
        verb(target, zoo, **OPTIONS)
