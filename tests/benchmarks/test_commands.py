"""The commands of benchmarks/: each leads to its code, is in the list of them, and starts where it is run by path."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COMMANDS = sorted(path.name for path in BENCHMARKS.glob("*.py"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_leads_to_its_code(command):
    tree = ast.parse((BENCHMARKS / command).read_text(encoding="utf-8"))
    [found] = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    code = BENCHMARKS / f"{found.module.replace('.', '/')}.py"
    assert [name.name for name in found.names] == ["main"]
    defined = {node.name for node in ast.parse(code.read_text(encoding="utf-8")).body if hasattr(node, "name")}
    assert "main" in defined


def test_the_list_names_every_command():
    listed = re.findall(r"^\| `(\w+\.py)", (BENCHMARKS / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == COMMANDS


@pytest.mark.parametrize("path", sorted(BENCHMARKS.rglob("*.py")), ids=lambda path: str(path.relative_to(BENCHMARKS)))
def test_what_a_benchmark_takes_from_the_package_is_there(path):
    missing = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "transferscope":
            module = importlib.import_module(node.module)
            for name in (each.name for each in node.names if not hasattr(module, each.name)):
                if importlib.util.find_spec(f"{node.module}.{name}") is None:
                    missing.append(f"{node.module}.{name}")
    assert not missing


def test_a_command_starts_by_path_from_anywhere(tmp_path):
    command = [sys.executable, BENCHMARKS / "selection.py", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "usage: selection.py [-h] [--format {table,json}]" in done.stdout
