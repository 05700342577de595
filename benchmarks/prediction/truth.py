"""Measured transfers beside what was known before each: the cells that the prediction is fitted to and judged by."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from groundtruth.maps import read_runs
from groundtruth.v2 import rows as v2_rows

from transferscope.prediction.belief import OF_REFERENCE, Belief, reference
from transferscope.prediction.calibration import Calibration, Chosen
from transferscope.prediction.covariates import CUT_PROTOCOLS, SCRATCH, Case, candidates
from transferscope.prediction.effects import shares
from transferscope.runtime.links import logit

TABLES = Path(__file__).parents[1] / "groundtruth"
V1, V2 = ("small", "axes", "real"), "v2"
JUDGED = (*V1, V2)
"""Maps of whole grids, that a prediction is judged by too."""
PRODUCT, WEAK = "product", "weak"
"""Some cells of version 2 by the package's own recipe, and sources that are of no use; fitted to alone."""
MAPS = (*JUDGED, PRODUCT, WEAK)
DRAW_NOISE = (0.0134, 0.57)
"""Variance of the logit between draws of 20 images a class, and by which power of their number it falls, as measured by
`draw_noise` on all cells with several draws."""
GROUP = ["map", "target", "samples_per_class"]
CELL = ["target", "samples_per_class", "source", "protocol", "depth"]
TESTED = 500
"""Images that accuracies of ground truth v1 are measured on, at most."""
TESTED_V2 = {
    "trashnet": 1011, "sign-digits": 1031, "pacs-sketch": 1964, "pacs-photo": 918, "gtsrb": 1620, "omniglot-30": 300,
    "caltech-2": 60, "caltech-10": 300, "caltech-30": 900, "caltech-100": 2000,
}  # fmt: skip
"""The same of version 2, and of the weak sources."""


def runs(name: str) -> pd.DataFrame:
    """Return the finished runs of a map that are candidates of `rank`; the source of runs from scratch is empty."""
    if name in (V2, PRODUCT):
        folders = [PRODUCT] if name == PRODUCT else ["frozen", "trained"]
        found = v2_rows.read([path for part in folders for path in sorted((TABLES / V2 / part).glob("*/runs.csv"))])
        found = found[found["status"] == "done"]
    else:
        found = read_runs(TABLES / name)
    found = found[found["protocol"].isin([*CUT_PROTOCOLS, SCRATCH])].copy()
    # Sources of one architecture share their runs from scratch; of several the mean is taken.
    found.loc[found["protocol"] == SCRATCH, "source"] = ""
    return found.groupby([*CELL, "seed"], as_index=False)[["accuracy", "seconds"]].mean()


def averaged(found: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each cell: the mean over draws, and how many there are."""
    return found.groupby(CELL, as_index=False).agg(
        accuracy=("accuracy", "mean"), draws=("seed", "nunique"), seconds=("seconds", "mean")
    )


def evidence(name: str) -> pd.DataFrame:
    """Return what `rank` sees of the targets of a map, without the network that has no weights to transfer."""
    found = pd.read_csv(TABLES / (V2 if name == PRODUCT else name) / "evidence.csv")
    return found[found["source"] != "compact-64"]


def load(maps: Sequence[str] = JUDGED) -> pd.DataFrame:
    """Return measured cells with their covariates: a row for each map, target, size, source, depth and protocol.

    Scores are those of the same number of images (`ahead` is 0) or, so that accuracies with more images than there are
    can be foretold too, of a smaller one.
    """
    found = []
    for name in maps:
        cells = averaged(runs(name))
        for target, seen in evidence(name).groupby("target", sort=False):
            own = cells[cells["target"] == target]
            found += [by_recipe(each, name).assign(map=name) for each in _of_target(str(target), seen, own, name)]
    # One transfer by two recipes shares all but those.
    table = pd.concat(found, ignore_index=True).replace({"map": {PRODUCT: V2}})
    table["group"] = table.groupby([*GROUP, "seen"], sort=False).ngroup()
    table["logit"] = logit(table["accuracy"], table["tested"])
    return table


def by_recipe(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return candidates with the covariates that tell by which recipe the transfers of a map were trained."""
    trained = (shares(rows)[:, 0] < 1).astype(float)
    return rows.assign(short_schedule=trained * (name == "real"), two_rates=trained * (name == V2))


def references(maps: Sequence[str] = MAPS) -> pd.DataFrame:
    """Return the scratch network that `rank` has of each group, a measured cell with its noise: `reference` is 1."""
    found = []
    for name in [each for each in maps if each != PRODUCT]:
        for (target, size), own in evidence(name).groupby(["target", "samples_per_class"], sort=False):
            first = own.iloc[0]
            case = case_of(first, int(first["samples"]))
            belief = Belief(candidates(own, case), case, bare(), reference(case))
            seen, observed = belief.seen, belief.observations[0]
            found.append(
                seen.assign(
                    map=name, target=target, samples_per_class=size, seen_per_class=size, ahead=0, draws=1,
                    accuracy=observed.accuracy, logit=logit(observed.accuracy, observed.tested),
                    noise=belief.noise([observed], [observed.accuracy]) + OF_REFERENCE, reference=1.0,
                )
            )  # fmt: skip
    return pd.concat(found, ignore_index=True)


def case_of(first: pd.Series, samples: int) -> Case:
    """Return the case of a row of evidence, for transfers that are trained on so many images."""
    probe, held_out = int(first["probe"]), int(first["scratch_held_out"])
    # Where there are more images than the probe, the scratch network is tested on those, else on a part of the probe.
    trained_on = probe if first["samples"] > probe else probe - held_out
    return Case(samples, probe, int(first["classes"]), first["scratch_accuracy"], held_out, trained_on)


def bare() -> Calibration:
    """Return a calibration that knows the noise of draws alone."""
    return Calibration((), np.zeros(0), np.zeros((0, 0)), {}, DRAW_NOISE, Chosen(0.0, 1.0), "")


def draw_noise(rows: pd.DataFrame) -> tuple[float, float]:
    """Return what `DRAW_NOISE` is, from the draws of these cells: a line through logarithms of mean variances."""
    draws = pd.concat(runs(name).assign(map=name) for name in rows["map"].unique())
    of_cell = draws.groupby(["map", *CELL])["accuracy"].agg(["mean", "var", "count"]).reset_index()
    of_cell = of_cell[of_cell["count"] > 1]
    share = of_cell["mean"].clip(0.02, 0.98)
    of_cell["variance"] = of_cell["var"] / (share * (1 - share)) ** 2
    now = rows.loc[rows["ahead"] == 0, ["map", *CELL, "log_per_class"]]
    sized = of_cell.merge(now, on=["map", *CELL]).groupby("log_per_class")["variance"].agg(["mean", "size"])
    slope, level = np.polyfit(sized.index, np.log(sized["mean"]), 1, w=np.sqrt(sized["size"]))
    return float(np.exp(level)), float(-slope)


def without_head_training(rows: pd.DataFrame) -> np.ndarray:
    """Return which cells are fitted to: not the heads of ground truth v1 that gradients trained, for too few steps.

    `reinit` with everything kept is `truncate` by another optimiser; those of v1 lie 3 to 13 points below it.
    """
    head = (rows["protocol"] == "reinit") & (rows["depth_fraction"] == 1) & (rows["map"] != V2)
    return ~head.to_numpy()


def _of_target(target: str, seen: pd.DataFrame, cells: pd.DataFrame, name: str) -> list[pd.DataFrame]:
    samples = seen.groupby("samples_per_class")["samples"].first()
    tested = TESTED if name in V1 else TESTED_V2[target]
    found = []
    for (size, own), ahead in itertools.product(seen.groupby("samples_per_class"), range(len(samples))):
        later = samples.index[samples.index >= size]
        if ahead >= len(later):
            continue
        first = own.iloc[0]
        case = case_of(first, int(samples[later[ahead]]))
        measured = cells[cells["samples_per_class"] == later[ahead]]
        rows = candidates(own, case).merge(measured, on=["source", "protocol", "depth"])
        more = {"seen_per_class": size, "ahead": ahead, "probe": case.probe, "samples": case.samples}
        found.append(rows.assign(**more, classes=case.classes, tested=tested))
    return found


def sizes(rows: pd.DataFrame) -> pd.Series:
    """Return a name for the number of images of each class that is alike in all targets of a map: "all" for the rest.

    The largest is "all" where a target has no more, which is a different number in each.
    """
    pairs = rows[["map", "samples_per_class", "target"]].drop_duplicates()
    shared = pairs.groupby(["map", "samples_per_class"])["target"].transform("count") > 1
    names = pairs["samples_per_class"].astype(str).where(shared, "all")
    return rows[GROUP].merge(pairs.assign(size=names), on=GROUP)["size"].set_axis(rows.index)
