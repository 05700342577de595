"""What expectations that no transfers were measured for are worth, on transfers of classes as if they were none.

    python benchmarks/any_task.py

Leave-one-out ridge, the scratch network and `transferscope.prediction.any_task` say what accuracies to expect; the
transfers of benchmarks/groundtruth say what they are. Of classes this is not used; of other tasks there are no such
tables. Writes results/any_task.md.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from prediction import truth
from transferscope.prediction.any_task import calibration_for
from transferscope.prediction.belief import Belief, reference
from transferscope.prediction.covariates import AS_CLASSES, candidates
from transferscope.runtime.metrics import ACCURACY, MULTI_LABEL

RESULTS = Path(__file__).parents[1] / "results"
AS_OTHER = replace(ACCURACY, task=MULTI_LABEL)
"""Accuracy, of which nothing is known but what is of any task."""
SIZES = {"fewer than 20 images a class": (0, 20), "20 and more": (20, np.inf)}


def believed(cells: pd.DataFrame) -> pd.DataFrame:
    """Return measured cells with what is expected of each: expected_accuracy, lower and upper."""
    found, known = [], calibration_for(MULTI_LABEL)
    seen = {name: truth.evidence(name) for name in cells["map"].unique()}
    for (name, target, size), part in cells.groupby(["map", "target", "samples_per_class"], sort=False):
        own = seen[name][(seen[name]["target"] == target) & (seen[name]["samples_per_class"] == size)]
        case = truth.case_of(own.iloc[0], int(part["samples"].iloc[0]))
        case = replace(case, classes=AS_CLASSES, metric=AS_OTHER)
        ways = candidates(own, case)
        ends = Belief(ways, case, known, reference(case)).expected()
        now = ways[["source", "depth", "protocol"]].join(ends)
        found.append(part.drop(columns=list(ends), errors="ignore").merge(now, on=["source", "depth", "protocol"]))
    return pd.concat(found, ignore_index=True)


def page(rows: pd.DataFrame) -> str:
    """Return what is written: a line for each protocol and size."""
    lines = [
        "# Expectations without measured transfers",
        "",
        "Measured transfers of classes, expected as those of several labels or numbers are: from leave-one-out ridge "
        "and the scratch network alone. Bias: expected less measured accuracy. Means over groups, each a target with a "
        "number of images.",
        "",
        "| images | protocol | groups | cells | bias | rms | within 80 % interval | width |",
        "|---|---|---|---|---|---|---|---|",
    ]
    error = rows["expected_accuracy"] - rows["accuracy"]
    inside = rows["accuracy"].between(rows["lower"], rows["upper"])
    rows = rows.assign(error=error, square=error**2, inside=inside, width=rows["upper"] - rows["lower"])
    for title, (least, below) in SIZES.items():
        part = rows[(rows["samples_per_class"] >= least) & (rows["samples_per_class"] < below)]
        for protocol, cells in part.groupby("protocol"):
            means = cells.groupby(["map", "target", "samples_per_class"])[["error", "square", "inside", "width"]].mean()
            of_all = means.mean()
            lines.append(
                f"| {title} | {protocol} | {len(means)} | {len(cells)} | {of_all['error']:+.3f} | "
                f"{np.sqrt(of_all['square']):.3f} | {of_all['inside']:.2f} | {of_all['width']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page."""
    cells = truth.load()
    (RESULTS / "any_task.md").write_text(page(believed(cells[cells["ahead"] == 0])), encoding="utf-8")


if __name__ == "__main__":
    main()
