"""Transferability scores: their time beside plain formulas and scikit-learn, and what they say of real networks.

    TRANSFERSCOPE_REAL=... python benchmarks/scores.py [--part speed|real|all] [--output benchmarks/results] [--quick]

Writes scores.md into `--output`, and with the part on real data scores.csv, every score of every layer. That part needs
TRANSFERSCOPE_REAL, a folder with `data/*.zip` and `zoo/*`, and is left out without it. `--quick` shrinks everything,
to see that it runs.
"""

import argparse
import itertools
import os
import platform
import statistics
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from transferability.references import PLAIN, REFERENCES, SKLEARN, Reference, Runner, table
from transferscope.errors import TransferscopeWarning
from transferscope.transferability import SCORES, Layer

FROM_FEATURES = [name for name, score in SCORES.items() if score.from_layer is not None]
FROM_PREDICTIONS = [name for name in SCORES if name not in FROM_FEATURES]
FACTORS, DISTANCES, PANEL = "factorisation", "distances of all samples", "whole panel"
SOURCE_CLASSES = 1000
LIMIT = 10.0
"""Seconds that a reference may take."""
ENOUGH = 3.0
"""Seconds after which a reference is not run once more."""


class Cell(NamedTuple):
    """A size of features and labels."""

    n: int
    p: int
    c: int


@dataclass
class Sizes:
    """How large the workloads are."""

    samples: tuple[int, ...] = (1000, 5000)
    features: tuple[int, ...] = (64, 512, 2048)
    classes: tuple[int, ...] = (10, 100)
    rounds: int = 3
    many: int = 2000
    """Samples from which one round has to do, and float32 alone."""
    images: int = 600
    forward_images: int = 1000
    forward_rounds: int = 2
    networks: int | None = None


QUICK = Sizes((60, 120), (8, 100), (3, 10), 2, 100, 200, 40, 1, 2)


@dataclass
class Measured:
    """What the rounds of one cell gave: seconds and values."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    references: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    theirs: dict[tuple[str, str], float] = field(default_factory=dict)
    over: dict[tuple[str, str], str] = field(default_factory=dict)
    """Instead of a time: why there is none."""

    def median(self, part: str) -> float:
        """Return the median seconds of a part of ours."""
        return statistics.median(self.seconds[part])

    def alone(self, score: str) -> float:
        """Return the seconds of a score with the factorisation that others share, and the distances if it uses them."""
        parts = [score]
        if SCORES[score].from_layer is not None:
            parts += {"kernel_ridge": [FACTORS, DISTANCES], "knn": []}.get(score, [FACTORS])
        return sum(self.median(part) for part in parts)


def task(cell: Cell) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features like those of a network, rectified and of falling variance, codes, and source probabilities."""
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.arange(cell.n) % cell.c)
    scale = np.logspace(0, -1.5, cell.p)
    X = np.maximum(rng.normal(size=(cell.n, cell.p)) + 0.4 * rng.normal(size=(cell.c, cell.p))[codes] + 0.3, 0) * scale
    logits = 2 * rng.normal(size=(cell.n, SOURCE_CLASSES)) + 2 * rng.normal(size=(cell.c, SOURCE_CLASSES))[codes]
    P = np.exp(logits - logits.max(axis=1, keepdims=True))
    return X.astype(np.float32), codes, (P / P.sum(axis=1, keepdims=True)).astype(np.float32)


def run_panel(X: np.ndarray, codes: np.ndarray, P: np.ndarray) -> tuple[dict[str, float], dict[str, float]]:
    """Score features from scratch, all scores from one layer; return seconds of every part, and values."""
    seconds, values = {}, {}
    began = time.perf_counter()
    layer = Layer(X)
    layer.coordinates  # noqa: B018
    seconds[FACTORS] = time.perf_counter() - began
    started = time.perf_counter()
    layer.squared_distances  # noqa: B018
    seconds[DISTANCES] = time.perf_counter() - started
    for name in FROM_FEATURES:
        started = time.perf_counter()
        values[name] = SCORES[name].from_layer(layer, codes)
        seconds[name] = time.perf_counter() - started
    seconds[PANEL] = time.perf_counter() - began
    for name in FROM_PREDICTIONS:
        started = time.perf_counter()
        values[name] = SCORES[name].function(P, codes)
        seconds[name] = time.perf_counter() - started
    return seconds, values


def measure(sizes: Sizes, folder: Path) -> dict[Cell, Measured]:
    """Time everything in every cell: ours, then each reference, then ours again."""
    runner, results = Runner(), {}
    warm = Cell(60, 20, 3)
    for X in (task(warm)[0], task(warm)[0].astype(np.float64)):
        run_panel(X, *task(warm)[1:])  # imports scikit-learn too
    for cell in itertools.starmap(Cell, itertools.product(sizes.samples, sizes.features, sizes.classes)):
        result = results[cell] = Measured()
        X, codes, P = task(cell)
        paths = {"features": folder / "features.npy", "source_probabilities": folder / "probabilities.npy"}
        np.save(paths["features"], X)
        np.save(paths["source_probabilities"], P)
        rounds = 1 if cell.n >= sizes.many else sizes.rounds
        for _ in range(rounds):
            seconds, result.values = run_panel(X, codes, P)
            if cell.n < sizes.many:
                seconds[f"{PANEL}, float64"] = run_panel(X.astype(np.float64), codes, P)[0][PANEL]
            for part, value in seconds.items():
                result.seconds.setdefault(part, []).append(value)
            for key, reference in REFERENCES.items():
                taken = result.references.setdefault(key, [])
                if key in result.over or sum(taken) > ENOUGH or too_long(reference, cell, results):
                    continue
                answer = runner.run(key, paths[SCORES[reference.score].needs], codes, LIMIT)
                if answer is None:
                    result.over[key] = f"over {LIMIT:.0f} s"
                else:
                    taken.append(answer[0])
                    result.theirs[key] = answer[1]
        print(f"{cell}: panel {result.median(PANEL):.2f} s", flush=True)
    runner.close()
    return results


def too_long(reference: Reference, cell: Cell, results: dict[Cell, Measured]) -> bool:
    """Whether its time elsewhere and the order in which that grows tell that it would take too long; note why."""
    key = reference.score, reference.kind
    order = reference.order(*cell) * reference.times(cell.n)
    for other, result in results.items():
        grown = order / reference.order(*other) / reference.times(other.n)
        if key in result.over and other != cell and grown >= 1:
            results[cell].over[key] = result.over[key] if "≈" not in result.over[key] else f"over {LIMIT:.0f} s"
            return True
        if result.references.get(key) and other != cell and other.n < cell.n:
            estimate = statistics.median(result.references[key]) * grown
            # What is only run in part may be long: a part is what there is to wait for.
            if estimate / reference.times(cell.n) > 3 * LIMIT:
                results[cell].over[key] = f"≈ {number(estimate)} s, by its order"
                return True
    return False


def number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def speed_section(results: dict[Cell, Measured], sizes: Sizes) -> str:
    """Return the tables of times and deviations."""
    text = (
        "\n## Time\n\nFloat32 features, rectified and of falling variance, with class means apart; seconds, medians of "
        f"{sizes.rounds} rounds, of one from {sizes.many} samples on. In every round ours and the references take "
        "turns. scikit-learn is imported and warmed up before. LEEP and NCE are of "
        f"{SOURCE_CLASSES} source classes. `D/C`: numbers of features and classes.\n"
    )
    for n in sizes.samples:
        cells = [cell for cell in results if cell.n == n]
        header = [f"{cell.p}/{cell.c}" for cell in cells]
        text += f"\n### n = {n}: ours, from one layer\n\n"
        rows = [["part", *header]]
        for part in results[cells[0]].seconds:
            name = f"**{part}**" if part.startswith(PANEL) else part
            rows.append([name, *(number(results[cell].median(part)) for cell in cells)])
        text += table(rows)
        for kind in (PLAIN, SKLEARN):
            text += f"\n### n = {n}: {kind}, and how many times as long as ours alone\n\n"
            text += "Ours alone is the score with the factorisation that it shares with others.\n\n"
            rows = [["score", "reference", *header]]
            for key, reference in REFERENCES.items():
                if reference.kind == kind:
                    rows.append([reference.score, reference.how, *(compared(results[cell], key) for cell in cells)])
            text += table(rows)
    return text + deviation_section(results)


def compared(result: Measured, key: tuple[str, str]) -> str:
    """Return seconds of a reference and their ratio to ours, or why there are none."""
    if not result.references[key]:
        return result.over.get(key, "")
    seconds = statistics.median(result.references[key])
    mark = "≈ " if REFERENCES[key].times(2) != 1 else ""
    return f"{mark}{number(seconds)} ({number(seconds / result.alone(key[0]))} ×)"


def deviation_section(results: dict[Cell, Measured]) -> str:
    """Return how far the references' values are from ours."""
    text = "\n### Values: largest difference of a reference from ours over all sizes\n\n"
    rows = [["score", "reference", "n > D", "n ≤ D"]]
    for key, reference in REFERENCES.items():
        cells = []
        for wide in (False, True):
            gaps = [
                abs(result.theirs[key] - result.values[reference.score])
                for cell, result in results.items()
                if key in result.theirs and (cell.n <= cell.p) == wide
            ]
            gaps = [gap for gap in gaps if np.isfinite(gap)]
            cells.append(f"{max(gaps):.1e}" if gaps else "–")
        rows.append([reference.score, f"{reference.kind}: {reference.how}", *cells])
    return text + table(rows)


def panel_targets(results: dict[Cell, Measured]) -> list[list[str]]:
    """Return the rows of the target for one layer."""
    cell = Cell(1000, 2048, 10)
    if cell not in results:
        return []
    rows = []
    for part, dtype in ((PANEL, "float32"), (f"{PANEL}, float64", "float64")):
        seconds = results[cell].median(part)
        what = f"whole panel of one layer, n = 1000, D = 2048, C = 10, {dtype}: under 2 s"
        rows.append([what, f"{seconds:.2f} s", "met" if seconds < 2 else "**missed**"])
    return rows


def heading(started: float) -> str:
    names = ("numpy", "scipy", "scikit-learn", "torch", "timm", "transferscope")
    threads = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS") if name in os.environ}
    return (
        "# Transferability scores: time, and what they say of real networks\n\n"
        f"Made by `python benchmarks/scores.py` in {(time.perf_counter() - started) / 60:.0f} minutes. "
        f"{platform.machine()}, {os.cpu_count()} cores{f' ({threads})' if threads else ''}, Python "
        f"{platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in names) + ".\n"
    )


def main() -> None:
    """Run what is asked for and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("speed", "real", "all"), default="all")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything runs")
    options = parser.parse_args()
    sizes, started = QUICK if options.quick else Sizes(), time.perf_counter()
    options.output.mkdir(parents=True, exist_ok=True)
    text, targets = "", []
    # Of scores that are not defined for a layer, which the tables show.
    warnings.simplefilter("ignore", TransferscopeWarning)
    with tempfile.TemporaryDirectory() as temporary:
        if options.part in ("speed", "all"):
            results = measure(sizes, Path(temporary))
            targets += panel_targets(results)
            text += speed_section(results, sizes)
        if options.part in ("real", "all"):
            if real := os.environ.get("TRANSFERSCOPE_REAL"):
                from transferability.real import real_section

                section, rows, records = real_section(sizes, Path(temporary), Path(real))
                targets += rows
                text += section
                records.to_csv(options.output / "scores.csv", index=False, float_format="%.6g")
            else:
                text += "\n## Real networks\n\nSkipped: set TRANSFERSCOPE_REAL to a folder with data/ and zoo/.\n"
    judged = "\n## Targets\n\n" + table([["target", "measured", ""], *targets]) if targets else ""
    (options.output / "scores.md").write_text(heading(started) + judged + text)
