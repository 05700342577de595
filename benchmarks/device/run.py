"""Everything on a GPU: its tests, and what it is worth. One command of at most nine minutes, which resumes.

    python benchmarks/gpu.py [--output FOLDER] [--minutes 9]

First `pytest -m gpu`, then a table, a row at a time: each is written to `gpu.json` as soon as it is measured, may take
no longer than its budget, and is not measured again when the command is given again. `gpu.md` is the page of them.

Needs a GPU, torch, CuPy, timm, xarray and what `pip install '.[test]'` brings; pytest-xdist and pytest-timeout are
used where they are there. pytorch-cka and torch_cka are run where they are installed. `--device cpu --small --output
FOLDER` runs every line on the CPU, NumPy in place of CuPy, to see that it works.
"""

import argparse
import importlib.util
import os
import queue
import re
import subprocess
import sys
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[1]
ROOT = BENCHMARKS.parent
NEEDED = {"torch": "torch", "timm": "timm", "xarray": "xarray", "array_api_compat": "array-api-compat",
          "pydantic": "pydantic", "click": "click", "h5netcdf": "h5netcdf", "torchvision": "torchvision"}  # fmt: skip
FOR_TESTS = {"pytest": "pytest", "hypothesis": "hypothesis", "array_api_strict": "array-api-strict",
             "sklearn": "scikit-learn", "codecarbon": "codecarbon"}  # fmt: skip
TESTS_LIMIT = 240.0
START = 90.0
"""Seconds that a process may take to import everything and find the device."""
VERSIONS = ("torch", "cupy-cuda12x", "cupy-cuda13x", "timm", "numpy", "array-api-compat")


def missing(modules: dict[str, str]) -> list[str]:
    """Return the distributions whose modules are not installed."""
    return [package for module, package in modules.items() if importlib.util.find_spec(module) is None]


def test_files() -> list[str]:
    """Return the files of tests that want a GPU: by their mark, or by the fixture that knows CuPy."""
    wanted = re.compile(r"mark\.gpu|def test_\w+\([^)]*\bxp\b")
    found = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if wanted.search(path.read_text("utf-8"))]
    return [str(path.relative_to(ROOT)) for path in found]


def pytest_command(on_gpu: bool) -> list[str]:
    """Return how the tests are run: without plugins that may be absent, and without others' warnings as errors."""
    ours = "error::transferscope.errors.TransferscopeWarning"
    options = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "filterwarnings=", "-W", ours]
    options += ["--import-mode=importlib", "-rf", "--tb=short"]
    if importlib.util.find_spec("xdist"):
        options += ["-n", str(min(8, os.cpu_count() or 1)), "--dist", "loadfile"]
    chosen = ["-m", "gpu"] if on_gpu else ["-k", "stand-in and trips"]
    return [
        sys.executable,
        "-m",
        "pytest",
        *options,
        *chosen,
        *(test_files() if on_gpu else ["tests/verbs/test_gpu.py"]),
    ]


def run_tests(on_gpu: bool, limit: float) -> dict[str, Any]:
    """Run the tests; return their closing line and the names of those that failed."""
    if lacking := missing(FOR_TESTS):
        return {"note": f"not run: {', '.join(lacking)} not installed"}
    began = time.perf_counter()
    with subprocess.Popen(
        pytest_command(on_gpu), cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as running:
        timer = threading.Timer(limit, running.kill)
        timer.start()
        assert running.stdout is not None
        output = running.stdout.read()
        timer.cancel()
    lines = output.splitlines()
    summary = next((line.strip("= ") for line in reversed(lines) if re.search(r"\d+ (passed|failed|error)", line)), "")
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    if running.returncode < 0:
        summary = f"stopped after {limit:.0f} s"
    return {"summary": summary, "failed": failed[:50], "tail": output[-6000:], "took": time.perf_counter() - began}


def environment() -> dict[str, str]:
    """Return what processes of this command are started with."""
    path = os.pathsep.join([str(BENCHMARKS), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


def run_rows(device: str, sizes: str, record: Path, until: float) -> None:
    """Measure all rows in a process of its own, started again where a row outlives its budget or takes it down."""
    from device.machine import Machine
    from device.rows import SIZES, read, rows, write

    Machine(device, SIZES[sizes])  # which says what is wrong, before a process does
    budgets = {row.name: row.budget for row in rows(SIZES[sizes])}
    command = [sys.executable, "-m", "device.rows", device, sizes, str(record)]
    while set(budgets) - set(read(record)) and time.monotonic() < until:
        with subprocess.Popen(command, env=environment(), text=True, stdout=subprocess.PIPE) as running:
            said: queue.Queue[str | None] = queue.Queue()
            threading.Thread(target=_listen, args=(running, said), daemon=True).start()
            row, why = _follow(said, budgets, until)
            running.kill()
        if row is None and why:
            raise SystemExit(f"No row was measured: {why}")
        if row is not None and why and row not in (content := read(record)):
            write(record, {**content, row: {"note": why, "took": budgets[row]}})


def _listen(running: Any, said: queue.Queue[str | None]) -> None:
    for line in running.stdout:
        said.put(line.strip())
    said.put(None)


def _follow(said: queue.Queue[str | None], budgets: dict[str, float], until: float) -> tuple[str | None, str]:
    """Return the row that a process was at when it ended or was given up, and why: nothing where it simply is time."""
    row, limit = None, START
    while True:
        try:
            line = said.get(timeout=max(0.1, min(limit, until - time.monotonic())))
        except queue.Empty:
            late = time.monotonic() >= until
            return row, "" if late else f"given up after {limit:.0f} s"
        if line is None:
            return row, "its process ended"
        if line in budgets:
            print(line, file=sys.stderr, flush=True)
            row, limit = line, budgets[line]


def describe(device: str, machine_name: str, sizes: str) -> dict[str, Any]:
    """Return what everything ran on."""
    found = []
    for name in VERSIONS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return {"device": machine_name, "on_gpu": device == "cuda", "sizes": sizes, "versions": ", ".join(found)}


def main(arguments: list[str] | None = None) -> None:
    """Test, measure, and write record and page."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--small", action="store_true", help="small sizes, to see that everything runs")
    parser.add_argument("--output", type=Path, help="folder for gpu.json and gpu.md; on a GPU benchmarks/results")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--skip-tests", action="store_true")
    parser.add_argument("--retry", action="store_true", help="measure again what failed or was given up")
    options = parser.parse_args(arguments)
    if lacking := missing(NEEDED):
        raise SystemExit(f"Install what is missing first: pip install {' '.join(lacking)}")
    sys.path[:0] = [str(ROOT)]
    import torch

    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and options.output is None:
        raise SystemExit(
            "torch sees no GPU. To see every line run on the CPU: python benchmarks/gpu.py --device cpu --small "
            "--output FOLDER"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU: install a driver and a CUDA build of torch")
    folder = options.output or BENCHMARKS / "results"
    folder.mkdir(parents=True, exist_ok=True)
    sizes = "small" if options.small else "full"
    if options.retry:
        forget_failures(folder / "gpu.json")
    measure_all(device, sizes, folder, began + 60 * options.minutes, skip_tests=options.skip_tests)


def forget_failures(record: Path) -> None:
    """Take what failed, or was given up, out of the record."""
    from device.rows import read, write

    kept = {
        name: row
        for name, row in read(record).items()
        if not ({"failure", "note"} & set(row) or row.get("failed") or row.get("summary") == "")
    }
    write(record, kept)


def measure_all(device: str, sizes: str, folder: Path, until: float, *, skip_tests: bool) -> None:
    """Do what the record in `folder` lacks, until it is time; the page is written whatever happens."""
    from device.machine import Machine
    from device.page import page
    from device.rows import SIZES, read, write

    record = folder / "gpu.json"
    machine = describe(device, Machine(device, SIZES[sizes]).name(), sizes)
    content = read(record)
    if content.get("machine", machine) != machine:
        raise SystemExit(f"{record} is of another machine, of other versions or sizes: move it away, or give --output")
    write(record, {"machine": machine, **content})
    try:
        if not skip_tests and "tests" not in content:
            limit = min(TESTS_LIMIT, until - time.monotonic())
            write(record, {**read(record), "tests": run_tests(device == "cuda", limit)})
        run_rows(device, sizes, record, until)
    finally:
        text = page(read(record))
        (folder / "gpu.md").write_text(text)
        print(text)
