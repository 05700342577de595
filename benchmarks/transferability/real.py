"""The part of `scores.py` on real data: every score of every layer of every network, and the time of MobileNetV2."""

import statistics
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from scipy.stats import weightedtau

from transferability.references import kernel_ridge, table
from transferscope.activations.capture import collect, resolve_stages
from transferscope.data.batches import batches
from transferscope.data.target import Target, load_target
from transferscope.networks.loading import Network, load_network
from transferscope.networks.zoo import Source, load_zoo
from transferscope.runtime.store import Store
from transferscope.transferability import SCORES, panel
from transferscope.verbs.features import source_features

TARGETS = ("trashnet", "pacs-sketch", "caltech101")
"""None of them is what a network of the zoo was trained on."""
MOBILENETS = {"mobilenetv2-imagenet": 1001, "mobilenetv2-inat-bird": 965, "mobilenetv2-inat-insect": 1022}
RESNETS = {20: "12fca82f", 32: "d509ac18", 44: "014dd654", 56: "4bfd9763"}
FACTORY = Path(__file__).parents[2] / "examples" / "cifar_resnet.py"
SCORED = list(SCORES)
DEFAULT = ("logme", "hscore", "ridge")
"""What `rank` computes unless it is told more."""
STATIC = {
    "params": "number of parameters up to the cut",
    "depth_fraction": "the deepest cut, of any network",
    "two_thirds": "the cut nearest to 2/3 of the depth, of any network",
}
TRUTHS = {"ridge": "linear ridge", "kernel_ridge": "kernel ridge"}
GRID = "kernel_ridge of the whole grid"
"""Column of what no walk over the grid can miss."""
BATCH = 64


def zoo(folder: Path, networks: Path, side: int) -> list[Source]:
    """Return all seven networks, the MobileNetV2 for images of `side` pixels."""
    sources: list[dict[str, Any]] = [
        {
            "name": name,
            "loader": "timm",
            "model": "mobilenetv2_100",
            "checkpoint": str(networks / f"{name}.safetensors"),
            "kwargs": {"pad_type": "same", "num_classes": outputs},
            "transform": {"size": side, "mean": [0.5] * 3, "std": [0.5] * 3},
        }
        for name, outputs in MOBILENETS.items()
    ]
    sources += [
        {
            "name": f"resnet{depth}-cifar10",
            "loader": "python",
            "factory": f"{FACTORY}:build",
            "kwargs": {"depth": depth},
            "checkpoint": str(networks / f"resnet{depth}-{mark}.th"),
            "transform": {"size": 32},
        }
        for depth, mark in RESNETS.items()
    ]
    path = folder / f"zoo-{side}.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "sources": sources}))
    return list(load_zoo(path))


def unpacked(folder: Path, real: Path, name: str) -> Target:
    """Unpack a set of images and load it."""
    if not (folder / name).is_dir():
        with zipfile.ZipFile(real / "data" / f"{name}.zip") as archive:
            archive.extractall(folder)
    return load_target(folder / name)


def score_network(source: Source, probe: Target, store: Store) -> pd.DataFrame:
    """Score every stage of a network, a row each; LEEP and NCE, which see its predictions alone, are equal in all."""
    where = torch.device("cpu")
    features = source_features(source, probe, trust_code=True, store=store, device=where, batch_size=BATCH)
    rows = []
    for depth, stage in enumerate(features.stages, 1):
        X = features.arrays[stage.layer]
        scores = panel(X, probe.labels, SCORED, source_probabilities=features.probabilities)
        row = {"network": source.name, "depth": depth, "depths": len(features.stages), "layer": stage.layer}
        row |= {"features": X.shape[1], "params": stage.params, "depth_fraction": depth / len(features.stages)}
        rows.append(row | scores | {GRID: kernel_ridge(X, probe.labels)})
    return pd.DataFrame(rows)


def ordered(values: pd.Series) -> np.ndarray:
    """Return the values with those that are not defined last."""
    return values.fillna(-np.inf).to_numpy()


def values_table(scores: pd.DataFrame) -> str:
    """Return every score of every network at its last layer and at the layer that the score puts first."""
    networks = scores.groupby("network", sort=False)
    rows = [["score", *networks.groups]]
    for name in SCORED:
        cells = []
        for _, one in networks:
            best = one.iloc[int(np.argmax(ordered(one[name])))]
            last = one.iloc[-1]
            cells.append(f"{last[name]:.3g}")
            if SCORES[name].needs == "features":
                cells[-1] += f" → {best[name]:.3g} at {best['depth']}/{best['depths']}"
        rows.append([name, *cells])
    return table(rows)


def picks_table(scores: pd.DataFrame) -> str:
    """Return what each score and each static order would pick, how good that is, and how it orders all the rest."""
    rows = [["score", "picks", "cut after", *(f"{title} there" for title in TRUTHS.values()), "below the best ridge"]]
    rows[0] += [f"weighted τ with {title}" for title in TRUTHS.values()]
    scores = scores.assign(two_thirds=-(scores["depth_fraction"] - 2 / 3).abs())
    for name in (*SCORED, *STATIC):
        # Of equals the deepest: the order of the networks must not look like knowledge.
        values = ordered(scores[name])
        ties = scores[values == values.max()]
        pick = ties.iloc[int(np.argmax(ties["depth_fraction"]))]
        accuracies = [f"{pick[truth]:.3f}" for truth in TRUTHS]
        taus = ["" if name == t else f"{weightedtau(values, ordered(scores[t])).statistic:.2f}" for t in TRUTHS]
        title = f"*{STATIC[name]}*" if name in STATIC else name
        where = f"{pick['layer']} ({pick['depth']}/{pick['depths']})"
        below = f"{scores['ridge'].max() - pick['ridge']:.3f}"
        tied = ties["network"].unique()
        equals = f" ({len(tied)} networks tie)" if len(tied) > 1 else ""
        rows.append([title, pick["network"] + equals, where, *accuracies, below, *taus])
    return table(rows)


def target_section(name: str, images: int, folder: Path, real: Path, limit: int | None) -> tuple[str, pd.DataFrame]:
    """Return the section of one target, and its scores."""
    probe = unpacked(folder, real, name).probe(images, 0)
    sources = zoo(folder, real / "zoo", 96)
    sources = sources if limit is None else sources[2 : 2 + limit]
    started = time.perf_counter()
    store = Store(folder / "store")
    scores = pd.concat([score_network(source, probe, store) for source in sources], ignore_index=True)
    classes = len(np.unique(probe.labels))
    print(f"{name}: {len(scores)} layers in {time.perf_counter() - started:.0f} s", flush=True)
    text = f"\n### {name}: {probe.n_samples} images, {classes} classes, {len(scores)} layers of {len(sources)} networks"
    text += "\n\nAt the last layer → at the layer that the score puts first (how deep of how many):\n\n"
    text += values_table(scores) + "\nWhat each would pick, over all networks and depths:\n\n" + picks_table(scores)
    scores.insert(0, "target", name)
    return text, scores


def forward_section(images: int, rounds: int, folder: Path, real: Path) -> tuple[str, list[list[str]]]:
    """Time the panel over all layers of MobileNetV2 and its forward passes at 224 px, in turn."""
    probe = unpacked(folder, real, "trashnet").probe(images, 0)
    network = load_network(zoo(folder, real / "zoo", 224)[0])
    features = captured(network, probe)
    wanted = {
        "whole panel": [name for name in SCORES if SCORES[name].needs == "features"],
        f"default scores ({', '.join(DEFAULT)})": list(DEFAULT),
    }
    seconds: dict[str, list[float]] = {"forward": [], **{name: [] for name in wanted}}
    for _ in range(rounds):
        seconds["forward"].append(forward_seconds(network, probe))
        for title, names in wanted.items():
            started = time.perf_counter()
            for X in features.values():
                panel(X, probe.labels, names)
            seconds[title].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    widths = [X.shape[1] for X in features.values()]
    text = f"\n## MobileNetV2: {probe.n_samples} images, {len(features)} layers\n\n"
    text += f"Forward passes at 224 px, batches of {BATCH}, without reading the images; then the scores of the pooled "
    text += f"features of all layers ({min(widths)} to {max(widths)} of them). Medians; {rounds} in turn.\n\n"
    forward = medians["forward"]
    rows = [["what", "seconds", "÷ forward passes"], ["forward passes", f"{forward:.1f}", ""]]
    rows += [[name, f"{medians[name]:.1f}", f"{medians[name] / forward:.2f}"] for name in wanted]
    judged = []
    for title in wanted:
        what = (
            f"{title}, all {len(features)} layers of MobileNetV2, n = {probe.n_samples}: less than its forward passes"
        )
        verdict = "met" if medians[title] < forward else "**missed**"
        judged.append([f"{what} at 224 px", f"{medians[title]:.1f} s against {forward:.1f} s", verdict])
    return text + table(rows), judged


def captured(network: Network, probe: Target) -> dict[str, Any]:
    """Return the pooled features of all stages."""
    sample = torch.zeros(1, 3, network.transform.size, network.transform.size)
    stages = resolve_stages(network.module, "auto", sample, cuts_only=True)
    return collect(network.module, batches(probe, network.transform, BATCH), [stage.layer for stage in stages])


def forward_seconds(network: Network, probe: Target) -> float:
    """Return the seconds of the bare network alone over all images."""
    seconds = 0.0
    with torch.inference_mode():
        for batch in batches(probe, network.transform, BATCH):
            started = time.perf_counter()
            network.module(batch)
            seconds += time.perf_counter() - started
    return seconds


def real_section(sizes: Any, folder: Path, real: Path) -> tuple[str, list[list[str]], pd.DataFrame]:
    """Return the sections on real data, the rows of their targets, and all scores."""
    text, judged = forward_section(sizes.forward_images, sizes.forward_rounds, folder, real)
    text += (
        "\n## Real networks\n\nNetworks at every layer they can be cut after, MobileNetV2 at 96 px and the ResNets, "
        "which were trained on CIFAR-10, at 32 px; pooled features. LEEP and NCE see a network's own predictions and "
        "know no layers. Ridge and kernel ridge are leave-one-out accuracies of what is picked, which a score that is "
        "one of the two knows beforehand; weighted τ is SciPy's `weightedtau(score, accuracy)` with its default rank. "
        "In italics the static orders that look at no image. All values are in scores.csv.\n"
    )
    parts = [target_section(name, sizes.images, folder, real, sizes.networks) for name in TARGETS]
    scores = pd.concat([scores for _, scores in parts])
    missed = (scores["kernel_ridge"] - scores[GRID]).abs()
    text += (
        f"\nKernel ridge walks over its grid of widths and penalties. On {int((missed < 1e-9).sum())} of {len(scores)} "
        f"layers it has the accuracy of the whole grid, elsewhere it is {missed.max():.3g} off at most.\n"
    )
    return text + "".join(part for part, _ in parts), judged, scores
