"""Frozen features of the real networks: where to cut, and how much source, head and cut matter."""

import math

import numpy as np
import pandas as pd
import seaborn as sns
from curves import CELL, best_cuts, curves, listed, over_targets, shown
from maps import averaged, print_table
from matplotlib.figure import Figure

from transferscope.report.plots.drawing import size_styles

HEADS = ("truncate", "toptuning")
SHARES = 24
"""Cuts of networks of different depth are compared at so many shares of it; two thirds is one of them."""


def all_curves(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the curves of `HEADS` for each source that has any."""
    heads = runs[runs["protocol"].isin(HEADS)]
    found = {str(source): curves(each) for source, each in heads.groupby("source")}
    return {source: each for source, each in found.items() if len(each)}


def on_shares(found: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the mean curves (`CELL`) of all sources at shares 1..`SHARES` of the depth, each at the nearest cut."""
    parts = []
    for each in found.values():
        stages = each.shape[1]
        cuts = [max(1, math.floor(share * stages / SHARES + 0.5)) for share in range(1, SHARES + 1)]
        parts.append(each.groupby(level=CELL).mean()[cuts].set_axis(range(1, SHARES + 1), axis=1))
    return pd.concat(parts)


def print_cuts(runs: pd.DataFrame, found: dict[str, pd.DataFrame]) -> None:
    print("## The best cut of real networks\n")
    if not found:
        print("No network was cut at every stage.\n")
        return
    print(
        "A linear head (truncate) and top-tuning on frozen features, at every stage: the share of the depth of the "
        "best cut, which is the centre of all within one standard error of the best; mean over targets (95 % bootstrap "
        "over targets).\n"
    )
    where = pd.concat([best_cuts(each, CELL) / each.shape[1] for each in found.values()])
    by_size = ["protocol", "source", "samples_per_class"]
    print_table(shown(
        where.groupby(level=by_size).apply(lambda each: over_targets(each).text(2, plus=False)).reset_index()
        .pivot_table(index=["protocol", "source"], columns="samples_per_class", values=0, aggfunc="first")
    ))  # fmt: skip
    sizes = sorted(where.index.unique("samples_per_class"))
    for protocol, each in where.groupby(level="protocol"):
        few, many = (each.xs(size, level="samples_per_class") for size in (sizes[0], sizes[-1]))
        change = over_targets((many - few).dropna())
        if len(sizes) > 1 and not math.isnan(change.mean):
            way = {1: "it moves toward the output", -1: "it moves toward the input", 0: "no move can be told"}[
                change.sign
            ]
            print(f"- {protocol}, from {sizes[0]} to {sizes[-1]} images a class: {change.text(2)} of the depth; {way}.")
    print("\nPoints lost by always cutting at one share of the depth, against the best cut of each cell (flattered):\n")
    grid = on_shares(found)
    best = pd.concat([each.groupby(level=CELL).mean().max(axis=1) for each in found.values()])
    lost = 100 * grid.rsub(best, axis=0)
    rows, sentences = {}, []
    for protocol, each in lost.groupby(level="protocol"):
        fixed = int(each.mean().idxmin())
        choices = {"last stage": SHARES, "2/3": 2 * SHARES // 3, "best share in hindsight": fixed}
        for size, part in each.groupby(level="samples_per_class"):
            rows[protocol, size] = {name: over_targets(part[share]).text(plus=False) for name, share in choices.items()}
        saved = over_targets(each[SHARES] - each[fixed])
        sentences.append(
            f"- {protocol}: the best fixed share is {fixed / SHARES:.2f} of the depth. Against the last stage, always, "
            f"it saves {saved.text()} points."
        )
    frame = pd.DataFrame(rows).T
    frame.index.names = ["protocol", "images a class"]
    print_table(frame)
    print("\n".join(sentences))
    print_sets(runs)


def print_sets(runs: pd.DataFrame) -> None:
    """Compare the layer sets of the full-network embedding."""
    cells = averaged(runs[runs["protocol"] == "fne"]) if (runs["protocol"] == "fne").any() else None
    if cells is None or "all" not in set(cells["layer"]):
        print("- No full-network embedding was measured.\n")
        return
    table = cells.pivot_table(index=["target", "source", "samples_per_class"], columns="layer", values="accuracy")
    gained = 100 * table.drop(columns="all").sub(table["all"], axis=0)
    print("\nFull-network embedding of the upper layers alone, points against that of all layers:\n")
    rows = {
        size: {layer: over_targets(each[layer]).text() for layer in sorted(gained.columns, reverse=True)}
        for size, each in gained.groupby(level="samples_per_class")
    }
    frame = pd.DataFrame(rows).T
    frame.index.name = "images a class"
    print_table(frame)
    signs = {layer: over_targets(gained[layer]).sign for layer in gained.columns}
    worse, better = ([layer for layer in sorted(signs, reverse=True) if signs[layer] == sign] for sign in (-1, 1))
    print(f"- Over all sizes, worse than all layers: {listed(worse)}; better: {listed(better)}.\n")


def print_choices(runs: pd.DataFrame, found: dict[str, pd.DataFrame]) -> None:
    print("## Which source\n")
    grid = on_shares(found) if found else pd.DataFrame()
    sources, heads = list(found), [head for head in HEADS if len(grid) and head in grid.index.unique("protocol")]
    full = pd.MultiIndex.from_product([sources, heads])
    cubes = {}
    for key, each in grid.groupby(level=["target", "samples_per_class"]) if len(grid) else ():
        table = each.droplevel(["target", "samples_per_class"])
        if len(table) == len(full):
            cubes[key] = 100 * table.reindex(full).to_numpy().reshape(len(sources), len(heads), SHARES)
    if len(sources) < 2 or not cubes:
        print("Too few sources were measured at every stage.\n")
        return
    everything = grid.groupby(level=["target", "samples_per_class"]).ngroups
    print(
        f"{len(sources)} sources, {listed(heads)} as heads, and the cut, in {len(cubes)} cells of a target and a size "
        f"({everything - len(cubes)} left out for gaps). Points lost by choosing one of the three at random: the other "
        "two the best for what was chosen, or as they are in the best of all; and the range of that choice (best minus "
        "worst, the other two the best for each). 95 % bootstrap over targets; the best of "
        "noisy numbers is flattered.\n"
    )
    index = pd.MultiIndex.from_tuples(cubes, names=["target", "samples_per_class"])
    rows: dict[tuple[int, str], dict[str, str]] = {}
    order: dict[tuple[int, str], dict[str, float]] = {}
    for axis, choice in enumerate(("source", "head", "cut")):
        others = tuple(other for other in range(3) if other != axis)
        adapted = [cube.max(axis=others) for cube in cubes.values()]
        fixed = [
            np.moveaxis(cube, axis, 0)[(slice(None), *np.delete(np.unravel_index(cube.argmax(), cube.shape), axis))]
            for cube in cubes.values()
        ]
        measures = {
            "others best for it": [each.max() - each.mean() for each in adapted],
            "others as in the best": [each.max() - each.mean() for each in fixed],
            "range": [each.max() - each.min() for each in adapted],
        }
        for name, values in measures.items():
            for size, each in pd.Series(values, index=index).groupby(level="samples_per_class"):
                rows.setdefault((size, choice), {})[name] = over_targets(each).text(plus=False)
                order.setdefault((size, name), {})[choice] = over_targets(each).mean
    frame = pd.DataFrame(rows).T.sort_index(level=0, sort_remaining=False)
    frame.index.names = ["images a class", "choice"]
    print_table(frame)
    for (size, name), means in sorted(order.items(), key=lambda item: item[0][0]):
        if name != "range":
            ranked = sorted(means, key=lambda choice: -means[choice])
            print(f"- At {size} images a class, {name}: "
                  f"{' > '.join(f'{choice} ({means[choice]:.1f})' for choice in ranked)}.")  # fmt: skip
    print_sources(runs, sources, heads, cubes, index)


def print_sources(
    runs: pd.DataFrame,
    sources: list[str],
    heads: list[str],
    cubes: dict[tuple[str, int], np.ndarray],
    index: pd.MultiIndex,
) -> None:
    """Compare sources at the last stage and at their best cut, and with an embedding that needs no cut."""
    best = pd.DataFrame([cube.max(axis=(1, 2)) for cube in cubes.values()], index=index, columns=sources)
    print("\nMean accuracy (points) of each source at its best cut and head, and in how many cells it is the first:\n")
    table = best.groupby(level="samples_per_class").mean().T
    table.index.name = "source"
    firsts = best.idxmax(axis=1).value_counts()
    print_table(table.assign(first=[int(firsts.get(source, 0)) for source in sources]), 1)
    if "truncate" in heads:
        linear = [cube[:, heads.index("truncate")] for cube in cubes.values()]
        last = pd.Series([np.ptp(each[:, -1]) for each in linear], index=index)
        cut = pd.Series([np.ptp(each.max(axis=1)) for each in linear], index=index)
        how = {1: "farther apart", -1: "closer together", 0: "neither closer nor farther, as far as can be told"}
        print(
            f"- With a linear head, best and worst source are {over_targets(last).text(plus=False)} points apart at "
            f"the last stage and {over_targets(cut).text(plus=False)} at the best cut of each: "
            f"{how[over_targets(cut - last).sign]}."
        )
    embedded = runs[(runs["protocol"] == "fne") & (runs["layer"] == "all")]
    whole = 100 * embedded.groupby(["target", "samples_per_class", "source"])["accuracy"].mean()
    gaps = {
        (*key, source): whole[(*key, source)] - best.loc[key, source]
        for key in cubes for source in sources if (*key, source) in whole.index
    }  # fmt: skip
    if gaps:
        gap = pd.Series(list(gaps.values()), index=pd.MultiIndex.from_tuples(gaps, names=[*index.names, "source"]))
        print(
            "- Full-network embedding of all layers, which needs no cut, against the best cut and head of the same "
            f"source: {over_targets(gap).text()} points; it is ahead in {int((gap > 0).sum())} of {len(gap)} cells.\n"
        )


def depth_figure(found: dict[str, pd.DataFrame]) -> Figure:
    means = {source: each.groupby(level=["protocol", "samples_per_class"]).mean() for source, each in found.items()}
    heads = [head for head in HEADS if any(head in each.index.unique("protocol") for each in means.values())]
    sizes = pd.DataFrame({"samples_per_class": sorted({size for each in means.values() for _, size in each.index})})
    figure = Figure(figsize=(1.0 + 1.4 * max(len(means), 3), 0.8 + 1.9 * len(heads)), layout="constrained")
    axes = figure.subplots(len(heads), len(means), sharex=True, sharey=True, squeeze=False)
    for head, row in zip(heads, axes, strict=True):
        for (source, each), ax in zip(means.items(), row, strict=True):
            for size, style in size_styles(sizes).items():
                if (head, size) in each.index:
                    line = each.loc[(head, size)]
                    share, top = line.index.to_numpy() / len(line), int(line.to_numpy().argmax())
                    ax.plot(share, line, **(style | {"marker": None}), label=str(size))
                    ax.plot(share[top], line.iloc[top], **(style | {"markersize": 6}), linestyle="none")
            if head == heads[0]:
                ax.set_title(source.replace("-", "\n", 1), fontsize="small")
            ax.grid(axis="y", color="0.9", linewidth=0.6)
            sns.despine(ax=ax)
        row[0].set_ylabel(f"accuracy, {head}")
    figure.supxlabel("share of the depth that is kept (marked: the highest)", fontsize="medium")
    known = {label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(known.values(), known, loc="outside right upper", title="images\na class", fontsize="small",
                  title_fontsize="small", frameon=False)  # fmt: skip
    return figure
