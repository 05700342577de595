"""Every score of the package, and the similarity to a network trained from scratch, on the images of the small map.

Needs TRANSFERSCOPE_REAL, a folder with `data/NAME.zip`; says so and stops without it.

    TRANSFERSCOPE_REAL=... python benchmarks/groundtruth/scores.py [--out FOLDER] [--minutes N]

writes FOLDER/small-scores.csv, a line for each source and depth, with `transferscope.rank`: of each target and number
of images of each class, on the images that the runs of `small.py` train on in draw 0. What is in the table is not
computed again. The network from scratch has the sources' own architecture and is trained as the map trains, on all of
these images; its accuracy is that on the map's test images. `…_to_scratch` is the similarity to its most similar
layer, `…_same_layer` to that of the same name. LEEP and NCE see a source's own predictions alone and are the same at
every depth.
"""

import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from maps import Part, options
from safetensors.torch import save_file
from small import PARTS, TARGETS, TRAINING
from sources import IMAGES_OF, SOURCES, prepare, unpack

from transferscope import load_target, load_zoo, rank
from transferscope.data.splits import draw, hold_out, sizes_within
from transferscope.data.target import Target
from transferscope.errors import TransferscopeWarning
from transferscope.networks.loading import build_untrained, source_transform
from transferscope.protocols.finetuning import recipes
from transferscope.protocols.scratch import load_images
from transferscope.protocols.training.single import evaluate, fit
from transferscope.results.labelled import SIMILARITIES, score_names

Entry = dict[str, Any]
SEEDS = (0,)
FILE = "small-scores.csv"
REFERENCE = "reference"
SETTINGS: Entry = dict(TRAINING)
RECIPE = replace(
    recipes("adamw", SETTINGS["epochs"], SETTINGS["min-steps"])["scratch"], learning_rate=SETTINGS["learning-rates"]
)


def groups(images: Target, parts: tuple[Part, ...] = PARTS) -> Iterator[tuple[int, int, Target, Target]]:
    """Yield each number of images of each class, each draw, its images, and those that all are tested on."""
    pool, test = hold_out(images, most=SETTINGS["test-samples"], seed=0)
    named: list[Any] = [int(size) if size.isdigit() else "all" for part in parts for size in part.sizes.split(",")]
    for size in sizes_within(named, images.labels[pool]):
        for seed in SEEDS:
            drawn = pool[draw(images.labels[pool], size, seed)]
            yield size, seed, images.subset(drawn), images.subset(test)


def train_reference(drawn: Target, test: Target, like: Entry, seed: int, path: Path) -> tuple[Entry, float]:
    """Train the architecture of a source from scratch; return its entry in a zoo, and its accuracy."""
    entry = {name: value for name, value in like.items() if name not in ("checkpoint", "initial")}
    entry |= {"name": REFERENCE, "kwargs": {**like["kwargs"], "classes": len(drawn.classes)}}
    source = load_zoo({"version": 1, "sources": [entry]})[REFERENCE]
    net, transform = build_untrained(source, seed=seed, trust_code=True), source_transform(source)
    fit(net, *load_images(drawn, transform), None, recipe=RECIPE, seed=seed)
    _, accuracy = evaluate(net, *load_images(test, transform))
    save_file(net.state_dict(), path)
    return entry | {"checkpoint": str(path)}, accuracy


def score(drawn: Target, test: Target, zoo: list[Entry], seed: int) -> pd.DataFrame:
    """Return a row for each source and depth."""
    with tempfile.TemporaryDirectory() as folder:
        entry, accuracy = train_reference(drawn, test, zoo[0], seed, Path(folder) / "reference.safetensors")
        ranking = rank(
            drawn, {"version": 1, "sources": [*zoo, entry]}, samples=len(drawn), scores="all", reference=REFERENCE,
            seed=seed, device="cpu", trust_code=True, progress=False,
        )  # fmt: skip
    assert not ranking.failed, ranking.failed
    found = ranking.scores
    table = found[["layer", *score_names(found)]].to_dataframe()
    for name in SIMILARITIES:
        # The reference has the source's layers, in their order.
        table[f"{name}_same_layer"] = found[name].to_numpy().diagonal(axis1=1, axis2=2).ravel()
    table.insert(1, "samples", found.attrs["n_samples"])
    table.insert(2, "reference_accuracy", accuracy)
    return table.reset_index()


def main() -> None:
    real, out, clock = options("small")
    zoo = prepare(real, out / "sources", SOURCES)
    path, group = out / FILE, ["target", "samples_per_class", "seed"]
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=group)
    done = set(table[group].itertuples(index=False, name=None))
    warnings.simplefilter("ignore", TransferscopeWarning)  # a score that cannot be computed is NaN in the table
    for name in TARGETS:
        others = [source for source in zoo if IMAGES_OF.get(str(source["name"]), source["name"]) != name]
        with tempfile.TemporaryDirectory() as folder:
            for size, seed, drawn, test in groups(load_target(unpack(real, name, Path(folder)))):
                if (name, size, seed) in done or clock.minutes <= 0:
                    continue
                before = clock.minutes
                rows = score(drawn, test, others, seed)
                rows = rows.assign(target=name, samples_per_class=size, seed=seed)[[*group, *rows.columns]]
                table = pd.concat([table, rows], ignore_index=True) if len(table) else rows
                table.to_csv(path.with_suffix(".new"), index=False)
                path.with_suffix(".new").replace(path)
                print(f"{name}, {size} a class: {60 * (before - clock.minutes):.0f} s", flush=True)


if __name__ == "__main__":
    main()
