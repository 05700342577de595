"""Accuracy over depth: complete curves, the best cut that noise allows to name, and means with their intervals."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from scipy import stats

CELL = ["target", "source", "protocol", "samples_per_class"]
DRAWS = 2000
COLOURS = dict(
    zip(
        ("truncate", "fne", "toptuning", "finetune", "reinit", "scratch"),
        [sns.color_palette("colorblind")[i] for i in (0, 1, 2, 3, 4, 7)],
        strict=True,
    )
)
"""Those of the pictures of `transferscope measure`."""


class Estimate(NamedTuple):
    """A mean with a 95 % interval; without bounds (NaN) where it is of one number."""

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves zero out, 0 where it does not or is not known."""
        return int(self.low > 0) - int(self.high < 0)

    def text(self, digits: int = 1, plus: bool = True) -> str:
        """Return it as text, with a plus before what is above zero."""
        form = f"{'+' if plus else ''}.{digits}f"
        if math.isnan(self.mean):
            return "–"
        # Rounded first: there is no minus zero.
        mean, low, high = (round(value, digits) + 0.0 for value in self)
        return f"{mean:{form}}" + ("" if math.isnan(low) else f" [{low:{form}}, {high:{form}}]")


def over_targets(values: pd.Series) -> Estimate:
    """Return the mean of targets' means and its percentile bootstrap; `values` has a level or an index of targets."""
    means = values.dropna().groupby(level="target").mean().to_numpy()
    if len(means) < 2:
        return Estimate(float(means.mean()) if len(means) else math.nan, math.nan, math.nan)
    drawn = np.random.default_rng(0).choice(means, (DRAWS, len(means))).mean(axis=1)
    return Estimate(float(means.mean()), *map(float, np.quantile(drawn, (0.025, 0.975))))


def over_curves(values: pd.Series) -> Estimate:
    """Return the mean and Student's interval: for numbers too few to be drawn from."""
    known = values.dropna().to_numpy()
    if len(known) < 2:
        return Estimate(float(known.mean()) if len(known) else math.nan, math.nan, math.nan)
    half = stats.t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known))
    return Estimate(float(known.mean()), float(known.mean() - half), float(known.mean() + half))


def curves(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each cell and draw (`CELL`, seed), a column for each depth; of a draw with gaps nothing.

    All sources have to have the same number of stages.
    """
    found = runs.pivot_table(index=[*CELL, "seed"], columns="depth", values="accuracy")
    stages = int(runs["depths"].max()) if len(runs) else 0
    return found.reindex(columns=range(1, stages + 1)).dropna()


def noise(found: pd.DataFrame) -> pd.Series:
    """Return the standard deviation of one accuracy over draws, for each (protocol, samples_per_class).

    Without what all depths of a draw have in common; NaN where there are no two draws of a cell.
    """
    centred = found.sub(found.mean(axis=1), axis=0)
    rest = centred - centred.groupby(level=CELL).transform("mean")
    pooled = ["protocol", "samples_per_class"]
    squares = (rest**2).sum(axis=1).groupby(level=pooled).sum()
    draws = found.groupby(level=CELL).size() - 1
    return np.sqrt(squares / (draws.groupby(level=pooled).sum() * (found.shape[1] - 1)).replace(0, np.nan))


def best_cuts(found: pd.DataFrame, by: list[str]) -> pd.Series:
    """Return the best depth of each group's mean curve: the centre of all within one standard error of the best."""
    means, draws = found.groupby(level=by).mean(), found.groupby(level=by).size()
    keys = pd.MultiIndex.from_arrays([means.index.get_level_values(name) for name in ("protocol", "samples_per_class")])
    slack = noise(found).reindex(keys).fillna(0).to_numpy() / np.sqrt(draws.to_numpy())
    near = means.ge(means.max(axis=1) - slack, axis=0)
    return (near * near.columns.to_numpy(dtype=float)).sum(axis=1) / near.sum(axis=1)


def full_means(values: pd.Series, by: list[str]) -> pd.Series:
    """Return the mean of each group; only of groups that have as many values as any."""
    found = values.groupby(level=by).agg(["mean", "size"])
    return found.loc[found["size"] == found["size"].max(), "mean"]


def listed(words: Iterable[str]) -> str:
    """Return words with commas, and an "and" before the last."""
    *first, last = list(words) or ["none"]
    return f"{', '.join(first)} and {last}" if first else last


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Return it with nothing where nothing is known."""
    return table.astype(object).where(table.notna(), "")
