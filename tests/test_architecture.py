"""The rules of the house: imports run downward, pure rooms stay pure, starting up is quick."""

import ast
import subprocess
import sys
from functools import cache
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


@cache
def text_of(path):
    return path.read_text(encoding="utf-8")


@cache
def tree_of(path):
    return ast.parse(text_of(path))


@cache
def imports_of(path):
    return list(imports_in(tree_of(path)))


def own_imports_of(path):
    return {name for name in imports_of(path) if name in MODULES} - {name_of(path)}


def breaches(of, paths=FILES):
    """Return what `of` finds in each file, for the files in which it finds anything."""
    found = {str(path.relative_to(PACKAGE)): set(of(path)) for path in paths}
    return {path: what for path, what in found.items() if what}


def test_every_room_has_its_place():
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms == set(FLOOR)
    assert len(rooms - {"__init__", "__main__"}) <= 14
    assert len(FLOORS) <= 9


def test_imports_run_downward():
    def too_high(path):
        room = room_of(name_of(path))
        others = {other for other in own_imports_of(path) if room_of(other) != room}
        return {other for other in others if FLOOR[room_of(other)] >= FLOOR[room]}

    assert not breaches(too_high)


def test_private_names_stay_in_their_module():
    def private(path):
        nodes = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ImportFrom)]
        names = {alias.name for node in nodes if node.module.split(".")[0] == "transferscope" for alias in node.names}
        return {name for name in names if name.startswith("_") and not name.startswith("__")}

    assert not breaches(private)


def test_no_circle_between_files():
    used = {name: own_imports_of(path) for name, path in MODULES.items()}
    while used:
        free = {name for name, others in used.items() if not others & set(used)}
        assert free, f"each of these imports another of them: {sorted(used)}"
        used = {name: others for name, others in used.items() if name not in free}


def test_pure_rooms_know_no_torch_no_xarray_and_no_files():
    pure = [path for path in FILES if room_of(name_of(path)) in PURE and path != HOST_AND_DEVICE]
    assert not breaches(lambda path: {name.split(".")[0] for name in imports_of(path)} & FORBIDDEN_IN_PURE, pure)


def test_host_and_device_moves_happen_in_backend_alone():
    def moves(path):
        yield from (move for move in ("from_dlpack", "asnumpy") if move in text_of(path))
        yield from (name for name in imports_of(path) if name.split(".")[0] == "cupy")

    assert not breaches(moves, [path for path in FILES if path != HOST_AND_DEVICE])


def test_only_labelled_makes_and_reads_xarray_objects():
    makers = {"DataArray", "Dataset", "Variable", "full_like", "zeros_like", "ones_like", "open_dataset"}

    def made(path):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of_xarray = isinstance(node.func.value, ast.Name) and node.func.value.id in {"xr", "xarray"}
                if node.func.attr == "to_xarray" or (of_xarray and node.func.attr in makers):
                    yield f"line {node.lineno}: {node.func.attr}"

    assert not breaches(made, [path for path in FILES if path != LABELLED])


def test_modules_are_readable_at_one_sitting():
    lines = sorted(len(text_of(path).splitlines()) for path in FILES)
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


PROMISED = [
    # functions are not shadowed by rooms of the same name
    "import transferscope.verbs.rank.rank, transferscope.verbs.compare.networks, transferscope as ts\n"
    "assert all(callable(f) for f in (ts.rank, ts.compare, ts.capture, ts.load_target, ts.load_zoo))",
    "import transferscope.parameters\nfrom transferscope.parameters import measure\nimport transferscope as ts\n"
    "assert measure is ts.parameters.measure is transferscope.parameters.measure",
    "from transferscope.parameters import measure\nimport transferscope as ts\nassert measure is ts.parameters.measure",
    "from transferscope.networks import CompactResNet\n"
    "from transferscope.networks.compact import CompactResNet as defined\nassert CompactResNet is defined",
]
FORKS = """
import os, sys, traceback
import torch, xarray  # once for all: they take longest
assert "transferscope" not in sys.modules
for code in {codes}:
    child = os.fork()
    if not child:
        try:
            exec(code, {{}})
        except BaseException:
            print(code, traceback.format_exc(), sep="\\n", file=sys.stderr, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, code
"""


def test_imports_that_are_promised_work_in_a_fresh_process():
    code = FORKS.format(codes=PROMISED)
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


def test_private_names_of_others_are_behind_one_function_each():
    def elsewhere(path):
        allowed = PRIVATE.get(str(path.relative_to(PACKAGE)), set())
        return {(name, where) for name, where in private_uses(tree_of(path)) if where not in allowed}

    assert not breaches(elsewhere)
