"""The rules of the house: imports run downward, pure rooms stay pure, starting up is quick."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import transferscope

PACKAGE = Path(transferscope.__file__).parent

# From the bottom up: room and what it is for. Imports run downward, also those inside functions; rooms of one floor do
# not import each other.
FLOORS = [
    {"errors": "failures that are expected, and near names"},
    {
        "runtime": "what any run needs: progress, store, seeding, provenance, footprint",
        "arrays": "NumPy and CuPy mathematics",
    },
    {
        "similarity": "how alike layers are: pure array functions",
        "transferability": "how features suit labels: pure array functions",
        "data": "labelled images",
    },
    {
        "activations": "forward passes to features",
        "networks": "a zoo entry to a network",
    },
    {
        "protocols": "real transfers",
        "results": "records of what was found: no pictures, no pages",
    },
    {
        "prediction": "scores and evidence to expected accuracies to a choice",
        "report": "views of results",
    },
    {"verbs": "one function a question"},
    {"cli": "parses, calls, prints"},
    {"__init__": "the face: lazy names", "__main__": "python -m transferscope"},
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
PURE = ("arrays", "similarity", "transferability")
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
# The one exception of each rule.
HOST_AND_DEVICE = PACKAGE / "arrays" / "backend.py"
LABELLED = PACKAGE / "results" / "labelled.py"

FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path, package=PACKAGE):
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def room_of(module):
    return module.split(".")[1] if "." in module else "__init__"


def imports_in(tree, modules=MODULES):
    """Yield the dotted names that a module imports, at its top level or inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else node.module for name in inner)


def imports_of(path):
    return imports_in(ast.parse(path.read_text(encoding="utf-8")))


def own_imports_of(path):
    return {name for name in imports_of(path) if name in MODULES} - {name_of(path)}


def by_name(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(PACKAGE)))


def test_every_room_has_its_place():
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms == set(FLOOR)
    assert len(rooms - {"__init__", "__main__"}) <= 14
    assert len(FLOORS) <= 9


@by_name(FILES)
def test_imports_run_downward(path):
    room = room_of(name_of(path))
    too_high = {
        other for other in own_imports_of(path) if room_of(other) != room and FLOOR[room_of(other)] >= FLOOR[room]
    }
    assert not too_high, f"{room} must not import {too_high}"


@by_name(FILES)
def test_private_names_stay_in_their_module(path):
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    names = {alias.name for node in nodes if node.module.split(".")[0] == "transferscope" for alias in node.names}
    assert not {name for name in names if name.startswith("_") and not name.startswith("__")}


def test_no_circle_between_files():
    used = {name: own_imports_of(path) for name, path in MODULES.items()}
    while used:
        free = {name for name, others in used.items() if not others & set(used)}
        assert free, f"each of these imports another of them: {sorted(used)}"
        used = {name: others for name, others in used.items() if name not in free}


@by_name([path for path in FILES if room_of(name_of(path)) in PURE and path != HOST_AND_DEVICE])
def test_pure_rooms_know_no_torch_no_xarray_and_no_files(path):
    assert not {name.split(".")[0] for name in imports_of(path)} & FORBIDDEN_IN_PURE


@by_name([path for path in FILES if path != HOST_AND_DEVICE])
def test_host_and_device_moves_happen_in_backend_alone(path):
    text = path.read_text(encoding="utf-8")
    assert "from_dlpack" not in text
    assert "asnumpy" not in text
    assert not any(name.split(".")[0] == "cupy" for name in imports_of(path))


@by_name([path for path in FILES if path != LABELLED])
def test_only_labelled_makes_and_reads_xarray_objects(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of_xarray = isinstance(node.func.value, ast.Name) and node.func.value.id in {"xr", "xarray"}
            makers = {"DataArray", "Dataset", "Variable", "full_like", "zeros_like", "ones_like", "open_dataset"}
            assert node.func.attr != "to_xarray", f"line {node.lineno}"
            assert not (of_xarray and node.func.attr in makers), f"line {node.lineno}"


def test_modules_are_readable_at_one_sitting():
    lines = sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES)
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
        "import transferscope.verbs.rank.rank, transferscope.verbs.compare.networks, transferscope as ts\n"
        "assert all(callable(f) for f in (ts.rank, ts.compare, ts.capture, ts.load_target, ts.load_zoo))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    "code",
    [
        "import transferscope.parameters\nfrom transferscope.parameters import measure\nimport transferscope as ts\n"
        "assert measure is ts.parameters.measure is transferscope.parameters.measure",
        "from transferscope.parameters import measure\nimport transferscope as ts\n"
        "assert measure is ts.parameters.measure",
        "from transferscope.networks import CompactResNet\n"
        "from transferscope.networks.compact import CompactResNet as defined\nassert CompactResNet is defined",
    ],
    ids=["parameters", "from parameters", "networks"],
)
def test_imports_that_are_promised_work_in_a_fresh_process(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


PRIVATE = {
    "activations/dataflow.py": {"<module>"},  # as runtime/flops.py
    "protocols/cutting/dividing.py": {"_drop_pre_hooks"},
    "runtime/flops.py": {"<module>"},  # torch has no public name for a mode that sees every operator
    "runtime/power.py": {"_found_by", "_estimated_watts"},
    "runtime/trees.py": {"flattened", "rebuilt", "<module>"},
}
"""The functions that may use private names of other libraries; tests/test_private_names.py says when those move."""

THEIRS = {"_core", "_routines_linalg", "_hardware", "_mode", "_tdp", "_cpu_count", "_parameters", "_buffers"} | {
    "_forward_hooks", "_forward_pre_hooks", "_pytree", "_NormBase", "_BatchNorm", "_modules", "_dynamo", "_orig_mod",
}  # fmt: skip


def private_uses(tree):
    """Yield each use of a private name of another library, and the function that it stands in."""
    inside = {}
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            inside[child] = node.name if isinstance(node, ast.FunctionDef) else inside.get(node, "<module>")
            own = isinstance(child, ast.Attribute) and ast.unparse(child.value) == "self"
            if isinstance(child, ast.Attribute) and child.attr in THEIRS and not own:
                yield child.attr, inside[child]
            if isinstance(child, ast.ImportFrom) and not child.module.startswith("transferscope"):
                named = [*child.module.split("."), *(alias.name for alias in child.names)]
                yield from ((name, inside[child]) for name in named if name.startswith("_") and name[:2] != "__")


@by_name(FILES)
def test_private_names_of_others_are_behind_one_function_each(path):
    allowed = PRIVATE.get(str(path.relative_to(PACKAGE)), set())
    uses = {(name, where) for name, where in private_uses(ast.parse(path.read_text(encoding="utf-8")))}
    assert not {(name, where) for name, where in uses if where not in allowed}
