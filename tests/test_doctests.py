"""The examples in docstrings and in the documentation, run."""

import doctest
import importlib
from pathlib import Path

import pytest

import transferscope as ts

PACKAGE = Path(ts.__file__).parent
ROOT = Path(__file__).parents[1]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def shows_examples(path):
    return ">>> " in path.read_text(encoding="utf-8")


MODULES = sorted(
    ".".join(("transferscope", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if shows_examples(path)
)
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if shows_examples(path))


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    failed, tried = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert tried
    assert not failed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages(page):
    failed, tried = doctest.testfile(str(page), module_relative=False, encoding="utf-8", optionflags=FLAGS)
    assert tried
    assert not failed


def test_the_main_functions_show_how_they_are_used():
    functions = [ts.score, ts.compare, ts.capture, ts.cut, ts.load_target, ts.parameters.transferability]
    functions += [getattr(ts.similarity, name) for name in ts.similarity.MEASURES]
    functions += [score.function for score in ts.transferability.SCORES.values()]
    assert [function.__name__ for function in functions if ">>> " not in function.__doc__] == []
