"""Fit what `transferscope rank` predicts accuracies by to ground truth v1, and write it into the package.

    python benchmarks/calibrate.py

reads the tables of benchmarks/groundtruth (runs.csv and evidence.csv of its maps) and writes
transferscope/prediction/calibration.json. What the prediction is worth is measured by benchmarks/selection.py, on
targets that it was not fitted to.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from groundtruth.maps import averaged, read_runs
from scipy.optimize import lsq_linear

from transferscope import prediction
from transferscope.prediction.calibration import Calibration, Term
from transferscope.prediction.covariates import CUT_PROTOCOLS, SCRATCH, Case, candidates, logit

TABLES = Path(__file__).parents[1] / "groundtruth"
MAPS = ("small", "axes", "real")
TESTED = 500
"""Images that accuracies of ground truth are measured on, at most."""
GROUP = ["map", "target", "samples_per_class"]
RETRAINED = ("reinit", "finetune")
TRAINED = (*RETRAINED, SCRATCH)
RISING = {"scratch", "rank", "head"}
"""What may only raise an expected accuracy."""
PENALTY = 0.003
SHARED = 0.8
"""How much of the mean of a group is taken off before fitting, 1 for all of it: what all candidates of a target have in
common says little of which is best."""
QUANTILES = (0.1, 0.9)
REACH = {"log_per_class": 1.3, "head": 1.1, "gain": 0.3}
"""How far above what was measured the prediction is still used: as far as it was tried there and chose better than
scores alone (benchmarks/predictors.py)."""


def _terms() -> Iterator[Term]:
    """Yield what a predicted logit is made of, without coefficients."""
    for factors in (("log_per_class",), ("scratch",), ("log_more",)):
        yield Term(TRAINED, factors)
    yield Term(RETRAINED, ("rank",))
    yield Term(CUT_PROTOCOLS, ("gain",))
    for factors in ((), ("log_per_class",), ("log_more",), ("head",), ("rank",)):
        yield Term(("truncate",), factors)
    profile = ("depth_fraction",), ("depth_fraction", "depth_fraction")
    for protocol in CUT_PROTOCOLS:
        for factors in (*profile, ("whole",), *((*factors, "log_per_class") for factors in profile)):
            yield Term((protocol,), factors)
    for protocol in RETRAINED:
        for factors in (
            (),
            ("log_per_class",),
            ("depth_fraction", "rank"),
            ("depth_fraction", "excess"),
            ("whole", "excess"),
        ):
            yield Term((protocol,), factors)
    # What is trained behind a frozen cut depends on what the cut lets through, the more the less follows it.
    for factors in (("depth_fraction", "gap"), ("whole", "gap")):
        yield Term(("reinit",), factors)


TERMS = tuple(_terms())


def load(maps: Sequence[str] = MAPS) -> pd.DataFrame:
    """Return measured cells with their covariates: a row for each map, target, size, source, depth and protocol.

    Scores are those of the same number of images (`ahead` is 0) or, so that accuracies with more images than there are
    can be foretold too, of a smaller one.
    """
    found = []
    for name in maps:
        folder = TABLES / name
        cells, evidence = averaged(read_runs(folder)), pd.read_csv(folder / "evidence.csv")
        cells.loc[cells["protocol"] == SCRATCH, "source"] = ""
        # Sources of one architecture share their runs from scratch; of several the mean is taken.
        keys = [*GROUP[1:], "size", "source", "protocol", "depth"]
        cells = cells.groupby(keys, as_index=False)[["accuracy", "error"]].mean()
        for target, seen in evidence.groupby("target", sort=False):
            samples = seen.groupby("samples_per_class")["samples"].first()
            for (size, own), ahead in itertools.product(seen.groupby("samples_per_class"), range(len(samples))):
                later = samples.index[samples.index >= size]
                if ahead >= len(later):
                    continue
                first = own.iloc[0]
                case = Case(
                    int(samples[later[ahead]]), int(first["probe"]), int(first["classes"]),
                    first["scratch_accuracy"], int(first["scratch_held_out"]),
                )  # fmt: skip
                measured = cells[(cells["target"] == target) & (cells["samples_per_class"] == later[ahead])]
                rows = candidates(own, case).merge(measured, on=["source", "protocol", "depth"])
                found.append(rows.assign(map=name, seen=size, ahead=ahead, probe=case.probe))
    table = pd.concat(found, ignore_index=True)
    groups = table.groupby([*GROUP, "seen"], sort=False).ngroup()
    return table.assign(group=groups, logit=logit(table["accuracy"], TESTED))


def fit(rows: pd.DataFrame, terms: Sequence[Term] = TERMS) -> tuple[float, tuple[Term, ...]]:
    """Return the level and the terms with their coefficients: penalised least squares with bounds.

    Each group (a target with a number of images) has an error of its own that all its candidates share, so that most of
    its mean is taken off on both sides first, as for random effects.
    """
    columns = np.stack([term.values(rows) for term in terms], axis=1)
    scale = np.sqrt((columns**2).mean(axis=0)) + 1e-12
    groups = rows["group"].to_numpy()
    weights = 1 / np.sqrt(rows.groupby("group")["logit"].transform("size").to_numpy())  # every group counts alike

    def within(values: np.ndarray) -> np.ndarray:
        means = pd.DataFrame(values).groupby(groups).transform("mean").to_numpy()
        return (values - SHARED * means) * weights[:, None]

    left = within(np.column_stack([columns / scale, np.ones(len(rows))]))
    right = within(rows["logit"].to_numpy()[:, None])[:, 0]
    penalty = np.sqrt(PENALTY * (weights**2).sum()) * np.eye(len(terms), len(terms) + 1)
    lowest = [0.0 if RISING & set(term.factors) == set(term.factors) and term.factors else -np.inf for term in terms]
    solved = lsq_linear(
        np.vstack([left, penalty]), np.concatenate([right, np.zeros(len(terms))]), ([*lowest, -np.inf], np.inf)
    )
    *coefficients, level = solved.x / np.append(scale, 1)
    return float(level), tuple(
        Term(term.protocols, term.factors, float(value)) for term, value in zip(terms, coefficients, strict=True)
    )


def calibrate(rows: pd.DataFrame, terms: Sequence[Term] = TERMS, measured: str = "") -> Calibration:
    """Fit, with errors from leaving out one target after the other."""
    left_out = np.full(len(rows), np.nan)
    for target in rows["target"].unique():
        chosen = (rows["target"] == target).to_numpy()
        level, fitted = fit(rows[~chosen], terms)
        left_out[chosen] = bare(level, fitted).logits(rows[chosen])
    error = rows["logit"] - left_out
    level, fitted = fit(rows, terms)
    ranges = {
        name: (float(rows[name].min()), float(rows[name].max()) + REACH.get(name, 0.0))
        for name in ("log_per_class", "log_more", "rank", "scratch", "head", "gain")
    }
    same = rows["ahead"] == 0
    errors = {}
    for protocol in (*CUT_PROTOCOLS, SCRATCH):
        low, high = np.quantile(error[same & (rows["protocol"] == protocol)], QUANTILES)
        errors[protocol] = (float(low), float(high))
    growth = _growth(rows[~same], error[~same], errors)
    return Calibration(level, fitted, errors, growth, _contrast(rows, left_out, error), ranges, measured)


def _growth(rows: pd.DataFrame, error: pd.Series, errors: dict[str, tuple[float, float]]) -> float:
    """Return at what growth the intervals hold 80 % of what is foretold from fewer images."""
    low, high = np.array([errors[protocol] for protocol in rows["protocol"]]).T
    needed = np.where(error < 0, error / low, error / high) - 1
    return float(np.quantile(needed / rows["log_more"], QUANTILES[1] - QUANTILES[0]))


def _contrast(rows: pd.DataFrame, predicted: np.ndarray, error: pd.Series) -> float:
    """Return how wrong predicted differences are between what is really compared: the sources, each at its best."""
    best = rows.assign(predicted=predicted, error=error)
    best = best[(best["ahead"] == 0) & (best["protocol"] != SCRATCH)].sort_values("predicted", ascending=False)
    best = best.groupby(["group", "source"], sort=False).head(1)
    first = best.groupby("group")["error"].transform("first")
    other = best.groupby("group").cumcount() > 0
    return float(np.sqrt((best["error"] - first)[other].pow(2).mean()))


def bare(level: float, terms: tuple[Term, ...]) -> Calibration:
    """Return a calibration that knows no errors."""
    return Calibration(level, terms, {}, 0.0, 0.0, {}, "")


def main() -> None:
    rows = load()
    measured = ", ".join(f"{name} ({count} groups)" for name, count in rows.groupby("map")["group"].nunique().items())
    found = calibrate(rows, measured=f"ground truth v1: {measured}")
    path = Path(prediction.__file__).parent / "calibration.json"
    path.write_text(found.to_json(), encoding="utf-8")
    print(f"{len(rows)} cells of {rows['group'].nunique()} groups; wrote {path.name}")
