"""The trained stream: cells of the design, one after the other, into trained/TARGET/runs.csv."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from groundtruth.v2 import rows
from groundtruth.v2.cells import CellExecutor, of_the_product, trainer
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
    done, stages = _keys(runs), _stages(runs)
    return [cell for cell in read() if cell.source not in stages or _key(cell, stages) not in done]


def work(real: Path, device: str) -> Iterator[str]:
    """Run the next cell whenever one is asked for; yield its name."""
    prepared = cache(lambda target: trainer(real, unpack(real, target, cache_folder()), RECIPE, device))
    return _run(missing(), prepared, FOLDER, RECIPE.version)


def paired() -> list[Cell]:
    """Return the cells on real networks whose first draw has a run by this recipe, but none by the package's own."""
    runs = table()
    runs = runs[(runs[rows.RECIPE].astype(str) == RECIPE.version) & (runs["status"] == "done") & (runs["depths"] > 6)]
    runs = runs[(runs["seed"] == 0) & (runs["source"] != COMPACT) & (runs["samples"] <= _MOST_IMAGES)]
    wanted, stages = _keys(runs) - _keys(rows.read(sorted(PRODUCT.glob("*/runs.csv")))), _stages(runs)
    return [cell for cell in read() if cell.source in stages and _key(cell, stages) in wanted]


def work_of_the_product(real: Path, device: str) -> Iterator[str]:
    """Run the next such cell by the package's own recipe whenever one is asked for; yield its name."""
    prepared = cache(lambda target: of_the_product(real, unpack(real, target, cache_folder()), device))
    return _run(paired(), prepared, PRODUCT, "product")


def _run(cells: Sequence[Cell], prepared: Callable[[str], CellExecutor], folder: Path, recipe: str) -> Iterator[str]:
    for cell in cells:
        row = prepared(cell.target).row_of(cell)
        rows.append(folder / cell.target / "runs.csv", [row | {rows.RECIPE: recipe}])
        yield (
            f"{cell.source} {cell.target} {cell.protocol} {row['depth']}/{row['depths']} n={cell.samples_per_class} "
            f"seed {cell.seed}: {row.get('accuracy', row['status'])}"
        )


def _key(cell: Cell, stages: Mapping[str, int]) -> tuple[Any, ...]:
    """Return what tells a cell from others, as `_keys` of runs."""
    depth = cell.depth(stages[cell.source])
    return cell.source, cell.target, cell.protocol, depth, cell.samples_per_class, cell.seed


def _keys(runs: pd.DataFrame) -> set[tuple[Any, ...]]:
    names = ["source", "target", "protocol", "depth", "samples_per_class", "seed"]
    return set(runs[names].itertuples(index=False, name=None))


def _stages(runs: pd.DataFrame) -> dict[str, int]:
    return dict(zip(runs["source"], runs["depths"], strict=True))
