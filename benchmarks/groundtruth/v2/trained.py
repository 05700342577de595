"""The trained stream: cells of the design, one after the other, into trained/TARGET/runs.csv."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pandas as pd

from groundtruth.v2 import rows
from groundtruth.v2.cells import of_the_product, trainer
from groundtruth.v2.design import Cell, read
from groundtruth.v2.targets import cache_folder, unpack
from groundtruth.v2.training import RECIPE
from groundtruth.v2.zoo import COMPACT

FOLDER = Path(__file__).resolve().parent / "trained"
PRODUCT = FOLDER.with_name("product")
"""Some of the same cells on the same images, trained by the package's own recipe, that of `measure` and of pilots."""
_MOST_IMAGES = 300
"""To train on: the package's recipe makes 40 epochs, which with more of them takes longer than 300 steps."""


def table() -> pd.DataFrame:
    """Return all trained runs, of this version of the recipe and of others."""
    return rows.read(sorted(FOLDER.glob("*/runs.csv")))


def missing() -> list[Cell]:
    """Return the cells of the design that have no run by the recipe yet, in their order."""
    runs = table()
    runs = runs[runs[rows.RECIPE].astype(str) == RECIPE.version]
    stages = dict(zip(runs["source"], runs["depths"], strict=True))
    names = ["source", "target", "protocol", "depth", "samples_per_class", "seed"]
    done = set(runs[names].itertuples(index=False, name=None))
    return [
        cell
        for cell in read()
        if cell.source not in stages
        or (cell.source, cell.target, cell.protocol, cell.depth(stages[cell.source]), cell.samples_per_class, cell.seed)
        not in done
    ]


def work(real: Path, device: str) -> Iterator[str]:
    """Run the next cell whenever one is asked for; yield its name."""
    prepared = cache(lambda target: trainer(real, unpack(real, target, cache_folder()), RECIPE, device))
    for cell in missing():
        row = prepared(cell.target).row_of(cell)
        rows.append(FOLDER / cell.target / "runs.csv", [row | {rows.RECIPE: RECIPE.version}])
        yield (
            f"{cell.source} {cell.target} {cell.protocol} {row['depth']}/{row['depths']} n={cell.samples_per_class} "
            f"seed {cell.seed}: {row.get('accuracy', row['status'])}"
        )


def paired() -> list[Cell]:
    """Return the cells on real networks whose first draw has a run by this recipe, but none by the package's own."""
    runs = table()
    runs = runs[(runs[rows.RECIPE].astype(str) == RECIPE.version) & (runs["status"] == "done") & (runs["depths"] > 6)]
    runs = runs[(runs["seed"] == 0) & (runs["source"] != COMPACT) & (runs["samples"] <= _MOST_IMAGES)]
    names = ["source", "target", "protocol", "depth", "samples_per_class", "seed"]
    done = rows.read(sorted(PRODUCT.glob("*/runs.csv")))
    done = set(done[names].itertuples(index=False, name=None))
    wanted = set(runs[names].itertuples(index=False, name=None)) - done
    stages = dict(zip(runs["source"], runs["depths"], strict=True))
    cells = [cell for cell in read() if cell.source in stages]
    return [
        cell
        for cell in cells
        if (cell.source, cell.target, cell.protocol, cell.depth(stages[cell.source]), cell.samples_per_class, cell.seed)
        in wanted
    ]


def work_of_the_product(real: Path, device: str) -> Iterator[str]:
    """Run the next such cell whenever one is asked for; yield its name and both accuracies."""
    prepared = cache(lambda target: of_the_product(real, unpack(real, target, cache_folder()), device))
    for cell in paired():
        row = prepared(cell.target).row_of(cell)
        rows.append(PRODUCT / cell.target / "runs.csv", [row | {rows.RECIPE: "product"}])
        yield (
            f"{cell.source} {cell.target} {cell.protocol} {row['depth']}/{row['depths']} n={cell.samples_per_class} "
            f"seed {cell.seed}: {row.get('accuracy', row['status'])}"
        )
