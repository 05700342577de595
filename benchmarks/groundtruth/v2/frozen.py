"""The frozen stream: what fits a classifier to frozen features, at every stage, by `measure`: frozen/TARGET/runs.csv.

A linear head, top-tuning and the full-network embedding, of every source on every target; three draws.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from groundtruth.v2 import rows, zoo
from groundtruth.v2.targets import TARGETS, TEST_IMAGES, cache_folder, unpack
from transferscope import measure
from transferscope.errors import TransferscopeWarning

FOLDER = Path(__file__).resolve().parent / "frozen"
PROTOCOLS = ("truncate", "toptuning", "fne")
DRAWS = 3
LAYER_SETS = 4
"""Of the full-network embedding."""
MOST_MINUTES = 20
"""Of one piece of work, after which the trained stream gets its turn."""


def table() -> pd.DataFrame:
    """Return all runs."""
    return rows.read(sorted(FOLDER.glob("*/runs.csv")))


def units() -> list[tuple[str, str]]:
    """Return targets and sources in the order in which they are run: all sources of a target, then the next one."""
    return [(target, entry["name"]) for target in TARGETS for entry in zoo.sources(Path())]


def missing() -> list[tuple[str, str]]:
    """Return the units that are not whole yet."""
    runs = table()
    there = runs.groupby(["target", "source"])["depths"].agg(["size", "first"]).to_dict("index")
    return [unit for unit in units() if unit not in there or there[unit]["size"] < _runs(unit[0], there[unit]["first"])]


def _runs(target: str, stages: int) -> int:
    return len(TARGETS[target].sizes) * DRAWS * (2 * stages + LAYER_SETS)


def work(real: Path) -> Iterator[str]:
    """Run the next unit, or the rest of it, whenever one is asked for; yield its name."""
    zoo_by_name = {entry["name"]: entry for entry in zoo.sources(real)}
    while todo := missing():
        target, source = todo[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TransferscopeWarning)  # of classes with fewer images than a size
            measure(
                unpack(real, target, cache_folder()), {"version": 1, "sources": [zoo_by_name[source]]}, FOLDER / target,
                protocols=PROTOCOLS, samples_per_class=TARGETS[target].sizes, seeds=DRAWS, test_samples=TEST_IMAGES,
                time_budget=60 * MOST_MINUTES, device="cpu", progress=False, trust_code=True,
            )  # fmt: skip
        yield f"{source} {target}"
