"""The trained stream: cells of the design, one after the other, into trained/TARGET/runs.csv."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pandas as pd

from groundtruth.v2 import rows
from groundtruth.v2.cells import trainer
from groundtruth.v2.design import Cell, read
from groundtruth.v2.targets import cache_folder, unpack
from groundtruth.v2.training import RECIPE

FOLDER = Path(__file__).resolve().parent / "trained"


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
        row = prepared(cell.target).row(cell)
        rows.append(FOLDER / cell.target / "runs.csv", [row | {rows.RECIPE: RECIPE.version}])
        yield (
            f"{cell.source} {cell.target} {cell.protocol} {row['depth']}/{row['depths']} n={cell.samples_per_class} "
            f"seed {cell.seed}: {row.get('accuracy', row['status'])}"
        )
