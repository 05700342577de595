"""The real networks in words, tables and pictures: extract features or fine-tune, where to cut, and which source."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from curves import COLOURS, listed, over_targets, shown
from maps import averaged, print_table
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from real_cuts import HEADS, all_curves, depth_figure, print_choices, print_cuts

WAYS = {
    "linear, last stage": ("truncate", "last"), "linear, best stage": ("truncate", "best"),
    "top-tuning, last stage": ("toptuning", "last"), "top-tuning, best stage": ("toptuning", "best"),
    "full-network embedding": ("fne", "all"), "fine-tuning": ("finetune", "last"), "scratch": ("scratch", "last"),
}  # fmt: skip
TUNED = "fine-tuning"
MARKS = {"truncate": "^", "toptuning": "D", "fne": "s", "finetune": "o", "scratch": "X"}
COMPARABLE = 2.0
"""Points of accuracy."""


def ways(runs: pd.DataFrame) -> pd.DataFrame:
    """Return accuracy and cost of each way to use one source: a row for each (target, samples_per_class, way).

    Where a target was fine-tuned, on the draws that were, for all ways. The best stage is that of the mean over all
    draws, chosen on the test images.
    """
    stages = runs["depths"].max()
    tuned = runs[(runs["protocol"] == "finetune") & (runs["depth"] == stages)]
    drawn = tuned.groupby(["target", "samples_per_class"])["seed"].agg(set).to_dict()
    keys = zip(runs["target"], runs["samples_per_class"], runs["seed"], strict=True)
    same = [seed in drawn.get((target, size), {seed}) for target, size, seed in keys]
    cells = averaged(runs[same])
    every = runs[runs["protocol"].isin(HEADS)]
    means = every.groupby(["target", "samples_per_class", "protocol", "depth"])["accuracy"].mean()
    found = []
    for way, (protocol, which) in WAYS.items():
        rows = cells[cells["protocol"] == protocol]
        if which == "all":
            rows = rows[rows["layer"] == "all"]
        elif which == "last" and protocol != "scratch":
            rows = rows[rows["depth"] == stages]
        elif which == "best" and rows["depth"].nunique() < 2:
            continue
        elif which == "best":
            keys = pd.MultiIndex.from_frame(rows[means.index.names])
            rows = rows.assign(all_draws=means.reindex(keys).to_numpy()).sort_values("all_draws", kind="stable")
            rows = rows.drop_duplicates(["target", "samples_per_class"], keep="last")
        found.append(rows[["target", "samples_per_class", "accuracy", "seconds", "kwh", "seeds"]].assign(way=way))
    return pd.concat(found, ignore_index=True)


def balanced(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the ways and sizes that at least half of the targets have, on the targets that have all of them."""
    table = cells.pivot_table(index="target", columns=["samples_per_class", "way"], values="accuracy")
    table = table.loc[:, table.notna().mean() >= 0.5].dropna()
    pairs = set(table.columns)
    kept = [key in pairs for key in zip(cells["samples_per_class"], cells["way"], strict=True)]
    return cells[pd.Series(kept, index=cells.index) & cells["target"].isin(table.index)]


def geometric(values: pd.Series) -> float:
    """Return the geometric mean; what was not measured, or is zero, does not count."""
    known = values[values > 0]
    return float(np.exp(np.log(known).mean())) if len(known) else math.nan


def of(cells: pd.DataFrame, way: str, value: str) -> pd.Series:
    """Return a column of one way, indexed by (target, samples_per_class)."""
    return cells[cells["way"] == way].set_index(["target", "samples_per_class"])[value]


def lead(cells: pd.DataFrame, way: str) -> pd.Series:
    """Return the points that a way is ahead of fine-tuning, for each (target, samples_per_class) that has both."""
    return (100 * (of(cells, way, "accuracy") - of(cells, TUNED, "accuracy"))).dropna()


def overtaken(sizes: Sequence[int], ahead: np.ndarray) -> float:
    """Return the images a class from which on fine-tuning stays in front; 0: from the first, inf: not at the last.

    Between sizes by a straight line over their logarithm; `ahead` is what the other way has more.
    """
    if ahead[-1] >= 0:
        return math.inf
    behind = np.flatnonzero(ahead >= 0)
    if not len(behind):
        return 0.0
    i = behind[-1]
    share = ahead[i] / (ahead[i] - ahead[i + 1])
    return float(np.exp((1 - share) * math.log(sizes[i]) + share * math.log(sizes[i + 1])))


def outcome(size: float, sizes: Sequence[int]) -> str:
    if math.isinf(size):
        return f"not up to {sizes[-1]}"
    return f"about {size:.0f}" if size else f"already at {sizes[0]}"


def print_crossings(cells: pd.DataFrame) -> None:
    rivals = [way for way in WAYS if way not in (TUNED, "scratch") and len(lead(cells, way))]
    texts: dict[str, dict[str, str]] = {}
    sentences = []
    for way in rivals:
        energy = (of(cells, TUNED, "kwh") / of(cells, way, "kwh")).where(lambda ratio: ratio > 0)
        found, ratios = {}, []
        for target, ahead in lead(cells, way).sort_index().groupby(level="target"):
            sizes = [int(size) for size in ahead.index.get_level_values("samples_per_class")]
            found[target] = overtaken(sizes, ahead.to_numpy())
            text = outcome(found[target], sizes)
            if math.isfinite(found[target]):
                at = math.log(found[target] or sizes[0])
                ratios.append(float(np.exp(np.interp(at, np.log(sizes), np.log(energy.reindex(ahead.index))))))
                text += f" (×{ratios[-1]:.0f})" if not math.isnan(ratios[-1]) else ""
            texts.setdefault(str(target), {})[way] = text
        mean = lead(cells, way).groupby(level="samples_per_class").mean()
        sizes = [int(size) for size in mean.index]
        texts.setdefault("mean of targets", {})[way] = outcome(overtaken(sizes, mean.to_numpy()), sizes)
        crossed = sum(map(math.isfinite, found.values()))
        middle = outcome(float(np.quantile(list(found.values()), 0.5, method="higher")), sizes)
        price = geometric(pd.Series(ratios, dtype=float))
        cost = f", and takes {price:.0f} times the energy there (geometric mean)" if not math.isnan(price) else ""
        sentences.append(f"- Fine-tuning gets and stays ahead of {way} on {crossed} of {len(found)} targets "
                         f"(median: {middle}){cost}.")  # fmt: skip
    print(
        "Images a class from which on fine-tuning stays ahead, by however little, and how many times the energy it "
        "takes there:\n"
    )
    last = texts.pop("mean of targets")
    print_table(shown(pd.DataFrame([*texts.values(), last], index=[*texts, "mean of targets"], columns=rivals)))
    print("\n".join(sentences))


def print_claims(cells: pd.DataFrame) -> None:
    """Set what was measured beside what two papers say."""
    embedding = lead(cells, "full-network embedding")
    if len(embedding):
        for size, values in embedding.groupby(level="samples_per_class"):
            print(
                f"- At {size} images a class the full-network embedding is ahead of fine-tuning on "
                f"{int((values > 0).sum())} of {len(values)} targets; the mean difference is "
                f"{over_targets(values).text()} points."
            )
        first, second = int((embedding > 0).sum()), int((embedding < 0).sum())
        energy = geometric(of(cells, TUNED, "kwh") / of(cells, "full-network embedding", "kwh"))
        saved = "" if math.isnan(energy) else f"; fine-tuning takes {energy:.0f} times the energy (geometric mean)"
        verdict = (
            "Both happen here" if first and second
            else f"Here {'feature extraction' if first else 'fine-tuning'} is never behind"
        )  # fmt: skip
        print(
            "- Tormos et al. (2022, arXiv 2211.04347; their figures were not at hand) weigh feature extraction against "
            f"fine-tuning by images a class and footprint. {verdict}: extraction is "
            f"ahead in {first} of {len(embedding)} cells of a target and a size, fine-tuning in {second}{saved}."
        )
    held = []
    for way in ("top-tuning, last stage", "top-tuning, best stage"):
        for size, values in lead(cells, way).groupby(level="samples_per_class"):
            both = (of(cells, TUNED, "seconds") / of(cells, way, "seconds")).reindex(values.index)
            ratio, points = geometric(both), over_targets(values)
            fast, good = ratio >= 10, points.mean >= -COMPARABLE
            held.append((way, size, fast, good))
            orders = (
                "more than two orders of magnitude less" if ratio > 100
                else "one to two orders of magnitude less" if fast
                else "less than one order of magnitude less" if ratio > 1
                else "not less"
            )  # fmt: skip
            print(
                f"- {way}, {size} images a class: {1 / ratio:.1%} of fine-tuning's time ({orders}), "
                f"{points.text()} points: {'comparable or better' if good else 'worse'}."
            )
    if held:
        both_hold = [f"{way} at {size}" for way, size, fast, good in held if fast and good]
        print(
            "- Alfano et al. (2022, arXiv 2209.07932; abstract only) report accuracy comparable with fine-tuning at "
            "one to two orders of magnitude less training time. Ten times less time or better holds here in "
            f"{sum(fast for _, _, fast, _ in held)} of {len(held)} cases; with it no more than {COMPARABLE:.0f} points "
            f"behind: {listed(both_hold)}."
        )
    print()


def print_ways(runs: pd.DataFrame, source: str, cells: pd.DataFrame) -> None:
    print("## Feature extraction against fine-tuning on real networks\n")
    targets = cells["target"].nunique()
    if not targets or TUNED not in set(cells["way"]):
        print("No network was fine-tuned on enough targets.\n")
        return
    left = runs.loc[runs["source"] == source, "target"].nunique() - targets
    draws = listed(map(str, sorted(cells.loc[cells["way"] == TUNED, "seeds"].unique())))
    print(
        f"{source}, {targets} targets ({left} left out for gaps), all ways on the draws that were fine-tuned ({draws} "
        "of each cell); a way that fewer than half of the targets have at a size is left out there. Mean accuracy over "
        "targets with a 95 % interval (bootstrap over targets), seconds and kWh of one transfer (geometric means). The "
        "best stage was chosen on the test images: its accuracy is flattered, and its cost is without that of looking "
        "for it.\n"
    )
    rows = []
    for (size, way), each in cells.groupby(["samples_per_class", "way"]):
        ratio = (of(cells, TUNED, "seconds") / of(cells, way, "seconds")).xs(size, level="samples_per_class")
        rows.append({
            "images a class": size, "way": way,
            "accuracy": over_targets(each.set_index("target")["accuracy"]).text(3, plus=False),
            "seconds": f"{geometric(each['seconds']):.3g}", "kWh": f"{geometric(each['kwh']):.2g}",
            "seconds of fine-tuning / its own": "" if math.isnan(geometric(ratio)) else f"{geometric(ratio):.3g}",
        })  # fmt: skip
    table = pd.DataFrame(rows).sort_values("way", key=lambda column: column.map(list(WAYS).index), kind="stable")
    table = table.sort_values("images a class", kind="stable").set_index(["images a class", "way"])
    print_table(table.replace("nan", ""))
    print_crossings(cells)
    print_claims(cells)
    others = {}
    for name in sorted(set(runs["source"]) - {source}):
        for size, each in balanced(ways(runs[runs["source"] == name])).groupby("samples_per_class"):
            means = each.groupby("way")["accuracy"].mean().to_dict()
            others[name, size] = {"targets": each["target"].nunique(), **means}
    if others:
        print("The other networks, mean accuracy over the targets that have all ways shown of that network:\n")
        frame = pd.DataFrame(others).T.reindex(columns=["targets", *WAYS]).dropna(axis=1, how="all")
        frame.index.names = ["source", "images a class"]
        print_table(shown(frame.assign(targets=frame["targets"].astype(int))))


def print_trained(runs: pd.DataFrame) -> None:
    """Compare what is trained after a cut at the end and well before it, where every source has both."""
    print("## Trained after two cuts\n")
    trained = runs[runs["protocol"].isin(["reinit", "finetune"])]
    left = trained["depths"] - trained["depth"]
    kept = left.map(lambda stages: "all kept" if stages == 0 else f"{stages} stages fewer")
    wide = trained.assign(kept=kept).pivot_table(
        "accuracy", ["samples_per_class", "target"], ["source", "protocol", "kept"]
    )
    size = wide.notna().sum(axis=1).groupby(level=0).sum().idxmax()
    whole = wide.loc[size].dropna(axis=1, how="all").dropna()
    if whole.empty:
        print("No target has all sources trained after both cuts.\n")
        return
    means = whole.mean().rename("accuracy").reset_index().pivot_table("accuracy", "source", ["protocol", "kept"])
    means.columns = [f"{protocol}, {kept}" for protocol, kept in means.columns]
    print(
        f"{size} images a class, one draw, mean accuracy over {len(whole)} targets ({listed(map(str, whole.index))}). "
        "`reinit` with everything kept trains a head alone on frozen features, for which these steps and this rate are "
        "too few: `truncate` fits the same head to the end.\n"
    )
    print_table(means)
    levels = whole.T.groupby(level=["protocol", "kept"]).mean().T
    for protocol in ("reinit", "finetune"):
        names = [column for column in levels if column[0] == protocol]
        if len(names) == 2:
            fewer, every = sorted(names, key=lambda column: column[1] == "all kept")
            gain = over_targets(100 * (levels[fewer] - levels[every]))
            print(f"- {protocol}: {fewer[1]} is {gain.text()} points against {every[1]}.")
    print()


def crossing_figure(cells: pd.DataFrame, source: str) -> Figure:
    sizes = sorted(cells["samples_per_class"].unique())
    # Without what targets differ in by all ways and sizes alike, which no comparison of ways has to do with.
    level = cells.groupby("target")["accuracy"].transform("mean") - cells["accuracy"].mean()
    centred = cells.assign(accuracy=cells["accuracy"] - level)
    figure = Figure(figsize=(8, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for way, rows in centred.groupby("way", sort=False):
        protocol, which = WAYS[str(way)]
        style = {
            "color": COLOURS[protocol], "marker": MARKS[protocol], "markersize": 5, "linewidth": 1.5, "label": way,
            "linestyle": "--" if which == "best" else ":" if protocol == "scratch" else "-",
            "markerfacecolor": "white" if which == "best" else COLOURS[protocol],
        }  # fmt: skip
        by_size = rows.groupby("samples_per_class")
        estimates = [over_targets(each.set_index("target")["accuracy"]) for _, each in by_size]
        x, means = list(by_size.groups), [estimate.mean for estimate in estimates]
        left.plot(x, means, **style)
        left.fill_between(
            x, *zip(*((e.low, e.high) for e in estimates), strict=True), color=style["color"], alpha=0.12, linewidth=0
        )
        right.plot([geometric(each["kwh"]) for _, each in by_size], means, **style)
    for ax, label in ((left, "training images of each class"), (right, "kWh per transfer")):
        ax.set_xscale("log")
        ax.set_xlabel(label)
        ax.grid(axis="y", color="0.9", linewidth=0.6)
        sns.despine(ax=ax)
    left.set_xticks(sizes, list(map(str, sizes)))
    left.xaxis.set_minor_locator(NullLocator())
    left.set_ylabel("accuracy, mean over targets")
    right.set_title(f"points: {listed(map(str, sizes))} images of each class", fontsize="small")
    left.set_title(f"{source}; bands: 95 %, without targets' own levels", fontsize="small")
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small", frameon=False
    )
    return figure


def with_fewer(runs: pd.DataFrame) -> pd.DataFrame:
    """Return runs in which a target that has fewer images a class than asked for stands with those that have them."""
    counts = runs.groupby("samples_per_class")["target"].nunique()
    partial = counts.index[counts < runs["target"].nunique()]
    fewer = runs["samples_per_class"].isin(partial) & (runs["samples_per_class"] < partial.max())
    for target, size in runs.loc[fewer, ["target", "samples_per_class"]].drop_duplicates().to_numpy():
        print(f"{target} has {size} images a class where others have {partial.max()}, and stands with them below.\n")
    return runs.assign(samples_per_class=runs["samples_per_class"].mask(fewer, partial.max()))


def report(runs: pd.DataFrame) -> dict[str, Figure]:
    """Print what the real networks say and return their pictures; a part without runs is left out and said so."""
    print("## Real networks\n")
    runs = with_fewer(runs)
    deep = runs[(runs["protocol"] == "finetune") & (runs["depth"] == runs["depths"])]
    source = str((deep if len(deep) else runs)["source"].value_counts().idxmax())
    cells, found = balanced(ways(runs[runs["source"] == source])), all_curves(runs)
    print_ways(runs, source, cells)
    print_cuts(runs, found)
    print_choices(runs, found)
    print_trained(runs)
    pictures = {}
    if len(cells):
        pictures["real-crossing"] = crossing_figure(cells, source)
    if found:
        pictures["real-depth"] = depth_figure(found)
    return pictures
