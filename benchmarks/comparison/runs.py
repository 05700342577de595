"""What the sections of `similarity.py` share: worker processes, rounds in turn, results, deviations, tables."""

import json
import os
import selectors
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np

from comparison.peers import TOOLS

ROUND_LIMIT, TOOL_BUDGET = 60.0, 90.0
"""Seconds: a longer round is extrapolated from one batch; rounds of one tool end when they have taken this long."""
BATCH_LIMIT = 120.0
"""Seconds: a tool that takes longer over one batch is stopped."""
KERNEL_LIMIT, KERNEL_BUDGET = 40.0, 6.0
"""Seconds, for the kernels alone: a longer round is stopped; rounds end when they have taken the second."""
OFFSET = 100.0


@dataclass
class Sizes:
    """How large the workloads are."""

    images: int = 512
    side: int = 64
    batch: int = 128
    real_images: int = 500
    real_batch: int = 100
    layers: tuple[int, ...] = (10, 30, 100)
    samples: tuple[int, ...] = (256, 1000, 4000)
    features: int = 256
    growth: dict[str, tuple[int, ...]] = field(
        default_factory=lambda: {
            "L": (5, 10, 20, 40, 80),
            "n": (128, 256, 512, 1024, 2048),
            "p": (256, 1024, 4096, 16384),
        }
    )
    base: dict[str, int] = field(default_factory=lambda: {"L": 10, "n": 256, "p": 1024})
    wide: tuple[int, int] = (10_000, 100_000)


QUICK = Sizes(
    64,
    32,
    32,
    48,
    16,
    (3, 6),
    (64, 128),
    64,
    {"L": (2, 4), "n": (64, 128), "p": (64, 128)},
    {"L": 2, "n": 64, "p": 64},
    (600, 2000),
)


@dataclass
class Result:
    """What one tool did in one workload."""

    seconds: list[float] = field(default_factory=list)
    extrapolated: bool = False
    baseline: float = 0.0
    peak: float = 0.0
    matrix: Any = None
    clean: Any = None
    shifted: Any = None
    error: str | None = None
    note: str | None = None

    @property
    def median(self) -> float:
        """Median seconds of a round."""
        return statistics.median(self.seconds)

    def above(self, bare: "Result") -> float:
        """Median of the rounds' seconds on top of the forward passes of the same round."""
        return statistics.median(
            s - (b if not self.extrapolated else bare.median) for s, b in zip(self.seconds, bare.seconds, strict=False)
        )


def environment(**variables: str) -> dict[str, str]:
    """Return what a process is started with that runs a module of this folder by name: it has to find the folder."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, **variables}


class Worker:
    """A process that runs one tool and answers one request at a time."""

    def __init__(self, tool: str, device: str, threads: int) -> None:
        variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "comparison.worker", tool, device, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(**dict.fromkeys(variables, str(threads))),
            text=True,
        )

    def ask(self, do: str, limit: float = 900.0, **arguments: Any) -> dict[str, Any]:
        """Return the answer; {"error": ...} when there is none, and "late" in it after `limit` seconds."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.process.poll() is not None:
            return {"error": f"its process ended with status {self.process.returncode}"}
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(limit):
                self.close()
                return {"error": f"over {limit:.0f} s", "late": True}
        line = self.process.stdout.readline()
        if not line:
            return {"error": f"its process ended with status {self.process.wait()}"}
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def present() -> list[str]:
    """Return the tools that are installed, ours first."""
    return [name for name, tool in TOOLS.items() if any(distributions(name=tool.package))]


def run_networks(workload: dict[str, Any], rounds: int, device: str, threads: int) -> tuple[dict[str, Result], Any]:
    """Run all tools over two networks, in turn; return their results and the references, plain and shifted."""
    references = truths(workload, device, threads, (0.0, OFFSET))
    results: dict[str, Result] = {}
    workers: dict[str, Worker] = {}
    planned: dict[str, int] = {}
    steps = -(-workload["samples"] // workload["batch"])
    for name in ["bare", *present()]:
        workers[name], result = Worker(name, device, threads), Result()
        results[name], planned[name] = result, 0
        answer = workers[name].ask("open", workload=workload)
        result.baseline = answer.get("baseline", 0.0)
        if "error" not in answer:
            answer = workers[name].ask("warm", BATCH_LIMIT)
        if "error" in answer:
            result.error = answer["error"]
            continue
        result.note = answer.get("note")
        estimate = steps * answer["seconds"]
        if estimate > ROUND_LIMIT:
            result.seconds, result.extrapolated, result.peak = [estimate], True, answer["peak"]
            continue
        if estimate < TOOL_BUDGET / rounds / 2:
            workers[name].ask("round")  # warms up whole
        planned[name] = max(1, min(rounds, int(TOOL_BUDGET / estimate) + 1))
    for number in range(rounds):
        for name, worker in workers.items():
            if number < planned[name] and results[name].error is None:
                record(results[name], worker.ask("round"))
    for name, worker in workers.items():
        result = results[name]
        if name != "bare" and result.seconds:
            result.clean, result.shifted = (matrix(worker.ask("values", BATCH_LIMIT, offset=o)) for o in (0.0, OFFSET))
        worker.close()
    return results, references


def truths(workload: dict[str, Any], device: str, threads: int, offsets: tuple[float, ...]) -> list[dict[str, Any]]:
    """Return the plain float64 references, by estimator, for each offset."""
    judge = Worker("reference", device, threads)
    judge.ask("open", workload=workload)
    answers = [judge.ask("values", offset=offset) for offset in offsets]
    judge.close()
    for answer in answers:
        if "error" in answer:
            raise RuntimeError(f"no float64 reference for {workload}: {answer['error']}")
    return [answer["values"] for answer in answers]


def record(result: Result, answer: dict[str, Any]) -> None:
    """Add one round to a result."""
    if "error" in answer:
        result.error = answer["error"]
        return
    result.seconds.append(answer["seconds"])
    result.peak = max(result.peak, answer["peak"])
    result.matrix = answer.get("values")


def matrix(answer: dict[str, Any]) -> Any:
    """Return the values of an answer, or its error."""
    return answer.get("values", answer.get("error"))


def deviation(values: Any, truth: Any) -> float:
    """Return the largest absolute difference; NaN where there is none to take."""
    if values is None or isinstance(values, str):
        return float("nan")
    return float(np.abs(np.asarray(values) - np.asarray(truth)).max())


def claimed(name: str, result: Result, references: dict[str, Any]) -> str:
    """Return the estimator that a tool claims to compute; for ours, the nearer of the two debiased ones."""
    if (estimator := TOOLS[name].estimator) is not None:
        return estimator
    return min(("debiased", "minibatch debiased"), key=lambda key: deviation(result.clean, references[key]))


def table(rows: list[list[str]]) -> str:
    """Return a Markdown table, its header first."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def number(value: float) -> str:
    """Return a deviation as text."""
    return "NaN" if np.isnan(value) else f"{value:.1e}"
