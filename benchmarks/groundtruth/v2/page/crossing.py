"""Feature extraction against fine-tuning: accuracy by images a class, seconds, energy."""

import math

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from groundtruth.curves import COLOURS, over_targets, shown
from groundtruth.maps import print_table
from groundtruth.real_report import COMPARABLE, geometric
from groundtruth.v2.page.cuts import NAMES
from groundtruth.v2.page.measured import TESTED, Tables
from groundtruth.v2.page.noise import NOTHING, basis, brief
from groundtruth.v2.page.ways import (
    BEST,
    EMBEDDING,
    LAST,
    LINEAR,
    SIXTH,
    WAYS,
    cost_ratio,
    cpu_cost,
    crossing,
    fitted,
    indexed,
    is_tuned,
    leads,
    orders,
    paired,
)

TOP = NAMES["toptuning"]
DRAWN = {f"{LINEAR}, {LAST}": "truncate", f"{TOP}, {SIXTH}": "toptuning", EMBEDDING: "fne"}
"""The ways in the picture, with the protocol whose colour they have."""


def tuned_pairs(tables: Tables) -> pd.DataFrame:
    """Return fine-tuned runs of v2 beside what is fitted on the same draw."""
    trained = cpu_cost(tables.trained, tables.on_gpu)
    return paired(trained[is_tuned(trained)], tables.heads)


def tuned_pairs_v1(tables: Tables) -> pd.DataFrame:
    """Return the same of the real networks of v1."""
    return paired(tables.real[is_tuned(tables.real)], tables.real)


def report(tables: Tables) -> dict[str, Figure]:
    """Print how extraction and fine-tuning compare, and return the picture."""
    print("## Feature extraction against fine-tuning\n")
    pairs = tuned_pairs(tables)
    waiting = int(is_tuned(tables.trained).sum()) - pairs.groupby(["target", "source", "size", "seed"]).ngroups
    print(
        "Fine-tuned is what trains all of the network from the source's weights (`defrost` of none), by the recipe of "
        "v2. Points that each way is ahead of it, on the same network, images and draw; the best stage is that of the "
        "other draws, so that it is not flattered. Mean over targets [95 % bootstrap over targets]. The design draws "
        "other networks and targets for each number of images: rows are not of the same cells."
        + (f" {waiting} fine-tuned runs wait for the frozen features of their network and target." if waiting else "")
        + "\n"
    )
    if pairs.empty:
        print(f"{NOTHING} There are {int(is_tuned(tables.trained).sum())} fine-tuned runs, none of which has frozen "
              "features of the same network, images and draw beside it.\n")  # fmt: skip
        return {}
    _print_leads(pairs)
    _print_crossings(pairs)
    return {"crossing": figure(pairs, tuned_pairs_v1(tables))}


def _print_leads(pairs: pd.DataFrame) -> None:
    rows = {}
    for size, each in pairs.groupby("size"):
        row = {way: over_targets(leads(each, way)).text() for way in WAYS if len(leads(each, way))}
        rows[size] = {**row, "what it rests on": brief(leads(each, f"{LINEAR}, {LAST}"), TESTED)}
    columns = [*(way for way in WAYS if any(way in row for row in rows.values())), "what it rests on"]
    print_table(shown(pd.DataFrame(rows, index=columns).T.rename_axis("images a class")))


def _print_crossings(pairs: pd.DataFrame) -> None:
    rows = {}
    for way in WAYS:
        lead = leads(pairs, way)
        if len(lead):
            found, spread = crossing(lead)
            cells = lead.groupby(level=["target", "source", "size"]).mean()
            rows[way] = {
                "fine-tuning stays ahead from": found, "95 % of bootstraps": spread,
                "cells in which the way is ahead": f"{int((cells > 0).sum())} of {len(cells)}",
                "what it rests on": brief(lead, TESTED),
            }  # fmt: skip
    print("Where they cross, in images a class, over all targets and networks:\n")
    print_table(pd.DataFrame(rows).T.rename_axis("way"))


def report_costs(tables: Tables) -> dict[str, Figure]:
    """Print what top-tuning and the embedding give and cost beside a linear head, and beside fine-tuning."""
    print("## Top-tuning and the full-network embedding\n")
    _print_beside_linear(tables)
    pairs = tuned_pairs(tables)
    print("### Beside fine-tuning\n")
    if pairs.empty:
        print(f"{NOTHING}\n")
        return {}
    clock = (
        "Trained runs ran on a GPU, fitted ones on one core: seconds and energy are not those of one machine, "
        "floating-point operations are."
        if tables.on_gpu else "Of trained runs the time on the processor alone counts, and energy in proportion, for "
        "the machine had other work; of fitted ones all time does, so that ratios are if anything too small."
    )  # fmt: skip
    print(f"How many times the seconds, floating-point operations and energy fine-tuning takes (geometric mean). "
          f"{clock}\n")  # fmt: skip
    rows = {}
    for way in WAYS:
        for size, each in pairs[pairs["way"] == way].groupby("size"):
            lead, ratio = over_targets(leads(each, way)), cost_ratio(each, "seconds")
            rows[way, size] = {
                "points": lead.text(), "× seconds": f"{ratio:.3g}", "× FLOPs": f"{cost_ratio(each, 'flops'):.3g}",
                "× energy": f"{cost_ratio(each, 'kwh'):.3g}", "time": orders(ratio),
                "within 2 points": "yes" if lead.mean >= -COMPARABLE else "no",
                "what it rests on": brief(leads(each, way), TESTED),
            }  # fmt: skip
    print_table(pd.DataFrame(rows).T.rename_axis(["way", "images a class"]).replace("nan", ""))
    _print_energy(tables)
    return {"cost": cost_figure(pairs)}


def _print_beside_linear(tables: Tables) -> None:
    ways = fitted(tables.heads)
    if ways.empty:
        print(f"{NOTHING}\n")
        return
    table = ways.pivot_table(index=["target", "source", "size", "seed"], columns="way", values=["accuracy", "seconds"])
    print("Points ahead of a linear head, and times its seconds, on the same draws; top-tuning at the same stage:\n")
    compared = [(f"{TOP}, {stage}", stage) for stage in (LAST, SIXTH, BEST)] + [(EMBEDDING, LAST), (EMBEDDING, SIXTH)]
    rows = {}
    for way, stage in compared:
        linear = f"{LINEAR}, {stage}"
        if way not in table["accuracy"] or linear not in table["accuracy"]:
            continue
        gap = 100 * (table["accuracy"][way] - table["accuracy"][linear])
        for size, each in gap.groupby(level="size"):
            ratio = (table["seconds"][way] / table["seconds"][linear]).xs(size, level="size")
            rows[way.partition(",")[0], stage, size] = {
                "points": over_targets(each).text(), "× seconds": f"{geometric(ratio):.2f}",
                "what it rests on": brief(each, TESTED),
            }  # fmt: skip
    print_table(pd.DataFrame(rows).T.rename_axis(["way", "linear head at", "images a class"]))


def _print_energy(tables: Tables) -> None:
    """Print kWh for each transfer by protocol and size, of what was measured."""
    print("### Energy of one transfer\n")
    trained = cpu_cost(tables.trained, tables.on_gpu)
    runs = pd.concat([tables.heads, trained]) if len(trained) else tables.heads
    cells = runs.groupby(["protocol", "size"]).agg(
        kWh=("kwh", geometric), seconds=("seconds", geometric), FLOPs=("flops", geometric),
        runs=("kwh", "size"), networks=("source", "nunique"), targets=("target", "nunique"),
    )  # fmt: skip
    if cells.empty:
        print(f"{NOTHING}\n")
        return
    print(
        "Geometric means over networks, targets, stages and draws that were measured (not the same for each row: "
        "compare by the ratios above), with what features cost; from the power that the processor was taken to draw, "
        "not from a meter.\n"
    )
    print_table(cells.apply(lambda column: column if column.dtype == int else column.map("{:.2g}".format)))


def figure(pairs: pd.DataFrame, before: pd.DataFrame) -> Figure:
    """Draw the points that three ways are ahead of fine-tuning, by images a class; v1's real networks beside."""
    drawing = Figure(figsize=(8.6, 3.5), layout="constrained")
    axes = drawing.subplots(1, len(DRAWN), sharey=True)
    for ax, (way, protocol) in zip(axes, DRAWN.items(), strict=True):
        for found, name, style in (
            (pairs, "v2", {"color": COLOURS[protocol], "marker": "o"}),
            (before, "v1", {"color": "0.55", "marker": "s", "linestyle": "--"}),
        ):
            lead = leads(found, way)
            if not len(lead):
                continue
            by_size = {int(size): over_targets(each) for size, each in lead.groupby(level="size")}
            cells = lead.groupby(level=["target", "source", "size"]).mean()
            if name == "v2":
                x = cells.index.get_level_values("size")
                ax.scatter(x, cells, s=12, color=style["color"], alpha=0.35, zorder=2)
            ax.plot(list(by_size), [each.mean for each in by_size.values()], linewidth=1.6, zorder=3, **style,
                    label=f"{name}: cells {len(cells)}, targets {lead.index.unique('target').size}")  # fmt: skip
            known = {size: each for size, each in by_size.items() if not math.isnan(each.low)}
            ax.vlines(list(known), [e.low for e in known.values()], [e.high for e in known.values()], linewidth=1.2,
                      color=style["color"], zorder=3)  # fmt: skip
        ax.axhline(0, color="0.4", linewidth=0.8)
        ax.set_xscale("log")
        ax.set_xticks([5, 20, 80], ["5", "20", "80"])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlim(3.5, 115)
        ax.set_title(way, fontsize="small", loc="left")
        ax.legend(fontsize="x-small", frameon=False, loc="lower left", bbox_to_anchor=(0, 1.08))
        ax.grid(axis="y", color="0.9", linewidth=0.6)
        sns.despine(ax=ax)
    axes[0].set_ylabel("points ahead of fine-tuning")
    drawing.supxlabel("training images of each class (bars: 95 % over targets)", fontsize="medium")
    return drawing


def cost_figure(pairs: pd.DataFrame) -> Figure:
    """Draw what is gained or lost against the time that is saved, each way and number of images a point."""
    drawing = Figure(figsize=(6.4, 3.8), layout="constrained")
    ax = drawing.subplots()
    looks = {LINEAR: (COLOURS["truncate"], "o"), TOP: (COLOURS["toptuning"], "D"), EMBEDDING: (COLOURS["fne"], "s")}
    for way in WAYS:
        kind, _, which = way.partition(", ")
        colour, marker = looks[kind]
        face = {LAST: "white", BEST: colour}.get(which, colour)
        for i, (size, each) in enumerate(pairs[pairs["way"] == way].groupby("size")):
            lead = over_targets(indexed(each, "ahead"))
            x = cost_ratio(each, "seconds")
            ax.scatter(x, lead.mean, s={5: 14, 20: 36, 80: 58}[int(size)], color=face, edgecolor=colour,
                       marker=marker, zorder=3, label=None if i else way,
                       alpha=0.5 if which == BEST else 1)  # fmt: skip
    ax.axhline(0, color="0.4", linewidth=0.8)
    ax.axhline(-COMPARABLE, color="0.6", linewidth=0.8, linestyle="--")
    ax.axvspan(10, 100, color="0.95", zorder=0)
    ax.set_xscale("log")
    ax.set(xlabel="times the seconds that fine-tuning takes", ylabel="points ahead of fine-tuning")
    ax.set_title(f"size: 5, 20, 80 images a class; grey: one to two orders; dashed: −{COMPARABLE:.0f} points\n"
                 + basis(leads(pairs, f"{LINEAR}, {LAST}"), TESTED).split(";")[0], fontsize="small")  # fmt: skip
    ax.legend(fontsize="x-small", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    sns.despine(ax=ax)
    return drawing
