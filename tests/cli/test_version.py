"""What `--version` says, and what it says with `-v`, also of an installation that does not work."""

import platform
import sys
from importlib import metadata

import pytest
import torch

from transferscope import __version__
from transferscope.cli import run, version
from transferscope.runtime.provenance import versions

pytestmark = pytest.mark.bounds

FIRST = f"transferscope, version {__version__}"


def printed(capsys, *arguments):
    assert run(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


def rows(lines):
    """The rows below the first line by name; all values begin in one column."""
    (start,) = {len(line) - len(line.split(maxsplit=1)[1]) for line in lines[1:]}
    return {line[:start].rstrip(): line[start:] for line in lines[1:]}


def test_one_line_without_v(capsys):
    assert printed(capsys, "--version") == [FIRST]


@pytest.mark.parametrize("arguments", [("--version", "-v"), ("-v", "--version"), ("--version", "--verbose")])
def test_python_the_packages_and_the_gpu_with_v(arguments, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    lines = printed(capsys, *arguments)
    assert lines[0] == FIRST
    said = rows(lines)
    assert [*said] == ["python", "platform", *version.PACKAGES, "CUDA", "GPU"]
    assert said["python"] == platform.python_version()
    for name in ("torch", "scikit-learn", "pandas"):
        assert said[name] == metadata.version(name)
    assert said["GPU"] == "GPU 0, GPU 1"


def test_what_is_missing_or_broken_is_said(capsys, monkeypatch):
    monkeypatch.setattr(version, "PACKAGES", ("torch", "no-such-package"))
    monkeypatch.setitem(sys.modules, "torch", None)
    said = rows(printed(capsys, "--version", "-v"))
    assert said["no-such-package"] == "not installed"
    assert said["GPU"].startswith("not known, for torch says: ModuleNotFoundError: ")


def test_v_alone_belongs_behind_the_verb(capsys):
    assert run(["-v", "rank"]) == 2
    assert "write it after the verb" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cupy", "cupy-cuda12x", "cupy-cuda13x"])
def test_cupy_is_found_under_the_names_that_it_is_installed_by(name, monkeypatch):
    def installed(asked):
        if asked != name:
            raise metadata.PackageNotFoundError(asked)
        return "13.6"

    monkeypatch.setattr(metadata, "version", installed)
    assert versions() == {"python": platform.python_version(), "cupy": "13.6"}
