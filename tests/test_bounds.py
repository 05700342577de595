"""Versions agree: the oldest that CI tries with the bounds, its tools with the pins, and this package's own."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from transferscope.runtime.version import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = [Requirement(each) for each in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]]
PINNED = re.compile(r"^(\S+)==(\S+)$", re.MULTILINE)
TOOLS = dict(PINNED.findall((ROOT / ".ci" / "tools.txt").read_text(encoding="utf-8")))
TRIED = dict(PINNED.findall((ROOT / ".ci" / "oldest.txt").read_text(encoding="utf-8")))


@pytest.mark.parametrize("needed", NEEDED, ids=lambda needed: needed.name)
def test_every_bound_is_a_version_that_there_is_and_that_was_tried(needed):
    (bound,) = needed.specifier
    assert bound.operator == ">="
    assert Version(TRIED[needed.name.lower()]) == Version(bound.version), "CONTRIBUTING.md says how to make oldest.txt"


def test_tools_are_pinned_alike_for_developers_and_for_ci():
    wanted = [Requirement(each) for each in PROJECT["optional-dependencies"]["dev"]]
    pins = {each.name: bound.version for each in wanted for bound in each.specifier if bound.operator == "=="}
    assert {"mypy", "ruff", "uv"} <= set(pins)
    assert pins == {name: TOOLS.get(name) for name in pins}


def test_the_package_has_one_version():
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert PROJECT["version"] == __version__ == citation[1]
