"""Whether `rank` chooses better than scores and rules: source, depth and protocol, judged on measured transfers.

    python benchmarks/selection.py [--format json]

reads the tables of benchmarks/groundtruth, fits the prediction anew for each target without any run of that target, and
prints what each choice loses against the best measured one: without pilots, after one, and after pilots that take 5 %
of the time of measuring everything once.
"""

import argparse
import json
from typing import Any

import pandas as pd
from groundtruth.maps import print_table
from groundtruth.scores_report import over_targets

from prediction import left_out, truth
from prediction.calibrate import fitted, prepared
from prediction.figures import SELECTOR, figures, foretold, reliability, selector
from prediction.judging import MEASURED, QUESTIONS, choosers, judge, one_draw, regret
from prediction.piloting import FIVE, ONE, WITHOUT, groups, halved, piloted
from transferscope.prediction.calibration import Calibration
from transferscope.prediction.covariates import CUT_PROTOCOLS, SCRATCH
from transferscope.results.labelled import SIMILARITIES
from transferscope.transferability import SCORES

HALVED = "halving, no model, 5 %"
SMALLEST = 3
"""Measured cells of a group that there is a choice among."""
KINDS = (WITHOUT, ONE, FIVE)
AGAIN = "without_other_draws"
"""Without pilots too, but judged as after them: by draws that no pilot saw, of which there are fewer."""
FAMILIAR = "familiar_networks"
"""Without pilots, but knowing what the networks did on the other targets of their map, as after `ts.calibrate`."""


def with_draws(cells: pd.DataFrame) -> pd.DataFrame:
    """Add `once`, what a pilot with the first draw of images measures, and `others`, the mean of the other draws.

    Cells with one draw have it for both.
    """
    runs = pd.concat(truth.runs(name).assign(map=name) for name in cells["map"].unique())
    keys = ["map", *truth.CELL]
    first = runs[runs["seed"] == 0].rename(columns={"accuracy": "once"})[[*keys, "once"]]
    others = runs[runs["seed"] != 0].groupby(keys)["accuracy"].mean().rename("others").reset_index()
    both = cells.merge(first, how="left", on=keys).merge(others, how="left", on=keys)
    return both.assign(once=both["once"].fillna(both["accuracy"]), others=both["others"].fillna(both["accuracy"]))


def judged_cells(cells: pd.DataFrame, known: dict[str, Calibration], kind: str, familiar: bool = False) -> pd.DataFrame:
    """Return cells with what is believed of them; after pilots they are judged by draws that no pilot saw."""
    found = []
    for part, belief in groups(cells, known, familiar):
        if len(part) < SMALLEST:
            continue
        only = kind == ONE and (part["protocol"] == "finetune").any()
        after, run = piloted(part, belief, kind, lambda way, only=only: not only or way.protocol == "finetune")
        found.append(foretold(part, after, run).assign(halved=halved(part)))
    table = pd.concat(found, ignore_index=True)
    return table if kind == WITHOUT else table.assign(accuracy=table["others"])


def joint_regret(judged: pd.DataFrame) -> pd.Series:
    """Return what the choice of source, depth and protocol loses, by target."""
    return regret(judge(judged.assign(**{SELECTOR: selector(judged)}), "joint", [SELECTOR]), ["name"])[SELECTOR]


def baselines(judged: pd.DataFrame, scores: list[str], runs: pd.DataFrame, maps: list[str]) -> None:
    """Print what each selector, score and rule loses."""
    for question in QUESTIONS:
        columns, kinds = choosers(judged, question, scores, [SELECTOR])
        found = [judge(columns, question, list(kinds)), one_draw(runs, question)]
        if question == "joint":
            found.append(judge(columns.assign(**{HALVED: columns["halved"]}), question, [HALVED]))
            kinds |= {HALVED: "rule"}
        print_question(question, pd.concat(found), kinds | {MEASURED: "rule"}, maps)


def print_question(question: str, judged: pd.DataFrame, kinds: dict[str, str], maps: list[str]) -> None:
    means = regret(judged, ["name"])
    order = means.mean().sort_values(kind="stable").index
    table = pd.DataFrame({"regret": over_targets(means)["text"][order]})
    for name in maps:
        table[name] = regret(judged[judged["map"] == name], ["name"]).mean()
    if question in ("depth", "source"):
        for protocol in CUT_PROTOCOLS:
            part = judged[judged["protocol"] == protocol]
            if len(part):
                table[protocol] = regret(part, ["name"]).mean()
    table["rel@1"] = judged.groupby(["target", "name"])["relative"].mean().groupby("name").mean()
    table["τw"] = judged.groupby(["target", "name"])["tau"].mean().groupby("name").mean()
    table = table.loc[order]
    table.index = pd.Index(
        [f"**{n}**" if kinds.get(n) == "selector" else f"*{n}*" if kinds.get(n) == "rule" else n for n in order],
        name="chosen by",
    )
    print(f"## {question.capitalize()}\n")
    print_table(table.astype(object).where(table.notna(), "–"))


def flat(found: dict[str, Any]) -> dict[str, Any]:
    """Return figures as one row, counts as "rightly / differ (wrongly)"."""
    row: dict[str, Any] = {}
    for name, value in found.items():
        if "differ" in (value if isinstance(value, dict) else {}):
            row[name] = f"{value['rightly']} of {value['differ']} ({value['wrongly']} wrongly)"
        elif isinstance(value, dict):
            row |= {f"{name}, {key}": each for key, each in value.items()}
        else:
            row[name] = value
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--format", choices=("table", "json"), default="table")
    as_json = parser.parse_args().format == "json"
    cells = truth.load()
    cells = with_draws(cells.assign(size=truth.sizes(cells)))
    now = cells[cells["ahead"] == 0].reset_index(drop=True)
    rows = prepared()
    found = fitted(rows)
    known = left_out.corrected(now, left_out.without_target(rows, found))
    of_kind = {kind: judged_cells(now, known, kind) for kind in KINDS}
    of_kind[AGAIN] = of_kind[WITHOUT].assign(accuracy=of_kind[WITHOUT]["others"])
    of_kind[FAMILIAR] = judged_cells(now, known, WITHOUT, familiar=True)
    parts = {kind: figures(of_kind[kind]) for kind in (WITHOUT, FAMILIAR, AGAIN, ONE, FIVE)}
    maps = list(now["map"].unique())
    by_map = {
        f"{kind}, {name}": figures(of_kind[kind][of_kind[kind]["map"] == name])
        for kind in (WITHOUT, FAMILIAR, ONE, FIVE)
        for name in maps
    }
    elsewhere = across(now, rows, found)
    answer = {"cells": len(now), **parts[WITHOUT], **parts, "maps": by_map, **elsewhere}
    if as_json:
        print(json.dumps(answer, indent=1))
        return
    counted = now.groupby("map", sort=False)["group"].nunique()
    print("# Choosing by prediction, by scores and by rules\n")
    print(
        f"Made by `benchmarks/selection.py` from {len(now)} measured cells of {now['target'].nunique()} targets "
        f"({', '.join(f'{name}: {count}' for name, count in counted.items())} pairs of a target and a number of "
        "images). Regret is the accuracy lost against the best measured choice, means over targets with 95 % bootstrap "
        "intervals over them. The prediction is fitted anew for each target without any of its runs, on any map. After "
        "pilots, which see the first draw of images, choices are judged by the other draws; in "
        f"*{AGAIN}* so are those without pilots, to compare with: with fewer draws the best measured choice is more "
        f"luck. A score is joined with the protocol that is best on other targets. *{MEASURED}* chooses by real "
        f"transfers with one draw of images and is judged by the others. *{FAMILIAR}* knows what its networks did on "
        "other targets. τw is scipy's `weightedtau`.\n"
    )
    print("## The prediction without pilots, after one of fine-tuning, after 5 % of the time of measuring everything\n")
    table = pd.DataFrame({name: flat(each) for name, each in parts.items()})
    print_table(table.rename_axis("figure"))
    print("## What the choice of everything loses, by target\n")
    by_target = {kind: joint_regret(of_kind[kind]) for kind in (AGAIN, ONE, FIVE)}
    print_table(pd.DataFrame(by_target).sort_values(AGAIN).rename_axis("target"))
    print("## The same by map\n")
    print_table(pd.DataFrame({name: flat(each) for name, each in by_map.items()}).rename_axis("figure"))
    print("## On networks, and on ground truths, that it was not fitted to\n")
    print_table(pd.DataFrame({name: flat(each) for name, each in elsewhere.items()}).rename_axis("figure"))
    print("## Of statements made with a probability, how many are true\n")
    print_table(reliability(groups(now, known)).rename_axis("said"))
    runs, scores = draws(now), [*(f"{name}_to_scratch" for name in SIMILARITIES), *SCORES]
    # Some scores are covariates too, smoothed.
    judged = of_kind[WITHOUT].drop(columns=scores, errors="ignore")
    judged = judged.merge(seen_scores(scores), how="left", on=[*truth.GROUP, "source", "depth"])
    baselines(judged.assign(**{SELECTOR: selector(judged)}), scores, runs, maps)


def across(now: pd.DataFrame, rows: pd.DataFrame, found: Any) -> dict[str, Any]:
    """Return figures on networks left out one by one, and of each ground truth by the other."""
    parts = []
    for source in now.loc[now["source"] != "", "source"].unique():
        known = left_out.without_network(rows, found, source)
        having = now[now["target"].isin(list(known))]
        having = having[having.groupby(truth.GROUP)["source"].transform(lambda names, own=source: (names == own).any())]
        part = judged_cells(having, known, WITHOUT)
        parts.append(part[(part["source"] == source) | (part["protocol"] == SCRATCH)].assign(held=source))
    alone = pd.concat(parts, ignore_index=True)
    alone["size"] = alone["size"] + "/" + alone["held"]
    answer = {"left_out_network": figures(alone)}
    for name, fitted_to, judged_on in (("v1_to_v2", truth.V1, [truth.V2]), ("v2_to_v1", [truth.V2], truth.V1)):
        part = now[now["map"].isin(judged_on)]
        known = left_out.from_maps(fitted_to, list(part["target"].unique()))
        answer[name] = figures(judged_cells(part, known, WITHOUT))
    return answer


def draws(now: pd.DataFrame) -> pd.DataFrame:
    """Return every run of the measured cells."""
    runs = pd.concat(truth.runs(name).assign(map=name) for name in now["map"].unique())
    return runs.merge(now[["map", *truth.CELL, "size"]], on=["map", *truth.CELL])


def seen_scores(scores: list[str]) -> pd.DataFrame:
    """Return every score of each source and depth, and the size of the network."""
    seen = pd.concat(truth.evidence(name).assign(map=name) for name in truth.JUDGED)
    keys = [*truth.GROUP, "source"]
    seen["network_params"] = seen.groupby(keys)["params"].transform("max")
    return seen[[*keys, "depth", "network_params", *scores]]
