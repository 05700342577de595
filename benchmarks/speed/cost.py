"""What `rank` costs: beside the bare forward passes, in both modes, and beside really running the transfers.

Needs TRANSFERSCOPE_REAL, a folder with `data/trashnet.zip` and `zoo/*`; says so and stops without it.

    TRANSFERSCOPE_REAL=... python benchmarks/cost.py > benchmarks/results/cost.md
"""

import os
import platform
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pandas as pd
import torch
import yaml

from speed.spine import BATCH_SIZE, write_zoo
from transferscope import load_target, load_zoo, rank
from transferscope.data.batches import batches
from transferscope.networks.loading import Network, load_network
from transferscope.protocols.scratch import reference_recipe
from transferscope.protocols.training.recipe import Recipe
from transferscope.verbs.layers import list_layers
from transferscope.verbs.rank.request import MODES

TARGET, SHOTS, MORE_SHOTS, ROUNDS = "trashnet", 20, 100, 3
PROTOCOLS = ("truncate", "reinit", "finetune")
MEASURED = {"mobilenetv2-imagenet": 3, "resnet20-cifar10": 1}
"""A source of each architecture, and how many of the zoo have it."""
DEPTHS = (4, 9)
MODEST, GENEROUS, TRANSFERS = 2, 15, 20
"""What is aimed at: quick and default mode in bare passes beside the reference; one `rank` in a grid of transfers."""


def bare_seconds(networks: list[Network], ready: list[list[torch.Tensor]]) -> float:
    """Return the seconds of the plain networks over ready-made batches."""
    started = time.perf_counter()
    with torch.inference_mode():
        for network, images in zip(networks, ready, strict=True):
            for batch in images:
                network.module(batch)
    return time.perf_counter() - started


def passes(target: Path, zoo: Path, work: Path, shots: int, recipe: Recipe) -> pd.DataFrame:
    """Return a row for each round, in turn in one process: seconds of bare passes, of `rank`, and of its reference."""
    classes = len(load_target(target).classes)
    probe = load_target(target).probe(shots * classes, 0)
    networks = [load_network(source, trust_code=True) for source in load_zoo(zoo)]
    ready = [list(batches(probe, network.transform, BATCH_SIZE)) for network in networks]
    rounds = []
    for number in range(ROUNDS + 1):
        row = {"bare": bare_seconds(networks, ready)}
        for mode in MODES:
            os.environ["TRANSFERSCOPE_HOME"] = str(work / f"home-{shots}-{number}-{mode}")
            started = time.perf_counter()
            ranking = rank(target, zoo, shots=shots, mode=mode, trust_code=True, progress=False, recipe=recipe)
            row[mode] = time.perf_counter() - started
            row[f"{mode}, reference"] = ranking.timings["reference"]
        rounds.append(row)
    return pd.DataFrame(rounds[1:])  # the first one warms up


def transfers(target: Path, zoo: Path, work: Path) -> pd.DataFrame:
    """Really run some transfers; return the mean seconds of each source and protocol, and how many the grid has."""
    subprocess.run(
        [
            sys.executable, "-m", "transferscope", "measure", "--target", str(target), "--sources", str(zoo),
            "--protocols", ",".join((*PROTOCOLS, "scratch")), "--samples-per-class", str(SHOTS), "--seeds", "1",
            "--depths", ",".join(map(str, DEPTHS)), "--trust-code", "--device", "cpu", "-o", str(work), "-q",
        ],
        stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    runs = pd.read_csv(work / "runs.csv")
    found = runs.groupby(["source", "protocol"])["seconds"].agg(["mean", "count"])
    for source in load_zoo(zoo):
        depths = len(list_layers(source.name, zoo, trust_code=True))
        for protocol in (*PROTOCOLS, "scratch"):
            cuts = 1 if protocol == "scratch" else depths
            found.loc[(source.name, protocol), "grid"] = MEASURED[source.name] * cuts
    return found


def main() -> None:
    real = os.environ.get("TRANSFERSCOPE_REAL")
    if not real:
        sys.exit("skipped: set TRANSFERSCOPE_REAL to a folder with data/ and zoo/")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with zipfile.ZipFile(Path(real) / "data" / f"{TARGET}.zip") as archive:
            archive.extractall(folder)
        zoo = write_zoo(folder, Path(real) / "zoo", "auto")
        found = {
            SHOTS: passes(folder / TARGET, zoo, folder, SHOTS, reference_recipe()),
            # The reference is not counted here, so one epoch will do.
            MORE_SHOTS: passes(folder / TARGET, zoo, folder, MORE_SHOTS, Recipe(epochs=1)),
        }
        two = folder / "two.yaml"
        content = yaml.safe_load(zoo.read_text())
        content["sources"] = [entry for entry in content["sources"] if entry["name"] in MEASURED]
        two.write_text(yaml.safe_dump(content))
        grid = transfers(folder / TARGET, two, folder / "measured")
    print("# What `rank` costs\n")
    print(
        f"Made by `benchmarks/cost.py`: {TARGET}, three MobileNetV2 and a ResNet-20, each `rank` from an empty cache, "
        f"bare passes and modes in turn in one process, medians of {ROUNDS} rounds. "
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}.\n"
    )
    print("| images a class | mode | bare passes | `rank` without its reference | in bare passes | aimed at |")
    print("|---|---|---|---|---|---|")
    for shots, rounds in found.items():
        for mode, aim in (("quick", MODEST), ("default", GENEROUS)):
            rest = rounds[mode] - rounds[f"{mode}, reference"]
            ratio = (rest / rounds["bare"]).median()
            seconds = f"{rounds['bare'].median():.1f} s | {rest.median():.1f} s"
            print(f"| {shots} | {mode} | {seconds} | {ratio:.2f} × | {aim} × |")
    total = float((grid["mean"] * grid["grid"]).sum())
    ranked = found[SHOTS]["default"].median()
    reference = found[SHOTS]["default, reference"].median()
    print("\n## Beside running the transfers\n")
    print(
        f"Mean seconds of transfers with one draw of {SHOTS} images a class, cut after {DEPTHS[0]} and {DEPTHS[1]} "
        "stages, and how many transfers the zoo has when each source is cut everywhere.\n"
    )
    print("| source | protocol | seconds | measured | in the grid |\n|---|---|---|---|---|")
    for (source, protocol), row in grid.iterrows():
        print(f"| {source} | {protocol} | {row['mean']:.2f} | {row['count']:.0f} | {row['grid']:.0f} |")
    print(
        f"\nThe whole grid would take {total / 60:.0f} minutes, `rank` took {ranked:.0f} s ({reference:.0f} s of it "
        f"its reference): 1/{total / ranked:.0f} of it (aimed at: 1/{TRANSFERS})."
    )
