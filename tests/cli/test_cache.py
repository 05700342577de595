"""`transferscope cache` and `transferscope slurm`: what they print, take away and refuse."""

import json
import os
import subprocess
import time

import numpy as np
import pytest

from transferscope.cli import run
from transferscope.runtime.store import Store

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Three entries of about 8 kB, a day, an hour and no time old, and a file of somebody else's."""
    folder = tmp_path / "home"
    monkeypatch.setenv("TRANSFERSCOPE_HOME", str(folder))
    store = Store()
    for kind, age in (("features", 86400), ("scores", 3600), ("scores", 0)):
        key = f"{age:064d}"
        store.put(kind, key, {"x": np.zeros(1000)}, {})
        (path,) = folder.rglob(f"{key}.safetensors")
        os.utime(path, (time.time() - age,) * 2)
    (folder / "mine.txt").write_text("mine")
    return folder


def left(home):
    return sorted(path.parts[-3] for path in home.rglob("*.safetensors"))


def test_size_and_age_are_said_by_kind(capsys, home):
    assert run(["cache", "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["folder"] == str(home)
    kinds = {kind["kind"]: kind for kind in answer["kinds"]}
    assert {kind: each["files"] for kind, each in kinds.items()} == {"features": 1, "scores": 2}
    assert 16_000 < kinds["scores"]["bytes"] < 18_000
    assert 3600 <= kinds["scores"]["oldest_seconds"] < 3700
    assert run(["cache"]) == 0
    out = capsys.readouterr().out
    assert "60 min" in out
    assert f"kB in {home}." in out.replace("\n", "")
    assert run(["cache", "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("kind,files,bytes")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--prune-older-than", "2h"], ["scores", "scores"]),
        (["--prune-older-than", "30m"], ["scores"]),
        (["--max-size", "17.5K"], ["scores", "scores"]),
        (["--max-size", "0"], []),
        (["--prune-older-than", "30d", "--max-size", "10GB"], ["features", "scores", "scores"]),
        (["--max-size", "0", "--dry-run"], ["features", "scores", "scores"]),
    ],
)
def test_the_oldest_goes_first_and_nothing_of_others(options, expected, home, capsys):
    assert run(["cache", *options]) == 0
    assert left(home) == expected
    assert (home / "mine.txt").exists()
    assert ("would be taken away" in capsys.readouterr().out) == ("--dry-run" in options)


def test_where_there_is_no_cache_it_is_empty(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TRANSFERSCOPE_HOME", str(tmp_path / "none"))
    assert run(["cache"]) == 0
    assert capsys.readouterr().out.startswith("0 B in ")


@pytest.mark.parametrize("options", [["--prune-older-than", "30"], ["--max-size", "much"], ["--max-size", "-1"]])
def test_what_is_no_age_or_size_is_said_to_be(options, capsys, home):
    assert run(["cache", *options]) == 2
    assert "expected a number" in capsys.readouterr().err
    assert len(left(home)) == 3


def test_the_script_is_one_that_bash_and_sbatch_read(capsys, tmp_path):
    asked = ["--tasks", "3", "--gpus", "1", "--partition", "gpu", "rank", "--target", "my data", "-o", "out"]
    assert run(["slurm", *asked]) == 0
    script = capsys.readouterr().out
    assert script.startswith("#!/bin/bash\n#SBATCH")
    assert {"#SBATCH --array=0-2", "#SBATCH --gres=gpu:1", "#SBATCH --partition=gpu"} <= set(script.splitlines())
    assert script.rstrip().endswith("-m transferscope rank --target 'my data' -o out")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_a_value_that_would_end_its_line_is_refused(capsys):
    assert run(["slurm", "--partition", "gpu\nrm", "rank"]) == 2
    assert "Expected `partition` to be one word" in capsys.readouterr().err
    assert run(["slurm", "compare"]) == 2
