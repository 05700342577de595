"""The versions that CI takes for the oldest are the bounds that pyproject.toml gives."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = [Requirement(each) for each in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]]
PINNED = re.compile(r"^(\S+)==(\S+)$", re.MULTILINE)
TRIED = dict(PINNED.findall((ROOT / ".ci" / "oldest.txt").read_text(encoding="utf-8")))


@pytest.mark.parametrize("needed", NEEDED, ids=lambda needed: needed.name)
def test_every_bound_is_a_version_that_there_is_and_that_was_tried(needed):
    (bound,) = needed.specifier
    assert bound.operator == ">="
    assert Version(TRIED[needed.name.lower()]) == Version(bound.version), "CONTRIBUTING.md says how to make oldest.txt"
