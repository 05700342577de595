"""Fit what `transferscope rank` predicts accuracies by to measured transfers, and write it into the package.

    python benchmarks/calibrate.py

reads the tables of benchmarks/groundtruth (runs.csv and evidence.csv of its maps) and writes
transferscope/prediction/calibration.json. What the prediction is worth is measured by benchmarks/selection.py, on
targets that it was not fitted to.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from prediction import reml, truth
from prediction.terms import TERMS
from transferscope import prediction
from transferscope.prediction.belief import Belief, reference
from transferscope.prediction.calibration import Calibration, Chosen
from transferscope.prediction.covariates import candidates
from transferscope.runtime.links import expected_share

AHEAD_WEIGHT, AHEAD_EVERY = 0.3, 3
"""Cells seen with fewer images than were trained on tell little anew: every third counts by so much."""
UNIT = ["map", "target", "samples_per_class"]


def prepared(maps: Sequence[str] = truth.MAPS) -> pd.DataFrame:
    """Return what is fitted to: cells, and the scratch networks that `rank` trains."""
    cells = truth.load(maps)
    cells = cells[truth.without_head_training(cells)]
    later = cells[cells["ahead"] > 0]
    cells = pd.concat([cells[cells["ahead"] == 0], later.iloc[::AHEAD_EVERY], truth.references(maps)])
    cells = cells.reset_index(drop=True)
    known = Calibration((), np.zeros(0), np.zeros((0, 0)), {}, truth.DRAW_NOISE, Chosen(0.0, 1.0), "")
    drawn = known.draw_variance(cells["log_per_class"].to_numpy(float)) / cells["draws"].to_numpy(float)
    return cells.assign(noise=cells["noise"].fillna(pd.Series(drawn, cells.index)) + 1e-4)


def fitted(rows: pd.DataFrame, **options: object) -> reml.Fitted:
    """Fit to what `prepared` returns."""
    weights = np.where(rows["ahead"] > 0, AHEAD_WEIGHT, 1.0)
    return reml.fit(rows, rows["noise"].to_numpy(float), weights, **options)  # type: ignore[arg-type]


def calibration(
    found: reml.Fitted, chosen: Chosen, measured: str, without: str | None = None, *, networks: bool = False
) -> Calibration:
    """Return a calibration, without the runs of a target; with what single networks do, MAP/SOURCE, if asked for."""
    coefficients, factor = found.coefficients(without, networks)
    return Calibration(
        found.prior.terms, coefficients, factor, found.components, truth.DRAW_NOISE, chosen, measured,
        tuple(found.networks) if networks else (),
    )  # fmt: skip


def beliefs(rows: pd.DataFrame, known: Mapping[str, Calibration]) -> pd.DataFrame:
    """Return the measured cells with what is believed of each: `mean` and `variance` of its logit, `expected_accuracy`.

    Parameters
    ----------
    rows : pandas.DataFrame
        As `truth.load` returns them.
    known : mapping of str to Calibration
        Target to what is known without its runs.
    """
    found = []
    seen = {name: truth.evidence(name) for name in rows["map"].unique()}
    for (name, target, size, _), part in rows.groupby(["map", "target", "seen_per_class", "ahead"], sort=False):
        own = seen[name][(seen[name]["target"] == target) & (seen[name]["samples_per_class"] == size)]
        case = truth.case_of(own.iloc[0], int(part["samples"].iloc[0]))
        ways = truth.by_recipe(candidates(own, case), name)
        belief = Belief(ways, case, known[target], reference(case))
        now = ways[["source", "depth", "protocol"]].assign(
            mean=belief.mean, variance=belief.variance, **dict(belief.expected().items())
        )
        found.append(part.merge(now, on=["source", "depth", "protocol"]).set_axis(part.index))
    return pd.concat(found).loc[rows.index]


def chosen_effect(believed: pd.DataFrame, known: Calibration) -> Chosen:
    """Return how the one chosen jointly differs from what is believed of it, on targets that were left out.

    On average its accuracy is then as expected, and its squared error what its variance says; targets count alike. Not
    the error that 80 % of the cases keep, which two or three of some dozen targets would decide.
    """
    now = believed[believed["ahead"] == 0]
    picks = now.loc[now.groupby(UNIT)["expected_accuracy"].idxmax()]
    spread = picks["variance"].to_numpy() + known.draw_variance(picks["log_per_class"].to_numpy(float))
    weights = 1 / picks.groupby("target")["target"].transform("size").to_numpy()
    middle, reached_there = picks["mean"].to_numpy(), np.average(picks["accuracy"], weights=weights)

    def too_high(shift: float) -> float:
        return float(np.average(expected_share(middle + shift, spread), weights=weights) - reached_there)

    shift = brentq(too_high, -2.0, 2.0)
    surprise = (picks["logit"] - picks["mean"]).to_numpy()
    return Chosen(shift, float(np.sqrt(np.average((surprise - shift) ** 2 / spread, weights=weights))))


def main() -> None:
    cells = truth.load()
    rows = prepared()
    found = fitted(rows)
    nothing = Chosen(0.0, 1.0)
    known = {target: calibration(found, nothing, "", target) for target in cells["target"].unique()}
    believed = beliefs(cells, known)
    groups = cells[cells["ahead"] == 0].groupby("map", sort=False)["group"].nunique()
    measured = "ground truth: " + ", ".join(f"{name} ({count} groups)" for name, count in groups.items())
    everything = calibration(found, chosen_effect(believed, next(iter(known.values()))), measured)
    path = Path(prediction.__file__).parent / "calibration.json"
    path.write_text(everything.to_json(), encoding="utf-8")
    print(f"{len(rows)} cells of {len(TERMS)} terms; chosen {everything.chosen}; wrote {path.name}")
    print(f"draw noise {truth.draw_noise(cells)}")


if __name__ == "__main__":
    main()
