"""What the prediction is worth, in figures: regret, coverage and width of intervals, bias, ties."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from prediction.judging import QUESTIONS, UNIT, judge, regret
from transferscope.prediction.belief import Belief
from transferscope.prediction.covariates import CUT_PROTOCOLS, SCRATCH
from transferscope.prediction.selection import scratch_last_of_tied
from transferscope.prediction.ties import TIE

SELECTOR = "selector"
MATTERS, GAP_TO_SCRATCH = 0.03, 0.05
"""Accuracies between the best two sources, and between the best one and scratch, that an answer should tell apart."""


def foretold(cells: pd.DataFrame, belief: Belief, run: Sequence[int] = ()) -> pd.DataFrame:
    """Return measured cells with what is believed of them: expectation, interval, and that of what is chosen.

    `best_of` is the probability that the cell at its best place is better than the best of each other source,
    the smallest of them; `beats_scratch` against training from scratch.
    """
    n = len(cells)
    found = cells.assign(**dict(belief.expected().iloc[:n].items()), run=np.isin(np.arange(n), run))
    corrected = belief.expected(chosen=True).iloc[:n]
    found = found.assign(chosen_expected=corrected["expected_accuracy"].to_numpy())
    found = found.assign(chosen_lower=corrected["lower"].to_numpy(), chosen_upper=corrected["upper"].to_numpy())
    tops = found[found["protocol"] != SCRATCH].groupby("source")["expected_accuracy"].idxmax()
    places = found.index.get_indexer(tops)
    order = places[np.argsort(-found["expected_accuracy"].to_numpy()[places], kind="stable")]
    found["second"] = found["beats_second"] = found["beats_scratch"] = np.nan
    if len(order) > 1:
        found.loc[found.index[order[0]], "beats_second"] = belief.better(order[:1], int(order[1]))[0]
        found.loc[found.index[order[0]], "second"] = float(order[1])
    if len(order) and (found["protocol"] == SCRATCH).any():
        place = int(np.flatnonzero(found["protocol"] == SCRATCH)[0])
        found.loc[found.index[order[0]], "beats_scratch"] = belief.better(order[:1], place)[0]
    return found


def figures(foretold_cells: pd.DataFrame) -> dict[str, Any]:
    """Return all figures of cells of several groups, in which every target counts alike.

    Accuracies judged by are in `accuracy`; cells that were run as pilots tell nothing of expectations, but may be
    chosen.
    """
    cells = foretold_cells.assign(**{SELECTOR: selector(foretold_cells)})
    found: dict[str, Any] = {}
    for question in QUESTIONS:
        judged = judge(cells, question, [SELECTOR])
        if question == "depth":
            found["depth_regret"] = {
                protocol: regret(part, ["name"]).mean().item()
                for protocol in CUT_PROTOCOLS
                if len(part := judged[judged["protocol"] == protocol])
            }
        else:
            found[f"{question}_regret"] = regret(judged, ["name"]).mean().item()
    rest = cells[~cells["run"]]
    error = rest["expected_accuracy"] - rest["accuracy"]
    inside = rest["accuracy"].between(rest["lower"], rest["upper"])
    trained = rest["protocol"] != "truncate"
    found["interval_coverage"] = _mean(rest, inside)
    found["interval_width"] = _mean(rest, rest["upper"] - rest["lower"])
    found["bias"] = _mean(rest, error)
    found["rms"] = {
        "truncate": _mean(rest[~trained], error[~trained] ** 2) ** 0.5,
        "trained": _mean(rest[trained], error[trained] ** 2) ** 0.5,
        "finetune": _mean(rest[rest["protocol"] == "finetune"], error[rest["protocol"] == "finetune"] ** 2) ** 0.5,
    }
    found["trained_coverage"] = _mean(rest[trained], inside[trained])
    found["trained_width"] = _mean(rest[trained], (rest["upper"] - rest["lower"])[trained])
    chosen = cells.loc[cells.groupby(UNIT)[SELECTOR].idxmax()]
    found["chosen_coverage"] = _mean(chosen, chosen["accuracy"].between(chosen["chosen_lower"], chosen["chosen_upper"]))
    found["chosen_bias"] = _mean(chosen, chosen["chosen_expected"] - chosen["accuracy"])
    return found | {"decisive": _decisive(cells), "scratch_told_apart": _scratch(cells)}


def selector(cells: pd.DataFrame) -> pd.Series:
    """Return what `rank` orders by: expected accuracies, and of those tied for best training from scratch last."""
    parts = []
    for _, group in cells.groupby(UNIT, sort=False):
        beats = group["beats_scratch"].max()
        parts.append(scratch_last_of_tied(group, lambda values, beats=beats: pd.Series(beats >= TIE[0], values.index)))
    return pd.concat(parts).loc[cells.index]


def _mean(rows: pd.DataFrame, values: pd.Series) -> float:
    return float(values.astype(float).groupby(rows["target"]).mean().mean())


def _decisive(cells: pd.DataFrame) -> dict[str, float]:
    """Return how often the best two sources differ by `MATTERS`, and how often the answer says so, and is right."""
    counts = {"groups": 0, "differ": 0, "rightly": 0, "wrongly": 0}
    for _, group in cells.groupby(UNIT, sort=False):
        cuts = group[group["protocol"] != SCRATCH]
        best = cuts.groupby("source")["accuracy"].max().sort_values(ascending=False)
        if len(best) < 2 or group["beats_second"].isna().all():
            continue
        counts["groups"] += 1
        differ = best.iloc[0] - best.iloc[1] >= MATTERS
        said = group["beats_second"].max() > TIE[1]
        picked = group.loc[group["beats_second"].idxmax(), "source"]
        counts["differ"] += differ
        counts["rightly"] += differ and said and picked == best.index[0]
        counts["wrongly"] += said and picked != best.index[0] and best.iloc[0] - best[picked] >= MATTERS
    return {name: int(count) for name, count in counts.items()}


def _scratch(cells: pd.DataFrame) -> dict[str, float]:
    """Return how often the choice lies `GAP_TO_SCRATCH` from scratch, and is told apart from it, and wrongly so."""
    counts = {"groups": 0, "differ": 0, "rightly": 0, "wrongly": 0}
    for _, group in cells.groupby(UNIT, sort=False):
        if group["beats_scratch"].isna().all():
            continue
        row = group.loc[group["beats_scratch"].first_valid_index()]
        gap = row["accuracy"] - group.loc[group["protocol"] == SCRATCH, "accuracy"].item()
        said = 1 if row["beats_scratch"] > TIE[1] else -1 if row["beats_scratch"] < TIE[0] else 0
        counts["groups"] += 1
        counts["differ"] += abs(gap) > GAP_TO_SCRATCH
        counts["rightly"] += abs(gap) > GAP_TO_SCRATCH and said * gap > 0
        counts["wrongly"] += said * gap < 0
    return {name: int(count) for name, count in counts.items()}


def reliability(groups: Sequence[tuple[pd.DataFrame, Belief]]) -> pd.DataFrame:
    """Return how often statements "the first is better than the second" are true, by their probability.

    Of each group the best places of all sources are compared in pairs; pairs whose measured accuracies are equal are
    left out.
    """
    found = []
    for cells, belief in groups:
        cuts = cells[cells["protocol"] != SCRATCH]
        expectations = pd.Series(belief.expected()["expected_accuracy"].to_numpy()[: len(cells)], cells.index)
        places = cells.index.get_indexer(expectations[cuts.index].groupby(cuts["source"]).idxmax())
        for i, place in enumerate(places):
            others = places[i + 1 :]
            for other, probability in zip(others, belief.better(others, int(place)), strict=True):
                gap = cells["accuracy"].iloc[other] - cells["accuracy"].iloc[place]
                if gap:
                    first = probability >= 0.5
                    found.append((max(probability, 1 - probability), (gap > 0) == first, cells["target"].iloc[0]))
    table = pd.DataFrame(found, columns=["probability", "true", "target"])
    table["said"] = pd.cut(table["probability"], [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0], include_lowest=True)
    kept = table.groupby("said", observed=True)
    return kept.agg(statements=("true", "size"), probability=("probability", "mean"), true=("true", "mean"))
