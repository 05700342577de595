"""Whether scores that need no transfer choose the depth and the source that measured transfers say, and beat rules."""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from maps import print_table
from matplotlib.figure import Figure
from scipy.stats import kendalltau, weightedtau

PROTOCOLS = ("truncate", "reinit", "finetune")
CELL = ["target", "source", "depth", "samples_per_class"]
DRAWS = 2000
FEWEST = 3
"""Choices from which on an order can be compared."""
WITHOUT_DEPTH = ("leep", "nce")
SIMILARITY = "to_scratch", "same_layer"
SCRATCH, RANDOM, LAST = "never: scratch", "random choice", "last layer"
HINDSIGHT, ELSEWHERE = "best fixed {}, in hindsight", "{} best on other targets"


def joined(cells: pd.DataFrame, scores: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return measured cells with the scores of each and `scratch`, and the names of the scores.

    Only sources of which every depth was measured, and targets of which every source was, so that the best choice is
    among those there are; how many are left out is printed.
    """
    known = {*CELL, "layer", "seed", "samples", "reference_accuracy"}
    names = [name for name in scores.columns if name not in known]
    means = scores.groupby(CELL, as_index=False)[[*names, "reference_accuracy"]].mean()
    measured = cells[cells["protocol"].isin(PROTOCOLS)]
    rows = measured.merge(means, on=CELL)
    wanted = means.groupby(["target", "samples_per_class"]).size().rename("wanted").reset_index()
    rows = rows.merge(wanted, on=["target", "samples_per_class"])
    unit = rows.groupby(["target", "size", "protocol"])["accuracy"]
    rows = rows[unit.transform("count") == rows["wanted"]]
    scratch = cells[cells["protocol"] == "scratch"].groupby(["target", "size", "source"])["accuracy"].mean()
    rows = rows.join(scratch.rename("scratch"), on=["target", "size", "source"])
    units = rows.groupby(["target", "size", "protocol"])[["reference_accuracy", "scratch"]].mean()
    print(
        f"{len(rows)} measured cells of {rows['target'].nunique()} targets have scores, in {len(units)} groups of one "
        f"target, number of images and protocol; {len(measured) - len(rows)} are left out because they have no scores "
        "or their group is not measured to the end. A measured cell has a standard error over draws of "
        f"{rows['error'].mean():.3f} in the mean; scores see draw 0 alone, accuracies are means over draws. "
        "The network from scratch that layers are compared with reaches an accuracy of "
        f"{units['reference_accuracy'].mean():.3f} in the mean, that of measured runs {units['scratch'].mean():.3f}."
    )
    lacking = {name: int(missing) for name in names if (missing := means[name].isna().sum())}
    if lacking:
        listed = ", ".join(f"{name} {missing}" for name, missing in lacking.items())
        print(f"\nNot defined, and never chosen while others are, in some of {len(means)} cells: {listed}.")
    print()
    return rows, names


def judge(rows: pd.DataFrame, unit: list[str], names: Sequence[str]) -> pd.DataFrame:
    """Return, for each unit and name: regret and relative accuracy of the choice with the highest value, and taus.

    Of equal values any is chosen with equal chance, and the expectation is given; so it is where no value is defined.
    """
    found = []
    for key, group in rows.groupby(unit, sort=False):
        accuracy = group["accuracy"].to_numpy()
        outcomes = {name: outcome(group[name].to_numpy(dtype=float), accuracy) for name in names}
        outcomes[SCRATCH] = group["scratch"].mean(), math.nan, math.nan
        for name, (chosen, tau, weighted) in outcomes.items():
            lost = {"regret": accuracy.max() - chosen, "relative": chosen / accuracy.max()}
            found.append(dict(zip(unit, key, strict=True)) | {"name": name, "tau": tau, "weighted": weighted} | lost)
    return pd.DataFrame(found)


def outcome(values: np.ndarray, accuracy: np.ndarray) -> tuple[float, float, float]:
    """Return the accuracy of the highest value's choice, Kendall's tau-b and the weighted tau, NaN without an order."""
    defined = np.isfinite(values)
    chosen = accuracy[values == values[defined].max()].mean() if defined.any() else accuracy.mean()
    x, y = values[defined], accuracy[defined]
    if len(x) < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return chosen, math.nan, math.nan
    return chosen, kendalltau(x, y).statistic, weightedtau(x, y).statistic


def fixed(rows: pd.DataFrame, unit: list[str], choice: list[str], hindsight: bool) -> pd.Series:
    """Return how little the choice of each row loses on average, with its sign turned, whatever the scores are.

    In hindsight over all targets and numbers of images of a protocol; else over the other targets with as many images.
    """
    lost = rows.groupby(unit)["accuracy"].transform("max") - rows["accuracy"]
    within = ["protocol", *choice, *([] if hindsight else ["size"])]
    own = lost.groupby([rows[name] for name in [*within, "target"]]).mean()
    of_target = own.groupby(level=within)
    if hindsight:
        mean = of_target.transform("mean")
    else:
        mean = (of_target.transform("sum") - own) / (of_target.transform("count") - 1).where(lambda n: n > 0)
    return -rows.join(mean.rename("lost"), on=[*within, "target"])["lost"]


def with_rules(rows: pd.DataFrame, unit: list[str], choice: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Add what trivial rules choose by as columns, so that they are judged like scores."""
    what = " and ".join(choice)
    rules = {RANDOM: pd.Series(0.0, rows.index)}
    if "depth" in choice:
        deepest = int(rows["depth"].max())
        depths = range(1, deepest + 1) if choice == ["depth"] else (deepest,)
        # How near a depth is to the fixed one: an order of all depths.
        rules |= {LAST if d == deepest else f"depth {d}": -(rows["depth"] - d).abs().astype(float) for d in depths}
    rules[HINDSIGHT.format(what)] = fixed(rows, unit, choice, hindsight=True)
    rules[ELSEWHERE.format(what)] = fixed(rows, unit, choice, hindsight=False)
    return rows.assign(**rules), list(rules)


def of_targets(judged: pd.DataFrame, value: str, by: list[str]) -> pd.DataFrame:
    """Return a row a target and a column for each of `by`: the mean within the target."""
    return judged.pivot_table(value, "target", by, sort=False)


def over_targets(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each column over targets and its 95 % bootstrap interval, and both as text."""
    values = table.to_numpy(dtype=float)
    # How often each target is in each draw.
    weights = np.random.default_rng(0).multinomial(len(values), np.full(len(values), 1 / len(values)), size=DRAWS)
    with np.errstate(invalid="ignore"):
        means = (weights @ np.nan_to_num(values)) / (weights @ np.isfinite(values))
    low, high = pd.DataFrame(means).quantile([0.025, 0.975]).to_numpy()
    found = pd.DataFrame({"mean": table.mean(), "low": low, "high": high})
    found["text"] = [f"{row.mean:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in found.itertuples()]
    return found


def over_protocols(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over protocols of a table with columns (name, protocol)."""
    return table.T.groupby(level="name", sort=False).mean().T


def styled(name: str, rules: Sequence[str]) -> str:
    return f"*{name}*" if name in (*rules, SCRATCH) else name


def print_question(judged: pd.DataFrame, rules: list[str]) -> pd.DataFrame:
    """Print the table of one question and how the best score compares; return mean regrets, a row a target."""
    by = ["name", "protocol"]
    regrets, weighted = of_targets(judged, "regret", by), of_targets(judged, "weighted", by)
    totals = over_protocols(regrets)
    order = totals.mean().sort_values(kind="stable").index
    shown, taus = over_targets(regrets)["text"], weighted.mean()
    protocols = [name for name in PROTOCOLS if name in regrets.columns.unique("protocol")]
    table = pd.DataFrame({"mean regret": totals.mean()[order]})
    for protocol in protocols:
        table[f"regret, {protocol}"] = shown.xs(protocol, level="protocol")
    table["rel@1"] = over_protocols(of_targets(judged, "relative", by)).mean()
    for protocol in protocols:
        table[f"τw, {protocol}"] = taus.xs(protocol, level="protocol")
    table["τ-b"] = over_protocols(of_targets(judged, "tau", by)).mean()
    table.index = pd.Index([styled(name, rules) for name in order], name="chosen by")
    print_table(table.astype(object).where(table.notna(), "–"))

    scores = [name for name in order if name not in (*rules, SCRATCH)]
    similar = next(name for name in scores if name.endswith(SIMILARITY))
    best = next(name for name in scores if name != similar and not name.endswith(SIMILARITY))
    rule = next(name for name in order if name in rules)
    elsewhere = next(name for name in rules if name.endswith(ELSEWHERE.format("")))
    pairs = [(best, rule), (best, elsewhere), (similar, best), (similar, rule), (best, SCRATCH)]
    if LAST in rules:
        pairs.insert(2, (best, LAST))
    print(
        f"Best score: {best}; best similarity to the scratch network: {similar}; best rule: {rule}. Each is the best "
        "after the fact, of several, and looks better than it is. Differences of mean regret:\n"
    )
    for first, second in dict.fromkeys(pairs):
        print(f"- {compared(totals, first, second)}")
    print()
    return totals


def print_proposal(totals: pd.DataFrame) -> None:
    """Say whether similarity to the scratch network picks sources, as a paper proposes."""
    similar = totals[[name for name in totals if name.endswith(SIMILARITY)]].mean()
    found = over_targets((totals[similar.idxmin()] - totals["random choice"]).to_frame()).iloc[0]
    verdict = "is not seen here" if found["high"] >= 0 else "is seen here for the best of them, and not for all"
    print(
        "- Gerace et al. (2024; abstract only) pick a source by comparing it with a network trained from scratch. That "
        f"this beats a source at random {verdict}: by similarity {similar.min():.3f} to {similar.max():.3f} is lost, "
        f"at random {totals['random choice'].mean():.3f} (the best of {len(similar)} less random: {found['text']}).\n"
    )


def compared(totals: pd.DataFrame, first: str, second: str) -> str:
    """Say whether one way to choose loses less than another, over targets."""
    row = over_targets((totals[first] - totals[second]).to_frame()).iloc[0]
    verdict = "these targets do not tell them apart"
    if row["high"] < 0 or row["low"] > 0:
        verdict = f"{first} chooses {'better' if row['high'] < 0 else 'worse'}"
    return (
        f"{first} ({totals[first].mean():.3f}) less {second} ({totals[second].mean():.3f}): {row['text']}, {verdict}."
    )


def by_size(judged: pd.DataFrame) -> pd.DataFrame:
    """Return the mean weighted tau over depths: a row a name, columns (protocol, size) in order."""
    sizes = sorted(judged["size"].unique(), key=lambda size: math.inf if size == "all" else int(size))
    means = judged.groupby(["target", "name", "protocol", "size"])["weighted"].mean().reset_index()
    taus = means.pivot_table("weighted", "name", ["protocol", "size"])
    return taus[[(p, size) for p in PROTOCOLS for size in sizes if (p, size) in taus]]


def print_failures(judged: pd.DataFrame, taus: pd.DataFrame, scores: list[str], rows: pd.DataFrame) -> None:
    """Print where each score orders depths worst, and what becomes of its order with more images."""
    taus = taus.loc[scores]
    table = pd.DataFrame(index=pd.Index(scores, name="score"))
    for what in ("size", "protocol"):
        means = taus.T.groupby(level=what, sort=False).mean().T
        worst = zip(means.idxmin(axis=1), means.min(axis=1), strict=True)
        table[f"worst {what}"] = [f"{where} ({value:.2f})" for where, value in worst]
    for protocol in taus.columns.unique("protocol"):
        ends = taus[protocol].iloc[:, [0, -1]]
        table[f"{protocol}, {' → '.join(ends)}"] = [f"{few:.2f} → {many:.2f}" for few, many in ends.to_numpy()]
    print_table(table)
    if "reinit" not in taus:
        return
    largest = taus["reinit"].columns[-1]
    at_largest = judged[(judged["size"] == largest) & (judged["protocol"] == "reinit")]
    images = rows.loc[rows["size"] == largest, "samples"]
    found = over_targets(of_targets(at_largest, "weighted", ["name"]))
    logme = found.loc["logme"]
    outcome = "does too" if logme["high"] < 0 else "stays positive" if logme["low"] > 0 else "cannot be told from 0"
    negative = [name for name in scores if found.loc[name, "mean"] < 0]
    print(
        "On three six-layer CIFAR networks with up to 30 000 images, LogME's order over depths had turned negative "
        f"under reinit. Here, with {largest} images of each class ({images.min():.0f} to {images.max():.0f}), it "
        f"{outcome}: {logme['text']}. Below 0 in the mean there: {', '.join(negative) or 'none'}.\n"
    )


def tau_picture(taus: pd.DataFrame) -> Figure:
    protocols = taus.columns.unique("protocol")
    figure, axes = plt.subplots(
        1, len(protocols), figsize=(8, 0.28 * len(taus) + 1.4), sharey=True, layout="constrained", squeeze=False
    )
    for axis, protocol in zip(axes[0], protocols, strict=True):
        sns.heatmap(
            taus[protocol], ax=axis, cmap="PuOr", center=0, vmin=-1, vmax=1, annot=True, fmt=".2f", linewidths=0.5,
            annot_kws={"size": 7}, cbar=axis is axes[0][-1], cbar_kws={"label": "weighted τ over depths"},
        )  # fmt: skip
        axis.set(title=protocol, xlabel="images of each class", ylabel="")
        axis.tick_params(length=0)
    return figure


def regret_picture(judged: pd.DataFrame, totals: pd.DataFrame, rules: list[str]) -> Figure:
    found = over_targets(of_targets(judged, "regret", ["name", "protocol"]))
    order = totals.mean().sort_values(ascending=False, kind="stable").index
    protocols = [name for name in PROTOCOLS if name in found.index.unique("protocol")]
    figure, axes = plt.subplots(
        1,
        len(protocols),
        figsize=(8, 0.22 * len(order) + 1.2),
        sharex=True,
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    blue, orange, green = sns.color_palette("colorblind", 3)
    for axis, protocol in zip(axes[0], protocols, strict=True):
        for place, name in enumerate(order):
            row = found.loc[(name, protocol)]
            rule, similarity = name in (*rules, SCRATCH), name.endswith(SIMILARITY)
            colour, marker = (orange, "s") if rule else (green, "D") if similarity else (blue, "o")
            axis.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.5)
            axis.plot(
                row["mean"], place, marker, color=colour, markersize=4.5, markerfacecolor="white" if rule else colour
            )
        axis.axvline(0, color="0.6", linewidth=0.8)
        axis.set(title=protocol, yticks=range(len(order)), yticklabels=order)
        axis.grid(axis="x", color="0.9")
    figure.supxlabel("accuracy lost by the chosen depth (mean and 95 % interval over targets)", fontsize=10)
    handles = [
        plt.Line2D([], [], color=blue, marker="o", label="score"),
        plt.Line2D([], [], color=green, marker="D", label="similarity to scratch"),
        plt.Line2D([], [], color=orange, marker="s", markerfacecolor="white", label="rule"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    return figure


def report(cells: pd.DataFrame, scores: pd.DataFrame) -> dict[str, Figure]:
    """Print how well scores, similarities and rules choose on this map, and return pictures.

    Parameters
    ----------
    cells : pandas.DataFrame
        `maps.averaged` of the small-network map.
    scores : pandas.DataFrame
        What `scores.py` writes.
    """
    print("## Scores and similarity to the scratch network against this map\n")
    rows, names = joined(cells, scores)
    print(
        "Regret is the accuracy lost against the best measured choice, which is the best of noisy numbers and "
        "flattered: a perfect score would lose something too. Means are over the cells of a target, then over targets, "
        "with 95 % bootstrap intervals over targets. τw is scipy's `weightedtau(score, accuracy)`, τ-b Kendall's, "
        "rel@1 the chosen accuracy over the best. Of equal values any is chosen with equal chance. Similarity to a "
        "network from scratch is the proposal of Gerace et al. (2024): `…_to_scratch` takes its most similar layer, "
        f"`…_same_layer` the layer of the same name. Rules are in italics: *{SCRATCH}* is the measured network from "
        "scratch (below 0 it beats every transfer); a fixed depth orders depths by their distance from it.\n"
    )
    print("### Which depth of a source\n")
    with_depth = [name for name in names if name not in WITHOUT_DEPTH]
    unit = ["target", "size", "protocol", "source"]
    ruled, rules = with_rules(rows, unit, ["depth"])
    judged = judge(ruled, unit, [*with_depth, *rules])
    totals = print_question(judged, rules)
    taus = by_size(judged)
    ranked = [name for name in totals.mean().sort_values(kind="stable").index if name in with_depth]
    print("Where each orders depths worst, and its weighted τ from the fewest to the most images:\n")
    print_failures(judged, taus, ranked, rows)

    unit = unit[:-1]
    print("### Which source, at its best depth\n")
    of_source = rows.groupby([*unit, "source"])
    best = of_source[["accuracy", "scratch", *names]].max()
    # The first layers are alike in all networks: their similarity is the highest and says least.
    same = [name for name in names if name.endswith("same_layer")]
    best = best.join(of_source[same].mean().add_prefix("mean_")).reset_index()
    names += [f"mean_{name}" for name in same]
    ruled, source_rules = with_rules(best, unit, ["source"])
    print("A score is that of the depth it puts first; `mean_…` is the mean over depths.\n")
    totals_of_source = print_question(judge(ruled, unit, [*names, *source_rules]), source_rules)
    print_proposal(totals_of_source)
    print("### Which source and depth together\n")
    ruled, joint_rules = with_rules(rows, unit, ["source", "depth"])
    print_question(judge(ruled, unit, [*with_depth, *joint_rules]), joint_rules)
    ordered = [*ranked, LAST, HINDSIGHT.format("depth"), ELSEWHERE.format("depth")]
    return {
        "scores-depth-tau": tau_picture(taus.reindex(ordered)),
        "scores-depth-regret": regret_picture(judged, totals, rules),
    }
