"""Whether the small-network map is sound, from its runs and from what `check.py` did."""

import numpy as np
import pandas as pd
from curves import over_targets
from depths_report import gained
from maps import CELL, averaged, print_table
from scipy import stats

MEANINGLESS = "random-labels"


def report(
    runs: pd.DataFrame, leaks: pd.DataFrame, reruns: pd.DataFrame, stopped: pd.DataFrame, views: pd.DataFrame
) -> None:
    """Print the checks."""
    cells = averaged(runs)
    print("## Is the map sound?\n")
    print("### No image is in two parts\n")
    print_table(leaks)
    shared = int(leaks[["in both", "in a source's images"]].to_numpy().sum())
    print(f"Images (by a hash of their content) that are in two parts: {shared}.\n")
    print("### Labels that mean nothing teach nothing\n")
    _print_sources(gained(cells))
    print("### More images, more accuracy\n")
    _print_growth(cells)
    print("### Runs repeat\n")
    _print_reruns(runs, reruns)
    print("### Networks are trained to the end\n")
    _print_ends(cells)
    print("### What early stopping would have cost\n")
    print(
        "The same cells and draws trained on all images to the end of the schedule, as everywhere here, and with a "
        "fifth of the images set aside, the epoch kept that has the least loss on them. Mean over draws.\n"
    )
    _print_against(runs, stopped, "early stopping")
    print("### What few views behind a frozen prefix would have cost\n")
    print(
        "`reinit` keeps what the frozen prefix makes of shifted images: of 16 shifts, or as many as there are epochs, "
        "here; the same cells and draws with four. Mean over draws.\n"
    )
    _print_against(runs, views, "four views")


def _print_sources(gains: pd.DataFrame) -> None:
    """Say what each source gives when all of it is fine-tuned, and whether random labels give anything."""
    whole = gains[(gains["protocol"] == "finetune") & (gains["depth"] == gains["depth"].max())]
    table = pd.DataFrame({
        size: {source: over_targets(each.set_index("target")["gain"]).text(3) for source, each in own.groupby("source")}
        for size, own in whole.groupby("size", sort=False)
    }).rename_axis("source")  # fmt: skip
    print("Accuracy above that of scratch when all stages are kept and fine-tuned, mean over targets [95 %].\n")
    print_table(table)
    random = whole[whole["source"] == MEANINGLESS]
    mean, low, high = over_targets(random.groupby("target")["gain"].mean())
    said = (
        "is not better than scratch beyond noise" if low <= 0
        else "**is better than scratch**: what it learned of the images, whatever their labels, is worth something"
    )  # fmt: skip
    sizes = {size: over_targets(own.set_index("target")["gain"]) for size, own in random.groupby("size", sort=False)}
    better = [f"with {size} images a class ({found.text(3)})" for size, found in sizes.items() if found.sign > 0]
    exception = f" It is better {' and '.join(better)}, taken by themselves." if low <= 0 and better else ""
    print(f"The source on random labels {said}: {mean:+.3f} [{low:+.3f}, {high:+.3f}] over all sizes.{exception}\n")


def _print_growth(cells: pd.DataFrame) -> None:
    """Count the cells whose accuracy falls from one size to the next by more than noise."""
    ordered = cells.sort_values("samples_per_class")
    lines = ordered.groupby(["target", "source", "protocol", "depth"])
    steps = ordered.assign(
        step=lines["accuracy"].diff(), noise=np.sqrt(ordered["error"] ** 2 + lines["error"].shift() ** 2)
    ).dropna(subset=["step"])
    falls = steps[steps["step"] < 0]
    beyond = falls[falls["step"] < -2 * falls["noise"].clip(lower=0.02)]
    print(
        f"Of {len(steps)} steps from one number of images to the next, {len(falls)} ({len(falls) / len(steps):.1%}) "
        f"are downward, {len(beyond)} of them by more than two standard errors over draws (at least 0.02 each, about "
        "what 500 test images come to).\n"
    )


def _print_reruns(runs: pd.DataFrame, reruns: pd.DataFrame) -> None:
    """Compare two re-runs of random cells with each other and with the map."""
    runs = runs.fillna({"layer": ""})
    again = reruns[reruns["status"] == "done"].fillna({"layer": ""})
    parts = {
        "map": runs.groupby(CELL)["accuracy"].agg(["mean", "sem"]),
        "first": again[again["run"] == 1].groupby(CELL)["accuracy"].agg(["mean", "sem"]),
        "second": again[again["run"] == 2].groupby(CELL)["accuracy"].agg(["mean", "sem"]),
    }
    draws = again[again["run"] == 1].groupby(CELL)["seed"].nunique()
    table = pd.concat(parts, axis=1).dropna()
    shown = pd.DataFrame({
        name: [f"{mean:.3f} ± {error:.3f}" for mean, error in table[name].to_numpy()] for name in parts
    }, index=table.index)  # fmt: skip
    print("Cells at random, each run twice more on other draws of images; mean ± standard error over draws.\n")
    print_table(shown)
    for one, other in (("first", "second"), ("map", "first"), ("map", "second")):
        apart = table[one]["mean"] - table[other]["mean"]
        noise = np.hypot(table[one]["sem"], table[other]["sem"])
        # Of two or three draws the standard error is itself a rough guess: all cells together say more than each.
        chi = float((apart**2).sum() / (noise**2).sum())
        expected = float((1 - 2 * stats.t.sf(2, 2 * draws.reindex(table.index) - 2)).sum())
        print(
            f"- {one} against {other}: {int((apart.abs() <= 2 * noise).sum())} of {len(table)} within two standard "
            f"errors of the difference ({expected:.0f} expected of so few draws); mean difference {apart.mean():+.3f}; "
            f"squared differences are {chi:.2f} times what the standard errors make of them."
        )
    print()


def _print_ends(cells: pd.DataFrame) -> None:
    """Compare cells that are one and the same network, trained in two ways."""
    deepest = cells["depth"].max()
    wide = cells.pivot_table("accuracy", ["target", "source", "size"], ["protocol", "depth"], sort=False)
    scratch = cells[cells["protocol"] == "scratch"].groupby(["target", "size"])["accuracy"].first()
    of_cells = wide.index.droplevel("source")
    pairs = {
        f"reinit of all {deepest} stages − truncate": wide["reinit", deepest] - wide["truncate", deepest],
        "finetune of 1 stage − scratch": wide["finetune", 1] - scratch.reindex(of_cells).to_numpy(),
    }
    table = pd.DataFrame({
        name: [over_targets(apart.xs(size, level="size")).text(3) for size in cells["size"].unique()]
        for name, apart in pairs.items()
    }, index=cells["size"].unique()).T  # fmt: skip
    print(
        "`reinit` that keeps all stages trains a head on frozen features, which `truncate` fits to the end: where it "
        "is below, steps or rate were too few for a head alone. `finetune` that keeps one stage has nearly nothing of "
        "the source. Difference of accuracies, mean over targets [95 %].\n"
    )
    print_table(table)


def _print_against(runs: pd.DataFrame, others: pd.DataFrame, name: str) -> None:
    """Compare runs of the map with those of the same cells and draws that were trained otherwise."""
    key = [*CELL, "seed"]
    other = others[others["status"] == "done"].fillna({"layer": ""}).set_index(key)["accuracy"]
    own = runs.fillna({"layer": ""}).set_index(key)["accuracy"].reindex(other.index)
    both = pd.DataFrame({"the map": own, name: other}).dropna()
    print_table(both.groupby(["target", "samples_per_class", "protocol", "depth"]).mean())
    lost = (both["the map"] - both[name]).groupby(level="samples_per_class").mean()
    print("\n".join(f"- At {size} images a class {name} lost {value:.3f}." for size, value in lost.items()) + "\n")
