"""The README, docs/ and docstrings: commands, links, calls and names that exist, tables that are those of the code."""

import ast
import importlib.util
import inspect
import pkgutil
import re
import shlex
from pathlib import Path

import click
import pytest

import transferscope as ts
from transferscope.cli import VERBS, cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", *sorted(DOCS.rglob("*.md"))]

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$(\n\n<!-- output and stderr -->)?", re.DOTALL | re.MULTILINE)
INCLUDE = re.compile(r"^```\{include\} (\S+)$", re.MULTILINE)
LINK = re.compile(r"(?<!`)\]\(([^)\s]+)\)")
DOTTED = re.compile(r"(?<!`)`([A-Za-z]\w*(?:\.\w+)+)[`(]")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def name(page):
    return str(page.relative_to(ROOT))


def blocks(language):
    """Every block of code in this language, and whether what goes wrong in it is meant to."""
    return [
        pytest.param(code, bool(shown), id=f"{name(page)}:{text.count(chr(10), 0, found.start()) + 1}")
        for page in PAGES
        for text in [page.read_text(encoding="utf-8")]
        for found in BLOCK.finditer(text)
        for written, code, shown in [found.groups()]
        if written == language
    ]


def commands(code):
    """The arguments of every call of transferscope in a shell script."""
    for line in re.sub(r"<<'END'\n.*?\nEND\n", "\n", code, flags=re.DOTALL).replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        command = []
        for word in [*words, ";"]:
            if set(word) <= set("();<>|&"):
                if command and command[0] == "transferscope":
                    yield command[1:]
                command = []
            else:
                command.append(word)


@pytest.mark.parametrize(("code", "shown"), blocks("bash"))
def test_commands_exist_with_their_options(code, shown):
    for verb, *arguments in commands(code):
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None, verb
        try:
            command.make_context(verb, arguments)
        except click.NoSuchOption:
            raise
        except click.UsageError:
            assert shown, arguments


@pytest.mark.parametrize(("code", "shown"), blocks("python"))
def test_python_calls_what_there_is(code, shown):
    if ">>>" in code:
        return  # test_doctests runs it
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and (found := public(node)) is not None:
            assert found is not inspect.Parameter.empty, ast.unparse(node)
        if isinstance(node, ast.Call) and callable(found := public(node.func)):
            accepted = inspect.signature(found).parameters
            assert {keyword.arg for keyword in node.keywords} <= set(accepted), ast.unparse(node)


def public(node):
    """What a dotted name below `ts` stands for; empty if there is no such thing, None for other names."""
    if isinstance(node, ast.Name):
        return ts if node.id == "ts" else None
    if not isinstance(node, ast.Attribute) or (owner := public(node.value)) is None:
        return None
    return getattr(owner, node.attr, inspect.Parameter.empty)


PACKAGE = Path(ts.__file__).parent
NAMED = {"ts": [ts], "transferscope": [ts]}
"""Modules, rooms and their folders by the last part of their name, and classes: what a dotted name can begin with."""
for found in pkgutil.walk_packages(ts.__path__, "transferscope."):
    if not found.name.endswith("__main__"):
        module = importlib.import_module(found.name)
        NAMED.setdefault(found.name.rpartition(".")[2], []).append(module)
        for each in vars(module).values():
            if inspect.isclass(each) and each.__module__ == found.name:
                NAMED.setdefault(each.__name__, []).append(each)


def there_is(owner, parts):
    """Whether `parts` lead from a module or class to something; fields without a default count."""
    if not parts:
        return True
    first, *rest = parts
    if hasattr(owner, first):
        return there_is(getattr(owner, first), rest)
    return not rest and first in {
        field for each in getattr(owner, "__mro__", ()) for field in inspect.get_annotations(each)
    }


def lost_names(path):
    """Return where a docstring of a module names what is not there."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    variables = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {"net"}  # as in examples
    variables |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {dotted}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for dotted in DOTTED.findall(node.value.value)
        for first, *rest in [dotted.split(".")]
        if not any(there_is(owner, rest) for owner in NAMED.get(first, ()))
        if first in NAMED or not (first in variables or importlib.util.find_spec(first))
    ]


def test_dotted_names_in_docstrings_are_those_of_something():
    assert not [lost for path in sorted(PACKAGE.rglob("*.py")) for lost in lost_names(path)]


def whole(page):
    """A page with what it includes."""
    return INCLUDE.sub(lambda found: whole(page.parent / found[1]), page.read_text(encoding="utf-8"))


def anchors(page):
    """Names of the headings of a page as links know them."""
    titles = HEADING.findall(BLOCK.sub("", whole(page)))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if target.startswith(("https:", "http:", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_the_tables_of_measures_are_current():
    spec = importlib.util.spec_from_file_location("tables", DOCS / "tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    text = tables.PAGE.read_text(encoding="utf-8")
    assert tables.current(text) == text, "python docs/tables.py"
    for measure in (*ts.similarity.MEASURES, *ts.transferability.SCORES):
        assert f"| `{measure}` |" in text


def test_every_public_name_and_every_verb_has_its_place():
    api = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    documented = set(re.findall(r"auto\w+:: transferscope\.(?:report\.|verbs\.)?(\w+)$", api, re.MULTILINE))
    assert set(ts.__all__) <= documented
    shown = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "howto").glob("*.md"))
    assert [verb for verb in VERBS if not re.search(rf"^transferscope {verb}\b", shown, re.MULTILINE)] == []


def test_every_measurement_has_a_page():
    results = {page.name for page in (ROOT / "benchmarks" / "results").glob("*.md")}
    assert results <= {page.name for page in (DOCS / "benchmarks").glob("*.md")}


def test_the_readme_has_the_two_commands_that_others_rely_on():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert "pip install . && transferscope demo" in lines
    assert "pip install '.[test]' && pytest" in lines
