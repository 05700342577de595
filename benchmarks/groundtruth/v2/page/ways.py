"""Fitted to frozen features or trained: every way beside fine-tuning, on the same images and draw."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from groundtruth.curves import DRAWS, Estimate, over_targets
from groundtruth.real_report import geometric, outcome, overtaken
from groundtruth.v2.page.cuts import NAMES, cut_at
from groundtruth.v2.page.measured import HEADS

PLACE = ["target", "source", "size", "samples_per_class", "seed"]
COSTS = ["seconds", "flops", "kwh"]
LAST, SIXTH, BEST = "last stage", "5/6", "best stage of other draws"
STAGES = {LAST: 24, SIXTH: 20}
EMBEDDING = "full-network embedding"
LINEAR = NAMES["truncate"]
WAYS = [f"{NAMES[head]}, {which}" for which in (LAST, SIXTH, BEST) for head in HEADS] + [EMBEDDING]


def fitted(heads: pd.DataFrame) -> pd.DataFrame:
    """Return accuracy and costs of each way to use frozen features: a row for each `PLACE` and `way`.

    The best stage is that of the mean over the other draws, so that it is not flattered; a single draw has none.
    """
    parts = []
    for head in HEADS:
        own = heads[heads["protocol"] == head]
        chosen = {name: own["depth"] == _stages(own, share) for name, share in STAGES.items()}
        for name, which in (chosen | {BEST: _best_elsewhere(own)}).items():
            parts.append(own[which].assign(way=f"{NAMES[head]}, {name}"))
    parts.append(heads[(heads["protocol"] == "fne") & (heads["layer"] == "all")].assign(way=EMBEDDING))
    return pd.concat(parts)[[*PLACE, "way", "accuracy", *COSTS]]


def _stages(runs: pd.DataFrame, share: int) -> pd.Series:
    return runs["depths"].map({stages: cut_at(int(stages), share) for stages in runs["depths"].unique()})


def _best_elsewhere(runs: pd.DataFrame) -> pd.Series:
    """Return which runs are at the depth that is best on the mean of the other draws of their cell."""
    cell = ["target", "source", "samples_per_class"]
    drawn = runs.groupby([*cell, "depth"])["accuracy"]
    others = (drawn.transform("sum") - runs["accuracy"]) / (drawn.transform("size") - 1).replace(0, np.nan)
    others = others.dropna()  # a cell of which one draw has been measured says nothing of others
    if others.empty:
        return pd.Series(False, runs.index)
    first = others.groupby([runs.loc[others.index, name] for name in [*cell, "seed"]]).idxmax()
    return pd.Series(runs.index.isin(first), runs.index)


def is_tuned(trained: pd.DataFrame) -> pd.Series:
    """Return which runs train all of the network from the source's weights: `defrost` of none, `finetune` of all."""
    whole = (trained["protocol"] == "finetune") & (trained["depth"] == trained["depths"])
    return whole | ((trained["protocol"] == "defrost") & (trained["depth"] == 0))


def paired(trained: pd.DataFrame, heads: pd.DataFrame) -> pd.DataFrame:
    """Return each trained run beside each fitted way of the same source, images and draw.

    Columns of the way have the suffix `_fitted`; `ahead` is what it has more than the trained one, in points.
    """
    both = trained.merge(fitted(heads), on=PLACE, suffixes=("", "_fitted"))
    return both.assign(ahead=100 * (both["accuracy_fitted"] - both["accuracy"]))


def indexed(pairs: pd.DataFrame, column: str, *more: str) -> pd.Series:
    """Return a column with the levels that `noise` asks for."""
    return pairs.set_index([*PLACE[:3], *more, "seed"])[column].astype(float)


def leads(pairs: pd.DataFrame, way: str) -> pd.Series:
    """Return the points that a way is ahead of fine-tuning, levels target, source, size and seed."""
    return indexed(pairs[pairs["way"] == way], "ahead")


def cost_ratio(pairs: pd.DataFrame, cost: str) -> float:
    """Return how many times the cost of the fitted way the trained one takes, a geometric mean; NaN if unknown."""
    return geometric(pairs[cost] / pairs[f"{cost}_fitted"])


def crossing(lead: pd.Series) -> tuple[str, str]:
    """Say from how many images a class fine-tuning stays ahead, and where that lies in 95 % of bootstraps of targets.

    The mean lead of each target at each size, then over targets, sizes joined by straight lines over their logarithm.
    """
    means = lead.rename("lead").reset_index().pivot_table(index="target", columns="size", values="lead")
    sizes = [int(size) for size in means.columns]
    if len(sizes) < 2:
        return "not measured yet", ""
    found = outcome(overtaken(sizes, means.mean().to_numpy()), sizes)
    if len(means) < 2:
        return found, ""
    drawn = np.random.default_rng(0).integers(0, len(means), (DRAWS, len(means)))
    values = means.to_numpy()[drawn]
    known = ~np.isnan(values)
    counts = known.sum(1)
    averages = np.where(known, values, 0).sum(1)[(counts > 0).all(1)] / counts[(counts > 0).all(1)]
    places = np.array([overtaken(sizes, each) for each in averages])
    low, high = (float(np.quantile(places, q, method="nearest")) for q in (0.025, 0.975))
    return found, f"{outcome(low, sizes)} to {outcome(high, sizes)}"


def cpu_cost(trained: pd.DataFrame, on_gpu: bool) -> pd.DataFrame:
    """Return trained runs with the seconds and kWh of their own time on the processor, where that is known.

    What else the machine did makes `seconds` longer, and energy is power times these; on a GPU both stay as they are.
    """
    if on_gpu or "cpu_seconds" not in trained:
        return trained
    own = trained["cpu_seconds"].astype(float).fillna(trained["seconds"])
    part = (own / trained["seconds"]).clip(upper=1).fillna(1.0)
    return trained.assign(seconds=trained["seconds"] * part, kwh=trained["kwh"] * part)


def best_fit(pairs: pd.DataFrame) -> Mapping[int, Estimate]:
    """Return the mean lead of the full-network embedding over fine-tuning at each size."""
    lead = leads(pairs, EMBEDDING)
    return {int(size): over_targets(each) for size, each in lead.groupby(level="size")} if len(lead) else {}


def orders(ratio: float) -> str:
    """Say how many orders of magnitude less a way takes."""
    if math.isnan(ratio):
        return "not known"
    if ratio < 1:
        return "not less"
    if ratio < 10:
        return "less than one order less"
    return "one to two orders less" if ratio <= 100 else "more than two orders less"
