"""Zoo files of strangers that ask for all the time or memory there is: a sentence with its line, at once."""

import re
import time

import pytest

from transferscope.errors import InputError
from transferscope.networks.factories import from_factory
from transferscope.networks.located_yaml import shown
from transferscope.networks.lookup import missing_function, parsed
from transferscope.networks.zoo import check_files, load_zoo

HEAD = "version: 1\nsources:\n"
ENTRY = "  - {{name: a, loader: timm, model: {}}}\n"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

FILES = {
    "aliases": (LAUGHS, r"\d: not valid YAML: aliases that stand for more than 30000 keys and values"),
    "aliases as keys": (LAUGHS + "? *i\n: 1\n", "aliases that stand for more"),
    "merges": (MERGES, "aliases that stand for more than 30000"),
    "itself": ("version: 1\nsources: &a [*a]\n", ":2: not valid YAML: an alias that holds itself"),
    "nested": (HEAD + "[" * 3000, ":3: not valid YAML: "),
    "nested in blocks": (
        "".join(" " * i + "a:\n" for i in range(600)),
        ":41: .*nested more than 40 deep",
    ),
    "many sources": (HEAD + "  - {name: a, loader: timm, model: b}\n" * 20_000, "more than 30000 keys and values"),
    "long integer": (HEAD + ENTRY.format("9" * 5000), ":3: not valid YAML: '9.*…' has 5000 characters, more than"),
    "hexadecimal": (f"version: 0x{'f' * 100_000}\n", "has 100002 characters, more than"),
    "sexagesimal": ("version: 1" + ":10" * 5000 + "\n", "characters, more than"),
    "long text": (HEAD + ENTRY.format("m" * 1_000_000), "has 1000000 characters, more than the 5000 of a text"),
    "long key": (f"{'k' * 5_000_000}: 1\n", "has 3000000 characters|not valid YAML"),
    "timestamp": ("version: !!timestamp x\n", ":1: not valid YAML: 'x' is no timestamp"),
    "no day": ("version: 2020-02-31\n", r"'2020-02-31' is no timestamp \(day is out of range for month\)"),
    "bool": ("version: 1\nsources: !!bool x\n", ":2: not valid YAML: 'x' is no bool"),
    "int": ("version: !!int ''\n", "'' is no int"),
    "float": ("version: !!float '1:x'\n", "'1:x' is no float"),
    "binary": ("version: !!binary 'ü'\n", "not valid YAML"),
    "timestamp list": ("version: !!timestamp [1]\n", "not valid YAML"),
    "omap": ("version: !!omap {a: 1}\n", "not valid YAML"),
    "key of a key": ("? {? {a: 1} : 2}\n: 3\n", "not valid YAML"),
    "user": (HEAD + ENTRY.format("resnet18, checkpoint: ~no-such-user/w.pt"), "checkpoint is ~no-such-user/w.pt, but"),
    "long name": (HEAD + ENTRY.format(f"resnet18, checkpoint: {'n' * 300}.pt"), None),
    "nul": (HEAD + ENTRY.format('resnet18, checkpoint: "a\\0.pt"'), None),
    "size": (HEAD + ENTRY.format(f"resnet18, transform: {{size: {'9' * 200}}}"), "from 1 to 4096"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_zoo_that_asks_for_too_much_is_refused_at_once(tmp_path, name):
    text, says = FILES[name]
    path = tmp_path / "zoo.yaml"
    path.write_text(text, encoding="utf-8")
    import timm  # noqa: F401  # takes its time too

    start = time.process_time()
    if says is None:  # what is not there is told by itself
        (problem,) = check_files(load_zoo(path))
        assert "checkpoint: there is no file" in problem
    else:
        with pytest.raises(InputError, match=f"(?s)zoo.yaml.*{says}" if "~" not in says else says) as raised:
            load_zoo(path)
        assert len(str(raised.value)) < 2000
    assert time.process_time() - start < 5


def test_a_huge_zoo_is_not_read(tmp_path):
    path = tmp_path / "zoo.yaml"
    with path.open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(InputError, match="its 8589934592 bytes are more than"):
        load_zoo(path)


def test_many_unknown_models_are_told_in_seconds(tmp_path):
    path = tmp_path / "zoo.yaml"
    path.write_text(HEAD + "".join(f"  - {{name: m{i}, loader: timm, model: resnot{i}}}\n" for i in range(1000)))
    zoo = load_zoo(path)
    start = time.process_time()
    problems = check_files(zoo)
    assert time.process_time() - start < 10  # of which timm itself takes some
    assert len(problems) == 1000
    assert "did you mean 'res" in problems[0]
    assert problems[-1].endswith("timm has no model 'resnot999'; see its list_models()")


def test_of_many_problems_the_first_are_listed(tmp_path):
    path = tmp_path / "zoo.yaml"
    path.write_text(HEAD + "  - {name: a, lader: timm}\n" * 1000)
    with pytest.raises(InputError) as raised:
        load_zoo(path)
    lines = str(raised.value).splitlines()
    assert len(lines) == 102
    assert re.fullmatch(r"and \d+ more", lines[-1])


def test_what_came_is_shown_in_short():
    assert shown("x" * 10**6) == "'" + "x" * 76 + "..."
    assert shown([1, "a", None]) == "[1, 'a', None]"
    assert len(shown(list(range(10**5)))) <= 80
    assert len(shown(10**200)) == 80


DEEP = {
    "brackets": "def build():\n    return " + "(" * 5000 + ")" * 5000,
    "signs": "def build():\n    return " + "-" * 200_000 + "1",
    "attributes": "def build():\n    return a" + ".b" * 200_000,
    "blocks": "".join("    " * min(i, 150) + "if x:\n" for i in range(150)) + "    " * 150 + "pass",
    "nul": "def build(): pass\0",
}


@pytest.mark.parametrize("name", DEEP)
def test_code_that_is_nested_too_deeply_says_nothing_of_its_functions(tmp_path, name):
    path = tmp_path / "nets.py"
    path.write_text(DEEP[name])
    found = missing_function(path, "build")
    assert found is None or name == "attributes"


def test_code_that_python_cannot_compile_is_an_error_of_its_source(tmp_path):
    from transferscope.errors import SourceError

    for name in DEEP:
        (tmp_path / "nets.py").write_text(DEEP[name])
        (tmp_path / "zoo.yaml").write_text(
            HEAD + "  - {name: a, loader: python, factory: nets.py:build, transform: {size: 8}}\n"
        )
        (source,) = load_zoo(tmp_path / "zoo.yaml")
        with pytest.raises(SourceError, match=r"nets.py"):
            from_factory(source)


def test_a_factory_that_is_a_pipe_is_not_opened(tmp_path):
    import os

    os.mkfifo(tmp_path / "nets.py")
    (tmp_path / "zoo.yaml").write_text(
        HEAD + "  - {name: a, loader: python, factory: nets.py:build, transform: {size: 8}}\n"
    )
    zoo = load_zoo(tmp_path / "zoo.yaml")
    assert "is a pipe, which is not read" in check_files(zoo)[0]
    assert parsed(tmp_path / "nets.py") is None
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(InputError, match="is a pipe, which is not read"):
        load_zoo(tmp_path / "pipe.yaml")
