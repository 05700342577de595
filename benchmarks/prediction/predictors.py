"""What else the prediction could be made from, and how far beyond what it was fitted to it is of use.

    python benchmarks/predictors.py > benchmarks/results/predictors.md

fits variants of the model of benchmarks/calibrate.py as benchmarks/selection.py does, without any run of the target
that they are judged on, and prints what each loses against the best measured choice.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from groundtruth.maps import print_table

from prediction.calibrate import GROUP, TABLES, TERMS, bare, fit
from prediction.selection import QUESTIONS, SELECTOR, UNFITTED, judge, prepared, regret
from transferscope.prediction.calibration import Term
from transferscope.prediction.covariates import CUT_PROTOCOLS, SCRATCH, logit

ONE = ("ridge", "knn", "nearest_mean", "kernel_ridge")
MORE = (
    "linear_cka_to_scratch", "svcca_to_scratch", "hscore", "alignment", "nleep", "transrate", "gbc", "parc", "sfda",
    "kernel_ridge", "leep", "nce",
)  # fmt: skip
OF_SMALL = {
    "from_source": "− information imbalance, source to scratch",
    "from_scratch": "− information imbalance, scratch to source",
    "suffix_error": "− error of the suffix kernel",
    "suffix_extrapolated": "the same, extrapolated",
    "suffix_accuracy": "logit of the suffix kernel's accuracy",
    "whole_accuracy": "logit of the whole network's tangent kernel's accuracy",
}
"""Measured on the small networks alone, and what is made of it."""


def foretold(rows: pd.DataFrame, terms: Sequence[Term]) -> pd.Series:
    """Return the logits predicted for each target without its runs."""
    found = pd.Series(np.nan, rows.index)
    for target in rows["target"].unique():
        own = rows["target"] == target
        found[own] = bare(*fit(rows[~own], terms)).logits(rows[own])
    return found


def regrets(rows: pd.DataFrame, logits: pd.Series) -> dict[str, float]:
    """Return the mean regret over targets: of the depth for each protocol, of source, protocol and all jointly."""
    rows = rows.assign(**{SELECTOR: logits})
    rows = rows[rows["ahead"] == 0]
    judged = {question: judge(rows, question, [SELECTOR]) for question in QUESTIONS}
    depth = judged.pop("depth")
    found = {
        f"depth, {name}": regret(depth[depth["protocol"] == name], ["name"]).mean().item() for name in CUT_PROTOCOLS
    }
    return found | {question: regret(own, ["name"]).mean().item() for question, own in judged.items()}


def with_head(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows with one classifier in the place of the mean of three."""
    head = of_cuts(rows, logit(rows[name], rows["probe"]))
    gap = of_cuts(rows, head - rows["scratch"])
    return rows.assign(head=head, gap=gap, excess=gap.clip(lower=0))


def of_cuts(rows: pd.DataFrame, values: pd.Series) -> pd.Series:
    """Return the values, 0 for training from scratch and where there are none."""
    return values.where(rows["protocol"] != SCRATCH, 0.0).fillna(0.0)


def added(name: str, times: tuple[str, ...] = ()) -> tuple[Term, ...]:
    return (*TERMS, *(Term((protocol,), (name, *times)) for protocol in CUT_PROTOCOLS))


def variants(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, tuple[Term, ...]]]:
    """Yield a name, the rows and the terms of each."""
    yield "**as it is**", rows, TERMS
    yield "without LogME", rows, tuple(term for term in TERMS if "gain" not in term.factors)
    yield "without the effective rank", rows, tuple(term for term in TERMS if "rank" not in term.factors)
    without = {"scratch", "gap", "excess"}
    yield "without the scratch network", rows, tuple(term for term in TERMS if not without & set(term.factors))
    for name in ONE:
        yield f"{name} alone for the head", with_head(rows, name), TERMS
    for name in MORE:
        more = rows.assign(extra=of_cuts(rows, logit(rows[name], rows["probe"]) if name in ONE else rows[name]))
        yield f"with {name}", more, added("extra")
        if name.endswith("_to_scratch"):
            both = (*added("extra"), *added("extra", ("log_per_class",))[len(TERMS) :])
            yield f"with {name}, and its change with the images of a class", more, both


def of_small(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, tuple[Term, ...]]]:
    """Yield the same for what was measured on the small networks alone."""
    folder = TABLES / "small"
    keys = [*GROUP[1:], "source", "depth"]
    rows = rows[(rows["map"] == "small") & (rows["ahead"] == 0)]
    kernels = pd.read_csv(folder / "small-kernels.csv").replace({"source": {SCRATCH: ""}})
    kernels = kernels.drop(columns=["seed", "layer", "samples", "probe"])
    rows = rows.merge(kernels, how="left", on=keys, validate="many_to_one")
    rows = rows.merge(pd.read_csv(folder / "small-imbalance.csv"), how="left", on=keys, validate="many_to_one")
    yield "**as it is**", rows, TERMS
    for name, title in OF_SMALL.items():
        extra = logit(rows[name], rows["probe"]) if name.endswith("_accuracy") else -rows[name]
        yield f"with {title}", rows.assign(extra=of_cuts(rows, extra)), added("extra")


def print_variants(found: Iterator[tuple[str, pd.DataFrame, tuple[Term, ...]]]) -> None:
    table = pd.DataFrame({name: regrets(rows, foretold(rows, terms)) for name, rows, terms in found}).T
    table.index.name = "prediction"
    print_table(table)


def print_alone(rows: pd.DataFrame) -> None:
    """Print what each of the measures of the small networks loses that is used alone."""
    found = {}
    for name, more, _ in of_small(rows):
        if "extra" in more:
            scored = more.assign(**{SELECTOR: more["extra"].where(more["protocol"] != SCRATCH)})
            depth, source = judge(scored, "depth", [SELECTOR]), judge(scored, "source", [SELECTOR])
            by = {f"depth, {p}": regret(depth[depth["protocol"] == p], ["name"]).mean().item() for p in CUT_PROTOCOLS}
            found[name.removeprefix("with ")] = by | {"source": regret(source, ["name"]).mean().item()}
    table = pd.DataFrame(found).T
    table.index.name = "chosen by"
    print_table(table)


def print_beyond(rows: pd.DataFrame) -> None:
    """Print how the prediction does on targets that lie above all that it was fitted to."""
    found = {}
    for name in ("log_per_class", "head", "gain", "scratch"):
        top = rows.groupby("group")[name].transform("max")
        for share in (0.5, 0.75):
            bound = rows.groupby("group")[name].max().quantile(share)
            test, logits = top > bound, pd.Series(np.nan, rows.index)
            for target in rows.loc[test, "target"].unique():
                own = (rows["target"] == target) & test
                known = rows[(rows["target"] != target) & ~test]
                logits[own] = bare(*fit(known)).logits(rows[own])
            part = rows[test & (rows["ahead"] == 0)]
            chosen = {"fitted below": regrets(part, logits[part.index]), "scores alone": regrets(part, part[UNFITTED])}
            key = f"{name} above {bound:.2f}, at most {top[part.index].max():.2f} ({part['group'].nunique()} groups)"
            for how, own in chosen.items():
                found[key, how] = {question: own[question] for question in ("source", "protocol", "joint")}
    table = pd.DataFrame(found).T
    table.index.names = ["covariate", "prediction"]
    print_table(table)


def main() -> None:
    rows, _ = prepared()
    print("# What the prediction is made from\n")
    print(
        "Made by `benchmarks/predictors.py`: accuracy lost against the best measured choice, means over targets, each "
        "predicted without any run of its own.\n"
    )
    print_variants(variants(rows))
    print("## On the small networks alone\n")
    print("Fitted to and judged on the small-network map, draw 0.\n")
    print_variants(of_small(rows))
    print("Each of these alone, by which of two cuts it says more for:\n")
    print_alone(rows)
    print("## Beyond what it was fitted to\n")
    print(
        "Groups whose largest value of a covariate lies above a bound (the median, the third quartile), predicted by "
        "a model that was fitted to groups below it only, and by scores without any fit.\n"
    )
    print_beyond(rows)
