"""The network that `rank` trains from scratch, by the recipe that it has and by others, on real pictures.

    TRANSFERSCOPE_REAL=... python benchmarks/reference.py [--work FOLDER] [--seeds 0,1] [--only trashnet-20,…]

Needs TRANSFERSCOPE_REAL, a folder with `data/NAME.zip` and `zoo/`; says so and stops without it. Of each set of
pictures so many a class are drawn, as `rank` draws them, and every recipe trains on the same ones, in turn. Seconds are
those of the processor (one thread), so that a busy machine does not tell. What is done is kept in FOLDER, and the page
is made of all that is there; two runs of it with different `--only` may work at once.
"""

import argparse
import json
import os
import platform
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import nn
from transferability.real import zoo

from transferscope import load_target
from transferscope.activations.features import LayerFeatures, layer_features
from transferscope.arrays.backend import to_numpy
from transferscope.data.images import Transform
from transferscope.data.target import Target
from transferscope.networks.compact import CompactResNet, Pointwise
from transferscope.protocols import scratch
from transferscope.protocols.training.recipe import Recipe
from transferscope.protocols.training.single import evaluate, fit
from transferscope.runtime.seeding import seeded
from transferscope.runtime.store import Store
from transferscope.similarity import MinibatchCKA
from transferscope.verbs.features import source_features

RESULTS = Path(__file__).parents[1] / "results" / "reference.md"
CASES = {
    "fashion-mnist": (20,), "cifar10": (20,), "trashnet": (20, 80), "pacs-sketch": (20, 80), "pacs-photo": (20,),
    "sign-digits": (20, 80), "gtsrb": (20,), "caltech101": (10,),
}  # fmt: skip
"""Set of pictures to images a class; of the many classes of the last one no more fit into the 1000 that `rank` looks
at."""
SOURCE, SIDE = "mobilenetv2-imagenet", 96
AGAIN, FEW = "before, drawn anew", 250
"""How alike two networks by the recipe before are that differ in their seed: where there are few images."""
CPU = torch.device("cpu")

BEFORE, NOW = "before", "now"
OURS = scratch.reference_recipe(budget_s=None)
RECIPES = {
    BEFORE: Recipe(min_steps=300, budget_s=None),
    NOW: OURS,
    "plain steps": replace(OURS, optimiser="sgd"),
    AGAIN: Recipe(min_steps=300, budget_s=None),
}
"""None with an end by the clock, by which a busy machine would cut schedules short."""
MEANING = {
    BEFORE: "40 epochs and at least 300 steps of gradient descent with momentum, channels first",
    NOW: f"{scratch.EPOCHS} epochs and at least {scratch.MIN_STEPS} steps of Muon, channels last",
    "plain steps": "the same number of steps of gradient descent with momentum, channels last",
    AGAIN: f"as before with another seed, where there are at most {FEW} images",
}


def strided(net: CompactResNet) -> CompactResNet:
    """Give the network the strided shortcuts that it had, with which it is trained channels first."""
    for block in net.blocks:
        shortcut: Any = block.shortcut
        if isinstance(shortcut, nn.Sequential) and isinstance(narrow := shortcut[0], Pointwise):
            wide = nn.Conv2d(narrow.in_channels, narrow.out_channels, 1, narrow.every, bias=False)
            wide.load_state_dict(narrow.state_dict())
            shortcut[0] = wide
    return net


class Case:
    """A set of pictures with so many of them drawn, the networks trained on them, and what these find similar."""

    def __init__(self, work: Path, real: Path, name: str, shots: int, seed: int) -> None:
        if not (folder := work / name).is_dir():
            with zipfile.ZipFile(real / "data" / f"{name}.zip") as archive:
                archive.extractall(work)
        target = load_target(folder / "train" if (folder / "train").is_dir() else folder)
        self._classes, self._seed = len(target.classes), seed
        self.probe = target.probe(shots * self._classes, seed)
        self._split = scratch.split_probe(target, self.probe, seed)
        self._transform = scratch.compact_transform(self.probe)
        self._images = self._loaded(self.probe.subset(self._split.train))
        self._held_out = self._loaded(self._split.held_out)
        self._store = Store(work / "store")
        self._work, self._real, self._label = work, real, f"{name}-{shots}-{seed}"

    def _loaded(self, images: Target) -> tuple[torch.Tensor, torch.Tensor]:
        return scratch.load_images(images, self._transform)

    def train(self, recipe: str) -> dict[str, Any]:
        """Train by a recipe; return its seconds, steps and accuracy, and keep its similarities to the source."""
        seed = self._seed + 1000 * (recipe == AGAIN)
        with seeded(seed):
            net = scratch.compact_network(self._classes, self._transform)
        if recipe in (BEFORE, AGAIN):
            net = strided(net)
        began = time.process_time()
        record = fit(net, *self._images, None, recipe=RECIPES[recipe], seed=seed)
        seconds = time.process_time() - began
        assert record.stopped == "finished"
        loss, accuracy = evaluate(net, *self._held_out)
        return {
            "recipe": recipe, "seconds": seconds, "steps": record.steps, "accuracy": accuracy, "loss": loss,
            "similarity": self._similarities(net, recipe).tolist(),
        }  # fmt: skip

    def _similarities(self, net: nn.Module, recipe: str) -> np.ndarray:
        """Return what `rank` calls `linear_cka_to_scratch`, of every stage of the source."""
        (source,) = [each for each in zoo(self._work, self._real / "zoo", SIDE) if each.name == SOURCE]
        places: dict[str, Any] = {"store": self._store, "device": CPU, "batch_size": 64}
        of_source = source_features(source, self.probe, **places)
        build: Callable[[], tuple[nn.Module, Transform]] = lambda: (net, self._transform)  # noqa: E731
        of_scratch: LayerFeatures = layer_features(
            build, ["reference", recipe, self._label, time.time_ns()], "auto", self.probe, **places
        )
        cka = MinibatchCKA(debiased=True)
        cka.update(*(list(each.arrays.values()) for each in (of_source, of_scratch)))
        return np.fmax.reduce(to_numpy(cka.result()), axis=1)


def done(work: Path) -> pd.DataFrame:
    """Return all rows that are there."""
    lines = [line for path in sorted(work.glob("rows-*.jsonl")) for line in path.read_text().splitlines()]
    return pd.DataFrame([json.loads(line) for line in lines])


def missing(work: Path, seeds: list[int], only: set[str]) -> Iterator[tuple[str, int, int, list[str]]]:
    """Yield cases, with the recipes that are left of each."""
    rows = done(work)
    known = set() if rows.empty else set(zip(rows["case"], rows["seed"], rows["recipe"], strict=True))
    for seed, (name, amounts) in product(seeds, CASES.items()):
        for shots in amounts:
            case = f"{name}-{shots}"
            left = [recipe for recipe in RECIPES if (case, seed, recipe) not in known]
            if left and (not only or case in only):
                yield name, shots, seed, left


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """Return for each row its seconds, accuracy and similarities beside those of the recipe before."""
    before = rows[rows["recipe"] == BEFORE].set_index(["case", "seed"])
    rows = rows[[place in before.index for place in zip(rows["case"], rows["seed"], strict=True)]].copy()
    base = before.loc[list(zip(rows["case"], rows["seed"], strict=True))]
    rows["share"] = rows["seconds"].to_numpy() / base["seconds"].to_numpy()
    rows["gain"] = rows["accuracy"].to_numpy() - base["accuracy"].to_numpy()
    rows["gain_logit"] = _logit(rows["accuracy"].to_numpy()) - _logit(base["accuracy"].to_numpy())
    pairs = list(zip(rows["similarity"], base["similarity"], strict=True))
    rows["spearman"] = [float(spearmanr(ours, theirs).statistic) for ours, theirs in pairs]
    rows["away"] = [float(np.abs(np.subtract(ours, theirs)).max()) for ours, theirs in pairs]
    rows["lost"] = [float(max(theirs) - theirs[int(np.argmax(ours))]) for ours, theirs in pairs]
    return rows


def _logit(shares: np.ndarray) -> np.ndarray:
    return np.log(shares / (1 - shares))


def page(rows: pd.DataFrame) -> str:
    """Return what is written."""
    seeds, rows = ", ".join(map(str, sorted(rows["seed"].unique()))), compared(rows)
    draws = (rows["recipe"] == BEFORE).sum()
    lines = [
        "# The reference, by recipe", "",
        f"Made by `benchmarks/reference.py`: the compact network trained from scratch as `rank` trains it, on "
        f"{draws} draws of real pictures (seeds {seeds}), the number behind a name being images a "
        "class; accuracy on up to 1000 others. Seconds are the processor's, of training alone, "
        f"one thread. {platform.machine()}, torch {torch.__version__}.", "",
        *(f"- *{name}*: {meaning}" for name, meaning in MEANING.items()), "",
        "Mean over draws, of differences with their standard error. Rank correlation and the largest difference are "
        f"those of `linear_cka_to_scratch` over the stages of {SOURCE}, between a recipe and the one before; what is "
        "lost is how much less similar, to the reference before, the stage is that this one would choose.", "",
        "| recipe | draws | seconds ÷ before | accuracy | less before | in logits | cross-entropy | rank correlation "
        "| largest difference | lost |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name in RECIPES:
        part = rows[rows["recipe"] == name]
        if len(part):
            share = part["seconds"].sum() / (part["seconds"] / part["share"]).sum()
            error = part["gain"].sem() if len(part) > 1 else np.nan
            gain = "" if name == BEFORE else f"{part['gain'].mean():+.3f} ± {error:.3f}"
            logits = "" if name == BEFORE else f"{part['gain_logit'].mean():+.2f}"
            alike = "" if name == BEFORE else f"{part['spearman'].mean():.3f}"
            apart = " | ".join("" if name == BEFORE else f"{part[column].mean():.3f}" for column in ("away", "lost"))
            lines.append(
                f"| {name} | {len(part)} | {share:.3f} | {part['accuracy'].mean():.3f} | {gain} | {logits} | "
                f"{part['loss'].mean():.2f} | {alike} | {apart} |"
            )
    shown = [name for name in RECIPES if name != AGAIN]
    lines += [
        "", "## By set of pictures", "", "Seconds, and accuracy; means over seeds.", "",
        f"| pictures | steps before | steps now | {' | '.join(shown)} | rank correlation, now |",
        "|---|---|---|" + "---|" * (len(shown) + 1),
    ]  # fmt: skip
    for case, part in rows.groupby("case", sort=False):
        by = part.groupby("recipe")[["seconds", "accuracy", "steps", "spearman"]].mean()
        if NOW in by.index:
            cells = [
                f"{by['seconds'][name]:.1f} s, {by['accuracy'][name]:.3f}" if name in by.index else "" for name in shown
            ]
            steps = f"{by['steps'][BEFORE]:.0f} | {by['steps'][NOW]:.0f}"
            lines.append(f"| {case} | {steps} | {' | '.join(cells)} | {by['spearman'][NOW]:.3f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train what is left, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("reference-runs"), help="where it goes on")
    parser.add_argument("--seeds", default="0", help="of draws and networks")
    parser.add_argument("--only", default="", help="cases, such as trashnet-20")
    parser.add_argument("--page", action="store_true", help="only write the page of what is there")
    asked = parser.parse_args()
    if not (real := os.environ.get("TRANSFERSCOPE_REAL")):
        sys.exit("skipped: set TRANSFERSCOPE_REAL to a folder with data/ and zoo/")
    torch.set_num_threads(1)
    asked.work.mkdir(parents=True, exist_ok=True)
    seeds, only = [int(seed) for seed in asked.seeds.split(",")], set(filter(None, asked.only.split(",")))
    for name, shots, seed, left in [] if asked.page else list(missing(asked.work, seeds, only)):
        case = Case(asked.work, Path(real), name, shots, seed)
        for recipe in left:
            if recipe == AGAIN and case.probe.n_samples > FEW:
                continue
            row = {"case": f"{name}-{shots}", "seed": seed, **case.train(recipe)}
            with (asked.work / f"rows-{os.getpid()}.jsonl").open("a") as rows:
                rows.write(json.dumps(row) + "\n")
            print({key: value for key, value in row.items() if key != "similarity"}, file=sys.stderr, flush=True)
    RESULTS.write_text(page(done(asked.work)))


if __name__ == "__main__":
    main()
