"""The evidence stream: what `rank` sees of each target before any transfer, as for ground truth v1: evidence.csv.

For each target and number of images, on draw 0, the very images that the first transfer is trained on.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from groundtruth.evidence import evidence
from groundtruth.v2 import zoo
from groundtruth.v2.targets import TARGETS, TEST_IMAGES, cache_folder, unpack
from transferscope import load_target
from transferscope.data.splits import draw, hold_out
from transferscope.errors import TransferscopeWarning

FILE = Path(__file__).resolve().parent / "evidence.csv"


def units() -> list[tuple[str, int]]:
    """Return targets and images of each class."""
    return [(target, size) for target, part in TARGETS.items() for size in part.sizes]


def missing() -> list[tuple[str, int]]:
    """Return the units that are not in the table yet."""
    if not FILE.exists():
        return units()
    there = pd.read_csv(FILE, usecols=["target", "samples_per_class"])
    done = set(there.itertuples(index=False, name=None))
    return [unit for unit in units() if unit not in done]


def work(real: Path) -> Iterator[str]:
    """Look at the next unit whenever one is asked for; yield its name."""
    for target, size in missing():
        images = load_target(unpack(real, target, cache_folder()))
        pool, _ = hold_out(images, most=TEST_IMAGES)
        drawn = images.subset(pool[draw(images.labels[pool], size, 0)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TransferscopeWarning)  # of few images; what cannot be computed is NaN
            rows = evidence(drawn, zoo.sources(real))
        rows.insert(0, "target", target)
        rows.insert(1, "samples_per_class", size)
        table = pd.concat([pd.read_csv(FILE), rows], ignore_index=True) if FILE.exists() else rows
        table.to_csv(FILE.with_suffix(".new"), index=False, lineterminator="\n")
        FILE.with_suffix(".new").replace(FILE)
        yield f"{target} n={size}"
