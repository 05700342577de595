"""Standard streams that are closed, full or gone, names that command a terminal, and signals that end a run."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from image_folders import coloured_noise

from transferscope.cli import run, streams
from transferscope.errors import InputError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

HOSTILE = "x\x1b]52;c;cm0gLXJm\x07\x1b[2J\x9b31m\u202egpj\r\b"


class Found:
    """What a verb finds, as far as the command line looks at it: a megabyte of JSON, and one file."""

    provenance, timings = None, {}
    failed = left_out = failed_runs = ()

    def to_json(self):
        return json.dumps("x" * 2**20) + "\n"

    def save(self, folder):
        path = Path(folder) / "found.json"
        path.write_text("all of it")
        return [path]

    def run(self, _budget):
        return self


VERBS = {
    "rank": ("rank.rank", ["--target", "t", "--sources", "z"]),
    "compare": ("compare.sources", ["a", "b", "--target", "t", "--sources", "z"]),
    "advise": ("advise.advise", ["--target", "t", "--sources", "z"]),
    "measure": ("measure.measure", ["--target", "t", "--sources", "z"]),
    "parameters": ("parameters.study", ["--target", "t", "--sources", "z"]),
}


@pytest.fixture
def found(monkeypatch):
    for module, _ in VERBS.values():
        name = "prepare" if module == "measure.measure" else "answer"
        monkeypatch.setattr(f"transferscope.verbs.{module}.{name}", lambda _request: Found())


def ended(arguments, *, stdout=None, stderr=None):
    """Run a command in a process of its own; return its exit code and what it wrote to streams that are not given.

    A stream is given as something to open for writing, or "closed", or "gone": a pipe that nobody reads.
    """
    files = {1: open("stdout", "w+b"), 2: open("stderr", "w+b")}  # noqa: SIM115
    child = os.fork()
    if not child:
        code = 99
        try:
            for number, given in {1: stdout, 2: stderr}.items():
                if given == "gone":
                    reading, writing = os.pipe()
                    os.close(reading)
                    os.dup2(writing, number)
                elif given == "closed":
                    os.close(number)
                else:
                    os.dup2(files[number].fileno() if given is None else os.open(given, os.O_WRONLY), number)
            sys.stdout = None if stdout == "closed" else io.TextIOWrapper(io.FileIO(1, "w"))
            sys.stderr = None if stderr == "closed" else io.TextIOWrapper(io.FileIO(2, "w"), line_buffering=True)
            code = run(arguments)
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()  # as Python does at the end
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    texts = [Path(name).read_text() for name in ("stdout", "stderr")]
    for file in files.values():
        file.close()
    return code, *texts


# --- files first --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize(("verb", "stdout", "code", "says"), [
    *((verb, "/dev/full", 1, "Standard output could not be written (No space left on") for verb in VERBS),
    ("rank", "gone", 0, ""), ("rank", "closed", 0, ""),
])  # fmt: skip
def test_files_are_safe_whatever_becomes_of_the_words(verb, stdout, code, says):
    arguments = [verb, *VERBS[verb][1], "-o", "out", "--format", "json", "-q"]
    got, _, err = ended(arguments, stdout=stdout)
    assert (got, Path("out/found.json").read_text()) == (code, "all of it")
    assert err.count("\n") == bool(says)
    assert says in err


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize(
    ("verb", "stderr"), [*((verb, "/dev/full") for verb in VERBS), ("rank", "gone"), ("rank", "closed")]
)
def test_a_stderr_that_cannot_be_written_ends_nothing(verb, stderr):
    code, out, _ = ended([verb, *VERBS[verb][1], "-o", "out", "--format", "json"], stderr=stderr)
    assert (code, out) == (0, Found().to_json())
    assert Path("out/found.json").read_text() == "all of it"


@pytest.mark.usefixtures("found")
def test_the_answer_is_shown_also_when_its_files_find_no_room(monkeypatch, capsys):
    def full(_found, folder):
        raise InputError(f"Expected the output folder to be writable, but {folder} is not; choose another one with -o")

    monkeypatch.setattr(Found, "save", full)
    assert run(["rank", *VERBS["rank"][1], "-o", "out", "--format", "json"]) == 2
    out, err = capsys.readouterr()
    assert out == Found().to_json()
    assert "error: Expected the output folder to be writable" in err


@pytest.mark.parametrize(("stdout", "code", "says"), [
    ("gone", 0, ""), ("/dev/full", 1, "error: Standard output could not be written (No space left on device)"),
    ("closed", 1, "error: Standard output could not be written (it is closed); redirect it"),
])  # fmt: skip
def test_where_words_are_all_there_is_their_loss_is_told(stdout, code, says):
    np.savez("features.npz", features=np.eye(6), labels=np.arange(6) % 2)
    got, _, err = ended(["score", "features.npz", "--measure", "logme"], stdout=stdout)
    assert got == code
    assert err.startswith(says)
    assert err.count("\n") == bool(says)


def test_a_closed_stream_is_no_file_that_is_opened_later():
    child = os.fork()
    if not child:
        code = 99
        try:
            os.close(1)
            sys.stdout = None
            with streams.guarded():
                code = os.open("mine", os.O_CREAT | os.O_WRONLY)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) > 2


# --- names of strangers -------------------------------------------------------------------------------------------


def commands(text):
    """Return the characters of a text that a terminal would obey, but for ends of lines."""
    return {each for each in text if unicodedata.category(each) in ("Cc", "Cf", "Cs") and each != "\n"}


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_names_of_layers_do_not_reach_a_terminal(form, capsys):
    Path("nets.py").write_text(
        "from torch import nn\n\ndef build():\n    net = nn.Sequential()\n"
        f"    net.add_module({HOSTILE.replace('.', '')!r}, nn.Conv2d(3, 4, 3))\n"
        "    net.add_module('flat', nn.Flatten())\n    net.add_module('head', nn.Linear(784, 3))\n    return net\n"
    )
    entry = {"name": "=1+1", "loader": "python", "factory": "nets.py:build", "transform": {"size": 16}}
    Path("zoo.yaml").write_text(json.dumps({"version": 1, "sources": [entry]}))
    assert run(["layers", entry["name"], "--sources", "zoo.yaml", "--trust-code", "--all", "--format", form]) == 0
    out, err = capsys.readouterr()
    assert commands(out + err) == set()
    assert r"\x1b" in out or r"\u001b" in out
    if form == "json":
        assert json.loads(out)[0]["layer"] == HOSTILE


def test_sentences_do_not_command_a_terminal(capsys):
    assert run(["validate", f"{HOSTILE}.yaml"]) == 2
    assert run([HOSTILE]) == 2
    assert run(["rank", "--target", HOSTILE, "--sources", f"{HOSTILE}.yaml", "-o", "out"]) == 2
    out, err = capsys.readouterr()
    assert err.count("52;c") >= 3
    assert commands(out + err) == set()


def test_a_name_of_a_megabyte_is_not_echoed_whole(capsys):
    assert run(["k" * 1_000_000]) == 2
    err = capsys.readouterr().err
    assert "kkk … (" in err
    assert len(err) < 10_000


# --- signals ------------------------------------------------------------------------------------------------------


def test_sigterm_ends_a_grid_with_143_and_takes_its_processes_along(tmp_path):
    coloured_noise(tmp_path / "data")
    Path("nets.py").write_text(
        "from transferscope.networks import CompactResNet\ndef build():\n    return CompactResNet(3, width=4)\n"
    )
    entry = {"name": "a", "loader": "python", "factory": "nets.py:build", "transform": {"size": 16}}
    Path("zoo.yaml").write_text(json.dumps({"version": 1, "sources": [entry]}))
    process = subprocess.Popen(
        [sys.executable, "-m", "transferscope", "measure", "--target", "data", "--sources", "zoo.yaml", "--trust-code",
         "--device", "cpu", "--protocols", "truncate,finetune", "--epochs", "100000", "--samples-per-class", "2",
         "--seeds", "2", "--jobs", "2", "-o", "out"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    runs = tmp_path / "out" / "runs.csv"
    while not (runs.exists() and runs.read_bytes().count(b"\n") > 1) and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=60)  # its workers would keep the streams open
    assert (process.returncode, out) == (143, "")
    assert err.splitlines()[-1] == "Terminated; nothing half-written was left behind."
    assert "semaphore" not in err
    assert "Traceback" not in err
    end = time.monotonic() + 10
    while alive(process.pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(process.pid)


def alive(group):
    """Whether any process of a group lives."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_library_that_wraps_the_signal_changes_nothing(monkeypatch, capsys, found):
    def wraps(_request):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise OSError(errno.EINTR, "Interrupted system call") from None

    monkeypatch.setattr("transferscope.verbs.rank.rank.answer", wraps)
    assert run(["rank", *VERBS["rank"][1], "-o", "out"]) == 143
    assert "Terminated" in capsys.readouterr().err
