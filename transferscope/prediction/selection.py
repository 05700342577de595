"""From expected accuracies to a ranking of sources, each with its best cut and protocol."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import logit, ndtr

from transferscope.errors import InputError, SourceError, TransferscopeWarning, near
from transferscope.networks.zoo import SCRATCH
from transferscope.prediction.covariates import CUT_PROTOCOLS
from transferscope.prediction.expected import accuracy_interval, raised
from transferscope.prediction.ties import TIE, beats_unpaired, is_tie
from transferscope.results.cuts import cut_table
from transferscope.results.left_out import left_out, sentences
from transferscope.results.recommendation import LEVEL, Recommendation

PROTOCOLS = (*CUT_PROTOCOLS, "any")
"""What `rank` can be asked to look at."""
_EDGE = 1e-6
"""Accuracies are kept this far from 0 and 1 where their logits are compared."""


@dataclass(frozen=True)
class ScratchCandidate:
    """The network trained from scratch on the target, as an alternative to every source."""

    network: str
    accuracy: float
    n_held_out: int
    depths: int
    params: float
    flops: float


def protocols_of(protocol: str) -> tuple[str, ...]:
    """Return the protocols that a name stands for.

    Raises
    ------
    InputError
        When it is none of `PROTOCOLS`.
    """
    return CUT_PROTOCOLS if _known("protocol", protocol, PROTOCOLS) == "any" else (protocol,)


def _accuracy(rows: pd.DataFrame, _predictions: xr.Dataset) -> pd.Series:
    return rows["expected_accuracy"]


def _per_joule(rows: pd.DataFrame, predictions: xr.Dataset) -> pd.Series:
    above = rows["expected_accuracy"] - predictions.attrs.get("largest_class", 0.0)
    return _unknown_last((above / rows["flops"].clip(lower=1)).where(_counted(rows)), rows)


def _latency(rows: pd.DataFrame, predictions: xr.Dataset) -> pd.Series:
    """Rank what cannot be told apart from the best by FLOPs, then accuracy; the rest behind it by accuracy."""
    accuracies = rows["expected_accuracy"].where(_counted(rows))
    if accuracies.isna().all():
        return rows["expected_accuracy"]
    tied = _better(accuracies, accuracies.max(), predictions) >= TIE[0]
    cheapness = -rows["flops"].rank(method="dense", na_option="bottom") + len(rows)
    return _unknown_last(accuracies + cheapness.where(tied, -1), rows)


def _counted(rows: pd.DataFrame) -> pd.Series:
    """Whether everything that a network computes with is counted: of what is not, nobody knows that it is cheap."""
    return rows["flops"].notna() & rows["params"].notna()


def _unknown_last(values: pd.Series, rows: pd.DataFrame) -> pd.Series:
    """Put rows without a value behind all others, whatever their values are, by accuracy."""
    behind = (values.min() if values.notna().any() else 0.0) - 1
    return values.fillna(behind - (1 - rows["expected_accuracy"]))


OBJECTIVES: Mapping[str, Callable[[pd.DataFrame, xr.Dataset], pd.Series]] = {
    "accuracy": _accuracy,
    "accuracy-per-joule": _per_joule,
    "latency": _latency,
}
"""What to rank by, from rows of `cut_table`: highest first. Accuracy per joule is the expected accuracy above that of
always guessing the largest class, over the FLOPs of one image, which the joules go with; latency takes the fewest FLOPs
among all that cannot be told apart from the most accurate. Networks with unknown FLOPs or parameters come behind all
others."""


def _better(one: float | pd.Series, other: float, predictions: xr.Dataset) -> np.ndarray:
    """Return the probability that one way to transfer is really better than another."""
    if not predictions.attrs["calibrated"]:
        n = predictions.attrs["n_samples"]
        return np.asarray(beats_unpaired(np.asarray(one), n, other, n))
    x, y = (logit(np.clip(each, _EDGE, 1 - _EDGE)) for each in (one, other))
    return np.asarray(ndtr((x - y) / predictions.attrs["contrast"]))


def _better_than_scratch(row: pd.Series, scratch: pd.Series, n_held_out: int, predictions: xr.Dataset) -> float:
    """Return the probability that a source is really better than a network that was measured."""
    if not predictions.attrs["calibrated"]:
        n, mine = predictions.attrs["n_samples"], row["expected_accuracy"]
        return float(beats_unpaired(mine, n, scratch["expected_accuracy"], n_held_out))
    ends = [logit(np.clip(each[["lower", "upper"]].to_numpy(float), _EDGE, 1 - _EDGE)) for each in (row, scratch)]
    spread = np.hypot(*(np.ptp(end) for end in ends)) / (2 * NormalDist().inv_cdf((1 + LEVEL) / 2))
    x, y = (logit(np.clip(each["expected_accuracy"], _EDGE, 1 - _EDGE)) for each in (row, scratch))
    return float(ndtr((x - y) / spread))


def recommend(
    predictions: xr.Dataset,
    score_names: Sequence[str],
    scratch: ScratchCandidate | None,
    baseline_names: Sequence[str] = (),
    objective: str = "accuracy",
) -> tuple[Recommendation, ...]:
    """Rank every source at its best cut and protocol, and training from scratch, best first.

    Ties go to the cheaper one: fewer FLOPs, then the shallower cut, then the name. A source without a prediction at any
    depth is left out with a warning.

    Parameters
    ----------
    predictions : xarray.Dataset
        What `expected_accuracies` returns.
    score_names, baseline_names : sequence of str
        Variables that are reported of each.
    scratch : ScratchCandidate or None
    objective : str
        Of `OBJECTIVES`.

    Raises
    ------
    SourceError
        When nothing is left to rank.
    InputError
        When the objective is unknown.
    """
    value = OBJECTIVES[_known("objective", objective, tuple(OBJECTIVES))]
    rows = cut_table(predictions)
    reasons = sentences(left_out(predictions))
    for source in sorted(set(predictions["source"].to_numpy()) - set(rows["source"])):
        why = f": {reasons[source]}" if source in reasons else ""
        warnings.warn(
            f"Source {source} has no expected accuracy at any depth and is left out of the ranking{why}",
            TransferscopeWarning,
            stacklevel=2,
        )
    if scratch is not None:
        by, n = predictions.attrs["scratch_growth"], scratch.n_held_out
        measured = (scratch.accuracy, *accuracy_interval(scratch.accuracy, n))
        expected, lower, upper = (raised(float(accuracy), by, n) for accuracy in measured)
        scratch_row = {
            "source": SCRATCH, "protocol": SCRATCH, "depth": 0, "depths": scratch.depths, "params": scratch.params,
            "flops": scratch.flops, "expected_accuracy": expected, "lower": lower, "upper": upper,
        }  # fmt: skip
        rows = pd.concat([rows, pd.DataFrame([scratch_row])], ignore_index=True)
        rows = rows.sort_values(["flops", "depth", "source"], kind="stable")
    if rows.empty:
        why = f". {'. '.join(reasons.values())}" if reasons else ""
        raise SourceError(
            f"No source has an expected accuracy at any depth, and there is no scratch network to rank{why}"
        )
    rows["value"] = value(rows, predictions)
    # Stable, so that of equal values the cheaper one stays first.
    order = rows.sort_values("value", ascending=False, kind="stable").drop_duplicates("source").reset_index(drop=True)

    def better(i: int, j: int) -> float:
        one, other = order.iloc[i], order.iloc[j]
        if scratch is not None and SCRATCH in (one["source"], other["source"]):
            if other["source"] != SCRATCH:
                return 1 - better(j, i)
            return _better_than_scratch(one, other, scratch.n_held_out, predictions)
        return float(_better(one["expected_accuracy"], other["expected_accuracy"], predictions))

    picks = []
    for i, row in order.iterrows():
        others = [j for j in range(len(order)) if j != i]
        picks.append(
            replace(
                _recommendation(row, predictions, score_names, baseline_names),
                rank=i + 1,
                beats_next=better(i, i + 1) if i + 1 < len(order) else None,
                tied_with=tuple(str(order["source"][j]) for j in others if is_tie(better(i, j))),
            )
        )
    return tuple(picks)


def _recommendation(
    row: pd.Series, predictions: xr.Dataset, score_names: Sequence[str], baseline_names: Sequence[str]
) -> Recommendation:
    scratch = row["protocol"] == SCRATCH
    cut = None if scratch else predictions.sel(source=row["source"], depth=row["depth"])
    return Recommendation(
        rank=0,
        source=str(row["source"]),
        layer=None if scratch else str(row["layer"]),
        depth=int(row["depth"]),
        depths=int(row["depths"]),
        protocol=str(row["protocol"]),
        expected_accuracy=float(row["expected_accuracy"]),
        interval=(float(row["lower"]), float(row["upper"])),
        params=math.nan if pd.isna(row["params"]) else int(row["params"]),
        flops=math.nan if pd.isna(row["flops"]) else int(row["flops"]),
        scores={} if cut is None else {name: float(cut[name]) for name in score_names},
        baselines={} if cut is None else {name: float(cut[name]) for name in baseline_names},
    )


def _known(name: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        hint = near(value, choices) if isinstance(value, str) else ""
        raise InputError(f"Expected `{name}` to be one of {', '.join(choices)}, but got {value!r}{hint}")
    return value
