"""How much source, cut and protocol matter: the variance of regret, and what a random choice of one of them loses."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from groundtruth.curves import Estimate, over_targets, shown
from groundtruth.depths_report import components
from groundtruth.maps import print_table
from groundtruth.real_cuts import SHARES, all_curves
from groundtruth.v2.page.cuts import by_share
from groundtruth.v2.page.measured import CELL, HEADS, TESTED, TESTED_V1, Tables
from groundtruth.v2.page.mixed import Fit, Term, fit
from groundtruth.v2.page.noise import NOTHING, counted, halves, ranged, within

FACTORS = ("source", "cut", "head")
UPPER = SHARES // 2
"""The first share of the upper half of the depth."""
LEAST_RUNS = 20
"""Trained runs in groups of a target and a size, from which protocols that train are told apart."""
KEPT = (0.0, 0.25, 0.5, 0.75, 0.875, 1.0)


@dataclass(frozen=True)
class Cube:
    """All heads at all shares of all sources on one target with one number of images."""

    accuracy: np.ndarray
    """(draws, sources, shares, heads), in points."""


def cubes(heads: pd.DataFrame, first: int = 1) -> dict[tuple[str, int], Cube]:
    """Return those (target, size) that have two draws and three sources without gaps; shares from `first` on."""
    found = all_curves(heads.assign(samples_per_class=heads["size"]))
    grid = by_share(found)
    if grid.empty:
        return {}
    grid = 100 * grid.loc[:, first:]
    kept = {}
    for (target, size), each in grid.groupby(level=["target", "samples_per_class"]):
        table = each.droplevel(["target", "samples_per_class"])
        table = (
            table.rename_axis(columns="share").reset_index().pivot_table(index="source", columns=["protocol", "seed"])
        )
        table = table.dropna()
        draws = sorted(table.columns.unique("seed"))
        known = [head for head in HEADS if head in table.columns.unique("protocol")]
        if len(table) < 3 or len(draws) < 2 or len(known) < len(HEADS):
            continue
        parts = [[table.xs((head, draw), axis=1, level=("protocol", "seed")) for head in known] for draw in draws]
        values = np.array([[part.to_numpy() for part in row] for row in parts])  # draws, heads, sources, shares
        kept[str(target), int(size)] = Cube(np.moveaxis(values, 1, 3))
    return kept


def shares(found: Mapping[tuple[str, int], Cube]) -> pd.Series:
    """Return the share of each factor and interaction in the variance within targets, noise of draws taken off."""
    totals: dict[str, float] = {}
    for cube in found.values():
        for name, amount in components(cube.accuracy).items():
            said = name.replace("depth", "cut").replace("protocol", "head")
            # As much as a cell's share, so that a target with more sources does not count more.
            totals[said] = totals.get(said, 0.0) + amount / cube.accuracy[0].size
    values = pd.Series(totals)
    return values / values.sum()


def noise_share(found: Mapping[tuple[str, int], Cube]) -> float:
    """Return the variance of one draw, over that of all cells of a target and size with it."""
    noise = np.mean([cube.accuracy.var(0, ddof=1).mean() for cube in found.values()])
    return float(noise / (noise + np.mean([cube.accuracy.mean(0).var() for cube in found.values()])))


def random_choices(found: Mapping[tuple[str, int], Cube]) -> dict[str, Estimate]:
    """Return what is lost where one factor is random and the others as well chosen for it as half of the draws can."""
    lost: dict[str, dict[tuple[str, int], float]] = {name: {} for name in FACTORS}
    for key, cube in found.items():
        for axis, name in enumerate(FACTORS):
            lost[name][key] = float(np.mean([_lost(cube.accuracy, half, axis) for half in halves(len(cube.accuracy))]))
    return {name: over_targets(pd.Series(each).rename_axis(["target", "size"])) for name, each in lost.items()}


def _lost(accuracy: np.ndarray, half: np.ndarray, axis: int) -> float:
    chosen, judged = (np.moveaxis(accuracy[part].mean(0), axis, 0) for part in (half, ~half))
    levels = len(chosen)
    chosen, judged = chosen.reshape(levels, -1), judged.reshape(levels, -1)
    reached = judged[np.arange(levels), chosen.argmax(1)]
    return float(judged.ravel()[chosen.argmax()] - reached.mean())


def report(tables: Tables) -> dict[str, Figure]:
    """Print how much each choice matters, and return the picture."""
    print("## Source, depth and protocol\n")
    print("### Of frozen features\n")
    maps = {
        "v2, all cuts": (tables.heads, 1, TESTED), "v2, upper half": (tables.heads, UPPER, TESTED),
        "v1, all cuts": (tables.real, 1, TESTED_V1), "v1, upper half": (tables.real, UPPER, TESTED_V1),
    }  # fmt: skip
    found = {name: cubes(runs, first) for name, (runs, first, _) in maps.items()}
    known = {name: each for name, each in found.items() if each}
    if not any(name.startswith("v2") for name in known):
        print(f"{NOTHING} No target has three networks at every stage with two draws.\n")
    print(
        "Share of the variance of regret (of accuracy within a target and number of images) that source, cut and head "
        "(linear or top-tuning) account for, and their interactions; that of the mean over draws, noise taken off. "
        "*Noise of one draw* is what it adds to all of that. Cuts at 24 shares of the depth.\n"
    )
    parts = pd.DataFrame({name: shares(each) for name, each in known.items()})
    parts.loc["noise of one draw"] = {name: noise_share(each) for name, each in known.items()}
    print_table(parts.rename_axis("part"), 2)
    rows = {}
    for name, each in known.items():
        _, _, tested = maps[name]
        lost = random_choices(each)
        images = [tested[target] for target, _ in each]
        rows[name] = {factor: lost[factor].text(plus=False) for factor in FACTORS} | {
            "what it rests on": f"{len(each)} cells of a target and a size, {len({t for t, _ in each})} targets, "
            f"{ranged(len(cube.accuracy) for cube in each.values())} draws, {ranged(images)} test images"
        }  # fmt: skip
    print(
        "Expected points lost where one is chosen at random and the other two as well as can be for it: chosen with "
        "one half of the draws, judged with the other; mean over targets [95 % bootstrap over targets].\n"
    )
    print_table(pd.DataFrame(rows).T.rename_axis("at random"))
    print("### With what is trained\n")
    _print_trained(tables)
    labels = {name: f"{name}\n{len(each)} cells, {len({t for t, _ in each})} targets" for name, each in known.items()}
    drawn = parts.drop(index="noise of one draw").rename(columns=labels)
    return {"variance": figure(drawn)} if len(known) else {}


def averaged(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each cell in points, its draws, and the variance of that mean that draws of its kind have."""
    cells = runs.groupby([*CELL, "size", "share"]).agg(accuracy=("accuracy", "mean"), draws=("seed", "nunique"))
    cells = cells.reset_index()
    indexed = runs.set_index([*CELL, "seed"])["accuracy"]
    noise = {str(name): within(each) for name, each in indexed.groupby(level="protocol")}
    usual = float(np.nanmean(list(noise.values()))) if any(not math.isnan(v) for v in noise.values()) else 0.0
    own = cells["protocol"].map({name: usual if math.isnan(value) else value for name, value in noise.items()})
    return cells.assign(accuracy=100 * cells["accuracy"], noise=1e4 * own / cells["draws"])


def fitted(tables: Tables) -> tuple[Fit, pd.DataFrame] | None:
    """Fit source, protocol and share effects within groups of a target and a size to all protocols together."""
    if len(tables.trained) < LEAST_RUNS:
        return None
    groups = set(zip(tables.trained["target"], tables.trained["size"], strict=True))
    runs = tables.everything
    runs = runs[[key in groups for key in zip(runs["target"], runs["size"], strict=True)]]
    runs = runs[runs["share"].isin(KEPT) & (runs["protocol"] != "scratch")]
    runs = runs[(runs["protocol"] != "fne") | (runs["layer"] == "all")]
    trained = runs[~runs["protocol"].isin([*HEADS, "fne"])]
    if len(trained) < LEAST_RUNS or trained.groupby(["target", "size"]).ngroups < 3:
        return None
    cells = averaged(runs)
    group = cells["target"] + " " + cells["size"].astype(str)
    fixed = pd.get_dummies(group).to_numpy(float)
    names = {
        "source": group + cells["source"], "protocol": group + cells["protocol"],
        "depth in a protocol": group + cells["protocol"] + cells["share"].astype(str),
    }  # fmt: skip
    terms = [Term(name, levels.to_numpy()) for name, levels in names.items()]
    one = np.zeros(len(cells), dtype=int)
    return fit(cells["accuracy"].to_numpy(), fixed, terms, one, cells["noise"].round(3).to_numpy()), cells


def _print_trained(tables: Tables) -> None:
    found = fitted(tables)
    if found is None:
        print(
            f"{NOTHING} {len(tables.trained)} trained runs are there; {LEAST_RUNS} in three groups of a target and a "
            "number of images are needed.\n"
        )
        return
    result, cells = found
    variances = {name: float(each[0, 0]) for name, each in result.covariances.items()}
    variances["rest (interactions)"] = next(iter(result.residuals.values()))
    total = sum(variances.values())
    noise = float((cells["noise"] * cells["draws"]).groupby(cells["protocol"]).mean().mean())
    table = pd.DataFrame({
        "sd, points": {name: math.sqrt(each) for name, each in variances.items()},
        "share of the variance": {name: each / total for name, each in variances.items()},
    })  # fmt: skip
    table.loc["noise of one draw, beside that"] = [math.sqrt(noise), noise / total]
    print(
        "Cells of the design are few of each pair, so the variances are those of a mixed model by restricted maximum "
        "likelihood: accuracy (points) = level of the target and size + source + protocol + depth in the protocol, "
        "each drawn anew for each target and size, + rest; noise as draws have it. Protocols: "
        f"{', '.join(sorted(cells['protocol'].unique()))}.\n"
    )
    print_table(shown(table.rename_axis("part")), 2)
    values = tables.trained.set_index([*CELL, "seed"])["accuracy"]
    print(f"Rests on {len(cells)} cells, of them trained: {counted(values, TESTED)}.\n")


def figure(parts: pd.DataFrame) -> Figure:
    """Draw the shares as bars, one for each map."""
    drawing, ax = plt.subplots(figsize=(7.8, 2.6), layout="constrained")
    left = np.zeros(parts.shape[1])
    hatches = ("", "", "", "//", "\\\\", "xx", "..")
    for (name, row), colour, hatch in zip(
        parts.clip(lower=0).iterrows(), sns.color_palette("colorblind", len(parts)), hatches, strict=True
    ):
        ax.barh(range(len(row)), row, left=left, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5,
                label=str(name))  # fmt: skip
        left = left + row.to_numpy()
    ax.set_yticks(range(parts.shape[1]), parts.columns, fontsize="small")
    ax.invert_yaxis()
    ax.set(xlabel="share of the variance of regret, frozen features", xlim=(0, 1.01))
    ax.legend(fontsize=8, frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    sns.despine(drawing)
    return drawing
