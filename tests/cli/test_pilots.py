"""`rank --pilots`, `--pilot-budget` and `--evidence` as they are typed."""

import json

import pytest

from transferscope.cli import run
from transferscope.protocols import finetuning
from transferscope.verbs.running.executor import Executor

pytestmark = pytest.mark.usefixtures("unsaved")


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    recipes = finetuning.recipes
    monkeypatch.setattr(finetuning, "recipes", lambda: recipes(epochs=1, min_steps=0))
    (tmp_path / "nets.py").write_text(
        "from transferscope.networks import CompactResNet\ndef build():\n    return CompactResNet(3, width=4)\n"
    )
    path = tmp_path / "zoo.yaml"
    source = {"name": "small", "loader": "python", "factory": "nets.py:build", "transform": {"size": 16}}
    path.write_text(json.dumps({"version": 1, "sources": [source]}))
    return path


def rank(target, zoo, *more):
    options = ["--device", "cpu", "--reference-epochs", "1", "--trust-code", "-o", "out", "--format", "json"]
    return run(["rank", "--target", str(target), "--sources", str(zoo), *options, *more])


def test_a_number_of_them_is_run(target, zoo, capsys):
    assert rank(target, zoo, "--pilots", "1") == 0
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["pilots"]) <= 1
    assert answer["provenance"]["settings"]["pilots"] == 1


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--pilots", "-1"], "Expected `pilots` to be a number of pilots, at least 0, or 'auto', but got -1"),
        (["--pilots", "atuo"], "but got 'atuo' (did you mean 'auto'?)"),
        (["--pilots", "auto", "--pilot-budget", "0"], "`pilot_budget` to be a number of seconds above 0, but got 0"),
        (["--pilot-budget", "60"], "Expected `pilots` beside `pilot_budget`"),
        (["--evidence", "nowhere.csv"], "nowhere.csv cannot be read (No such file or directory)"),
        (["--evidence", "zoo.yaml"], "zoo.yaml is none"),
    ],
)
def test_wrong_ones_end_with_2_and_one_sentence(target, zoo, capsys, typed, said):
    assert rank(target, zoo, *typed) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in " ".join(err.split())
    assert "Traceback" not in err


def test_ctrl_c_in_one_ends_with_130(target, zoo, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("transferscope.verbs.rank.pilots.choose_pilot", lambda *_: (0, 1.0))
    monkeypatch.setattr("transferscope.verbs.rank.pilots.SURE", 2.0)
    monkeypatch.setattr(Executor, "execute", interrupted)
    assert rank(target, zoo, "--pilots", "1") == 130
    assert "Traceback" not in capsys.readouterr().err
