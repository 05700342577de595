"""Every plot at 5, 20 and 100 layers, for a notebook and for a column of a paper, in colour and grey, to be looked at.

    python benchmarks/pictures.py OUT

The data are made up, with a seed: plausible numbers, and names of layers and networks as timm has them. Besides PNG one
plot is written as SVG and as PDF. sheet-notebook.png and sheet-paper.png have all of them beside each other.
"""

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

import transferscope as ts
from transferscope.activations.stages import Stage
from transferscope.prediction.belief import believe
from transferscope.prediction.expected import labelled as with_expectations
from transferscope.prediction.selection import ScratchCandidate, recommend
from transferscope.results import labelled
from transferscope.results.labelled import SIMILARITIES, SourceScores
from transferscope.results.parameters import ParameterTransfer
from transferscope.results.ranking import Ranking
from transferscope.results.summary import Reference, TargetSummary

SIZES = {5: 3, 20: 8, 100: 30}
"""Layers to sources."""
CONTEXTS = ("notebook", "paper")
NETWORKS = (
    "convnext_tiny.fb_in22k", "mobilenetv2_100.ra_in1k", "resnet50.a1_in1k", "densenet121.tv_in1k",
    "vit_small_patch16_224.augreg_in21k_ft_in1k", "efficientnet_b0.ra_in1k", "regnety_032.ra_in1k", "mixer_b16_224",
)  # fmt: skip


def layers(count: int) -> list[str]:
    """Return names of layers as timm's networks of about this many have them."""
    if count <= 5:
        return ["act1", "layer1", "layer2", "layer3", "layer4"][:count]
    if count <= 24:
        return ["bn1", *(f"blocks.{i // 3}.{i % 3}" for i in range(count - 2)), "global_pool"]
    return [f"features.denseblock{i // 25 + 1}.denselayer{i % 25 + 1}.conv2" for i in range(count)]


def networks(count: int) -> list[str]:
    return [NETWORKS[i % len(NETWORKS)] + f"_{i // len(NETWORKS)}" * (i >= len(NETWORKS)) for i in range(count)]


def similarity(rows: int, columns: int, rng: np.random.Generator):
    x, y = np.linspace(0, 1, rows)[:, None], np.linspace(0, 1, columns)[None]
    values = 0.95 * np.exp(-5 * (x - y**1.3) ** 2) * (1 - 0.3 * x) + rng.normal(0, 0.02, (rows, columns))
    meaningful = (x < 0.85) | (y < 0.75)
    return labelled.similarity_array(
        values, layers(rows), layers(columns), {"informative": meaningful}, measure="linear_cka", x=NETWORKS[2],
        y=NETWORKS[3],
    )  # fmt: skip


def ranking(count: int, sources: int, rng: np.random.Generator) -> Ranking:
    """Return sources with up to `count` stages each, some with fewer."""
    units = []
    for i, name in enumerate(networks(sources)):
        depths = count - (i % 3) * (count // 6)
        depth = np.linspace(0, 1, depths)
        best = rng.uniform(0.35, 0.9)
        level = 0.78 - 0.012 * i + rng.normal(0, 0.01)
        head = np.clip(level - 0.6 * (depth - best) ** 2 + rng.normal(0, 0.006, depths), 0.1, 0.99)
        known = dict.fromkeys(("ridge", "knn", "nearest_mean", "kernel_ridge"), head)
        known |= {"logme": head - 0.9, "alignment": head / 2, "effective_rank": 20 + 60 * depth}
        flops = np.cumsum(rng.uniform(1, 3, depths)) * 4e9 / depths
        stages = tuple(
            Stage(layer, (8,), int(cost / 100), int(cost)) for layer, cost in zip(layers(depths), flops, strict=True)
        )
        matrix = similarity(depths, 8, rng).to_numpy()
        scratch = tuple(f"blocks.{k}" for k in range(8))
        units.append(SourceScores(name, stages, scratch, known, dict.fromkeys(SIMILARITIES, matrix), {}))
    attributes = {
        "target": "trashnet", "n_samples": 1000, "seed": 0, "classes": 6, "largest_class": 0.24,
        "scratch_accuracy": 0.71, "scratch_held_out": 200,
    }  # fmt: skip
    scores = labelled.to_dataset(units, attributes)
    belief = believe(scores, 1000)
    scores = with_expectations(scores, belief)
    compact = ScratchCandidate("compact residual network", 0.71, 200, 8, 10**5, 10**8)
    return Ranking(
        target=TargetSummary("trashnet", 1000, 6, "0" * 64),
        reference=Reference("compact residual network", 0.71, 200, 800, 60, "early"),
        recommendations=recommend(scores, belief, [], compact),
        scores=scores,
        failed=(),
    )


def measured(count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return the table of a measurement of one source."""
    rows = []
    levels = {"nearest_mean": 0.5, "truncate": 0.62, "toptuning": 0.6, "finetune": 0.6, "defrost": 0.57, "scratch": 0.3}
    for protocol, level in levels.items():
        depths = [0] if protocol == "scratch" else range(1, count + 1)
        for size in (1, 5, 10, 50, 100, 500):
            gain = 0.055 * math.log(size) * (1.6 if protocol in ("finetune", "scratch") else 1)
            for depth in depths:
                accuracy = level + gain - 0.25 * (depth / count - 0.7) ** 2 + rng.normal(0, 0.008)
                rows.append({
                    "source": NETWORKS[1], "protocol": protocol, "depth": depth, "depths": count,
                    "layer": layers(count)[depth - 1] if depth else "", "samples_per_class": size,
                    "accuracy": min(accuracy, 0.97), "standard_error": 0.03 / math.sqrt(size),
                    "seconds": size * (0.2 + depth / count) * (20 if protocol == "finetune" else 1),
                    "kwh": math.nan,
                })  # fmt: skip
    table = pd.DataFrame(rows)
    best = table.groupby(["protocol", "samples_per_class"])["accuracy"].idxmax()
    return table.assign(best=table.index.isin(best))


def moved(count: int, rng: np.random.Generator) -> ParameterTransfer:
    """Return T of one source on four targets, one layer of which never moved."""
    rows, steps = [], []
    for number, target in enumerate(("mnist", "sign-digits", "trashnet", "pacs-sketch")):
        for seed in (0, 1):
            values = (4 - number) * np.exp(-2 * np.linspace(0, 1, count)) * rng.lognormal(0, 0.08, count) + 0.7
            values[1] = math.inf if number == 2 else values[1]
            cell = {"source": NETWORKS[1], "target": target, "samples_per_class": 40, "seed": seed}
            for depth, (layer, value) in enumerate(zip(layers(count), values, strict=True), start=1):
                known = {"depth": depth, "layer": layer, "step": 100.0}
                nothing = dict.fromkeys(("spread", "relative_change", "cka", "gradient_snr"), math.nan)
                rows.append({
                    **cell, **known, **nothing, "samples": 240, "criterion": "epochs", "transferability": value,
                    "reason": "",
                })  # fmt: skip
                for size in (10, 40, 160):
                    for step in (1, 3, 10, 30, 100, 300):
                        T = 1 + (value if math.isfinite(value) else 1) * 5 / step**0.5 + 40 / size
                        steps.append({
                            **cell, **known, "samples_per_class": size, "step": step, "epoch": step / 10,
                            "loss": 1 / step, "transferability": T,
                        })  # fmt: skip
    empty = pd.DataFrame()
    runs = pd.DataFrame(columns=[
        "source", "target", "samples_per_class", "seed", "criterion", "samples", "classes", "step", "loss",
        "transferability", "spread", "accuracy", "gradient_snr", "frechet", "mmd", "within", "between",
    ])  # fmt: skip
    return ParameterTransfer(pd.DataFrame(rows), runs, pd.DataFrame(steps), empty, empty, {}, ())


def one_layerwise(count: int, rng: np.random.Generator):
    values = 1 + 3 * np.exp(-3 * np.linspace(0, 1, count)) * rng.lognormal(0, 0.05, count)
    return labelled.parameter_array(values, layers(count), {"spread": 0.08 * values})


def pictures(count: int, context: str) -> Iterator[tuple[str, Figure]]:
    """Draw everything at one number of layers, one by one."""
    rng = np.random.default_rng(count)
    square, tall = similarity(count, count, rng), similarity(count, max(count // 3, 2), rng)
    found, table, study = ranking(count, SIZES[count], rng), measured(count, rng), moved(count, rng)
    plot, size, source = ts.plot, {"context": context}, NETWORKS[1]
    yield "heatmap", plot.heatmap(square, path="best", **size).figure
    yield "heatmap-tall", plot.heatmap(tall, path="diagonal", **size).figure
    yield "heatmaps", plot.heatmaps({NETWORKS[i]: similarity(count, 8, rng) for i in range(4)}, **size)
    yield "ranking", plot.ranking(found, **size).figure
    yield "source_depth", plot.source_depth(found, **size).figure
    yield "depth_curves", plot.depth_curves(found, **size).figure
    yield "pareto", plot.pareto(found, **size).figure
    yield "learning_curves", plot.learning_curves(table, source, chance=0.24, **size).figure
    yield "accuracy_by_depth", plot.accuracy_by_depth(table, source, "truncate", chance=0.24, **size).figure
    yield "accuracy_by_cost", plot.accuracy_by_cost(table, source, chance=0.24, **size).figure
    yield "parameter_transferability", plot.parameter_transferability(study, **size).figure
    yield "parameter_layers", plot.parameter_transferability(one_layerwise(count, rng), **size).figure
    yield "parameter_heatmap", plot.parameter_heatmap(study, **size).figure
    yield "parameter_steps", plot.parameter_steps(study, source, "trashnet", **size).figure


def sheet(out: Path, context: str, width: int = 480) -> None:
    """Put a row of the three sizes of every plot below each other, with few colours, for the file is committed."""
    first = f"-{min(SIZES)}-{context}.png"
    rows = []
    for path in sorted(out.glob(f"*{first}")):
        tiles = [Image.open(out / f"{path.name.removesuffix(first)}-{count}-{context}.png") for count in SIZES]
        tiles = [tile.convert("RGB").resize((width, round(width * tile.height / tile.width))) for tile in tiles]
        row = Image.new("RGB", ((width + 20) * len(tiles), max(tile.height for tile in tiles) + 20), "white")
        for i, tile in enumerate(tiles):
            row.paste(tile, (i * (width + 20), 0))
        rows.append(row)
    whole = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        whole.paste(row, (0, top))
        top += row.height
    whole.quantize(128, method=Image.Quantize.MEDIANCUT).save(out / f"sheet-{context}.png", optimize=True)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    mpl.use("agg")
    out.mkdir(parents=True, exist_ok=True)
    for count in SIZES:
        for context in CONTEXTS:
            for name, figure in pictures(count, context):
                path = out / f"{name}-{count}-{context}.png"
                figure.savefig(path, dpi=100 if context == "notebook" else 200)
                with Image.open(path) as image:
                    image.convert("L").save(path.with_stem(f"{path.stem}-grey"))
                if name == "heatmap":
                    figure.savefig(path.with_suffix(".svg"))
                    figure.savefig(path.with_suffix(".pdf"))
                mpl.pyplot.close("all")
    for context in CONTEXTS:
        sheet(out, context)
    print(f"{len(list(out.iterdir()))} pictures in {out}")
