"""`transferscope measure`: what goes where, what is refused how, and what a kill leaves behind."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from image_folders import coloured_noise

from transferscope.cli import run
from transferscope.verbs.running.executor import Executor

IDENTITY = ["source", "protocol", "depth", "layer", "samples_per_class", "seed"]


@pytest.fixture(autouse=True)
def data(tmp_path):
    return coloured_noise(tmp_path / "data")


@pytest.fixture(autouse=True)
def zoo(tmp_path):
    (tmp_path / "nets.py").write_text(
        "from torch import nn\nfrom transferscope.networks import CompactResNet\n\nprint('a factory says hello')\n\n"
        "def build():\n    return CompactResNet(3, width=4)\n\ndef bad():\n    raise RuntimeError('[no] way')\n\n"
        "def small():\n    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(196, 3))\n"
    )
    return write_zoo(first="build", second="build")


def write_zoo(**factories):
    path = Path("zoo.yaml")
    entries = [
        {"name": name, "loader": "python", "factory": f"nets.py:{factory}", "transform": {"size": 16}}
        for name, factory in factories.items()
    ]
    path.write_text(json.dumps({"version": 1, "sources": entries}))
    return path


ARGUMENTS = [
    "measure", "--target", "data", "--sources", "zoo.yaml", "--trust-code", "--device", "cpu", "-o", "out",
    "--depths", "-1", "--epochs", "1", "--min-steps", "0",
]  # fmt: skip
SMALL = ["--protocols", "truncate", "--samples-per-class", "2", "--seeds", "1"]


def measure(*more, small=True):
    return run([*ARGUMENTS, *(SMALL if small else []), *more])


def read(folder="out"):
    """Return the runs; of one that was run again, the last row."""
    table = pd.read_csv(f"{folder}/runs.csv", keep_default_na=False, dtype={"layer": str}).drop_duplicates(
        IDENTITY, keep="last"
    )
    return table.sort_values(IDENTITY, ignore_index=True)


def contents(folder):
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


class TestAnswers:
    def test_json_alone_on_stdout_and_everything_else_on_stderr(self, capfd):
        assert measure("--format", "json") == 0
        out, err = capfd.readouterr()
        answer = json.loads(out)
        assert answer["target"]["classes"] == 3
        assert [row["source"] for row in answer["results"]] == ["first", "second"]
        assert "a factory says hello" in err
        files = "runs.csv, measurement.json, measurement.csv, measurement.nc, networks.csv, report.html"
        pictures = [name for name in os.listdir("out") if name.endswith(".png")]
        assert "accuracy-by-seconds.png" in pictures
        assert f"Wrote {6 + len(pictures)} files to out: {files}, {len(pictures)} pictures.\n" in err
        assert Path("out/measurement.json").read_text(encoding="utf-8") == out

    @pytest.mark.usefixtures("unsaved")
    def test_csv_on_stdout_is_the_table(self, capsys):
        assert measure("--format", "csv") == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert [(row["source"], row["protocol"], row["depth"]) for row in rows] == [
            ("first", "truncate", "8"), ("second", "truncate", "8"),
        ]  # fmt: skip

    @pytest.mark.usefixtures("undrawn")
    def test_the_table_is_for_people_and_quiet_says_nothing_else(self, capsys, monkeypatch):
        monkeypatch.setenv("TERM", "dumb")
        Path("nets.py").write_text(Path("nets.py").read_text().replace("print", "str"))
        assert measure("-q") == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert out.split()[:4] == ["images", "protocol", "source", "cut"]
        for word in ("truncate", "9 test images of data (3 classes", "g CO2e/kWh"):
            assert word in " ".join(out.split())
        # A second time nothing is run, and the answer is the same, save for the power that was measured.
        assert measure("-q") == 0
        assert capsys.readouterr().out.partition("Energy")[0] == out.partition("Energy")[0]

    @pytest.mark.usefixtures("unsaved")
    def test_failures_are_exit_code_3_and_the_others_are_measured(self, capsys):
        write_zoo(first="build", worse="bad")
        assert measure() == 3
        out, err = capsys.readouterr()
        assert "worse failed: factory " in " ".join(out.split())
        assert "RuntimeError: [no] way" in " ".join(out.split())
        assert "warning: worse failed: " in err
        assert set(read()["source"]) == {"first"}
        write_zoo(worse="bad")
        assert measure() == 1
        assert "error: No source could be loaded. worse: " in capsys.readouterr().err

    @pytest.mark.usefixtures("unsaved")
    def test_failed_runs_are_exit_code_3_until_they_are_done(self, capsys, monkeypatch):
        with monkeypatch.context() as context:
            context.setattr(Executor, "_fit_head", None)
            assert measure("--format", "json") == 3
            assert len(json.loads(capsys.readouterr().out)["failed_runs"]) == 2
        assert measure("-q") == 3
        out, err = capsys.readouterr()
        assert "first: 1 run failed (truncate): TypeError" in " ".join(out.split())
        assert set(err.splitlines()) == {"a factory says hello"}
        assert measure("--retry-failed") == 0
        assert set(read()["status"]) == {"done"}

    @pytest.mark.usefixtures("unsaved")
    def test_the_time_budget_ends_it_well_and_says_what_is_left(self, capsys):
        assert measure("--time-budget", "1e-9") == 0
        out, err = capsys.readouterr()
        assert "The time is up; 2 runs are left. The same command goes on with them." in err
        assert "No run has ended yet." in out

    def test_dry_run_writes_nothing(self, capsys, tmp_path):
        assert (
            measure("--dry-run", "--protocols", "truncate,scratch") == 0
        )  # the cache learns what the networks can be adapted by
        capsys.readouterr()
        before = contents(tmp_path)
        assert measure("--dry-run", "--protocols", "truncate,scratch") == 0
        out, _ = capsys.readouterr()
        assert "3 runs, about " in out, "two cuts, and one network from scratch for both sources"
        assert contents(tmp_path) == before
        assert not Path("out").exists()
        assert measure("--dry-run", "--format", "json", "--time-budget", "1") == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["seconds"] > 0
        assert sum(row["runs"] for row in answer["runs"]) == 2
        assert measure("--dry-run", "--format", "csv") == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert {row["protocol"] for row in rows} == {"(features)", "truncate"}

    @pytest.mark.usefixtures("unsaved")
    def test_dry_run_leaves_a_table_as_it_is(self, capsys):
        assert measure("-q") == 0
        before = contents("out")
        capsys.readouterr()
        for more, runs in (([], 0), (["--seeds", "2"], 2), (["--epochs", "2"], 2), (["--country", "DEU"], 2)):
            assert measure("--dry-run", *more) == 0
            assert f"{runs} runs, about" in capsys.readouterr().out
            assert contents("out") == before


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--protocols", "truncat"], "'truncat' (did you mean 'truncate'?)"),
            (["--protocols", ""], "`protocols` to be a list with commas"),
            (["--depths", "1,x"], "`depths` to be all, or a list"),
            (["--depths", "99"], "`depths` to lie between 0 and"),
            (["--depths", "0"], "`depths` to hold at least one above 0"),
            (["--samples-per-class", "0"], "`samples_per_class` to list whole numbers above 0 or all"),
            (["--samples-per-class", "2;5"], "'2;5'"),
            (["--learning-rates", "fast"], "expected numbers like 0.01,0.05, but got 'fast'"),
            (["--learning-rates", "-1"], "`learning_rate` to be positive"),
            (["--learning-rates", "nan"], "`learning_rate` to be positive"),
            (["--learning-rates", "inf"], "`learning_rate` to be finite"),
            (["--country", "Germany"], "'Germany' (did you mean 'DEU'?)"),
            (["--optimiser", "adam"], "'sgd', 'adamw'"),
            (["--seeds", "0"], "--seeds"),
            (["--jobs", "0"], "--jobs"),
            (["--test-samples", "1"], "--test-samples"),
            (["--time-budget", "0"], "--time-budget"),
            (["--target", "nowhere"], "nowhere"),
            (["--sources", "nowhere.yaml"], "nowhere.yaml"),
            (["-o", "zoo.yaml"], "output folder to be writable, but zoo.yaml is not"),
            (["-o", "zoo.yaml/deeper"], "output folder to be writable"),
            (["-o", ""], "output folder to have a name"),
        ],
    )
    def test_wrong_usage_is_one_sentence_and_nothing_is_recorded(self, capsys, tmp_path, arguments, said):
        zoo = Path("zoo.yaml").read_bytes()
        assert measure(*arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert said in err
        assert "Traceback" not in err
        assert not list(tmp_path.rglob("runs.csv"))
        assert Path("zoo.yaml").read_bytes() == zoo

    def test_factories_need_trust(self, capsys):
        assert run([argument for argument in ARGUMENTS if argument != "--trust-code"]) == 2
        err = capsys.readouterr().err
        assert "--trust-code" in err
        assert "hello" not in err

    def test_one_that_keeps_a_folder_to_itself_keeps_others_out(self, capsys, monkeypatch):
        from transferscope.verbs.measure.lock import lock

        monkeypatch.setattr("transferscope.verbs.measure.lock.PATIENCE_S", 0.05)
        Path("out").mkdir()
        held, _ = lock(Path("out"))
        try:
            assert measure() == 2
        finally:
            os.close(held)
        assert f"another measure is running in it (process {os.getpid()} on" in capsys.readouterr().err


@pytest.mark.usefixtures("unsaved")
class TestInterruptions:
    def wait_for_rows(self, rows):
        deadline = time.monotonic() + 90
        path = Path("out/runs.csv")
        while time.monotonic() < deadline and not (path.exists() and path.read_bytes().count(b"\n") > rows):
            time.sleep(0.01)

    def assert_gone(self, processes):
        assert len(processes) >= 2
        _, alive = psutil.wait_procs(processes, timeout=20)
        assert not [process.cmdline() for process in alive]

    @pytest.mark.usefixtures("forked")
    def test_ctrl_c_ends_with_130_and_leaves_whole_rows_and_no_process(self, capfd):
        # Frozen features are quick; training from scratch takes for ever.
        write_zoo(first="small")
        more = ["--protocols", "truncate,scratch", "--samples-per-class", "2", "--epochs", "1000000", "--jobs", "2"]
        workers = []

        def interrupt():
            self.wait_for_rows(1)
            time.sleep(0.5)  # while the row is on its way to the disk an interrupt takes it back
            this = psutil.Process()
            workers.extend(each for each in this.children(recursive=True) if each.ppid() != this.pid)
            for pid in [*(worker.pid for worker in workers), os.getpid()]:  # as a terminal does
                os.kill(pid, signal.SIGINT)

        # A shell that runs the tests in the background has it ignored.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        thread = threading.Thread(target=interrupt)
        try:
            thread.start()
            code = run([*ARGUMENTS, *more])
            thread.join()
        finally:
            signal.signal(signal.SIGINT, before)
        out, err = capfd.readouterr()
        assert code == 130, err
        assert out == ""
        assert "Interrupted" in err
        assert "Traceback" not in err
        self.assert_gone(workers)
        assert set(read()["status"]) == {"done"}
        assert not list(Path("out").rglob("*.tmp"))

    def test_after_a_kill_the_same_command_ends_as_if_there_had_been_none(self, tmp_path):
        write_zoo(first="small", second="build")
        more = ["--protocols", "truncate,finetune", "--samples-per-class", "2,5", "--seeds", "2"]
        process = subprocess.Popen(
            [sys.executable, "-m", "transferscope", *ARGUMENTS, *more, "--jobs", "2"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            env={**os.environ, "TRANSFERSCOPE_HOME": str(tmp_path / "other home"), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.wait_for_rows(3)
        children = psutil.Process(process.pid).children(recursive=True)
        workers = [each for each in children if "resource_tracker" not in str(each.cmdline())]
        process.kill()
        process.communicate(timeout=60)
        self.assert_gone(workers)
        killed = read()
        assert 3 <= len(killed) < 16
        assert run([*ARGUMENTS, *more, "-q"]) == 0
        assert run([*ARGUMENTS, *more, "-q", "-o", "undisturbed"]) == 0
        ours, theirs = read(), read("undisturbed")
        assert ours[IDENTITY].equals(theirs[IDENTITY])
        assert len(ours) == 16
        same = ["samples", "flops", "trials", "status"]
        assert ours[same].equals(theirs[same])
        # Rounding may differ with the number of threads, and so a test image of nine.
        np.testing.assert_allclose(ours["accuracy"], theirs["accuracy"], atol=0.12)
        kept = killed.merge(ours, on=list(killed.columns))
        assert len(kept) == len(killed), "what was recorded stays as it was"
        assert not Path("out/.states").exists()
        phases = pd.read_csv("out/phases.csv", keep_default_na=False, dtype={"layer": str})
        phases = phases.drop_duplicates([*IDENTITY, "phase"], keep="last")
        sums = phases.groupby(IDENTITY)["seconds"].sum()
        np.testing.assert_allclose(sums, ours.set_index(IDENTITY)["seconds"].loc[sums.index], rtol=1e-4)
