"""What the small-network map says of the depth, and how much source, depth and protocol matter."""

import itertools
import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from curves import DRAWS, listed, over_targets
from maps import averaged, print_table
from matplotlib.figure import Figure

from transferscope.report.plots.drawing import size_styles

PROTOCOLS = ("truncate", "reinit", "finetune")
FACTORS = ("source", "depth", "protocol")


def report(runs: pd.DataFrame) -> dict[str, Figure]:
    """Print what the map says of depths and choices, and return the pictures."""
    cells = averaged(runs)
    gains = gained(cells)
    print("## The best depth against the number of images\n")
    print(
        f"Accuracy gained over training from scratch, mean over {gains['target'].nunique()} targets and the sources "
        f"they may have ({len(gains[['target', 'source']].drop_duplicates())} pairs), by the number of stages kept. "
        "The best depth of this mean profile is starred; in brackets the range of best depths over 95 % of bootstrap "
        "samples of targets.\n"
    )
    best = {protocol: _print_profile(gains, protocol) for protocol in PROTOCOLS}
    _print_moves(best)
    print("\n## What a fixed choice of the depth loses\n")
    print(
        "Accuracy lost against the best depth (or scratch) of the same target, source and number of images. The best "
        "is chosen by all draws but one and all choices are judged on that one, in turn, so that the noise of training "
        "does not flatter it; test images are the same for all draws, so that theirs does a little. Mean over targets "
        "[95 % bootstrap interval].\n"
    )
    for protocol in PROTOCOLS:
        print(f"### {protocol}\n")
        print_table(fixed_choices(runs, protocol))
    print("## How much source, depth and protocol matter\n")
    shares = pd.DataFrame({size: variance_shares(runs, size) for size in _sizes(cells)})
    print(
        "Share of the variance of regret (of accuracy, within one target and number of images) that each choice and "
        "their interactions account for; what the spread over draws accounts for is taken off.\n"
    )
    print_table(shares.rename_axis("part"), 2)
    print(
        "Accuracy lost where one is chosen at random and the other two as well as can be for it; mean over targets [95 "
        "% bootstrap interval].\n"
    )
    print_table(pd.DataFrame({size: random_choices(cells, size) for size in _sizes(cells)}).rename_axis("at random"))
    return {"depths": _profiles(gains), "variance": _shares(shares)}


def gained(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the transfers with `gain`, the accuracy above that of training from scratch on the same images."""
    scratch = cells[cells["protocol"] == "scratch"].groupby(["target", "size"])["accuracy"].first().rename("scratch")
    found = cells[cells["protocol"].isin(PROTOCOLS)].join(scratch, on=["target", "size"])
    return found.assign(gain=found["accuracy"] - found["scratch"])


def lost_text(values: pd.Series) -> str:
    """Return the mean over targets with its interval."""
    return over_targets(values).text(3, plus=False)


def _sizes(cells: pd.DataFrame) -> list[str]:
    return sorted(cells["size"].unique(), key=lambda size: (size == "all", int(size) if size != "all" else 0))


def _print_profile(gains: pd.DataFrame, protocol: str) -> dict[str, int]:
    """Print the mean profile of a protocol; return its best depth by size."""
    own = gains[gains["protocol"] == protocol]
    depths, best, rows = sorted(own["depth"].unique()), {}, {}
    for size in _sizes(own):
        by_target = own[own["size"] == size].pivot_table("gain", "target", "depth").reindex(columns=depths).to_numpy()
        means = by_target.mean(0)
        best[size] = int(depths[means.argmax()])
        draws = np.random.default_rng(0).integers(0, len(by_target), (DRAWS, len(by_target)))
        tops = np.array(depths)[by_target[draws].mean(1).argmax(1)]
        low, high = np.quantile(tops, [0.025, 0.975], method="nearest")
        rows[size] = {
            depth: f"{mean:+.3f}" + "*" * int(depth == best[size]) for depth, mean in zip(depths, means, strict=True)
        } | {"best": f"{best[size]} [{low}, {high}]"}
    print(f"### {protocol}\n")
    print_table(pd.DataFrame(rows).T.rename_axis("images a class / depth"))
    return best


def _moves(best: dict[str, int]) -> int:
    """Return -1 where the best depth falls as data grows and never rises, 1 the other way round, else 0."""
    steps = np.diff(list(best.values()))
    return int(steps.any()) * (int((steps >= 0).all()) - int((steps <= 0).all()))


def _print_moves(best: dict[str, dict[str, int]]) -> None:
    said = {-1: "moves toward the input", 0: "does not move one way", 1: "moves away from the input"}
    moved = {protocol: _moves(found) for protocol, found in best.items()}
    for protocol, found in best.items():
        path, still = " → ".join(map(str, found.values())), len(set(found.values())) == 1
        print(f"- {protocol}: as data grows the best cut {'stays' if still else said[moved[protocol]]} ({path}).")
    toward = [protocol for protocol, move in moved.items() if move < 0]
    print(
        "- Gerace et al. (2024; abstract only) say that the best depth depends on the amount of target data, and that "
        "keeping the first layers alone is often best. That it moves toward the input with more data is seen here "
        f"under {listed(toward)}, and not under {listed(p for p in moved if p not in toward)}."
    )


def fixed_choices(runs: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return what each depth for all, and scratch, lose against the best choice: a row each, a column a size."""
    frame = runs[runs["protocol"].isin([protocol, "scratch"])]
    sized = averaged(frame)[["target", "samples_per_class", "size"]].drop_duplicates()
    frame = frame.merge(sized, on=["target", "samples_per_class"])
    columns = {}
    for size in _sizes(sized):
        lost = []
        for (target, source), group in frame[frame["size"] == size].groupby(["target", "source"]):
            table = group.pivot_table("accuracy", "seed", "depth")
            if len(table) < 2 or table.isna().any(axis=None):
                continue
            lost.append({"target": target, "source": source} | honest_regret(table).to_dict())
        by_target = pd.DataFrame(lost).drop(columns="source").groupby("target").mean()
        column = {("scratch" if depth == 0 else f"always {depth}"): lost_text(by_target[depth]) for depth in by_target}
        depths = [depth for depth in by_target if depth != 0]
        column["everything kept"] = lost_text(by_target[max(depths)])
        # The depth is chosen on the other targets.
        others = {target: by_target[depths].drop(index=target).mean().idxmin() for target in by_target.index}
        if len(by_target) > 1:
            column["best depth of the other targets"] = lost_text(
                pd.Series({target: by_target.loc[target, depth] for target, depth in others.items()}).rename_axis(
                    "target"
                )
            )
        columns[size] = column
    found = pd.DataFrame(columns)
    return found.drop(index=[f"always {max(depths)}"]).rename_axis("choice")


def honest_regret(table: pd.DataFrame) -> pd.Series:
    """Return what each choice loses against the best one, which is chosen on the other draws.

    Parameters
    ----------
    table : pandas.DataFrame
        Accuracies, a row a draw and a column a choice.
    """
    lost = []
    for seed in table.index:
        best = table.drop(index=seed).mean().idxmax()
        lost.append(table.loc[seed, best] - table.loc[seed])
    return pd.concat(lost, axis=1).mean(axis=1)


def balanced(runs: pd.DataFrame, size: str) -> dict[str, np.ndarray]:
    """Return for each target the accuracies (draws, sources, depths, protocols) at one size, where none is missing."""
    own = runs[runs["protocol"].isin(PROTOCOLS)]
    sized = averaged(own)[["target", "samples_per_class", "size"]].drop_duplicates()
    own = own.merge(sized, on=["target", "samples_per_class"])
    own = own[own["size"] == size]
    found = {}
    for target, group in own.groupby("target"):
        table = group.set_index(["seed", *FACTORS])["accuracy"]
        whole = pd.MultiIndex.from_product([group[name].unique() for name in ("seed", *FACTORS)])
        values = table.reindex(whole).to_numpy().reshape([len(level) for level in whole.levels])
        if not np.isnan(values).any():
            found[str(target)] = values
    return found


def variance_shares(runs: pd.DataFrame, size: str) -> pd.Series:
    """Return the share of each factor and interaction in the variance within targets, without that of draws."""
    totals: dict[str, float] = {}
    for values in balanced(runs, size).values():
        for name, amount in components(values).items():
            totals[name] = totals.get(name, 0.0) + amount
    found = pd.Series(totals)
    return found / found.sum()


def components(values: np.ndarray) -> dict[str, float]:
    """Decompose the sum of squares of (draws, sources, depths, protocols), averaged over draws.

    From that of each factor and interaction its degrees of freedom times the variance of a cell's mean over draws is
    taken off, which is what they would have if nothing but the draw mattered.
    """
    draws = len(values)
    noise = float(values.var(0, ddof=1).mean() / draws)
    left, found = values.mean(0), {}
    left = left - left.mean()
    for order in range(1, len(FACTORS) + 1):
        for axes in itertools.combinations(range(len(FACTORS)), order):
            others = tuple(axis for axis in range(len(FACTORS)) if axis not in axes)
            effect = left.mean(others, keepdims=True)
            left = left - effect
            freedom = math.prod(left.shape[axis] - 1 for axis in axes)
            amount = float((effect**2).sum()) * left.size / effect.size
            found[" × ".join(FACTORS[axis] for axis in axes)] = amount - freedom * noise
    return found


def random_choices(cells: pd.DataFrame, size: str) -> pd.Series:
    """Return what is lost where one factor is chosen at random and the others as well as can be for it."""
    own = cells[cells["protocol"].isin(PROTOCOLS) & (cells["size"] == size)]
    lost: dict[str, dict[str, float]] = {name: {} for name in FACTORS}
    for target, group in own.groupby("target"):
        for name in FACTORS:
            lost[name][str(target)] = group["accuracy"].max() - group.groupby(name)["accuracy"].max().mean()
    return pd.DataFrame(lost).rename_axis("target").apply(lost_text)


def _profiles(gains: pd.DataFrame) -> Figure:
    sizes = _sizes(gains)
    styles = list(size_styles(pd.DataFrame({"samples_per_class": range(len(sizes))})).values())
    figure, axes = plt.subplots(1, len(PROTOCOLS), figsize=(8, 3.4), layout="constrained")
    for ax, protocol in zip(axes, PROTOCOLS, strict=True):
        own = gains[gains["protocol"] == protocol]
        ax.axhline(0, color="0.4", linewidth=1, linestyle="--")
        for size, style in zip(sizes, styles, strict=True):
            by_target = own[own["size"] == size].pivot_table("gain", "target", "depth")
            # Without what targets differ in at all depths alike.
            centred = by_target.sub(by_target.mean(axis=1), axis=0) + by_target.to_numpy().mean()
            bounds = np.array([over_targets(centred[depth])[1:] for depth in centred])
            ax.fill_between(by_target.columns, *bounds.T, color=style["color"], alpha=0.12, linewidth=0)
            means = by_target.mean()
            ax.plot(means.index, means, label=f"{size} a class" if size != "all" else "all there are", **style)
            ax.plot(means.idxmax(), means.max(), "o", markersize=11, markerfacecolor="none", color=style["color"])
        ax.set(title=protocol, xlabel="stages kept", xticks=sorted(own["depth"].unique()))
    axes[0].set_ylabel("accuracy gained over scratch")
    axes[0].legend(fontsize=8, frameon=False)
    sns.despine(figure)
    return figure


def _shares(shares: pd.DataFrame) -> Figure:
    figure, ax = plt.subplots(figsize=(6.5, 2.8), layout="constrained")
    left = np.zeros(shares.shape[1])
    colours = sns.color_palette("colorblind", len(shares))
    hatches: Sequence[str] = ("", "", "", "//", "\\\\", "xx", "..")
    places = np.arange(shares.shape[1])
    for (name, row), colour, hatch in zip(shares.clip(lower=0).iterrows(), colours, hatches, strict=True):
        ax.barh(places, row, left=left, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5, label=str(name))
        left = left + row.to_numpy()
    ax.set_yticks(places, shares.columns)
    ax.invert_yaxis()
    ax.set(xlabel="share of the variance of regret", ylabel="images a class", xlim=(0, 1.01))
    ax.legend(fontsize=8, frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    sns.despine(figure)
    return figure
