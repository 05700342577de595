"""How much of what differs is noise: what a figure rests on, in words, and regret that noise does not flatter."""

import itertools
import math
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

NOTHING = "Not measured yet."


def within(values: pd.Series) -> float:
    """Return the variance of draws of one cell, pooled over cells; NaN where none has two.

    `values` has a level `seed`; the other levels tell cells.
    """
    cells = values.groupby(level=_cell(values))
    freedom = len(values) - cells.ngroups
    return float(((values - cells.transform("mean")) ** 2).sum() / freedom) if freedom else math.nan


def share(values: pd.Series) -> float:
    """Return the share of the variance between cells' means that is noise of the draws, at most 1; NaN if unknown."""
    values = values.dropna()
    means = values.groupby(level=_cell(values)).agg(["mean", "size"]) if len(values) else pd.DataFrame()
    if len(means) < 2:
        return math.nan
    between = means["mean"].var(ddof=1)
    noise = within(values) * (1 / means["size"]).mean()
    return float(np.minimum(1.0, noise / between)) if between > 0 else math.nan


def _cell(values: pd.Series) -> list[str]:
    return [str(name) for name in values.index.names if name != "seed"]


def basis(values: pd.Series, tested: Mapping[str, int], what: str = "cells") -> str:
    """Say what a figure rests on.

    Parameters
    ----------
    values : pandas.Series
        What was compared, a value for each cell and draw; levels `target`, `seed` and what else tells cells.
    tested : mapping of str to int
        Test images of each target.
    what : str
        What a cell is called.
    """
    noisy = share(values.dropna())
    told = (
        "how much of the differences between them is noise of the draws is not measured yet (too few have two)"
        if math.isnan(noisy) else f"{noisy:.0%} of the variance between them is noise of the draws"
    )  # fmt: skip
    found = counted(values, tested, what)
    return found if found == NOTHING else f"{found}; {told}."


def brief(values: pd.Series, tested: Mapping[str, int]) -> str:
    """Say in a cell of a table what a figure rests on."""
    noisy, found = share(values.dropna()), counted(values, tested)
    if found == NOTHING:
        return "not measured yet"
    return f"{found}; noise {'not known' if math.isnan(noisy) else f'{noisy:.0%}'}"


def counted(values: pd.Series, tested: Mapping[str, int], what: str = "cells") -> str:
    """Return numbers of cells, targets, draws and test images as text."""
    values = values.dropna()
    if not len(values):
        return NOTHING
    draws = values.groupby(level=_cell(values)).size()
    images = [tested[str(target)] for target in values.index.unique("target")]
    each, test = (ranged(numbers) for numbers in (draws, images))
    return (
        f"{len(draws)} {what.removesuffix('s') if len(draws) == 1 else what}, {len(images)} "
        f"target{'s' * (len(images) != 1)}, {each} draw{'s' * (each != '1')}, {test} test images"
    )


def ranged(numbers: Iterable[int]) -> str:
    """Return the least and the most of numbers as text."""
    known = sorted(numbers)
    low, high = known[0], known[-1]
    return f"{low}" if low == high else f"{low}–{high}"


def expected_regret(table: pd.DataFrame) -> pd.Series:
    """Return what each choice loses against the best one, chosen with one half of the draws and judged with the other.

    Averaged over all ways to halve them (of an odd number the halves are one apart, either of them chooses); NaN where
    there is one draw. A choice may come out below zero: better than what half of the draws choose.

    Parameters
    ----------
    table : pandas.DataFrame
        Accuracies, a row a draw and a column a choice.
    """
    values, draws = table.to_numpy(float), len(table)
    if draws < 2:
        return pd.Series(math.nan, table.columns)
    lost = []
    for half in halves(draws):
        judged = values[~half].mean(0)
        lost.append(judged[values[half].mean(0).argmax()] - judged)
    return pd.Series(np.mean(lost, axis=0), table.columns)


def halves(draws: int) -> list[np.ndarray]:
    """Return which draws choose, for each way to halve them."""
    found = []
    for count in {draws // 2, draws - draws // 2}:
        for chosen in itertools.combinations(range(draws), count):
            half = np.zeros(draws, dtype=bool)
            half[list(chosen)] = True
            found.append(half)
    return found
