"""Is what is uncertain of fine-tuning one number per target? Regression on a probe against one measured network."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy.special import expit
from scipy.stats import rankdata

from groundtruth.curves import DRAWS, Estimate, over_targets
from groundtruth.maps import print_table
from groundtruth.v2.page.measured import Tables, logit
from groundtruth.v2.page.noise import NOTHING, ranged, within
from groundtruth.v2.page.published import ATTENTIVE, LAST
from groundtruth.v2.page.ways import is_tuned

GROUP = ["target", "size"]
LEAST_TARGETS, LEAST_NETWORKS = 3, 2
RANKED = 4
"""Networks on one target, from which their order is looked at."""
REGRESSION, QUOTED, SHIFTED = "regression on the probe", "one measured network, quoted", "regression, shifted by it"


@dataclass(frozen=True)
class Table:
    """Fine-tuned networks beside a probe of each."""

    name: str
    cells: pd.DataFrame
    """target, size, source, accuracy, probe, draws, tested; a row each network on a target with so many images."""
    noise: float
    """The standard deviation of one draw of the accuracy, in points; NaN if unknown."""


def tables_of(tables: Tables, published: Mapping[str, pd.DataFrame]) -> list[Table]:
    """Return all tables that have fine-tuned networks, or what stands for them, beside a probe."""
    v2 = tables.trained
    shallow = ((v2["protocol"] == "defrost") & (v2["share"] <= 0.5)) | (
        (v2["protocol"] == "finetune") & (v2["share"] >= 0.75)
    )
    found = [
        _measured("v1, small: finetune", tables.small[is_tuned(tables.small)], tables.small),
        _measured("v1, real: finetune", tables.real[is_tuned(tables.real)], tables.real),
        _measured("v2: all trained", v2[is_tuned(v2)], tables.heads),
        _measured("v2: up to half frozen, or ¾ kept", v2[shallow], tables.heads),
    ]
    outcomes = {"finetune": "truncate", ATTENTIVE: LAST}
    for name, table in published.items():
        for outcome, probe in outcomes.items():
            if {outcome, probe} <= set(table["protocol"]):
                found.append(_published(f"{name}: {outcome}", table, outcome, probe))
    return found


def _measured(name: str, runs: pd.DataFrame, heads: pd.DataFrame) -> Table:
    key = [*GROUP, "source"]
    last = heads[(heads["protocol"] == "truncate") & (heads["depth"] == heads["depths"])]
    probe = last.groupby(key)["accuracy"].mean().rename("probe")
    cells = runs.groupby(key).agg(accuracy=("accuracy", "mean"), draws=("seed", "nunique"), tested=("tested", "first"))
    noise = within(runs.set_index([*key, "protocol", "depth", "seed"])["accuracy"]) if len(runs) else math.nan
    return Table(name, cells.join(probe, how="inner").reset_index(), 100 * math.sqrt(noise))


def _published(name: str, table: pd.DataFrame, outcome: str, probe: str) -> Table:
    wide = table.pivot_table(index=[*GROUP, "source"], columns="protocol", values="accuracy").dropna()
    tested = float(table["tested"].iloc[0])
    cells = wide[[outcome, probe]].set_axis(["accuracy", "probe"], axis=1).reset_index().assign(draws=0, tested=tested)
    return Table(name, cells, math.nan)


def compared(cells: pd.DataFrame) -> pd.DataFrame:
    """Return groups of two networks or more, with logits."""
    several = cells.groupby(GROUP)["source"].transform("nunique") >= LEAST_NETWORKS
    cells = cells[several].reset_index(drop=True)
    return cells.assign(y=logit(cells["accuracy"], cells["tested"]), x=logit(cells["probe"], cells["tested"]))


def predicted(cells: pd.DataFrame) -> pd.Series:
    """Return the logit that a regression on the probe and ln(images) predicts, fitted to the other targets."""
    columns = [np.ones(len(cells)), cells["x"].to_numpy()]
    if len(cells["size"].unique()) > 1:
        columns.append(np.log(cells["size"].to_numpy(float)))
    design, found = np.column_stack(columns), pd.Series(np.nan, cells.index)
    for target in cells["target"].unique():
        own = (cells["target"] == target).to_numpy()
        weights = np.linalg.lstsq(design[~own], cells["y"].to_numpy()[~own], rcond=None)[0]
        found[own] = design[own] @ weights
    return found


def errors(cells: pd.DataFrame) -> pd.DataFrame:
    """Return squared errors in points² of each way to foretell a network, mean over which other one was measured.

    A row each network on a target with so many images, indexed by target.
    """
    cells = compared(cells)
    cells = cells.assign(predicted=predicted(cells))
    rows = []
    for _, own in cells.groupby(GROUP):
        for i, row in enumerate(own.itertuples()):
            others = own.drop(index=own.index[i])
            shifted = expit(row.predicted + others["y"] - others["predicted"])
            rows.append({
                "target": row.target, REGRESSION: (expit(row.predicted) - row.accuracy) ** 2,
                QUOTED: float(((others["accuracy"] - row.accuracy) ** 2).mean()),
                SHIFTED: float(((shifted - row.accuracy) ** 2).mean()),
            })  # fmt: skip
    return 1e4 * pd.DataFrame(rows, columns=["target", REGRESSION, QUOTED, SHIFTED]).set_index("target")


def root_mean(squares: pd.Series) -> Estimate:
    """Return the root of the mean over targets' mean squares, with its bootstrap over targets."""
    means = over_targets(squares)
    return Estimate(*(math.sqrt(each) if not math.isnan(each) else math.nan for each in means))


def ratio(squares: pd.DataFrame, way: str) -> Estimate:
    """Return the root mean square error of a way over that of the regression; bootstrap over targets."""
    means = squares.groupby(level="target").mean()[[way, REGRESSION]].to_numpy()
    if len(means) < 2:
        return Estimate(math.nan, math.nan, math.nan)
    drawn = means[np.random.default_rng(0).integers(0, len(means), (DRAWS, len(means)))].mean(1)
    low, high = np.quantile(np.sqrt(drawn[:, 0] / drawn[:, 1]), (0.025, 0.975))
    whole = means.mean(0)
    return Estimate(float(np.sqrt(whole[0] / whole[1])), float(low), float(high))


def spread(cells: pd.DataFrame) -> tuple[float, float]:
    """Return the standard deviation of the regression's errors between groups and within them, in logits."""
    cells = compared(cells)
    left = cells["y"] - predicted(cells)
    groups = left.groupby([cells[name] for name in GROUP])
    sizes = groups.size()
    freedom = float((sizes - 1).sum())
    inside = float(((left - groups.transform("mean")) ** 2).sum() / freedom)
    between = float((groups.mean() ** 2).mean()) - inside * float((1 / sizes).mean())
    return math.sqrt(max(0.0, between)), math.sqrt(inside)


def order(cells: pd.DataFrame) -> Estimate:
    """Return the rank correlation of probe and accuracy over networks, mean over targets; of four networks or more."""
    found = [(key, _spearman(own["probe"], own["accuracy"])) for key, own in _ranked(cells)]
    if not found:
        return Estimate(math.nan, math.nan, math.nan)
    return over_targets(pd.Series([value for _, value in found], pd.Index([key[0] for key, _ in found], name="target")))


def _ranked(cells: pd.DataFrame) -> Iterator[tuple[tuple[str, int], pd.DataFrame]]:
    for key, own in cells.groupby(GROUP):
        if len(own) >= RANKED and min(len(own[name].unique()) for name in ("probe", "accuracy")) > 1:
            yield key, own


def _spearman(x: pd.Series, y: pd.Series) -> float:
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def lost(cells: pd.DataFrame) -> dict[str, float]:
    """Return the points lost by choosing the network by its probe, by what was best elsewhere, and at random."""
    by_probe, elsewhere, random = [], [], []
    for (target, size), own in _ranked(cells):
        accuracy = own.set_index("source")["accuracy"]
        others = cells[(cells["target"] != target) & (cells["size"] == size) & cells["source"].isin(accuracy.index)]
        relative = others["accuracy"] - others.groupby("target")["accuracy"].transform("mean")
        usual = relative.groupby(others["source"]).mean()
        best = accuracy.max()
        by_probe.append(best - own.loc[own["probe"] == own["probe"].max(), "accuracy"].mean())
        elsewhere.append(best - accuracy[usual.idxmax()] if len(usual) else math.nan)
        random.append(best - accuracy.mean())
    if not random:
        return {}
    means = {"by the probe": by_probe, "best on other targets": elsewhere, "at random": random}
    return {name: 100 * float(pd.Series(each, dtype=float).mean()) for name, each in means.items()}


def usable(table: Table) -> bool:
    """Return whether a table has three targets, each with two networks."""
    return len(table.cells) > 0 and compared(table.cells)["target"].nunique() >= LEAST_TARGETS


def report(found: Sequence[Table]) -> dict[str, Figure]:
    """Print whether one number per target is what matters, and return the picture."""
    print("## One number per target?\n")
    print(
        "Accuracy of a fine-tuned network on a target that nothing is known of, foretold in three ways: by a "
        "regression of logits on the linear head at the last layer (the probe) and ln(images), fitted to all other "
        "targets; by quoting one other network that was fine-tuned there; by the regression shifted by that one's "
        "error. Root mean square error in points [95 % bootstrap over targets], mean over which network was measured. "
        "Where one number per target is what is uncertain, the regression's errors differ between targets and not "
        "within them. Of the "
        "ViTs, which no one fine-tuned, an attentive head on all blocks stands for it.\n"
    )
    known = [table for table in found if usable(table)]
    rows = {}
    for table in found:
        if table not in known:
            networks = table.cells.groupby(GROUP)["source"].nunique() if len(table.cells) else pd.Series(dtype=int)
            print(f"- {table.name}: not measured yet (cells: {len(table.cells)}; targets and numbers of "
                  f"images with two networks: {int((networks > 1).sum())}, where {LEAST_TARGETS} targets are "
                  "needed).")  # fmt: skip
            continue
        squares = errors(table.cells)
        between, inside = spread(table.cells)
        rows[table.name] = {
            **{way: root_mean(squares[way]).text(plus=False) for way in squares},
            "quoted / regression": ratio(squares, QUOTED).text(2, plus=False),
            "shifted / regression": ratio(squares, SHIFTED).text(2, plus=False),
            "sd of errors between targets, logits": f"{between:.2f}", "within": f"{inside:.2f}",
            "noise": _noise(table, squares), "what it rests on": _rests(table.cells),
        }  # fmt: skip
    print()
    if not rows:
        print(f"{NOTHING}\n")
        return {}
    print_table(pd.DataFrame(rows).T.rename_axis("table"))
    for table in known:
        print(f"- {verdict(table)}")
    print("\nWhether the probe orders networks on one target (four or more, without published noise or with it):\n")
    ranked = {
        table.name: {"rank correlation of probe and accuracy": order(table.cells).text(2)}
        | {f"points lost, {name}": f"{value:.1f}" for name, value in lost(table.cells).items()}
        | {"cells": str(sum(1 for _ in _ranked(table.cells)))}
        for table in known if not math.isnan(order(table.cells).mean)
    }  # fmt: skip
    print_table(pd.DataFrame(ranked).T.rename_axis("table").replace("nan", "–")) if ranked else print(f"{NOTHING}\n")
    return {"one-number": figure(known)}


def _rests(cells: pd.DataFrame) -> str:
    cells = compared(cells)
    draws = cells["draws"]
    drawn = f"{ranged(draws)} draw{'s' * int(draws.max() > 1)} each" if draws.min() else "published means"
    return f"{len(cells)} cells, {cells['target'].nunique()} targets, {cells['source'].nunique()} networks, {drawn}"


def _noise(table: Table, squares: pd.DataFrame) -> str:
    """Return the share of the shifted regression's squared error that noise of the measured draws makes."""
    if math.isnan(table.noise):
        return "not known"
    # Two cells of noise: the one that is foretold, and the one that was measured.
    made = 2 * table.noise**2 / table.cells["draws"].mean()
    return f"{min(1.0, made / root_mean(squares[SHIFTED]).mean ** 2):.0%} of the shifted"


def answer(table: Table) -> tuple[str, Estimate, int]:
    """Return the better of the two ways that measure a network, its error over the regression's, and the answer.

    1: one number is most of it; -1: the regression is better than either; 0: not decided.
    """
    squares = errors(table.cells)
    ratios = {way: ratio(squares, way) for way in (QUOTED, SHIFTED)}
    way = min(ratios, key=lambda name: ratios[name].mean)
    return way, ratios[way], int(ratios[way].high < 1) - int(ratios[way].low > 1)


def verdict(table: Table) -> str:
    """Answer for one table, in a sentence."""
    way, best, sign = answer(table)
    between, inside = spread(table.cells)
    told = {1: "yes", -1: "no", 0: "not decided"}[sign]
    return (
        f"{table.name}: {told}. {way[0].upper() + way[1:]}, the better of the two in hindsight, has "
        f"{best.text(2, plus=False)} times the error of the regression; of the variance of the regression's errors "
        f"{between**2 / (between**2 + inside**2):.0%} lies between targets (and numbers of images)."
    )


def figure(known: Sequence[Table]) -> Figure:
    """Draw the errors of the three ways for each table."""
    drawing = Figure(figsize=(7.4, 0.9 + 0.62 * len(known)), layout="constrained")
    ax = drawing.subplots()
    palette, marks = sns.color_palette("colorblind"), "osD"
    for i, table in enumerate(known):
        squares = errors(table.cells)
        for j, way in enumerate((REGRESSION, QUOTED, SHIFTED)):
            each, place = root_mean(squares[way]), i + 0.22 * (j - 1)
            ax.plot(each.mean, place, marks[j], color=palette[j], label=way if i == 0 else None)
            ax.hlines(place, each.low, each.high, color=palette[j], linewidth=1.2)
    ax.set_yticks(range(len(known)), [f"{table.name}\n{_rests(table.cells)}" for table in known], fontsize="x-small")
    ax.invert_yaxis()
    ax.set_xlim(left=0)
    ax.set_xlabel("root mean square error in points (bars: 95 % over targets)")
    ax.legend(fontsize="x-small", frameon=False, loc="lower right")
    ax.grid(axis="x", color="0.9", linewidth=0.6)
    sns.despine(ax=ax)
    return drawing
