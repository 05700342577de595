import csv
import io
import json

import numpy as np
import pytest

import transferscope as ts
from transferscope.cli import run


@pytest.fixture(autouse=True)
def files(quiet_house):
    """Give each test files of features in its working folder."""
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.arange(30) % 3)
    X, labels = rng.normal(size=(30, 8)) + rng.normal(size=(3, 8))[codes], np.array(["cat", "dog", "emu"])[codes]
    np.savez("features.npz", features=X, labels=labels)
    np.save("x.npy", X)
    np.save("y.npy", labels)
    return X, labels


def test_json_holds_what_the_function_returns(files, capsys):
    assert run(["score", "features.npz", "--format", "json"]) == 0
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert err == ""
    assert {key: answer[key] for key in ("schema_version", "samples", "features")} == {
        "schema_version": 1, "samples": 30, "features": 8,
    }  # fmt: skip
    expected = ts.score(*files).loc["features"]
    assert {row["score"]: row["value"] for row in answer["scores"]} == pytest.approx(expected.to_dict())
    assert answer["scores"][1]["title"] == ts.transferability.SCORES["hscore"].title
    assert answer["scores"][1]["range"] == "[0, C - 1]"


def test_csv_has_a_row_per_measure_in_the_order_asked_for(files, capsys):
    assert run(["score", "x.npy", "y.npy", "--measure", "ridge", "--measure", "logme", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["score"] for row in rows] == ["ridge", "logme"]
    expected = ts.score(*files, measures=["ridge", "logme"]).loc["features"]
    assert [float(row["value"]) for row in rows] == pytest.approx(expected.tolist())


def test_table_names_every_score(files, capsys):
    assert run(["score", "features.npz"]) == 0
    out = capsys.readouterr().out
    expected = ts.score(*files).loc["features"]
    for name, value in expected.items():
        line = next(line for line in out.splitlines() if line.split()[0] == name)
        assert f"{value:.4f}" in line
        assert ts.transferability.SCORES[name].title in line


def test_what_is_not_a_number_is_null_and_the_reason_goes_to_stderr(files, capsys):
    np.savez("each.npz", features=files[0], labels=np.arange(30))
    command = ["score", "each.npz", "--measure", "parc", "--measure", "ridge", "--format", "json"]
    assert run(command) == 0
    out, err = capsys.readouterr()
    assert [row["value"] for row in json.loads(out)["scores"]] == [None, 0.0]
    assert err.startswith("warning: the score parc is NaN")
    assert run([*command, "-q"]) == 0
    assert capsys.readouterr().err == ""


def test_probabilities_in_the_file_bring_leep(files, capsys):
    X, labels = files
    probabilities = np.eye(3)[np.unique(labels, return_inverse=True)[1]]
    np.savez("more.npz", features=X, labels=labels, source_probabilities=probabilities)
    assert run(["score", "more.npz", "--measure", "leep", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"][0]["value"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["featrues.npz"], "did you mean 'features.npz'"),
        (["x.npy"], "labels"),
        (["features.npz", "--measure", "hscor"], "did you mean 'hscore'"),
        (["features.npz", "--measure", "leep"], "source_probabilities"),
        (["features.npz", "--format", "xml"], "'json'"),
        (["features.npz", "y.npy"], "holds its own"),
        (["x.npy", "x.npy"], "`labels`"),
        ([], "FILE"),
    ],
)
def test_wrong_usage_is_one_sentence(capsys, arguments, message):
    assert run(["score", *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert "Traceback" not in err
    assert out == ""


def test_a_regression_has_its_own_scores(tmp_path, capsys):
    features = np.random.default_rng(0).normal(size=(20, 3))
    np.savez(tmp_path / "numbers.npz", features=features, labels=features[:, :2])
    assert run(["score", str(tmp_path / "numbers.npz"), "--task", "regression", "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["task"] == "regression"
    rows = {row["score"]: row for row in answer["scores"]}
    assert rows["ridge"]["title"] == "Linear ridge, leave-one-out R²"
    assert rows["ridge"]["value"] > 0.99
    assert run(["score", str(tmp_path / "numbers.npz")]) == 2
    assert "labels" in capsys.readouterr().err
