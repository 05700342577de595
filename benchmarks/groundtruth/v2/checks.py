"""Checks that run with the map: the recipe trains no worse than a linear head fits, and the tables are sound."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from groundtruth.v2 import design, frozen, rows, trained, zoo
from groundtruth.v2.targets import TARGETS
from groundtruth.v2.training import RECIPE

PLACE = ["source", "target", "samples_per_class", "seed"]
MOST_BEHIND = 0.02
"""Accuracy that a head trained on everything kept may lose against the one that is fitted, on average."""
NEAR = 0.03
"""Accuracy by which `finetune` of one stage may differ from scratch, on average."""


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found; `passed` is None where there are no runs to tell by yet."""

    what: str
    found: str
    passed: bool | None


def checks() -> Iterator[Check]:
    """Yield all checks."""
    runs, heads = trained.table(), frozen.table()
    yield _sound(
        "trained runs that are recorded twice", runs.duplicated([*PLACE, "protocol", "depth", rows.RECIPE]).sum()
    )
    yield _sound("trained runs that failed", (runs["status"] != "done").sum())
    yield _sound("frozen runs that failed", (heads["status"] != "done").sum())
    yield _sound("trained runs of another recipe", (runs[rows.RECIPE].astype(str) != RECIPE.version).sum())
    sources = [entry["name"] for entry in zoo.sources(design.HERE)]
    drawn = design.draw(sources, zoo.COMPACT, {name: part.sizes for name, part in TARGETS.items()})
    differing = sum(cell != read for cell, read in zip(drawn, design.read(), strict=True))
    yield _sound("cells of design.csv that are not as drawn", differing)
    runs, heads = (each[each["status"] == "done"] for each in (runs, heads))
    top = runs[runs["depth"] == runs["depths"]]
    fitted = heads[heads["protocol"] == "truncate"]
    for protocol in ("reinit", "defrost"):
        pairs = _paired(top[top["protocol"] == protocol], fitted, [*PLACE, "depth"])
        yield _compared(f"{protocol} with everything kept less truncate", pairs, least=-MOST_BEHIND)
    first = runs[(runs["protocol"] == "finetune") & (runs["depth"] == 1)]
    pairs = _paired(first, runs[runs["protocol"] == "scratch"], PLACE)
    yield _compared("finetune of one stage less scratch", pairs, least=-NEAR, most=NEAR)


def _sound(what: str, count: int) -> Check:
    return Check(what, str(count), count == 0)


def _paired(runs: pd.DataFrame, others: pd.DataFrame, on: list[str]) -> pd.Series:
    """Return the differences in accuracy of runs that are alike in `on`, by source."""
    both = runs.merge(others, on=on, suffixes=("", "_other")).set_index("source")
    return (both["accuracy"] - both["accuracy_other"]).astype(float)


def _compared(what: str, differences: pd.Series, least: float, most: float = np.inf) -> Check:
    """Check that a mean difference lies between two bounds, or within two standard errors of them.

    The means of sources that lie outside are named, and decide nothing: there are few runs of each.
    """
    n = len(differences)
    if not n:
        return Check(what, "no pairs yet", None)
    mean, error = differences.mean(), differences.sem() if n > 1 else np.inf
    found = f"{mean:+.3f} ± {error:.3f} over {n}, from {differences.min():+.3f} to {differences.max():+.3f}"
    each = differences.groupby(level="source").agg(["mean", "size"])
    outside = each[~each["mean"].between(least, most)]
    if len(outside):
        found += "; outside: " + ", ".join(
            f"{row.Index} {row.mean:+.3f} over {row.size}" for row in outside.itertuples()
        )
    return Check(what, found, bool(least - 2 * error <= mean <= most + 2 * error))
