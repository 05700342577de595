"""What damaged, hostile and odd inputs do: a table of their kinds, with the longest time and the largest memory.

    python benchmarks/faults/run.py [--inputs N] > benchmarks/results/faults.md

Each kind is tried in a process of its own, on one core; what `tests/fuzz` tries is the beginning of the same. Memory is
that of the whole process while it reads one input; what the imports alone take stands beside the table.
"""

import argparse
import collections
import io
import json
import logging
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

LIMIT = 60
"""Seconds after which an input is given up."""
WARM = 60
"""Inputs before those that count, for libraries to be imported."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=300, help="of each kind")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.kind:
        print(json.dumps(tried(arguments.kind, arguments.inputs)))
        return
    from faults.inputs import KINDS

    results = {kind: in_a_process(kind, arguments.inputs) for kind in KINDS}
    print(page(results))
    if any(result["wrong"] for result in results.values()):
        sys.exit(1)


def in_a_process(kind: str, inputs: int) -> dict[str, Any]:
    words = [sys.executable, __file__, "--kind", kind, "--inputs", str(inputs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=LIMIT * inputs)
    if done.returncode:
        raise SystemExit(f"{kind}: the process ended with {done.returncode}: {done.stderr[-2000:]}")
    print(f"{kind}: done", file=sys.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def tried(kind: str, inputs: int) -> dict[str, Any]:
    """Try inputs of a kind in this process; how they ended, and the longest and the largest."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _too_slow)
    counts: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    seconds, memory = [], []
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        os.environ["TRANSFERSCOPE_HOME"] = str(Path(place) / "home")
        for seed in range(-WARM, inputs):
            ended, took, peak = _one(kind, seed, Path(place))
            if seed == -1:
                imported = peak_memory()
            if seed < 0:
                continue
            counts[ended.partition(":")[0]] += 1
            if ended.startswith("wrong"):
                wrong.append(f"seed {seed}: {ended}")
            seconds.append(took)
            memory.append(peak)
        os.chdir("/")
    return {
        "counts": counts, "wrong": wrong, "seconds": max(seconds), "memory": max(memory), "imported": imported,
        "over": sum(took > 5 for took in seconds), "large": sum(peak > 1e9 for peak in memory),
    }  # fmt: skip


def _one(kind: str, seed: int, place: Path) -> tuple[str, float, float]:
    import click

    from faults.inputs import KINDS
    from transferscope.errors import TransferscopeError

    folder = place / str(seed)
    folder.mkdir()
    attempt = KINDS[kind](random.Random(f"{kind} {seed}"), folder)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the largest memory so far
    signal.alarm(LIMIT)
    start = time.perf_counter()
    try:
        with redirect_stderr(io.StringIO()):
            attempt()
        ended = "survived"
    except (TransferscopeError, click.ClickException):
        ended = "refused"
    except BaseException as error:
        ended = f"wrong: {type(error).__name__}: {error}"[:500]
    took = time.perf_counter() - start
    signal.alarm(0)
    return ended, took, peak_memory()


def peak_memory() -> float:
    """Return the largest resident memory of this process since it was last asked to forget it, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _too_slow(*_: Any) -> None:
    raise TimeoutError(f"over {LIMIT} s")


def page(results: dict[str, dict[str, Any]]) -> str:
    from faults.inputs import KINDS

    total = sum(sum(result["counts"].values()) for result in results.values())
    wrong = [f"{kind}, {each}" for kind, result in results.items() for each in result["wrong"]]
    slow, large = (sum(result[key] for result in results.values()) for key in ("over", "large"))
    imported = max(result["imported"] for result in results.values())
    lines = [
        "# Damaged, hostile and odd inputs",
        "",
        f"`python benchmarks/faults/run.py` made {total} inputs and tried each: it is *refused* by an error of this "
        "package, which is a sentence, or *survived*: it ends well, with a note where something was left out. Anything "
        'else is *wrong*: another error, "This is a bug in transferscope", a changed cache entry that is taken for its '
        "own.",
        "",
        f"**{len(wrong)} were wrong, {slow} took over 5 s, {large} more than 1 GB.**",
        "",
        "| kind | what was tried | inputs | refused | survived | wrong | longest, s | largest memory, MB |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, result in results.items():
        counts = result["counts"]
        numbers = [sum(counts.values()), *(counts.get(key, 0) for key in ("refused", "survived", "wrong"))]
        what = str(KINDS[kind].__doc__).partition(": ")[2].rstrip(".")
        cells = [kind, what, *map(str, numbers), f"{result['seconds']:.2f}", f"{result['memory'] / 1e6:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- {each}" for each in wrong), *([""] if wrong else [])]
    lines += [
        "Memory is that of the whole process while it reads an input; its imports alone take up to "
        f"{imported / 1e6:.0f} MB. One core, Python {platform.python_version()}, {platform.machine()}. The first "
        "inputs of each kind are tried by `pytest tests/fuzz` each time, and 1500 of each by "
        "`HYPOTHESIS_PROFILE=thorough pytest tests/fuzz`.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
