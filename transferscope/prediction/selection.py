"""From expected accuracies to a ranking of sources, each with its best cut and protocol."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from transferscope.errors import InputError, SourceError, TransferscopeWarning, near
from transferscope.networks.zoo import SCRATCH
from transferscope.prediction.belief import Belief
from transferscope.prediction.covariates import CUT_PROTOCOLS
from transferscope.prediction.ties import NEGLIGIBLE, TIE, is_tie
from transferscope.results.cuts import cut_table
from transferscope.results.left_out import left_out, sentences
from transferscope.results.recommendation import Recommendation

PROTOCOLS = (*CUT_PROTOCOLS, "any")
"""What `rank` can be asked to look at."""
_EQUAL = 0.005
"""Expected accuracies that differ by less are equal: of those that are tied for best the cheapest is taken."""


@dataclass(frozen=True)
class ScratchCandidate:
    """The network trained from scratch on the target, as an alternative to every source."""

    network: str
    accuracy: float
    """Measured on the images held out."""
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


@dataclass(frozen=True)
class _Ways:
    """What is chosen from: rows of `cut_table`, each with its place in a belief."""

    rows: pd.DataFrame
    belief: Belief
    largest_class: float

    def tied_with_best(self, values: pd.Series) -> pd.Series:
        """Whether each row may be as good as the one with the highest value."""
        best = int(self.rows.loc[values.idxmax(), "place"])
        places = self.rows["place"].to_numpy(int)
        return pd.Series(self.belief.better(places, best) >= TIE[0], self.rows.index)


def _accuracy(ways: _Ways) -> pd.Series:
    """Rank by expected accuracy; of those tied for best that are expected to be equal, the cheapest comes first.

    Of equally cheap ones, such as the cuts of a network that is fine-tuned, the one that is expected to do best.
    """
    values = scratch_last_of_tied(ways.rows, ways.tied_with_best)
    equal = ways.tied_with_best(values) & (values >= values.max() - _EQUAL) & _counted(ways.rows)
    equal &= ways.rows["protocol"] != SCRATCH  # whose cost is its training
    if not equal.any():
        return values
    flops = ways.rows["flops"].where(equal)
    cheapest = values.where(flops == flops.min()).idxmax()
    return values.where(values.index != cheapest, values.max() + _EQUAL)


def scratch_last_of_tied(rows: pd.DataFrame, tied_with_best: Callable[[pd.Series], pd.Series]) -> pd.Series:
    """Return expected accuracies, with training from scratch just behind the best network where it is tied with it.

    Of measured transfers, choosing so loses less: benchmarks/selection.py.
    """
    values, scratch = rows["expected_accuracy"], rows["protocol"] == SCRATCH
    if not scratch.any() or scratch.all() or not scratch[values.idxmax()]:
        return values
    best = values[~scratch].idxmax()
    is_open = bool(tied_with_best(values)[best])
    return values.where(~scratch, np.nextafter(values[best], 0.0)) if is_open else values


def _per_joule(ways: _Ways) -> pd.Series:
    rows = ways.rows
    above = rows["expected_accuracy"] - ways.largest_class
    return _unknown_last((above / rows["flops"].clip(lower=1)).where(_counted(rows)), rows)


def _latency(ways: _Ways) -> pd.Series:
    """Rank what is tied with the best by FLOPs, then accuracy; the rest behind it by accuracy."""
    rows = ways.rows
    accuracies = rows["expected_accuracy"].where(_counted(rows))
    if accuracies.isna().all():
        return rows["expected_accuracy"]
    tied = ways.tied_with_best(accuracies)
    cheapness = -rows["flops"].rank(method="dense", na_option="bottom") + len(rows)
    return _unknown_last(accuracies + cheapness.where(tied, -1), rows)


def _counted(rows: pd.DataFrame) -> pd.Series:
    """Whether everything that a network computes with is counted: of what is not, nobody knows that it is cheap."""
    return rows["flops"].notna() & rows["params"].notna()


def _unknown_last(values: pd.Series, rows: pd.DataFrame) -> pd.Series:
    """Put rows without a value behind all others, whatever their values are, by accuracy."""
    behind = (values.min() if values.notna().any() else 0.0) - 1
    return values.fillna(behind - (1 - rows["expected_accuracy"]))


OBJECTIVES: Mapping[str, Callable[[_Ways], pd.Series]] = {
    "accuracy": _accuracy,
    "accuracy-per-joule": _per_joule,
    "latency": _latency,
}
"""What to rank by, from rows of `cut_table`: highest first. Accuracy per joule is the expected accuracy above that of
always guessing the largest class, over the FLOPs of one image, which the joules go with; latency takes the fewest FLOPs
of all that are tied for best. Networks with unknown FLOPs or parameters come behind all others."""


def recommend(
    predictions: xr.Dataset,
    belief: Belief,
    score_names: Sequence[str],
    scratch: ScratchCandidate | None,
    baseline_names: Sequence[str] = (),
    objective: str = "accuracy",
) -> tuple[Recommendation, ...]:
    """Rank every source at its best cut and protocol, and training from scratch, best first.

    Ties go to the cheaper one: fewer FLOPs, then the shallower cut, then the name. A source without a prediction at any
    depth is left out with a warning. Which is better is told from the posterior of the difference, in which what both
    share cancels; intervals of sources are corrected for the choice of their best cut.

    Parameters
    ----------
    predictions : xarray.Dataset
        What `expected.labelled` makes of `belief`.
    belief : Belief
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
    rows = _rows(predictions, belief, scratch)
    ways = _Ways(rows, belief, float(predictions.attrs.get("largest_class", 0.0)))
    # Stable, so that of equal values the cheaper one stays first.
    order = rows.assign(value=value(ways)).sort_values("value", ascending=False, kind="stable")
    order = order.drop_duplicates("source").reset_index(drop=True)
    places = order["place"].to_numpy(int)
    # Of the first as seen by the other: the probability of a difference has two sides.
    better, alike = belief.better(places, places), belief.within(places, places, NEGLIGIBLE)
    best = belief.probability_best(places)
    ends = belief.expected(chosen=True)
    picks = []
    for i, row in order.iterrows():
        tied = [j for j in range(len(order)) if j != i and is_tie(better[i, j])]
        corrected = row if row["source"] == SCRATCH else ends.iloc[places[i]]
        picks.append(
            Recommendation(
                rank=i + 1,
                source=str(row["source"]),
                layer=None if row["protocol"] == SCRATCH else str(row["layer"]),
                depth=int(row["depth"]),
                depths=int(row["depths"]),
                protocol=str(row["protocol"]),
                expected_accuracy=float(corrected["expected_accuracy"]),
                interval=(float(corrected["lower"]), float(corrected["upper"])),
                params=math.nan if pd.isna(row["params"]) else int(row["params"]),
                flops=math.nan if pd.isna(row["flops"]) else int(row["flops"]),
                scores=_values(predictions, row, score_names),
                baselines=_values(predictions, row, baseline_names),
                beats_next=float(better[i, i + 1]) if i + 1 < len(order) else None,
                tied_with=tuple(str(order["source"][j]) for j in tied),
                level_with=tuple(str(order["source"][j]) for j in tied if alike[i, j] >= TIE[1]),
                probability_best=float(best[i]),
                metric=belief.case.metric.name,
            )
        )
    return tuple(picks)


def _rows(predictions: xr.Dataset, belief: Belief, scratch: ScratchCandidate | None) -> pd.DataFrame:
    """Return what is chosen from, the cheapest first, each with its place in the belief."""
    rows = cut_table(predictions)
    reasons = sentences(left_out(predictions))
    for source in sorted(set(predictions["source"].to_numpy()) - set(rows["source"])):
        why = f": {reasons[source]}" if source in reasons else ""
        warnings.warn(
            f"Source {source} has no expected accuracy at any depth and is left out of the ranking{why}",
            TransferscopeWarning,
            stacklevel=3,
        )
    places = pd.MultiIndex.from_frame(belief.rows[["source", "depth", "protocol"]])
    rows["place"] = places.get_indexer(pd.MultiIndex.from_frame(rows[["source", "depth", "protocol"]]))
    if scratch is not None:
        place = len(belief.rows) - 1
        scratch_row = {
            "source": SCRATCH, "protocol": SCRATCH, "depth": 0, "depths": scratch.depths, "params": scratch.params,
            "flops": scratch.flops, "place": place, **belief.expected().iloc[place],
        }  # fmt: skip
        rows = pd.concat([rows, pd.DataFrame([scratch_row])], ignore_index=True)
        rows = rows.sort_values(["flops", "depth", "source"], kind="stable").reset_index(drop=True)
    if rows.empty:
        why = f". {'. '.join(reasons.values())}" if reasons else ""
        raise SourceError(
            f"No source has an expected accuracy at any depth, and there is no scratch network to rank{why}"
        )
    return rows


def _values(predictions: xr.Dataset, row: pd.Series, names: Sequence[str]) -> dict[str, float]:
    if row["protocol"] == SCRATCH:
        return {}
    cut = predictions.sel(source=row["source"], depth=row["depth"])
    return {name: float(cut[name]) for name in names}


def _known(name: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        hint = near(value, choices) if isinstance(value, str) else ""
        raise InputError(f"Expected `{name}` to be one of {', '.join(choices)}, but got {value!r}{hint}")
    return value
