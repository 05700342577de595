"""Whether `rank` chooses better than scores and rules: source, depth and protocol, judged on ground truth v1.

    python benchmarks/selection.py [--format json]

reads the tables of benchmarks/groundtruth, fits the prediction anew for each target without any run of that target (and
once more without any run of a source either), and prints what each choice loses against the best measured one.
"""

import argparse
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from groundtruth.maps import print_table, read_runs
from groundtruth.scores_report import over_targets
from scipy.stats import weightedtau

from prediction.calibrate import GROUP, MAPS, TABLES, bare, calibrate, fit, load
from transferscope.prediction.calibration import unfitted
from transferscope.prediction.covariates import CUT_PROTOCOLS, SCRATCH
from transferscope.results.labelled import SIMILARITIES
from transferscope.transferability import SCORES

UNIT = ["map", "target", "size"]
QUESTIONS: dict[str, tuple[list[str], list[str]]] = {
    "depth": (["protocol", "source"], ["depth"]),
    "source": (["protocol"], ["source"]),
    "protocol": ([], ["protocol"]),
    "joint": ([], ["source", "depth", "protocol"]),
}
"""What is given beside target and number of images, and what is chosen; the rest is then as good as it can be."""
SELECTOR, NEW_SOURCE, UNFITTED = "selector", "selector, sources unknown to it", "selector, not fitted"
ELSEWHERE, MEASURED = "best on other targets", "one draw of all measured"
FEWEST = 3


def left_out(rows: pd.DataFrame, source: str | None = None) -> pd.Series:
    """Return the logits that are predicted for each target without its runs, nor those of a source."""
    found = pd.Series(np.nan, rows.index)
    for target in rows["target"].unique():
        own = rows["target"] == target
        found[own] = bare(*fit(rows[~own & (rows["source"] != source)])).logits(rows[own])
    return found


def covered(rows: pd.DataFrame) -> pd.DataFrame:
    """Return whether the interval of a calibration that knows nothing of a target holds what was measured there."""
    found = []
    for target in rows["target"].unique():
        own = rows[rows["target"] == target]
        unlimited = replace(calibrate(rows[rows["target"] != target]), ranges={})
        predicted = unlimited.predict(own)
        inside = own["accuracy"].between(predicted["lower"], predicted["upper"])
        found.append(predicted.assign(inside=inside.astype(float), width=predicted["upper"] - predicted["lower"]))
    return pd.concat(found)


def print_intervals(held: pd.DataFrame) -> None:
    """Print how often the intervals hold, of all cells and of those that are chosen, and from fewer images."""
    print("## Intervals\n")
    same = held[held["ahead"] == 0]
    chosen = same.loc[same.groupby("group")["expected_accuracy"].idxmax()]
    parts = {
        "all": same,
        "the one chosen jointly": chosen,
        **{f"{protocol} alone": same[same["protocol"] == protocol] for protocol in (*CUT_PROTOCOLS, SCRATCH)},
        "foretold from fewer images": held[held["ahead"] > 0],
    }
    columns = ["inside", "width", "too high"]
    means = {}
    for name, part in parts.items():
        part = part.assign(**{"too high": part["expected_accuracy"] - part["accuracy"]})
        means[name] = part.groupby("target")[columns].mean().mean()
    table = pd.DataFrame(means).T.rename(columns={"inside": "share in the 80 % interval", "width": "its width"})
    table.index.name = "cells"
    print_table(table)
    print("*too high*: how far the expected accuracy lies above the measured one.\n")


def print_ahead(rows: pd.DataFrame) -> None:
    """Print what the selector loses that sees fewer images than are trained on."""
    print("## Chosen for more images than were looked at\n")
    found = {}
    for _, part in rows.groupby("ahead"):
        judged = {question: judge(part, question, [SELECTOR]) for question in QUESTIONS}
        times = f"{np.exp(part['log_more'].median()):.2g} times as many"
        found[times] = {question: regret(own, ["name"]).mean().item() for question, own in judged.items()}
    table = pd.DataFrame(found).T
    table.index.name = "trained on (median)"
    print_table(table)


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


def choosers(rows: pd.DataFrame, question: str, scores: list[str]) -> tuple[pd.DataFrame, dict[str, str]]:
    """Add what can be chosen by as columns, the highest value first; return the kind of each: selector, score, rule."""
    given, choice = QUESTIONS[question]
    kinds = {SELECTOR: "selector", UNFITTED: "selector"}
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


def new_sources(rows: pd.DataFrame, question: str) -> pd.DataFrame:
    """Judge the selector once for each source of a target, fitted without any run of that source or target."""
    found = []
    for source in rows.loc[rows["source"] != "", "source"].unique():
        having = rows.groupby(GROUP)["source"].transform(lambda names, own=source: (names == own).any())
        held = rows.assign(**{NEW_SOURCE: left_out(rows, source)})[having]
        found.append(judge(held, question, [NEW_SOURCE]).assign(held=source))
    return pd.concat(found)


def one_draw(cells: pd.DataFrame, question: str) -> pd.DataFrame:
    """Judge the choice by real transfers with one draw of images, by the mean of the other draws.

    That is what measuring everything once would get: the most that any prediction can hope for, but for luck.
    """
    found = []
    for seed in (0, 1):
        once = cells[cells["seed"] == seed].set_index(_KEYS)["accuracy"].rename(MEASURED)
        others = cells[cells["seed"] != seed].groupby(_KEYS)["accuracy"].mean()
        both = pd.concat([others, once], axis=1).dropna().reset_index()
        found.append(judge(both, question, [MEASURED]))
    return pd.concat(found)


_KEYS = [*UNIT, "source", "depth", "protocol"]


def draws(rows: pd.DataFrame) -> pd.DataFrame:
    """Return every run of the cells in `rows`."""
    runs = pd.concat(read_runs(TABLES / name).assign(map=name) for name in MAPS)
    runs.loc[runs["protocol"] == SCRATCH, "source"] = ""
    keys = [*GROUP, "source", "depth", "protocol"]
    runs = runs.groupby([*keys, "seed"], as_index=False)["accuracy"].mean()
    return runs.merge(rows[[*keys, "size"]], on=keys)


def prepared() -> tuple[pd.DataFrame, list[str]]:
    """Return all cells with what they can be chosen by, and the names of the scores.

    Where `ahead` is not 0, the scores are those of fewer images than the transfers were trained on.
    """
    rows = load()
    seen = pd.concat(pd.read_csv(TABLES / name / "evidence.csv").assign(map=name) for name in MAPS)
    scores = [*(f"{name}_to_scratch" for name in SIMILARITIES), *SCORES]
    seen = seen.rename(columns={"samples_per_class": "seen"})
    keys = ["map", "target", "seen", "source", "depth"]
    seen["network_params"] = seen.groupby(keys[:-1])["params"].transform("max")
    rows = rows.merge(seen[[*keys, "network_params", *scores]], how="left", on=keys)
    rows[SELECTOR] = left_out(rows)
    rows[UNFITTED] = unfitted(rows)["expected_accuracy"]
    return rows, scores


def regret(judged: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return the mean regret: a row a target, a column for each of `by`; cells of a target count alike."""
    return judged.pivot_table("regret", "target", by, sort=False)


def print_question(question: str, judged: pd.DataFrame, kinds: dict[str, str], maps: list[str]) -> None:
    means = regret(judged, ["name"])
    order = means.mean().sort_values(kind="stable").index
    table = pd.DataFrame({"regret": over_targets(means)["text"][order]})
    for name in maps:
        table[name] = regret(judged[judged["map"] == name], ["name"]).mean()
    if question in ("depth", "source"):
        for protocol in CUT_PROTOCOLS:
            table[protocol] = regret(judged[judged["protocol"] == protocol], ["name"]).mean()
    table["rel@1"] = judged.groupby(["target", "name"])["relative"].mean().groupby("name").mean()
    table["τw"] = judged.groupby(["target", "name"])["tau"].mean().groupby("name").mean()
    table = table.loc[order]
    table.index = pd.Index(
        [f"**{n}**" if kinds.get(n) == "selector" else f"*{n}*" if kinds.get(n) == "rule" else n for n in order],
        name="chosen by",
    )
    print(f"## {question.capitalize()}\n")
    print_table(table.astype(object).where(table.notna(), "–"))


def summary(question: str, judged: pd.DataFrame, kinds: dict[str, str]) -> dict[str, Any]:
    """Return the regret of the selector, of the best score and of the best rule, in hindsight."""
    means = regret(judged, ["name"]).mean()
    found: dict[str, Any] = {"selector": float(means[SELECTOR])}
    for kind in ("score", "rule"):
        names = [name for name in means.index if kinds.get(name) == kind]
        if names:
            best = means[names].idxmin()
            found |= {f"best_{kind}": float(means[best]), f"best_{kind}_name": best}
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--format", choices=("table", "json"), default="table")
    as_json = parser.parse_args().format == "json"
    everything, scores = prepared()
    rows = everything[everything["ahead"] == 0]
    maps = list(rows["map"].unique())
    runs = None if as_json else draws(rows)
    answer: dict[str, Any] = {"cells": len(rows), "depth_regret": {}}
    counted = rows.groupby("map", sort=False)["group"].nunique()
    if not as_json:
        print("# Choosing by prediction, by scores and by rules\n")
        print(
            f"Made by `benchmarks/selection.py` from {len(rows)} measured cells of {rows['target'].nunique()} targets "
            f"({', '.join(f'{name}: {count}' for name, count in counted.items())} pairs of a target and a number of "
            "images). Regret is the accuracy lost against the best measured choice, "
            "means over targets with 95 % bootstrap intervals over them. The prediction is fitted anew for each target "
            "without any of its runs, on any map. A score is joined with the protocol that is best on other targets. "
            f"*{MEASURED}* chooses by real transfers with one draw of images and is judged by the others. τw is "
            "scipy's `weightedtau`.\n"
        )
    for question in QUESTIONS:
        columns, kinds = choosers(rows, question, scores)
        judged = judge(columns, question, list(kinds))
        if question == "depth":
            answer["depth_regret"] = {
                protocol: summary(question, judged[judged["protocol"] == protocol], kinds) for protocol in CUT_PROTOCOLS
            }
        else:
            answer[f"{question}_regret"] = summary(question, judged, kinds)
        if not as_json:
            assert runs is not None
            more = [judged, new_sources(rows, question), one_draw(runs, question)]
            print_question(question, pd.concat(more), kinds | {NEW_SOURCE: "selector", MEASURED: "rule"}, maps)
    held = covered(everything)
    answer["interval_coverage"] = float(held[held["ahead"] == 0].groupby("target")["inside"].mean().mean())
    if as_json:
        print(json.dumps(answer, indent=1))
        return
    print_ahead(everything)
    print_intervals(held)
