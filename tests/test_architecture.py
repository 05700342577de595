"""The rules of the house: imports run downward, pure rooms stay pure, starting up is quick."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import transferscope

PACKAGE = Path(transferscope.__file__).parent

# From the bottom up; rooms on one line do not import each other.
FLOORS = [
    ["errors", "templates"],
    ["backend", "products"],
    ["flops", "linalg"],
    ["agreement", "discrepancy", "displacement", "draws", "lookup", "nystrom", "similarity", "ties", "transferability"],
    ["images", "located_yaml", "networks", "progress", "provenance", "reductions", "seeding", "stages", "store"],
    ["power", "samples", "tangents", "zoo"],
    ["activations", "checkpoints", "folders", "footprint", "kept", "panels", "uncertainty"],
    ["data", "grams", "models"],
    ["arrays", "features", "scoring"],
    ["batching", "protocols"],
    ["prediction"],
    ["comparison", "selection", "reference"],
    ["reasons"],
    ["report", "scorer"],
    ["pipeline", "demo"],
    ["advice", "measurement", "pairing"],
    ["parameters"],
    ["cli"],
    ["__main__"],
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
PURE = ("discrepancy", "displacement", "linalg", "nystrom", "similarity", "transferability")
FORBIDDEN_IN_PURE = {
    "torch",
    "torchvision",
    "timm",
    "xarray",
    "pandas",
    "pathlib",
    "os",
    "io",
    "random",
    "cupy",
}


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(path):
    """Yield the dotted names that a module imports, at its top level or inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            if node.module == "transferscope":
                yield from (f"transferscope.{alias.name}" for alias in node.names)


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward(path):
    room = room_of(path)
    used = {name.split(".")[1] for name in imports_of(path) if name.startswith("transferscope.")}
    used -= {"__version__", room}
    too_high = {other for other in used if FLOOR[other] >= FLOOR[room]}
    assert not too_high, f"{room} must not import {too_high}"


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(p) in PURE], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_pure_rooms_know_no_torch_no_xarray_and_no_files(path):
    assert not {name.split(".")[0] for name in imports_of(path)} & FORBIDDEN_IN_PURE


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_host_and_device_moves_happen_in_backend_alone(path):
    if room_of(path) == "backend":
        return
    text = path.read_text(encoding="utf-8")
    assert "from_dlpack" not in text
    assert "asnumpy" not in text
    assert not any(name.split(".")[0] == "cupy" for name in imports_of(path))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_scoring_makes_xarray_objects(path):
    if room_of(path) != "scoring":
        text = path.read_text(encoding="utf-8")
        assert "xr.DataArray(" not in text
        assert "xr.Dataset(" not in text


def test_modules_are_readable_at_one_sitting():
    lines = sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES)
    assert lines[-1] <= 400
    assert lines[len(lines) // 2] <= 170


def test_importing_the_package_loads_neither_torch_nor_cupy():
    code = (
        "import sys, transferscope, transferscope.cli; transferscope.cli.run(['rank', '--help'])\n"
        "loaded = {'torch', 'cupy', 'xarray', 'pandas', 'timm', 'numpy'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_public_name_exists():
    for name in transferscope.__all__:
        assert getattr(transferscope, name) is not None
    assert set(transferscope.__all__) <= set(dir(transferscope))
    with pytest.raises(AttributeError, match="no attribute 'rnak'"):
        transferscope.rnak  # noqa: B018


def test_functions_are_not_shadowed_by_rooms_of_the_same_name():
    code = (
        "import transferscope.pipeline, transferscope.comparison, transferscope as ts\n"
        "assert all(callable(f) for f in (ts.rank, ts.compare, ts.capture, ts.load_target, ts.load_zoo))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
