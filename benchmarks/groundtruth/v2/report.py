"""What ground truth v2 says so far, as benchmarks/results/groundtruth-v2.md with its pictures.

    python benchmarks/groundtruth/v2/report.py [FOLDER] [--out RESULTS]

FOLDER holds frozen/, trained/ and hours.csv; without it they are those beside this file. It can be run at any state of
the tables. Published tables are read from `$TRANSFERSCOPE_REAL/tables`, and left out where that is not set.
"""

import argparse
import contextlib
import io
import sys
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1]))
from groundtruth.maps import print_table  # noqa: E402
from groundtruth.v2 import design, zoo  # noqa: E402
from groundtruth.v2.page import choices, claims, components, crossing, cuts, depths, one_number, published  # noqa: E402
from groundtruth.v2.page.measured import TESTED, Tables, load  # noqa: E402
from groundtruth.v2.page.noise import within  # noqa: E402
from groundtruth.v2.targets import TARGETS  # noqa: E402

RESULTS = HERE.parents[1] / "results"
PREFIX = "groundtruth-v2-"
CAPTIONS = {
    "cuts": "Accuracy of frozen features over the share of the depth that is kept",
    "best-cut": "The share of the depth of the best cut, by network and target",
    "crossing": "Points that fitted ways are ahead of fine-tuning, by images a class",
    "cost": "Points gained or lost beside fine-tuning, against the time saved",
    "trained-depth": "Points over a linear head by the share of the stages that is kept or frozen",
    "variance": "Shares of the variance of regret of source, cut and head",
    "components": "Variance components of the logit of accuracy, on every table",
    "one-number": "Errors of a regression on the probe and of one measured network",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=HERE, help="of the tables of v2")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the page and its pictures")
    chosen = parser.parse_args()
    mpl.use("agg")
    write(load(chosen.folder, HERE.parent), published.load(published.folder()), chosen.out)


def write(tables: Tables, others: Mapping[str, pd.DataFrame], out: Path) -> None:
    """Write the page and its pictures; pictures of which there is nothing any more are removed."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        figures = page(tables, others)
    (out / "groundtruth-v2.md").write_text(text.getvalue().rstrip() + "\n", encoding="utf-8")
    for path in out.glob(f"{PREFIX}*.png"):
        path.unlink()
    for name, figure in figures.items():
        figure.savefig(out / f"{PREFIX}{name}.png", dpi=150)


def page(tables: Tables, others: Mapping[str, pd.DataFrame], jackknife: bool = True) -> dict[str, Figure]:
    """Print the page, each section with its pictures below; return these.

    Without `jackknife`, which takes a fit for each target, components have no errors.
    """
    _print_beginning(tables, others)
    fits = components.everywhere(tables, others, jackknife)
    numbers = one_number.tables_of(tables, others)
    sections = (
        lambda: cuts.report(tables.heads), lambda: crossing.report(tables), lambda: depths.report(tables),
        lambda: choices.report(tables), lambda: crossing.report_costs(tables), lambda: components.report(fits),
        lambda: one_number.report(numbers),
    )  # fmt: skip
    figures: dict[str, Figure] = {}
    for section in sections:
        found = section()
        for name in found:
            print(f"![{CAPTIONS[name]}]({PREFIX}{name}.png)\n")
        figures |= found
    claims.report(tables, others, fits, numbers)
    return figures


def _print_beginning(tables: Tables, others: Mapping[str, pd.DataFrame]) -> None:
    pairs = len(TARGETS) * len(zoo.sources(HERE))
    there = tables.heads.groupby(["target", "source"]).ngroups
    print("# Ground truth v2: what it says so far\n")
    print(
        f"Made by `benchmarks/groundtruth/v2/report.py` from {len(tables.heads)} runs that fit a classifier to frozen "
        f"features, of {there} of {pairs} pairs of network and target, and {len(tables.trained)} of "
        f"{len(design.read())} runs that train a network. Below every figure stands what it rests on; where there is "
        "nothing, \"not measured yet\". *Noise* is the share of the variance between the cells that are compared which "
        "draws of one cell have among themselves. Test images are the same for all runs of a target: their own error "
        "is in the table below, and takes nothing from comparisons within a target but adds to those between. Of "
        "several numbers the best one is flattered; where something is chosen here, it is chosen with other draws than "
        "it is judged with. Omniglot's 10 images a class stand with the 20 of others."
        + ("" if others else " No published tables were at hand.") + "\n"
    )  # fmt: skip
    rows = {name: _measured_of(tables, name) for name in TARGETS}
    print_table(pd.DataFrame(rows).T.rename_axis("target"))


def _measured_of(tables: Tables, target: str) -> dict[str, str]:
    heads, trained = (each[each["target"] == target] for each in (tables.heads, tables.trained))
    key = ["target", "source", "protocol", "depth", "layer", "samples_per_class"]
    draws = trained.groupby(key).size()
    return {
        "test images": f"{TESTED[target]}", "their error at .7": f"{100 * np.sqrt(0.21 / TESTED[target]):.1f} points",
        "networks, frozen": str(heads["source"].nunique()), "runs": str(len(heads)),
        "sd of a draw": _deviation(heads.set_index([*key, "seed"])["accuracy"]),
        "trained runs": str(len(trained)), "cells": str(len(draws)), "with two draws": str(int((draws > 1).sum())),
        "sd of a draw ": _deviation(trained.set_index([*key, "seed"])["accuracy"]),
    }  # fmt: skip


def _deviation(accuracy: pd.Series) -> str:
    variance = within(accuracy) if len(accuracy) else np.nan
    return "–" if np.isnan(variance) else f"{100 * np.sqrt(variance):.1f} points"


if __name__ == "__main__":
    main()
