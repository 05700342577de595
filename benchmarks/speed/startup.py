"""How long `import transferscope`, `--help` and completion take, and what is imported for them.

`python benchmarks/startup.py` runs each of them some times as a process of its own, in turns, so that a busy moment
falls on all of them, and writes benchmarks/results/startup.md. The entry point is the installed one of the same
Python. The minimum is what it takes on an idle machine, the median what it took on this one.
"""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from transferscope.cli import VERBS

RESULTS = Path(__file__).parents[1] / "results" / "startup.md"
BARE = "python -c pass"
IMPORT = "import transferscope"
TOP = 15
LIMITS = {IMPORT: 0.5, "transferscope --help": 0.3, **{f"transferscope {verb} --help": 0.3 for verb in VERBS}}


def program() -> str:
    """Return the path of the installed entry point."""
    found = shutil.which("transferscope", path=str(Path(sys.executable).parent)) or shutil.which("transferscope")
    if found is None:
        raise SystemExit("transferscope is not installed for this Python.")
    return found


def seconds(command: list[str], env: dict[str, str]) -> float:
    """Return the wall time of one run."""
    began = time.perf_counter()
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def import_times(code: str) -> list[tuple[int, int, str]]:
    """Return own and cumulated microseconds of the modules that `code` imports, the most expensive first."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True
    )  # fmt: skip
    rows = []
    for line in done.stderr.splitlines():
        own, cumulated, name = line.removeprefix("import time:").split("|")
        if own.strip().isdigit():
            rows.append((int(own), int(cumulated), name.strip()))
    return sorted(rows, reverse=True)


def commands(folder: Path) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Return what is timed: its name, its words and the variables that it is run with."""
    zoo = folder / "zoo.yaml"
    names = "".join(f"- {{name: source-{number}, loader: timm, model: resnet18}}\n" for number in range(100))
    zoo.write_text(f"version: 1\nsources:\n{names}")
    tab = {
        "_TRANSFERSCOPE_COMPLETE": "bash_complete",
        "COMP_WORDS": f"transferscope layers --sources {zoo} source-9",
        "COMP_CWORD": "4",
    }
    return {
        BARE: ([sys.executable, "-c", "pass"], {}),
        IMPORT: ([sys.executable, "-c", "import transferscope"], {}),
        "transferscope --help": ([program(), "--help"], {}),
        **{f"transferscope {verb} --help": ([program(), verb, "--help"], {}) for verb in VERBS},
        "TAB after a source's name, of 100": ([program()], tab),
    }


def main() -> None:
    """Time everything and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=21)
    runs = parser.parse_args().runs
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        timed = commands(Path(folder))
        for turn in range(runs + 1):
            for name, (command, variables) in timed.items():
                taken = seconds(command, {**os.environ, **variables})
                if turn:  # the first one fills the disk cache
                    times.setdefault(name, []).append(taken)
    lines = [
        "# Startup",
        "",
        f"`python benchmarks/startup.py`: {runs} runs of each, in turns. {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, click {version('click')}; load average {os.getloadavg()[0]:.1f} at the "
        "end, so that the minimum says more than the median.",
        "",
        "| | minimum, ms | median, ms | over bare Python (minimum) | limit, ms |",
        "|---|---|---|---|---|",
    ]
    for name, taken in times.items():
        limit = f"{1000 * LIMITS[name]:.0f}" if name in LIMITS else ""
        lines.append(
            f"| `{name}` | {1000 * min(taken):.0f} | {1000 * statistics.median(taken):.0f} | "
            f"{min(taken) / min(times[BARE]):.1f} × | {limit} |"
        )
    for title, code in {
        IMPORT: IMPORT,
        "transferscope rank --help": "from transferscope.cli import run; run(['rank', '--help'])",
    }.items():
        found = import_times(code)
        lines += [
            "",
            f"What `{title}` imports, by `python -X importtime`: {len(found)} modules, "
            f"{sum(own for own, _, _ in found) / 1000:.0f} ms in all. The most expensive:",
            "",
            "| module | own, ms | with what it imports, ms |",
            "|---|---|---|",
            *(f"| {name} | {own / 1000:.1f} | {cumulated / 1000:.1f} |" for own, cumulated, name in found[:TOP]),
        ]
    RESULTS.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
