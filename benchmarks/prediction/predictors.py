"""What else the prediction could be made from.

    python benchmarks/predictors.py > benchmarks/results/predictors.md

fits variants of the model of benchmarks/calibrate.py, its variance components as they are, without any run of the
target that they are judged on, and prints what each loses against the best measured choice, pilots and the scratch
network's own evidence left out.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from groundtruth.maps import print_table

from prediction import reml, truth
from prediction.calibrate import fitted, prepared
from prediction.figures import SELECTOR
from prediction.judging import QUESTIONS, judge, regret
from prediction.terms import CUT, RETRAINED, TERMS
from transferscope.prediction.calibration import Term, design
from transferscope.prediction.covariates import SCRATCH
from transferscope.results.labelled import SIMILARITIES
from transferscope.runtime.links import logit

MORE = (*(f"{name}_to_scratch" for name in SIMILARITIES), "hscore", "nleep", "transrate", "gbc", "parc", "sfda", "leep")
OF_SMALL = {
    "from_source": "− information imbalance, source to scratch",
    "from_scratch": "− information imbalance, scratch to source",
    "suffix_error": "− error of the suffix kernel",
    "suffix_extrapolated": "the same, extrapolated",
    "suffix_accuracy": "logit of the suffix kernel's accuracy",
    "whole_accuracy": "logit of the whole network's tangent kernel's accuracy",
}
"""Measured on the small networks alone, and what is made of it."""


def foretold(rows: pd.DataFrame, terms: Sequence[Term], components: reml.Components) -> pd.Series:
    """Return the logits predicted for each target without its runs."""
    fit = fitted(rows, terms=terms, components=components, steps=0)
    found = pd.Series(np.nan, rows.index)
    for target in rows["target"].unique():
        own = (rows["target"] == target).to_numpy()
        found[own] = design(terms, rows[own]) @ fit.coefficients(str(target))[0]
    return found


def regrets(rows: pd.DataFrame, logits: pd.Series) -> dict[str, float]:
    """Return the mean regret over targets: of the depth for each protocol, of source, protocol and all jointly."""
    rows = rows.assign(**{SELECTOR: logits})
    rows = rows[(rows["ahead"] == 0) & rows["size"].notna()]
    judged = {question: judge(rows, question, [SELECTOR]) for question in QUESTIONS}
    depth = judged.pop("depth")
    found = {f"depth, {name}": regret(depth[depth["protocol"] == name], ["name"]).mean().item() for name in CUT}
    return found | {question: regret(own, ["name"]).mean().item() for question, own in judged.items()}


def of_cuts(rows: pd.DataFrame, values: pd.Series) -> pd.Series:
    """Return the values, 0 for training from scratch and where there are none."""
    return values.where(rows["protocol"] != SCRATCH, 0.0).fillna(0.0)


def added(*names: str) -> tuple[Term, ...]:
    return (*TERMS, *(Term((base,), (name,)) for base in CUT for name in names))


def without(*names: str, bases: Sequence[str] = (*CUT, SCRATCH)) -> tuple[Term, ...]:
    return tuple(term for term in TERMS if not (set(names) & set(term.factors) and set(term.bases) & set(bases)))


def variants(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, tuple[Term, ...]]]:
    """Yield a name, the rows and the terms of each."""
    yield "**as it is**", rows, TERMS
    yield "without LogME", rows, without("target_gain", "source_gain", "gain")
    yield "without alignment", rows, without("alignment")
    yield "without leave-one-out heads", rows, without("target_head", "source_head", "head", "excess")
    yield "without the effective rank", rows, without("rank")
    yield "without the scratch network", rows, without("scratch", "excess")
    yield "without the number of stages", rows, without("stages")
    yield "heads alone at which depth, where they are trained", rows, without("gain", "alignment", bases=RETRAINED)
    for name in MORE:
        yield f"with {name}", rows.assign(extra=of_cuts(rows, rows[name])), added("extra")


def of_small(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, tuple[Term, ...]]]:
    """Yield the same for what was measured on the small networks alone."""
    folder = truth.TABLES / "small"
    keys = [*truth.GROUP[1:], "source", "depth"]
    rows = rows[rows["map"] == "small"]
    kernels = pd.read_csv(folder / "small-kernels.csv").replace({"source": {SCRATCH: ""}})
    kernels = kernels.drop(columns=["seed", "layer", "samples", "probe"])
    rows = rows.merge(kernels, how="left", on=keys, validate="many_to_one")
    rows = rows.merge(pd.read_csv(folder / "small-imbalance.csv"), how="left", on=keys, validate="many_to_one")
    yield "**as it is**", rows, TERMS
    for name, title in OF_SMALL.items():
        extra = logit(rows[name], rows["probe"]) if name.endswith("_accuracy") else -rows[name]
        yield f"with {title}", rows.assign(extra=of_cuts(rows, extra)), added("extra")


def print_variants(found: Iterator[tuple[str, pd.DataFrame, tuple[Term, ...]]], components: reml.Components) -> None:
    table = pd.DataFrame({name: regrets(rows, foretold(rows, terms, components)) for name, rows, terms in found}).T
    table.index.name = "prediction"
    print_table(table)


def print_alone(rows: pd.DataFrame) -> None:
    """Print what each of the measures of the small networks loses that is used alone."""
    found = {}
    for name, more, _ in of_small(rows):
        if "extra" in more:
            scored = more.assign(**{SELECTOR: more["extra"].where(more["protocol"] != SCRATCH)})
            depth, source = judge(scored, "depth", [SELECTOR]), judge(scored, "source", [SELECTOR])
            by = {f"depth, {p}": regret(depth[depth["protocol"] == p], ["name"]).mean().item() for p in CUT}
            found[name.removeprefix("with ")] = by | {"source": regret(source, ["name"]).mean().item()}
    table = pd.DataFrame(found).T
    table.index.name = "chosen by"
    print_table(table)


def main() -> None:
    rows = prepared()
    rows = rows[rows["ahead"] == 0].reset_index(drop=True)
    seen = pd.concat(truth.evidence(name).assign(map=name) for name in truth.JUDGED)
    rows = rows.merge(seen[[*truth.GROUP, "source", "depth", *MORE]], how="left", on=[*truth.GROUP, "source", "depth"])
    cells = truth.load()
    known = cells.assign(size=truth.sizes(cells))[["map", *truth.CELL, "size"]].drop_duplicates()
    rows = rows.merge(known, how="left", on=["map", *truth.CELL])
    rows.loc[rows["reference"] == 1, "size"] = None
    components = fitted(rows).components
    print("# What the prediction is made from\n")
    print(
        "Made by `benchmarks/predictors.py`: accuracy lost against the best measured choice, means over targets, each "
        "predicted without any run of its own.\n"
    )
    print_variants(variants(rows), components)
    print("## On the small networks alone\n")
    print("Fitted to and judged on the small-network map.\n")
    print_variants(of_small(rows), components)
    print("Each of these alone, by which of two cuts it says more for:\n")
    print_alone(rows)
