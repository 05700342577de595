"""Parameter transfers made on the spot, for the tests of the result and of everything that shows it."""

import io
import math

import numpy as np
import pandas as pd
from rich.console import Console

from transferscope.report.terminal.parameters import print_parameters
from transferscope.results.parameters import ParameterTransfer

SETTINGS = {
    "targets": [
        {"name": "shells", "hash": "0f" * 32, "classes": 6, "n_test": 200},
        {"name": "signs", "hash": "1e" * 32, "classes": 4, "n_test": 100},
    ],
    "initial": {"birds": "redrawn, seeds 0 to 4", "plain": "given: plain.initial.pt"},
    "epochs": 40, "optimiser": "sgd", "learning_rate": 1e-7, "schedule": "constant", "matched_steps": 1200,
    "matched_loss": 0.25, "redraws": 5, "groups": "auto", "device": "cpu", "versions": {"torch": "2.9.0", "timm": "1"},
}  # fmt: skip
TABLES = ["parameters.json", "parameters.csv", "parameters-runs.csv", "trajectory.csv", "parameters.nc"]
STEPS = {"epochs": 80.0, "steps": 20.0, "loss": 12.5}
UNMOVED = "the layer did not move from the source"


def transfer(values, source="birds", target="shells", size=20, seed=0, *, shares=(1, 2, 3), spread=0.1, layers=None):
    """Return the layers, runs and trajectory of one fine-tuning; T is `values` times the criterion's share."""
    names = layers or [f"blocks.{number}" for number in range(len(values))]
    run = {"source": source, "target": target, "samples_per_class": size, "seed": seed}
    rows, runs = [], []
    for (criterion, step), share in zip(STEPS.items(), shares, strict=True):
        ratios = share * np.array(values, dtype=float)
        rows += [
            {
                **run, "samples": 6 * size, "criterion": criterion, "step": step if share == share else math.nan,
                "depth": depth, "layer": name, "transferability": ratio,
                "spread": spread if math.isfinite(ratio) else math.nan,
                "relative_change": depth / 100, "cka": 1 - depth / 10 if criterion == "epochs" else math.nan,
                "gradient_snr": depth / 8,
                "reason": UNMOVED if math.isinf(ratio) else "never reached" if math.isnan(ratio) else "",
            }
            for depth, (name, ratio) in enumerate(zip(names, ratios, strict=True), start=1)
        ]  # fmt: skip
        runs.append({
            **run, "samples": 6 * size, "classes": 6, "criterion": criterion, "step": rows[-1]["step"],
            "loss": 0.5 * share, "transferability": ratios.mean(), "spread": spread, "accuracy": 0.75 + seed / 100,
            "gradient_snr": 0.2, "frechet": math.nan, "mmd": math.nan, "within": 0.5, "between": 0.25,
        })  # fmt: skip
    path = [
        {**run, "step": step, "epoch": step / 2, "loss": 1 / step, "depth": depth, "layer": name,
         "transferability": 10 * value / step}
        for step in (1, 2, 4)
        for depth, (name, value) in enumerate(zip(names, values, strict=True), start=1)
    ]  # fmt: skip
    return rows, runs, path


def result(*transfers, failed=(), regression=None, correlations=None, **changes):
    layers, runs, trajectory = (
        pd.DataFrame([row for part in parts for row in part]) for parts in zip(*transfers, strict=True)
    )
    empty = pd.DataFrame()
    empty.attrs["reason"] = "birds (steps): 2 targets, and at least 4 are needed"
    return ParameterTransfer(
        layers, runs, trajectory, empty if regression is None else regression,
        pd.DataFrame() if correlations is None else correlations, {**SETTINGS, **changes}, tuple(failed),
    )  # fmt: skip


def printed(found, width=80):
    console = Console(width=width, file=io.StringIO())
    print_parameters(found, console)
    return console.file.getvalue()


def flat(text):
    return " ".join(text.split())


def words(text):
    return [line.split() for line in text.splitlines()]


def transferred_grid():
    """Two sources of different depth, two targets, two sizes, two seeds; one layer of one of them does not move."""
    return result(*(
        transfer(
            [(1 + seed) * value for value in (*(level * depth for depth in range(1, depths)), last)],
            source, target, size, seed,
        )
        for source, depths, last in (("birds", 3, 2.0), ("plain", 2, 9.0))
        for target, level in (("shells", 1.0), ("signs", 4.0))
        for size in (5, 20)
        for seed in (0, 1)
    ))  # fmt: skip


def stuck_transfers():
    """A layer that never moved, and a transfer that never came to the loss that runs are matched at."""
    return result(
        transfer([2.0, math.inf, 4.0], target="shells"),
        transfer([1.0, 2.0, 3.0], "birds", "signs", shares=(1, 2, np.nan)),
    )
