"""Where to cut frozen features: by images a class, network and target, against fixed rules."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from groundtruth.curves import CELL, Estimate, best_cuts, over_targets, shown
from groundtruth.maps import print_table
from groundtruth.real_cuts import SHARES, all_curves
from groundtruth.v2.page.measured import TESTED
from groundtruth.v2.page.noise import NOTHING, basis, brief, expected_regret
from transferscope.report.plots.drawing import size_styles

RULES = {"last stage": SHARES, "5/6 of the depth": 5 * SHARES // 6, "2/3 of the depth": 2 * SHARES // 3}
ELSEWHERE = "share best on the other targets"
NAMES = {"truncate": "linear head", "toptuning": "top-tuning"}


def cut_at(stages: int, share: int) -> int:
    """Return the stage that is nearest to a share of the depth, in parts of `SHARES`."""
    return max(1, math.floor(share * stages / SHARES + 0.5))


def by_share(found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return all curves (`CELL`, seed) at shares 1..`SHARES` of the depth, each at the nearest cut."""
    grid = range(1, SHARES + 1)
    parts = [each[[cut_at(each.shape[1], share) for share in grid]].set_axis(grid, axis=1) for each in found.values()]
    return pd.concat(parts) if parts else pd.DataFrame()


def best_shares(found: Mapping[str, pd.DataFrame], *more: str) -> pd.Series:
    """Return the share of the depth of the best cut of each cell (`CELL`), or of each draw of it (`more`)."""
    parts = [best_cuts(each, [*CELL, *more]) / each.shape[1] for each in found.values()]
    return pd.concat(parts) if parts else pd.Series(dtype=float)


def regrets(found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the expected regret of each rule in points, for each cell (`CELL`) with two draws or more."""
    grid = by_share(found)
    if grid.empty:
        return pd.DataFrame()
    lost = 100 * pd.DataFrame({key: expected_regret(each) for key, each in grid.groupby(level=CELL)}).T.dropna()
    lost.index.names = CELL
    table = pd.DataFrame({name: lost[share] for name, share in RULES.items()})
    chosen = {}
    for key, own in lost.groupby(level=["protocol", "samples_per_class", "target"]):
        protocol, size, target = key
        others = lost.xs((protocol, size), level=("protocol", "samples_per_class")).drop(index=target, level="target")
        if len(others):
            share = others.groupby(level="target").mean().mean().idxmin()
            chosen.update(own[share].to_dict())
    table[ELSEWHERE] = pd.Series(chosen, dtype=float).reindex(table.index)
    return table


def ahead(found: Mapping[str, pd.DataFrame], rule: str, other: str = "last stage") -> pd.Series:
    """Return the points that one rule is ahead of another, for each cell and draw."""
    grid = by_share(found)
    return 100 * (grid[RULES[rule]] - grid[RULES[other]]) if len(grid) else pd.Series(dtype=float)


def report(heads: pd.DataFrame) -> dict[str, Figure]:
    """Print where to cut frozen features, and return the pictures."""
    print("## The best cut of frozen features\n")
    found = all_curves(heads.assign(samples_per_class=heads["size"]))
    if not found:
        print(f"{NOTHING}\n")
        return {}
    where = best_shares(found)
    every = by_share(found)
    print(
        "Share of the depth of the best cut: the centre of all within one standard error of the best of the mean over "
        "draws; mean over targets [95 % bootstrap over targets]. Rests on "
        f"{basis(best_shares(found, 'seed'), TESTED, 'curves')}\n"
    )
    sizes = ["protocol", "source", "samples_per_class"]
    texts = where.groupby(level=sizes).apply(lambda each: over_targets(each).text(2, plus=False))
    print_table(shown(wide(texts, "samples_per_class")))
    for protocol, each in where.groupby(level="protocol"):
        mean = over_targets(each).text(2, plus=False)
        print(f"- {NAMES[str(protocol)]}: {mean} of the depth over all; {moved(each)}.")
    print("\nThe same by target, mean over networks (no interval: one target):\n")
    table = wide(where.groupby(level=["protocol", "target", "samples_per_class"]).mean(), "samples_per_class")
    print_table(shown(table.map(lambda value: "" if math.isnan(value) else f"{value:.2f}")))
    _print_regrets(found)
    spread = every.max(axis=1) - every.min(axis=1)
    print(f"Between the worst and the best cut lie {over_targets(100 * spread).text(plus=False)} points.\n")
    return {"cuts": curves_figure(found), "best-cut": where_figure(where)}


def wide(values: pd.Series, columns: str) -> pd.DataFrame:
    """Return a table with one level as columns."""
    index = [name for name in values.index.names if name != columns]
    table = values.rename("value").reset_index()
    return table.pivot_table(index=index, columns=columns, values="value", aggfunc="first")


def moved(where: pd.Series) -> str:
    """Say whether the best cut moves as images grow, on the targets that have the fewest and the most."""
    change = few_to_many(where)
    if math.isnan(change.mean):
        return "whether it moves with the images is not measured yet"
    way = {1: "it moves toward the output", -1: "it moves toward the input", 0: "no move can be told"}[change.sign]
    return f"from the fewest to the most images a class it changes by {change.text(2)}: {way}"


def few_to_many(where: pd.Series) -> Estimate:
    """Return how the best share changes from the smallest to the largest number of images, over targets."""
    sizes = sorted(where.index.unique("samples_per_class"))
    few, many = (where.xs(size, level="samples_per_class") for size in (sizes[0], sizes[-1]))
    change = (many - few).dropna() if len(sizes) > 1 else few[:0]
    return over_targets(change)


def _print_regrets(found: Mapping[str, pd.DataFrame]) -> None:
    lost = regrets(found)
    print(
        "Expected regret of rules, in points: the best of all cuts is chosen with one half of the draws, and it and "
        "the rule are judged with the other; mean over targets [95 % bootstrap over targets]. Noise is the share of "
        "the variance of (5/6 − last stage) between cells that is noise of the draws.\n"
    )
    if lost.empty:
        print("Not measured yet: no cell has two draws.\n")
        return
    gap = ahead(found, "5/6 of the depth")
    rows = {}
    for (protocol, size), each in lost.groupby(level=["protocol", "samples_per_class"]):
        own = gap.xs((protocol, size), level=("protocol", "samples_per_class"), drop_level=False)
        rows[NAMES[str(protocol)], size] = {
            **{name: over_targets(each[name]).text(plus=False) for name in lost.columns},
            "what it rests on": brief(own, TESTED),
        }  # fmt: skip
    table = pd.DataFrame(rows).T.rename_axis(["head", "images a class"])
    print_table(table)
    print("By network, 5/6 of the depth less the last stage, in points of a linear head and of top-tuning:\n")
    rows = {}
    for source, each in gap.groupby(level="source"):
        texts = {NAMES[str(p)]: over_targets(own).text() for p, own in each.groupby(level="protocol")}
        rows[source] = {**texts, "what it rests on": brief(each, TESTED)}
    print_table(shown(pd.DataFrame(rows).T.rename_axis("network")))


def curves_figure(found: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw accuracy over the share of the depth, a panel for each network, a line for each number of images."""
    columns = min(3, len(found))
    lines = -(-len(found) // columns)
    figure = Figure(figsize=(1.2 + 2.3 * columns, 1.0 + 1.9 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    sizes = sorted({size for each in found.values() for size in each.index.unique("samples_per_class")})
    styles = size_styles(pd.DataFrame({"samples_per_class": sizes}))
    for ax, (source, each) in zip(axes, found.items(), strict=False):
        means = each.groupby(level=["protocol", "samples_per_class", "target"]).mean()
        means = means.groupby(level=["protocol", "samples_per_class"]).mean()
        for protocol, line in (("truncate", "-"), ("toptuning", ":")):
            for size in sizes:
                if (protocol, size) in means.index:
                    row = means.loc[(protocol, size)]
                    share, top = row.index.to_numpy() / len(row), int(row.to_numpy().argmax())
                    style = styles[size] | {"marker": None, "linestyle": line}
                    ax.plot(share, row, label=f"{size}" if protocol == "truncate" else None, **style)
                    ax.plot(share[top], row.iloc[top], **(styles[size] | {"markersize": 5}), linestyle="none")
        ax.axvline(5 / 6, color="0.6", linewidth=0.8, linestyle="--", zorder=0)
        targets, count = each.index.unique("target"), each.groupby(level=CELL).ngroups
        ax.set_title(f"{source}\n{len(targets)} targets, {count} curves", fontsize="small")
        ax.grid(axis="y", color="0.9", linewidth=0.6)
        sns.despine(ax=ax)
    for ax in axes[len(found) :]:
        ax.set_axis_off()
    figure.supxlabel("share of the depth that is kept; dashed: 5/6; marked: the highest", fontsize="medium")
    figure.supylabel("accuracy, mean over targets; dotted: top-tuning", fontsize="medium")
    known = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    labels = [str(size) for size in sizes if str(size) in known]
    figure.legend([known[label] for label in labels], labels,
                  loc="outside right upper", title="images\na class", fontsize="small", title_fontsize="small",
                  frameon=False)  # fmt: skip
    return figure


def where_figure(where: pd.Series) -> Figure:
    """Draw the best share for each network and target, mean over sizes."""
    table = wide(where.xs("truncate", level="protocol").groupby(level=["source", "target"]).mean(), "target")
    figure = Figure(figsize=(2.8 + 0.62 * table.shape[1], 1.5 + 0.36 * table.shape[0]), layout="constrained")
    ax = figure.subplots()
    ax.set_facecolor("0.9")
    sns.heatmap(
        table, ax=ax, annot=True, fmt=".2f", cmap="viridis", vmin=min(0.4, np.nanmin(table.to_numpy())), vmax=1,
        linewidths=1, annot_kws={"fontsize": 8}, cbar_kws={"label": "share of the depth of the best cut"},
    )  # fmt: skip
    ax.set(xlabel="", ylabel="")
    cells = int(where.index.get_level_values("protocol").isin(["truncate"]).sum())
    ax.set_title(f"linear head, mean over images a class, {cells} cells\ngrey: not measured yet", fontsize="small")
    ax.tick_params(length=0)
    ax.tick_params(axis="x", rotation=40)
    for label in ax.get_xticklabels():
        label.set_ha("right")
    return figure
