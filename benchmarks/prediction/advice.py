"""What `transferscope advise` expects of heads that were not calibrated, and of costs, against transfers that were run.

Needs TRANSFERSCOPE_REAL, a folder with `data/NAME.zip` and `zoo/*`; says so and stops without it.

    TRANSFERSCOPE_REAL=... python benchmarks/advice.py [--out benchmarks/results/advice.md]

Accuracies: the real map of ground truth (benchmarks/groundtruth/real), two of its sources, on draw 0 of each target and
number of images. The calibration is fitted without the target that it is used on. Embedding and top-tuning are expected
where `truncate` is, moved by what they have over it when images are left out: not at all, in the share that `advise`
believes, or in full. Costs: `advise`, then `measure` with the same images and schedule, on this machine.
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from groundtruth import real
from groundtruth.maps import averaged, print_table, read_runs
from groundtruth.scores import groups
from groundtruth.sources import real_data

from prediction import left_out
from prediction.calibrate import calibration, fitted, prepared
from transferscope import load_target, load_zoo, measure
from transferscope.data.target import Target
from transferscope.errors import TransferscopeWarning
from transferscope.networks.zoo import Zoo
from transferscope.prediction.calibration import Calibration
from transferscope.prediction.expected import expected_accuracies
from transferscope.runtime.store import Store
from transferscope.verbs.advise.accuracies import HALF_BELIEVED, choose_depths, expected, head_shifts
from transferscope.verbs.advise.advise import advise
from transferscope.verbs.features import source_features

TABLES = Path(__file__).parents[1] / "groundtruth"
SOURCES = ("mobilenetv2-imagenet", "resnet20-cifar10")
HEADS = ("truncate", "fne", "toptuning")
SHARES = ("not moved", "as advised", "moved in full")
COST_TARGET, COST_SOURCE, COST_SHOTS, COST_POOL = "sign-digits", "resnet20-cifar10", 5, 20
CUT = {"reinit", "truncate", "toptuning"}


def as_dataset(seen: pd.DataFrame) -> xr.Dataset:
    """Return the evidence of one target and number of images as `rank` has it."""
    first = seen.iloc[0]
    dataset = seen.set_index(["source", "depth"]).drop(columns=["target"]).to_xarray()
    layers = dataset["layer"].to_pandas().fillna("").to_numpy(dtype=object)
    about = {
        "n_samples": int(first["probe"]), "classes": int(first["classes"]),
        "scratch_accuracy": float(first["scratch_accuracy"]), "scratch_held_out": int(first["scratch_held_out"]),
    }  # fmt: skip
    return dataset.assign(layer=(("source", "depth"), layers)).assign_attrs(about)


def features(images: Target, zoo: Zoo, source: str) -> list[np.ndarray]:
    """Return the features of every stage."""
    found = source_features(
        zoo[source], images, trust_code=True, store=Store(), device=torch.device("cpu"), batch_size=64
    )
    return list(found.arrays.values())


def compare(
    target: str, size: int, images: Target, seen: pd.DataFrame, calibration: Calibration, runs: pd.DataFrame, zoo: Zoo
) -> Iterator[dict[str, object]]:
    """Yield what is expected and what was measured, for each source and head, with each share of the difference."""
    predictions = expected_accuracies(as_dataset(seen), len(images), calibration)
    for source in SOURCES:
        own = predictions.sel(source=source)
        depths = choose_depths(own)
        shifts = head_shifts(features(images, zoo, source), images.labels, depths["truncate"])
        full = (len(images) + HALF_BELIEVED) / len(images)
        for share, factor in zip(SHARES, (0.0, 1.0, full), strict=True):
            moved = {head: factor * shift for head, shift in shifts.items()}
            for head in HEADS:
                value, low, high = expected(own, depths, moved)[head]
                cell = runs[(runs["source"] == source) & (runs["protocol"] == head)]
                cell = cell[cell["layer"] == "all"] if head == "fne" else cell[cell["depth"] == depths[head]]
                accuracy = float(cell["accuracy"].iloc[0])
                yield {
                    "target": target, "size": size, "source": source, "head": head, "share": share,
                    "expected": value, "measured": accuracy, "inside": low <= accuracy <= high,
                }  # fmt: skip


def accuracies(folder: Path, zoo: Zoo, real_folder: Path) -> pd.DataFrame:
    """Return a row for each cell, head and share."""
    ground = TABLES / "real"
    evidence, cells = pd.read_csv(ground / "evidence.csv"), averaged(read_runs(ground))
    fit = fitted(prepared())
    found: list[dict[str, object]] = []
    for target, path, _ in real.transfers(real_folder, ground, folder):
        known = calibration(fit, left_out.NOTHING, "without", target)
        for size, seed, images, _ in groups(load_target(path), real.PARTS):
            seen = evidence[(evidence["target"] == target) & (evidence["samples_per_class"] == size)]
            runs = cells[(cells["target"] == target) & (cells["samples_per_class"] == size)]
            if seed == 0 and len(seen):
                found += compare(target, size, images, seen, known, runs, zoo)
    return pd.DataFrame(found)


def costs(path: Path, folder: Path, zoo: Zoo) -> tuple[pd.DataFrame, float]:
    """Return expected and measured cost of each way, and the seconds that `advise` needed to measure."""
    images = load_target(path)
    order = np.argsort(images.labels, kind="stable")
    ranks = np.arange(len(images)) - np.searchsorted(images.labels[order], images.labels[order])
    few = images.subset(np.sort(order[ranks < COST_POOL]))
    advice = advise(
        few, zoo, source=COST_SOURCE, shots=COST_SHOTS, device="cpu", progress=False, trust_code=True
    )  # fmt: skip
    found = []
    for way in advice.ways:
        run = measure(
            few, [zoo[COST_SOURCE]], folder / way.protocol, protocols=[way.protocol], seeds=1,
            samples_per_class=[COST_SHOTS], depths=[way.depth] if way.protocol in CUT else [-1], device="cpu",
            progress=False, trust_code=True,
        ).runs.iloc[0]  # fmt: skip
        found.append({
            "way": way.name, "expected s": way.seconds, "measured s": run["seconds"],
            "ratio": way.seconds / run["seconds"], "expected J": 3.6e6 * way.kwh, "measured J": 3.6e6 * run["kwh"],
            "trials": way.trials, "measured trials": int(run["trials"]),
        })  # fmt: skip
    return pd.DataFrame(found).set_index("way"), advice.measured_seconds


def report(table: pd.DataFrame, spent: pd.DataFrame, measuring: float, seconds: float) -> None:
    print("# Advice: what is expected against what was measured\n")
    print("`python benchmarks/advice.py`, see there for what was done.\n")
    print("## Accuracy of heads on frozen features\n")
    print(f"{len(table) // 9} cells (target, images of each class, source). Mean absolute error of the accuracy:\n")
    table["error"] = (table["expected"] - table["measured"]).abs()
    means = table.pivot_table(index="head", columns="share", values="error")[list(SHARES)].loc[list(HEADS)]
    print_table(means)
    print("The same by the number of images of each class, heads that are moved alone:\n")
    moved = table[table["head"] != "truncate"]
    print_table(moved.pivot_table(index="size", columns="share", values="error")[list(SHARES)])
    print(
        "What advice rests on is how the heads compare. Mean absolute error of the accuracy above that of truncate:\n"
    )
    cell = ["target", "size", "source", "share"]
    linear = table[table["head"] == "truncate"].set_index(cell)
    above = table[table["head"] != "truncate"].set_index([*cell, "head"])[["expected", "measured"]]
    above = (above - linear[["expected", "measured"]]).eval("error = abs(expected - measured)").reset_index()
    print_table(above.pivot_table(index=["head", "size"], columns="share", values="error")[list(SHARES)])
    print_table(above.pivot_table(index="head", columns="share", values="error")[list(SHARES)])
    print("Share of measured accuracies inside of the 80 % interval:\n")
    inside = table.assign(inside=table["inside"].astype(float))
    print_table(inside.pivot_table(index="head", columns="share", values="inside")[list(SHARES)].loc[list(HEADS)])
    print("Each cell, as advised:\n")
    own = table[table["share"] == "as advised"]
    print_table(own.set_index(["target", "size", "source", "head"])[["expected", "measured", "error"]])
    print("## Cost\n")
    print(
        f"{COST_SOURCE} to {COST_TARGET}, {COST_SHOTS} images of each class, after steps of {measuring:.1f} s in all:\n"
    )
    print_table(spent)
    print(f"All of this took {seconds:.0f} s on {torch.get_num_threads()} thread(s).")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, help="file to write")
    out = parser.parse_args().out
    real_folder, began = real_data(), time.monotonic()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", TransferscopeWarning)
    zoo = load_zoo({"version": 1, "sources": real.sources(real_folder / "zoo")})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["TRANSFERSCOPE_HOME"] = str(folder / "cache")
        table = accuracies(folder, zoo, real_folder)
        spent, measuring = costs(folder / COST_TARGET, folder, zoo)
    if out is None:
        report(table, spent, measuring, time.monotonic() - began)
        return
    with out.open("w", encoding="utf-8") as file, redirect_stdout(file):
        report(table, spent, measuring, time.monotonic() - began)
