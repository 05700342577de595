"""What a choice loses against the best measured one: source, depth, protocol, or all of them."""

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import weightedtau

from transferscope.prediction.covariates import CUT_PROTOCOLS, SCRATCH

UNIT = ["map", "target", "size"]
QUESTIONS: dict[str, tuple[list[str], list[str]]] = {
    "depth": (["protocol", "source"], ["depth"]),
    "source": (["protocol"], ["source"]),
    "protocol": ([], ["protocol"]),
    "joint": ([], ["source", "depth", "protocol"]),
}
"""What is given beside target and number of images, and what is chosen; the rest is then as good as it can be."""
ELSEWHERE, MEASURED = "best on other targets", "one draw of all measured"
FEWEST = 3


def elsewhere(rows: pd.DataFrame, given: list[str], choice: list[str]) -> pd.Series:
    """Return how little each choice loses on the other targets of the map with as many images, its sign turned."""
    lost = rows.groupby([*UNIT, *given])["accuracy"].transform("max") - rows["accuracy"]
    within = ["map", "size", *dict.fromkeys([*(name for name in given if name == "protocol"), *choice])]
    best = lost.groupby([rows[name] for name in [*within, "target", *(n for n in given if n not in within)]]).min()
    own = best.groupby(level=[*within, "target"]).mean()
    of_choice = own.groupby(level=within)
    others = of_choice.transform("count") - 1
    mean = (of_choice.transform("sum") - own) / others.where(others > 0)
    return -rows.join(mean.rename("lost"), on=[*within, "target"])["lost"]


def choosers(
    rows: pd.DataFrame, question: str, scores: list[str], selectors: list[str]
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Add what can be chosen by as columns, the highest value first; return the kind of each: selector, score, rule."""
    given, choice = QUESTIONS[question]
    kinds = dict.fromkeys(selectors, "selector")
    columns: dict[str, Any] = {
        ELSEWHERE: elsewhere(rows, given, choice),
        "random": np.where(rows["protocol"] != SCRATCH, 0.0, np.nan),
    }
    # A score says nothing of protocols: it is given the one that is best on other targets.
    best = elsewhere(rows, [], ["protocol"])
    usual = np.isclose(best, best.groupby([rows[name] for name in UNIT]).transform("max")) | ("protocol" in given)
    if "protocol" in choice:
        for protocol in (*CUT_PROTOCOLS, SCRATCH):
            columns[f"always {protocol}"] = np.where(rows["protocol"] == protocol, 0.0, np.nan)
        columns["protocol best on other targets"] = np.where(usual, 0.0, np.nan)
    rule = dict.fromkeys(columns, "rule")
    if question != "protocol":
        columns |= {name: rows[name].where(usual) for name in scores}
        kinds |= dict.fromkeys(scores, "score")
    if "depth" in choice:
        for sixth in range(1, 7):
            columns[f"depth {sixth}/6"] = (-(rows["depth_fraction"] - sixth / 6).abs()).where(usual)
    if "source" in choice:
        columns["largest network"] = rows["network_params"].where(usual)
        columns["always ImageNet"] = rows["source"].str.contains("imagenet").astype(float).where(usual)
    rule |= {name: "rule" for name in columns if name not in kinds}
    return rows.assign(**columns), kinds | rule


def judge(rows: pd.DataFrame, question: str, names: list[str]) -> pd.DataFrame:
    """Return for each unit and name: regret, share of the best accuracy, and weighted tau of the order of all rows.

    Of equal values any is chosen with equal chance, and the expectation is given; so it is where no value is defined.
    """
    given, choice = QUESTIONS[question]
    unit = [*UNIT, *given]
    rows = rows[rows["protocol"] != SCRATCH] if "protocol" in given else rows
    reached = rows.groupby([*unit, *choice])["accuracy"].transform("max")
    found = []
    for key, group in rows.assign(reached=reached).groupby(unit, sort=False):
        accuracy, best = group["reached"].to_numpy(), group["accuracy"].max()
        for name in names:
            values = group[name].to_numpy(float)
            defined = np.isfinite(values)
            chosen = accuracy[values == values[defined].max()].mean() if defined.any() else accuracy.mean()
            x, y = values[defined], group["accuracy"].to_numpy()[defined]
            ordered = len(x) >= FEWEST and np.ptp(x) > 0 and np.ptp(y) > 0
            tau = weightedtau(x, y).statistic if ordered else math.nan
            found.append(
                dict(zip(unit, key, strict=True))
                | {"name": name, "regret": best - chosen, "relative": chosen / best, "tau": tau}
            )
    return pd.DataFrame(found)


def one_draw(cells: pd.DataFrame, question: str) -> pd.DataFrame:
    """Judge the choice by real transfers with one draw of images, by the mean of the other draws.

    That is what measuring everything once would get: the most that any prediction can hope for, but for luck.
    """
    keys = [*UNIT, "source", "depth", "protocol"]
    found = []
    for seed in (0, 1):
        once = cells[cells["seed"] == seed].set_index(keys)["accuracy"].rename(MEASURED)
        others = cells[cells["seed"] != seed].groupby(keys)["accuracy"].mean()
        both = pd.concat([others, once], axis=1).dropna().reset_index()
        found.append(judge(both, question, [MEASURED]))
    return pd.concat(found)


def regret(judged: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return the mean regret: a row a target, a column for each of `by`; cells of a target count alike."""
    return judged.pivot_table("regret", "target", by, sort=False)
