"""Measurements made on the spot, for the tests of the result and of everything that shows it."""

import io
import math

import pandas as pd
from rich.console import Console

from transferscope.report.terminal.measurement import print_measurement
from transferscope.results.measurement import Measurement
from transferscope.verbs.measure import plan
from transferscope.verbs.measure.rows import COLUMNS

SETTINGS = {
    "target": "shells", "target_hash": "0f" * 32, "classes": 6, "n_test": 200, "chance": 0.25,
    "energy": "CPU power is estimated.", "device": "cpu", "versions": {"torch": "2.9.0", "timm": "1.0.12"},
}  # fmt: skip
PICTURES = ["accuracy-by-depth.png", "accuracy-by-samples.png", "accuracy-by-seconds.png", "accuracy-by-energy.png"]


def run(accuracy, protocol="truncate", depth=1, size=5, seed=0, *, source="birds", depths=3, layer=None, **costs):
    """Return a row of runs.csv; an accuracy of None is a run that failed."""
    done = accuracy is not None
    named = {"fne": "all", "scratch": ""}.get(protocol, f"blocks.{depth - 1}" if depth else "")
    numbers = {
        "accuracy": accuracy, "balanced_accuracy": accuracy, "seconds": 2.0, "flops": 3e9, "kwh": 4e-7,
        "kgco2e": 2e-7, "peak_memory": 1e8, "trials": 7.0, **costs,
    }  # fmt: skip
    return {
        "source": source, "target": "shells", "protocol": protocol, "depth": depth, "depths": depths,
        "layer": named if layer is None else layer, "samples_per_class": size, "samples": 6 * size, "seed": seed,
        **{name: value if done else math.nan for name, value in numbers.items()},
        "status": "done" if done else "failed: out of memory",
    }  # fmt: skip


def measurement(*runs, failed=(), **changes):
    return Measurement(pd.DataFrame(runs, columns=list(COLUMNS)), {**SETTINGS, **changes}, failed)


def printed(found, width=80):
    console = Console(width=width, file=io.StringIO())
    print_measurement(found, console)
    return console.file.getvalue()


def words(text):
    return [line.split() for line in text.splitlines()]


def measured_grid():
    """Two sources of different depth, protocols of every kind, two sizes, two seeds, one of the runs failed."""
    rows = []
    for source, depths in (("birds", 3), ("plain", 2)):
        for size in (5, 20):
            for seed in (0, 1):
                at = {"source": source, "depths": depths, "size": size, "seed": seed}
                level = 0.3 + size / 50 + seed / 100
                rows += [
                    run(level + depth / 50, depth=depth, seconds=depth * size, **at) for depth in range(1, depths + 1)
                ]
                rows += [run(level, "fne", depths, layer=name, **at) for name in plan.LAYER_SETS]
                rows.append(run(level - 0.1, "scratch", 0, seconds=0.0, **at))
    rows[0] = run(None, source="birds", depths=3, size=5, seed=0)
    return measurement(*rows)
