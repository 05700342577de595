"""What is there and what is missing, as text."""

import pandas as pd

from groundtruth.v2 import design, frozen, hours, rows, seen, trained, zoo
from groundtruth.v2.training import RECIPE

REAL_CELLS = 300
"""Trained cells on real networks that are to be there first, a third of them with two draws."""

CELL = ["source", "target", "protocol", "depth", "samples_per_class"]


def text() -> str:
    """Return hours, counts and what is left."""
    runs, spent = trained.table(), hours.spent()
    runs = runs[(runs["status"] == "done") & (runs[rows.RECIPE].astype(str) == RECIPE.version)]
    left, units = trained.missing(), frozen.missing()
    made_up = {zoo.COMPACT, *(f"small-{name}" for name in zoo.SMALL)}
    real = runs[~runs["source"].isin(made_up)]
    draws = real.groupby(CELL).size()
    n_cells, n_units = len(design.read()), len(frozen.units())
    lines = [
        f"Recipe {RECIPE.version}. Hours spent: "
        + ", ".join(f"{spent.get(name, 0.0):.1f} {name}" for name in ("trained", "frozen", "evidence"))
        + ".",
        f"Trained: {n_cells - len(left)} of {n_cells} runs of the design; on real networks {len(draws)} cells of the "
        f"first {REAL_CELLS}, {(draws > 1).sum()} with two draws of the first {REAL_CELLS // 3}.",
        f"Frozen: {n_units - len(units)} of {n_units} pairs of source and target, {len(frozen.table())} runs.",
        f"Evidence: {len(seen.units()) - len(seen.missing())} of {len(seen.units())} targets and numbers of images.",
    ]
    heads = frozen.table()
    for name, each in (("trained", runs), ("frozen", heads[heads["status"] == "done"])):
        lines += noise(name, each)
    if len(runs):
        seconds = runs[rows.CPU_SECONDS].mean()
        lines.append(f"A trained run takes {seconds:.0f} s of a processor on average, without testing.")
        lines.append("\nTrained runs by source and protocol\n")
        lines.append(pd.crosstab(runs["source"], runs["protocol"], margins=True).to_string())
        lines.append("\nTrained runs by target and images of each class\n")
        lines.append(pd.crosstab(runs["target"], runs["samples_per_class"], margins=True).to_string())
    if units:
        lines.append(
            "\nFrozen, still missing: "
            + ", ".join(f"{source} on {target}" for target, source in units[:5])
            + (f" and {len(units) - 5} more" if len(units) > 5 else "")
        )
    if left:
        following = left[0]
        lines.append(f"Trained, next: {following.source} on {following.target}, {following.protocol}")
    return "\n".join(lines)


def noise(name: str, runs: pd.DataFrame) -> list[str]:
    """Say how far draws of one cell lie apart, in a line; none where no cell has two."""
    cells = runs.groupby([*CELL, "layer"])["accuracy"]
    draws = cells.transform("size") > 1
    if not draws.any():
        return []
    within = (runs["accuracy"] - cells.transform("mean"))[draws]
    variance = (within**2).sum() / (len(within) - cells.ngroup()[draws].nunique())
    return [
        f"Noise, {name}: draws of one cell have a standard deviation of {variance**0.5:.3f}, "
        f"{variance / runs['accuracy'].var():.1%} of the variance of all runs."
    ]
