"""How well pretrained parameters serve, layer by layer: two sources of one small architecture moved to seven targets.

Needs TRANSFERSCOPE_REAL, a folder with `data/NAME.zip`; says so and stops without it.

    TRANSFERSCOPE_REAL=... python benchmarks/parameters.py OUT > benchmarks/results/parameters.md

OUT is a folder for the source networks, which `groundtruth/sources.py` trains if they are not there. Tables and
pictures go to benchmarks/results. Finished fine-tunings are kept in the cache ($TRANSFERSCOPE_HOME).
"""

import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torchvision
from groundtruth.sources import prepare, real_data, unpack
from scipy import stats

import transferscope as ts
from transferscope.protocols.finetuning import recipes
from transferscope.protocols.training.recipe import Recipe
from transferscope.report.plots.parameter_plots import figures
from transferscope.results.parameters import ParameterTransfer

SOURCES = ("cifar10", "gtsrb")
TARGETS = ("mnist", "fashion-mnist", "sign-digits", "trashnet", "pacs-photo", "pacs-cartoon", "pacs-sketch")
SIZES, SEEDS, EPOCHS, BATCH = (10, 40, 160), 2, 30, 16
CHECKED = ("sign-digits", "pacs-photo")
"""Targets of the two smaller checks."""
NAMES = {"epochs": "fixed epochs", "steps": "matched steps", "loss": "matched loss"}
RESULTS = Path(__file__).parents[1] / "results"
DRAWS = 2000


def recipe(optimiser: str) -> Recipe:
    return replace(recipes(optimiser, EPOCHS, min_steps=0)["defrost"], schedule="constant", batch_size=BATCH)


def make_zoo(sources: list[dict[str, object]], images: dict[str, Path], *, initial: bool = True) -> dict[str, object]:
    entries = [source | {"images": str(images[source["name"]])} for source in sources]
    if not initial:
        entries = [{key: value for key, value in entry.items() if key != "initial"} for entry in entries]
    return {"version": 1, "sources": entries}


def measure(
    targets: list[Path], zoo: dict[str, object], optimiser: str = "sgd", sizes=SIZES, seeds=SEEDS
) -> ParameterTransfer:
    return ts.parameters.measure(
        targets, zoo, samples_per_class=sizes, seeds=seeds, recipe=recipe(optimiser), device="cpu", trust_code=True
    )


def labelled(table: pd.DataFrame) -> pd.Series:
    """Name the sizes of every target alike: where there are fewer than 160 images of a class, all there are."""
    place = table.groupby("target")["samples_per_class"].rank(method="dense").astype(int) - 1
    return place.map(lambda i: f"{SIZES[i]} a class" + " or all" * (i == len(SIZES) - 1))


def print_table(table: pd.DataFrame, digits: int = 2) -> None:
    print("| " + " | ".join([table.index.name or "", *map(str, table.columns)]) + " |")
    print("|" + "---|" * (len(table.columns) + 1))
    for name, row in table.iterrows():
        print(
            "| " + " | ".join([str(name), *(f"{x:.{digits}f}" if isinstance(x, float) else str(x) for x in row)]) + " |"
        )
    print()


def correlation(found: ParameterTransfer, source: str, criterion: str, level: str, companion: str) -> str:
    names = "source == @source and criterion == @criterion and level == @level and companion == @companion"
    row = found.correlations.query(names).iloc[0]
    return f"{row['spearman']:.2f} [{row['lower']:.2f}, {row['upper']:.2f}]"


def print_summary(found: ParameterTransfer) -> None:
    """Answer the questions in a paragraph."""
    runs = found.layers.groupby(["criterion", "source", "target", "samples_per_class", "seed"], sort=False)
    best = found.layers.loc[runs["transferability"].idxmax()]
    first = (best["depth"] == 1).groupby(best["criterion"]).mean()
    logs = np.log(found.runs["transferability"]).groupby([found.runs["criterion"], labelled(found.runs)], sort=False)
    factor = {name: np.exp(logs.mean()[name].iloc[-1] - logs.mean()[name].iloc[0]) for name in NAMES}
    level = "layers within a run"
    told = [
        f"{correlation(found, source, 'steps', level, 'gradient_snr')} and "
        f"{correlation(found, source, 'steps', level, 'depth')} for {source}"
        for source in SOURCES
    ]
    others = found.regression[found.regression["predictor"] != "log_samples"]
    clear = int(((others["lower"] > 0) | (others["upper"] < 0)).sum())
    print(
        f"In short: the first layer has the largest T of its network in {first['epochs']:.0%} of the runs at fixed "
        f"epochs, {first['steps']:.0%} at matched steps, {first['loss']:.0%} at matched loss (Chen et al.: the lowest "
        "layers are usually not the most transferable). From the smallest to the largest number of images T changes by "
        f"a factor of {factor['epochs']:.2f} at fixed epochs (Chen et al.: it falls), of {factor['steps']:.2f} at "
        f"matched steps, of {factor['loss']:.2f} at matched loss. Over the layers of a network the rank correlations "
        "of T at matched steps with the gradient's signal-to-noise ratio and with the depth, both known before the "
        f"transfer, are {'; '.join(told)}. Of {len(others)} coefficients of domain gap and diversity, {clear} have an "
        "interval that excludes zero.\n"
    )


def print_layers(found: ParameterTransfer) -> None:
    print("## T of each layer\n")
    print("Geometric mean over targets, sizes and draws. Layers from the input on.\n")
    for source in SOURCES:
        rows = found.layers[found.layers["source"] == source]
        table = rows.assign(log=np.log(rows["transferability"])).pivot_table("log", "layer", "criterion", sort=False)
        print(f"### {source}\n")
        print_table(np.exp(table)[list(NAMES)].rename(columns=NAMES))


def print_lowest(found: ParameterTransfer) -> None:
    print("## Are the lowest layers the most transferable?\n")
    print("Share of the runs in which a layer has the largest T of its network, and Spearman's correlation of T with")
    print("depth over the layers of a run (mean over runs; 95 % intervals, here and below, from resampling targets).\n")
    columns = {}
    for source in SOURCES:
        for criterion, name in NAMES.items():
            own = found.layers.query("source == @source and criterion == @criterion")
            runs = own.groupby(["target", "samples_per_class", "seed"])["transferability"]
            best = own.loc[runs.idxmax(), "layer"].value_counts(normalize=True)
            shares = [f"{best.get(layer, 0.0):.2f}" for layer in own["layer"].unique()]
            with_depth = correlation(found, source, criterion, "layers within a run", "depth")
            columns[f"{source}, {name}"] = [*shares, with_depth]
    table = pd.DataFrame(columns, index=[*found.layers["layer"].unique(), "correlation with depth"])
    table.index.name = "layer"
    print_table(table)


def print_amount(found: ParameterTransfer) -> None:
    print("## Does T fall with more images?\n")
    print(
        "T of the network (mean over layers), geometric mean over targets and draws, with the mean number of steps; and"
    )
    print("Spearman's correlation of T with the number of images over the sizes of a target, mean over targets.\n")
    rows = []
    for source in SOURCES:
        for criterion, name in NAMES.items():
            own = found.runs.query("source == @source and criterion == @criterion")
            means = own.groupby(labelled(own), sort=False).agg(
                t=("transferability", lambda t: np.exp(np.log(t).mean())), steps=("step", "mean")
            )
            rows.append({
                "source": source, "criterion": name,
                **{size: f"{row.t:.2f} ({row.steps:.0f} steps)" for size, row in means.iterrows()},
                "correlation": correlation(found, source, criterion, "runs", "samples"),
            })  # fmt: skip
    print_table(pd.DataFrame(rows).set_index("source"))


def print_companions(found: ParameterTransfer) -> None:
    print("## What goes with T, and what predicts it beforehand?\n")
    shown = found.correlations.assign(
        criterion=found.correlations["criterion"].map(NAMES),
        spearman=[
            f"{row.spearman:.2f} [{row.lower:.2f}, {row.upper:.2f}]" for row in found.correlations.itertuples()
        ],
        known=np.where(found.correlations["before_transfer"], "before", "after"),
    )  # fmt: skip
    table = shown.pivot_table(
        "spearman", ["level", "companion", "known", "source"], "criterion", aggfunc="first", sort=False
    )
    table.index = [" · ".join(names) for names in table.index]
    print_table(table[[name for name in NAMES.values() if name in table]])
    print("## What explains it?\n")
    if found.regression.empty:
        print(f"No regression: {found.regression.attrs.get('reason', '')}\n")
        return
    shown = found.regression.assign(
        criterion=found.regression["criterion"].map(NAMES),
        coefficient=[f"{r.coefficient:+.2f} [{r.lower:+.2f}, {r.upper:+.2f}]" for r in found.regression.itertuples()],
    )
    print(
        "Least squares of ln T on standardised predictors, over targets and sizes; 95 % intervals from resampling "
        f"targets ({int(found.regression['n_targets'].min())} of them: few). Published, from other data, and quoted "
        "here, not tested: more target images and more diversity lower T; Spearman's correlation of T with the size of "
        "the target is -0.96 (Chen et al. 2022).\n"
    )
    table = shown.pivot_table("coefficient", ["source", "predictor"], "criterion", aggfunc="first", sort=False)
    fit = shown.pivot_table("r_squared", "source", "criterion", aggfunc="first", sort=False)
    table.index = [" · ".join(names) for names in table.index]
    for source in SOURCES:
        table.loc[f"{source} · R²"] = [f"{fit.loc[source, name]:.2f}" for name in table.columns]
    print_table(table)


def print_checks(
    targets: list[Path], images: dict[str, Path], entries: list[dict[str, object]], found: ParameterTransfer
) -> None:
    size = SIZES[1]
    given = found.layers.query("seed == 0 and samples_per_class == @size and criterion == 'epochs'")
    keys = ["source", "target", "layer"]
    redrawn = measure(targets, make_zoo(entries, images, initial=False), sizes=(size,), seeds=1).layers
    redrawn = redrawn[redrawn["criterion"] == "epochs"]
    both = given.merge(redrawn, on=keys, suffixes=("", "_redrawn"))
    ratio = both["transferability_redrawn"] / both["transferability"]
    order = both.groupby(["source", "target"]).apply(
        lambda run: stats.spearmanr(run["transferability"], run["transferability_redrawn"])[0]
    )
    print("## When the initial weights are not known\n")
    print(
        f"T with five redraws of the initial weights against T with those that the source really began from, "
        f"{len(both)} layers of {len(order)} runs ({', '.join(CHECKED)}; {size} images a class): ratio "
        f"{ratio.min():.2f} to {ratio.max():.2f}, median {ratio.median():.2f}; rank correlation over the layers of a "
        f"run {order.min():.2f} to {order.max():.2f}. Standard deviation over redraws, relative to T: at most "
        f"{(both['spread_redrawn'] / both['transferability_redrawn']).max():.3f}.\n"
    )
    adamw = measure(targets, make_zoo(entries, images), "adamw", sizes=(size,), seeds=1).layers
    adamw = adamw[adamw["criterion"] == "epochs"]
    both = given.merge(adamw, on=keys, suffixes=("_sgd", "_adamw"))
    print("## Another optimiser\n")
    print(f"T at fixed epochs, mean over {', '.join(CHECKED)} with {size} images a class.\n")
    table = both.pivot_table(["transferability_sgd", "transferability_adamw"], "layer", "source", sort=False)
    table.columns = [f"{source}, {name.removeprefix('transferability_')}" for name, source in table.columns]
    print_table(table)


def print_speed() -> None:
    nets = [torchvision.models.resnet50(weights=None).state_dict() for _ in range(3)]
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        found = ts.parameters.transferability(*nets)
        seconds.append(time.perf_counter() - started)
    print("## Time\n")
    print(
        f"`transferability` of three ResNet-50 ({len(found)} layers): {statistics.median(seconds):.2f} s, median of 5 "
        f"({torch.get_num_threads()} threads)."
    )


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("Name a folder for the source networks.")
    real, out = real_data(), Path(sys.argv[1])
    entries = prepare(real, out, SOURCES, factory="compact", width=16, outputs=None, epochs=30)
    with tempfile.TemporaryDirectory() as folder:
        images = {name: unpack(real, name, Path(folder)) for name in SOURCES}
        targets = {name: unpack(real, name, Path(folder)) for name in TARGETS}
        found = measure(list(targets.values()), make_zoo(entries, images))
        print("# How well pretrained parameters serve, layer by layer\n")
        print(
            f"A compact residual network (stem and six blocks, 32 px) trained on {' and on '.join(SOURCES)}, with the "
            f"weights it began from; all its weights fine-tuned on {', '.join(TARGETS)} with {SIZES} images a class at "
            f"most, {SEEDS} draws, {EPOCHS} epochs of SGD at a constant rate of {recipe('sgd').learning_rate}, batches "
            f"of {BATCH}. Matched at {found.settings['matched_steps']} steps, and at a training loss of "
            f"{found.settings['matched_loss']:.3f} of that of guessing. {platform.machine()}, Python "
            f"{platform.python_version()}, torch {version('torch')}, {os.cpu_count()} cores.\n"
        )
        print_summary(found)
        shown = found.runs[found.runs["criterion"] == "epochs"]
        accuracies = shown.assign(size=labelled(shown)).pivot_table(
            "accuracy", "target", ["source", "size"], sort=False
        )
        accuracies.columns = [f"{source}, {size}" for source, size in accuracies.columns]
        print("## Accuracy after fine-tuning\n")
        print_table(accuracies)
        print_layers(found)
        print_lowest(found)
        print_amount(found)
        print_companions(found)
        print_checks([targets[name] for name in CHECKED], images, entries, found)
        print_speed()
    found.layers.to_csv(RESULTS / "parameters.csv", index=False, float_format="%.6g", lineterminator="\n")
    found.runs.to_csv(RESULTS / "parameters-runs.csv", index=False, float_format="%.6g", lineterminator="\n")
    for name, figure in figures(found).items():
        if SOURCES[0] in name:
            figure.savefig(RESULTS / f"parameters-{name}", dpi=110)
