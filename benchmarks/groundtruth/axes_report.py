"""The two axes in words, tables and pictures: which styles and which tasks transfer, by how much, and cut where."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from axes import STYLES
from curves import (
    CELL,
    COLOURS,
    Estimate,
    best_cuts,
    curves,
    full_means,
    listed,
    noise,
    over_curves,
    over_targets,
    shown,
)
from maps import print_table
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sources import ANIMALS, TASKS, VEHICLES

from transferscope.report.plots.drawing import MARKERS

PROTOCOLS = ("finetune", "reinit", "truncate")
CLASSES = {"cifar10-animals": ANIMALS, "cifar10-vehicles": VEHICLES}
BESIDE = {
    "fontsize": "small", "frameon": False, "title_fontsize": "small", "loc": "center left", "bbox_to_anchor": (1, 0.5)
}  # fmt: skip
LOOKS = {"finetune": ("o", "-"), "reinit": ("s", "--"), "truncate": ("^", ":")}


def as_square(pairs: pd.Series, names: Sequence[str]) -> np.ndarray:
    """Return a row for each source, a column for each target, NaN where there is nothing."""
    return pairs.reindex(pd.MultiIndex.from_product([names, names])).to_numpy().reshape(len(names), -1)


def gain_curves(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the curves, in points above training from scratch on the same draw; that is the same for all sources."""
    scratch = runs[runs["protocol"] == "scratch"].groupby(["target", "samples_per_class", "seed"])["accuracy"].mean()
    found = curves(runs[runs["protocol"].isin(PROTOCOLS)])
    level = scratch.reindex(found.index.droplevel(["source", "protocol"])).to_numpy()
    return 100 * found.sub(level, axis=0).dropna()


def overview(gained: pd.DataFrame, cuts: pd.Series, index: list[str]) -> pd.DataFrame:
    """Return what is gained at the best cut for each protocol and size, and where the cut is, over sizes."""
    table = gained.max(axis=1).rename("gain").reset_index()
    wide = table.pivot_table(index=index, columns=["protocol", "samples_per_class"], values="gain")
    wide.columns = [f"{protocol}, {size}" for protocol, size in wide.columns]
    # Only where every size is there: cuts of different sizes are not alike.
    for protocol, each in cuts.groupby(level="protocol"):
        wide[f"cut, {protocol}"] = full_means(each, index)
    return wide


def print_domain(gained: pd.DataFrame) -> None:
    cells = gained.groupby(level=CELL).mean()
    cuts = best_cuts(gained, CELL)
    print_table(shown(overview(cells, cuts, ["source", "target"])), 1)
    best, losing = cells.max(axis=1), cells.max(axis=1) < 0
    for protocol, values in best.groupby(level="protocol", sort=False):
        sizes = [
            f"{over_targets(each).text()} points at {n} images a class"
            for n, each in values.groupby(level="samples_per_class")
        ]
        cut = over_targets(cuts.xs(protocol, level="protocol")).text(plus=False)
        print(
            f"- {protocol}: {listed(sizes)}, at stage {cut} of {gained.shape[1]} (95 % intervals: bootstrap over "
            f"targets); {int(losing.xs(protocol, level='protocol').sum())} of {len(values)} cells stay below scratch."
        )
    print_asymmetry(full_means(best, ["source", "target"]))


def print_asymmetry(pairs: pd.Series) -> None:
    """Tell good sources and needy targets from pairs that are near; `pairs` is indexed by (source, target)."""
    styles = [style for style in STYLES if style in pairs.index.unique(0) and style in pairs.index.unique(1)]
    square = as_square(pairs, styles)
    off = ~np.eye(len(styles), dtype=bool)
    if len(styles) < 4 or np.isnan(square[off]).any():
        print("\nWhich way a pair transfers better is not said: pairs are missing.\n")
        return
    ways = [
        (f"{a} → {b}", square[i, j], square[j, i], square[i, j] - square[j, i])
        for i, a in enumerate(styles)
        for j, b in enumerate(styles)
        if (square[i, j], j) > (square[j, i], i)
    ]
    print("\nBoth ways of each pair, the better one first, in points over scratch (mean over protocols and sizes):\n")
    table = pd.DataFrame(ways, columns=["pair", "this way", "back", "difference"]).set_index("pair")
    print_table(table.sort_values("difference", ascending=False), 1)
    sources, targets = np.nonzero(off)
    design = np.hstack([np.eye(len(styles))[sources], np.eye(len(styles))[targets]])
    effects = np.linalg.lstsq(design, square[off], rcond=None)[0].reshape(2, -1)
    effects -= effects.mean(axis=1, keepdims=True)
    rest, total = np.zeros_like(square), square[off] - square[off].mean()
    rest[off] = total - (effects[0][sources] + effects[1][targets])
    explained = 1 - (rest**2).sum() / (total**2).sum()
    alike = ((rest + rest.T) ** 2).sum() / 4 / (rest**2).sum() if (rest**2).sum() > 1e-12 else math.nan
    many = len(styles)
    freedom = many * (many - 1) - 1 - 2 * (many - 1)
    chance, even = 1 - freedom / (many * (many - 1) - 1), (many * (many - 1) / 2 - many) / freedom
    print("Fitted as a sum of what a source gives and what a target gains, in points around the mean:\n")
    print_table(pd.DataFrame({"as a source": effects[0], "as a target": effects[1]}, index=styles), 1)
    print(
        f"- The sum explains {explained:.0%} of the variance among pairs ({chance:.0%} would be expected of noise). "
        f"The best source is {styles[int(effects[0].argmax())]}, the worst {styles[int(effects[0].argmin())]}; most "
        f"is gained on {styles[int(effects[1].argmax())]}, least on {styles[int(effects[1].argmin())]}."
    )
    if not math.isnan(alike):
        meaning = (
            "more than noise would have, as a gap between two styles, which is the same both ways, would make it"
            if alike > even else "no more than noise would have: nothing here asks for a gap between two styles"
        )  # fmt: skip
        print(
            f"- Of what the sum leaves, {alike:.0%} is the same both ways ({even:.0%} expected of noise), {meaning}. "
            f"{freedom} degrees of freedom are left: a hint at most."
        )
    print("- Sources differ in how many images they were trained on too. No gap was measured on features.\n")


def slopes(values: pd.Series) -> pd.Series:
    """Return the least-squares slope on `shared` for each of the other levels, where there are three values or more."""
    others = [name for name in values.index.names if name not in ("shared", "source")]
    found = {}
    for key, each in values.groupby(level=others):
        x = each.index.get_level_values("shared").to_numpy(dtype=float)
        if len(np.unique(x)) > 2:
            # Rounded: a line that does not rise has to have a slope of zero.
            found[key] = round(float(np.polyfit(x, each.to_numpy(), 1)[0]), 9)
    if not found:
        return pd.Series(dtype=float, index=pd.MultiIndex.from_arrays([[]] * len(others), names=others))
    return pd.Series(list(found.values()), index=pd.MultiIndex.from_tuples(found, names=others))


def with_shared(values: pd.DataFrame | pd.Series) -> pd.DataFrame | pd.Series:
    """Return it with one more level: the classes that source and target share."""
    shared = [
        len(set(TASKS[source]) & set(CLASSES[target]))
        for target, source in zip(values.index.get_level_values(0), values.index.get_level_values(1), strict=True)
    ]
    return values.set_axis(pd.MultiIndex.from_frame(values.index.to_frame(index=False).assign(shared=shared)))


def print_task(gained: pd.DataFrame) -> None:
    cells, cuts = gained.groupby(level=CELL).mean(), best_cuts(gained, CELL)
    print_table(shown(overview(with_shared(cells), with_shared(cuts), ["target", "shared", "source"])), 1)
    gain = slopes(with_shared(gained.max(axis=1)))
    cut = slopes(with_shared(best_cuts(gained, [*CELL, "seed"])))
    sizes = sorted(gained.index.unique("samples_per_class"))
    rows, verdicts = {}, {}
    for protocol in (name for name in PROTOCOLS if name in gain.index.unique("protocol")):
        row = {}
        for name, found in (("points", gain), ("stages", cut)):
            one = found.xs(protocol, level="protocol")
            for size in sizes:
                part = one[one.index.get_level_values("samples_per_class") == size]
                row[f"{name}, {size}"] = over_curves(part).text(2)
            # The sizes of a draw are nested: one number for each target and draw.
            both = full_means(one, ["target", "seed"])
            row[f"{name}, all sizes"] = over_curves(both).text(2)
            verdicts[protocol, name] = over_curves(both)
        rows[protocol] = row
    if not rows:
        print("What a shared class is worth is not said: too few sources are there.\n")
        return
    print(
        "What one shared class more adds, in points over scratch and in stages of the best cut (slopes for each target "
        "and draw; 95 % Student intervals over these, for two targets are too few to draw from; they say nothing of "
        "tasks of other images):\n"
    )
    print_table(pd.DataFrame(rows).T)
    for protocol in rows:
        points = verdicts[protocol, "points"]
        tail = {1: "more is gained", -1: "less is gained", 0: "gain or loss is not decided"}[points.sign]
        print(f"- {protocol}, a class more in common: {points.text(2)} points; {tail}.")
    seen = [protocol for protocol in rows if verdicts[protocol, "stages"].sign > 0]
    for protocol in rows:
        print(f"- Does the best cut move toward the input as the task gets farther, under {protocol}? "
              f"{moved(verdicts[protocol, 'stages'])}")  # fmt: skip
    others = [protocol for protocol in rows if protocol not in seen]
    print(
        "- Gerace et al. (2024, arXiv 2303.01429; abstract only) say that the best depth depends on how similar source "
        "and target are. That it is nearer to the input for farther tasks "
        + "; ".join(f"is {how} under {listed(names)}" for how, names in (("seen", seen), ("not seen", others)) if names)
        + ".\n"
    )


def moved(slope: Estimate) -> str:
    """Answer whether the best cut is nearer to the input for farther tasks, given stages for each shared class."""
    if math.isnan(slope.low):
        return "Cannot be said: there are no two slopes."
    if slope.low == slope.high == 0:
        return "No: it does not move."
    if slope.sign == 0:
        return f"Not decided: {slope.text(2)} stages for a shared class."
    return f"{'Yes' if slope.sign > 0 else 'No, toward the output'}: {slope.text(2)} stages for a shared class."


def domain_figure(gained: pd.DataFrame) -> Figure:
    best = gained.groupby(level=CELL).mean().max(axis=1)
    found = full_means(best, ["protocol", "source", "target"])
    panels = [protocol for protocol in PROTOCOLS if protocol in found.index.unique("protocol")]
    largest = max(1.0, float(found.abs().max()))
    figure = Figure(figsize=(1.4 + 2.3 * len(panels), 3.4), layout="constrained")
    names = [style.removeprefix("pacs-") for style in STYLES]
    for ax, protocol in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        first = ax.get_subplotspec().is_first_col()
        table = np.round(as_square(found.xs(protocol, level="protocol"), STYLES)) + 0.0
        sns.heatmap(
            table, ax=ax, annot=True, fmt="+.0f", cmap="RdBu", norm=TwoSlopeNorm(0, -largest, largest),
            square=True, cbar=False, linewidths=1, xticklabels=names, yticklabels=names if first else [],
        )  # fmt: skip
        ax.set_facecolor("0.85")
        ax.set_title(protocol, fontsize="medium")
        ax.set_xlabel("target")
        ax.tick_params(length=0)
        ax.tick_params(axis="y", rotation=0)
        if first:
            ax.set_ylabel("source")
    figure.colorbar(figure.axes[0].collections[0], ax=figure.axes, label="points over scratch, best cut", shrink=0.8)
    return figure


def task_figure(gained: pd.DataFrame) -> Figure:
    cells = with_shared(gained.groupby(level=CELL).mean())
    # Both targets have four sources, in the order of what they share; averages are over both.
    rank = cells.index.to_frame(index=False).groupby("target")["shared"].rank("dense").astype(int).to_numpy()
    cells = cells.set_axis(pd.MultiIndex.from_frame(cells.index.to_frame(index=False).assign(rank=rank)))
    sizes = sorted(cells.index.unique("samples_per_class"))
    panels = [protocol for protocol in PROTOCOLS if protocol in cells.index.unique("protocol")]
    figure = Figure(figsize=(7.6, 6.2), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False)[:, 0]
    best = cells.max(axis=1)
    for ax, size in zip(above.subplots(1, len(sizes), squeeze=False, sharey=True)[0], sizes, strict=True):
        for protocol in panels:
            marker, line = LOOKS[protocol]
            part = best.xs(size, level="samples_per_class").xs(protocol, level="protocol").rename("gain").reset_index()
            mean = part.groupby("rank")[["shared", "gain"]].mean()
            ax.plot(mean["shared"], mean["gain"], line, color=COLOURS[protocol], label=protocol)
            for target, face in (("cifar10-animals", COLOURS[protocol]), ("cifar10-vehicles", "white")):
                one = part[part["target"] == target]
                ax.scatter(
                    one["shared"],
                    one["gain"],
                    marker=marker,
                    s=26,
                    facecolor=face,
                    edgecolor=COLOURS[protocol],
                    zorder=3,
                )
        ax.set_title(f"{size} images a class", fontsize="medium")
        ax.set_xlabel("classes shared, of 5")
    above.axes[0].set_ylabel("points over scratch, best cut")
    above.axes[-1].legend(title="full: animals\nhollow: vehicles", **BESIDE)
    names = {
        r: "–".join(map(str, sorted({int(s) for s in each.index.get_level_values("shared")})))
        for r, each in cells.groupby(level="rank")
    }
    profiles = cells.groupby(level=["protocol", "rank"]).mean()
    palette = sns.color_palette("viridis_r", len(names) + 1)[1:]
    for ax, protocol in zip(below.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for (r, name), colour, marker in zip(names.items(), palette, MARKERS, strict=False):
            if (protocol, r) in profiles.index:
                line = profiles.loc[(protocol, r)]
                ax.plot(line.index, line, color=colour, marker=marker, markersize=4.5, linewidth=1.4, label=name)
        ax.set_title(f"{protocol}, mean over sizes", fontsize="medium")
        ax.set_xlabel(f"stages kept, of {gained.shape[1]}")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.axes[0].set_ylabel("points over scratch")
    below.axes[-1].legend(title="classes shared", **BESIDE)
    for ax in (*above.axes, *below.axes):
        ax.axhline(0, color="0.6", linewidth=0.8, zorder=0)
        sns.despine(ax=ax)
    return figure


def report(runs: pd.DataFrame) -> dict[str, Figure]:
    """Print what the axes say and return their pictures; a part without runs is left out and said so."""
    pictures = {}
    parts = (
        ("Domain gap with the classes fixed", STYLES, STYLES, "axes-domain", print_domain, domain_figure,
         "Each style of PACS moved to the others, seven classes in all of them."),
        ("Task similarity with the images fixed", CLASSES, TASKS, "axes-task", print_task, task_figure,
         "Sources trained on five classes of CIFAR-10's training images, moved to five classes of its test images."),
    )  # fmt: skip
    for title, targets, sources, name, write, draw, what in parts:
        chosen = runs[runs["target"].isin(list(targets)) & runs["source"].isin(list(sources))]
        print(f"## {title}\n")
        gained = gain_curves(chosen)
        if gained.empty:
            print("Nothing complete was measured.\n")
            continue
        left = chosen[chosen["protocol"].isin(PROTOCOLS)].groupby([*CELL, "seed"]).ngroups - len(gained)
        spread = 100 * noise(curves(chosen[chosen["protocol"].isin(PROTOCOLS)])).mean()
        varies = "draws are too few to tell their noise" if math.isnan(spread) else (
            f"one accuracy varies by {spread:.1f} points over draws, beside what all its depths share"
        )  # fmt: skip
        print(
            f"{what} Points of accuracy gained over training from scratch on the same images, at the best of "
            f"{gained.shape[1]} cuts, mean over draws; the best of noisy numbers is flattered ({varies}). The best cut "
            "(stages kept) is the centre of all depths within one standard error of the best, mean over sizes. "
            f"{left} curves were left out, for gaps.\n"
        )
        write(gained)
        pictures[name] = draw(gained)
    return pictures
