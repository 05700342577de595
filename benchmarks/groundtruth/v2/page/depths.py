"""Where to cut or freeze what is trained: points over a linear head on the same draw, by the share of the stages."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from groundtruth.curves import COLOURS, DRAWS, Estimate, over_targets, shown
from groundtruth.maps import print_table
from groundtruth.v2.page.measured import TESTED, TRAINED, Tables
from groundtruth.v2.page.noise import NOTHING, basis, counted, expected_regret
from groundtruth.v2.page.ways import LAST, LINEAR, indexed, paired

LEAST = 6
"""Cells over three shares or more, from which a slope is told."""
WORDS = {"reinit": "kept, the rest drawn anew", "finetune": "kept, the rest drawn anew", "defrost": "frozen"}


def gains(tables: Tables) -> pd.Series:
    """Return the points of each trained run over the linear head at the last stage of the same network and draw."""
    pairs = paired(tables.trained[tables.trained["protocol"].isin(TRAINED)], tables.heads)
    pairs = pairs[pairs["way"] == f"{LINEAR}, {LAST}"]
    return -indexed(pairs, "ahead", "protocol", "share")


def slope(gained: pd.Series) -> Estimate:
    """Return the points that keeping or freezing all stages rather than none adds, by a line through all cells.

    Each target and size has a level of its own; bootstrap over targets. NaN where cells are too few.
    """
    means = gained.groupby(level=["target", "source", "size", "share"]).mean().rename("gain").reset_index()
    if len(means) < LEAST or means["share"].nunique() < 3:
        return Estimate(math.nan, math.nan, math.nan)
    parts = []
    for _, each in means.groupby("target"):
        groups = each.groupby("size")
        x, y = (each[name] - groups[name].transform("mean") for name in ("share", "gain"))
        parts.append((float((x * y).sum()), float((x * x).sum())))
    sums = np.array(parts)
    if (sums[:, 1] > 1e-9).sum() < 2:  # drawing one target again and again tells nothing of others
        return Estimate(math.nan, math.nan, math.nan)
    drawn = sums[np.random.default_rng(0).integers(0, len(sums), (DRAWS, len(sums)))].sum(1)
    drawn = drawn[drawn[:, 1] > 1e-9]
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], (0.025, 0.975))
    return Estimate(float(sums[:, 0].sum() / sums[:, 1].sum()), float(low), float(high))


def slopes(gained: pd.Series) -> dict[tuple[str, int], Estimate]:
    """Return the slope of each protocol at each size that has one."""
    found = {
        (str(protocol), int(size)): slope(each)
        for (protocol, size), each in (gained.groupby(level=["protocol", "size"]) if len(gained) else ())
    }
    return {key: each for key, each in found.items() if not math.isnan(each.mean)}


def report(tables: Tables) -> dict[str, Figure]:
    """Print how accuracy goes with the share that is kept or frozen, and return the picture."""
    print("## Where to cut or freeze what is trained\n")
    gained, runs = gains(tables), tables.trained[tables.trained["protocol"].isin(TRAINED)]
    print(
        "Points over the linear head at the last stage on the same network, images and draw, which takes away most of "
        "what targets and networks differ in: the design has few cells of each pair. Mean over targets [95 % bootstrap "
        "over targets], in brackets the number of cells: those of one row are of other networks and targets, so that "
        "the slope below, within a target and a number of images, says more than two numbers of a row.\n"
    )
    if gained.empty:
        print(f"{NOTHING} {len(runs)} runs of {', '.join(TRAINED)} are there, none with a linear head beside it.\n")
        return {}
    if len(runs) > len(gained):
        print(f"{len(runs) - len(gained)} of {len(runs)} trained runs wait for the frozen features of their pair.\n")
    for protocol in TRAINED:
        own = gained[gained.index.get_level_values("protocol") == protocol]
        print(f"### {protocol}: share of the stages {WORDS[protocol]}\n")
        if own.empty:
            print(f"{NOTHING}\n")
            continue
        _print_protocol(own, protocol)
    _print_regret(tables.trained)
    return {"trained-depth": figure(gained)}


def _print_protocol(own: pd.Series, protocol: str) -> None:
    rows: dict[int, dict[str, str]] = {}
    for (size, share), each in own.groupby(level=["size", "share"]):
        cells = each.groupby(level=["target", "source"]).ngroups
        rows.setdefault(int(size), {})[f"{share:g}"] = f"{over_targets(each).text()} ({cells})"
    columns = sorted({share for row in rows.values() for share in row}, key=float)
    print_table(shown(pd.DataFrame(rows, index=columns).T.rename_axis("images a class / share")))
    print(f"Rests on {basis(own, TESTED)}")
    found = {size: each for (name, size), each in slopes(own).items() if name == protocol}
    for size in rows:
        if size in found:
            way = {1: "more is better", -1: "less is better", 0: "not decided"}[found[size].sign]
            print(f"- {size} images a class: {found[size].text()} points from none to all of the stages: {way}.")
        else:
            print(f"- {size} images a class: how it goes with the share is not measured yet (too few cells).")
    print()


def regrets(trained: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the expected regret of each share, for each target, network and size whose draws have the same shares."""
    found = {}
    for protocol, own in trained.groupby("protocol"):
        parts = {}
        for key, each in own.groupby(["target", "source", "size"]):
            table = each.pivot_table(index="seed", columns="share", values="accuracy")
            table = table.loc[:, table.notna().sum() > 1].dropna()
            if len(table) > 1 and table.shape[1] > 1:
                parts[key] = 100 * expected_regret(table)
        if parts:
            found[str(protocol)] = pd.DataFrame(parts).T.rename_axis(["target", "source", "size"])
    return found


def _print_regret(trained: pd.DataFrame) -> None:
    print("### Expected regret of a share\n")
    found = regrets(trained)
    if not found:
        print(
            f"{NOTHING} It needs a network, target and number of images with two draws of two shares of one protocol, "
            "and the design has drawn none yet.\n"
        )
        return
    print(
        "Points lost against the share that one half of the draws puts first, judged with the other half, where a "
        "network, target and number of images has two draws of several shares (not the same shares in each: a number "
        "says what was lost against those that were drawn beside it). Rests on "
        f"{basis(_several(trained, found), TESTED, 'cells')}\n"
    )
    rows = {
        protocol: {f"{share:g}": over_targets(each[share].dropna()).text() for share in sorted(each.columns)}
        | {"cells": str(len(each))}
        for protocol, each in found.items()
    }
    columns = [*sorted({name for row in rows.values() for name in row} - {"cells"}, key=float), "cells"]
    print_table(shown(pd.DataFrame(rows, index=columns).T.rename_axis("protocol / share")))


def _several(trained: pd.DataFrame, found: Mapping[str, pd.DataFrame]) -> pd.Series:
    """Return the accuracies that those regrets are of."""
    key = ["target", "source", "size"]
    known = {(protocol, *place) for protocol, each in found.items() for place in each.index}
    own = trained[[row in known for row in zip(*(trained[name] for name in ("protocol", *key)), strict=True)]]
    return own.set_index([*key, "protocol", "share", "seed"])["accuracy"]


def figure(gained: pd.Series) -> Figure:
    """Draw the points over the linear head by share, a panel for each number of images."""
    sizes = sorted(int(size) for size in gained.index.unique("size"))
    drawing = Figure(figsize=(1.6 + 2.5 * len(sizes), 3.6), layout="constrained")
    axes = drawing.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    colours: Mapping[str, tuple[float, float, float]] = COLOURS | {"defrost": sns.color_palette("colorblind")[5]}
    for ax, size in zip(axes, sizes, strict=True):
        at = gained.xs(size, level="size", drop_level=False)
        for i, (protocol, marker) in enumerate(zip(TRAINED, "so^", strict=True)):
            own = at[at.index.get_level_values("protocol") == protocol]
            if own.empty:
                continue
            found = {float(share): over_targets(each) for share, each in own.groupby(level="share")}
            x = np.array(list(found)) + 0.012 * (i - 1)
            # A line only where every point is a mean over targets.
            several = all(not math.isnan(each.low) for each in found.values())
            ax.plot(x, [each.mean for each in found.values()], marker=marker, markersize=5, color=colours[protocol],
                    linewidth=1.3, linestyle="-" if several else "none", label=protocol)  # fmt: skip
            low, high = (np.array([getattr(each, side) for each in found.values()]) for side in ("low", "high"))
            ax.vlines(x, low, high, color=colours[protocol], linewidth=1.1)
            means = own.groupby(level=["target", "source", "share"]).mean()
            ax.scatter(means.index.get_level_values("share") + 0.012 * (i - 1), means, s=7, color=colours[protocol],
                       alpha=0.35, linewidth=0)  # fmt: skip
        ax.axhline(0, color="0.4", linewidth=0.8)
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"])
        ax.set_xlim(-0.06, 1.06)
        ax.set_title(f"{size} images a class\n{counted(at, TESTED).replace(', ', chr(10), 1)}", fontsize="x-small")
        ax.grid(axis="y", color="0.9", linewidth=0.6)
        sns.despine(ax=ax)
    axes[0].set_ylabel("points over the linear head, last stage")
    drawing.supxlabel("share of the stages that is kept (reinit, finetune) or frozen (defrost)", fontsize="medium")
    known = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    drawing.legend(known.values(), known, loc="outside right center", fontsize="small", frameon=False)
    return drawing
