"""Whether a score orders sources and depths as the predicted accuracy does, and any better than a baseline."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

FEWEST = 3
"""Sources, or depths of a source, from which on an order can be compared."""


@dataclass(frozen=True)
class Agreement:
    """Weighted Kendall τ of scores and baselines with the predicted accuracy, each between -1 and 1.

    It is `scipy.stats.weightedtau(score, accuracy)` with its default rank, so that exchanges at the top count most.
    The accuracy is the prediction of this very ranking, not that of transfers which were run.
    """

    sources: int
    """With a prediction; below `FEWEST` nothing can be told over sources."""
    over_sources: dict[str, float] = field(default_factory=dict)
    """Each source at its best cut; NaN where it cannot be told."""
    over_depths: dict[str, float] = field(default_factory=dict)
    """Within a source, mean over sources; NaN where it cannot be told, as for what is the same at all depths."""


def agreement(predictions: xr.Dataset, names: Sequence[str]) -> Agreement:
    """Compare the orders that scores and baselines give with that of `expected_accuracy`.

    Parameters
    ----------
    predictions : xarray.Dataset
        With `expected_accuracy` over (source, depth).
    names : sequence of str
        Variables over (source, depth) or (source,); what equals the prediction itself is left out.
    """
    accuracy = predictions["expected_accuracy"].to_numpy()
    rows = [i for i, row in enumerate(accuracy) if np.isfinite(row).any()]
    columns = [int(np.nanargmax(accuracy[i])) for i in rows]
    correlations = Agreement(len(rows))
    for name in names:
        values = predictions[name].to_numpy().astype(np.float64)
        per_source = values.ndim == 1
        if not per_source and np.array_equal(values, accuracy, equal_nan=True):
            continue
        chosen = values[rows] if per_source else values[rows, columns]
        correlations.over_sources[name] = _tau(chosen, accuracy[rows, columns])
        within = [math.nan] if per_source else [_tau(values[i], accuracy[i]) for i in rows]
        told = [tau for tau in within if not math.isnan(tau)]
        correlations.over_depths[name] = float(np.mean(told)) if told else math.nan
    return correlations


def _tau(score: np.ndarray, accuracy: np.ndarray) -> float:
    """Weighted τ over the pairs of which both are known; NaN for fewer than `FEWEST`, or where one is constant."""
    finite = np.isfinite(score) & np.isfinite(accuracy)
    if finite.sum() < FEWEST:
        return math.nan
    return weighted_tau(score[finite], accuracy[finite])


def weighted_tau(x: np.ndarray, y: np.ndarray) -> float:
    """Return Vigna's weighted τ of two vectors, as `scipy.stats.weightedtau` does by default; NaN if one is constant.

    A pair weighs 1 / (rank + 1) of the one plus that of the other. Written out, for it is the one thing of scipy.stats
    that is needed here, which takes as long to import as the rest of a ranking to be read from the cache.

    References
    ----------
    Vigna (2015), A weighted correlation index for rankings with ties.
    """
    both = _tau_ranked(x, y, np.lexsort((y, x))[::-1]), _tau_ranked(x, y, np.lexsort((x, y))[::-1])
    return sum(both) / 2


def _tau_ranked(x: np.ndarray, y: np.ndarray, order: np.ndarray) -> float:
    """Weigh by the ranks of one order, the best first."""
    weight = np.empty(len(x))
    weight[order] = 1 / (1 + np.arange(len(x)))
    pairs = weight[:, None] + weight
    above_x, above_y = (np.sign(values[:, None] - values) for values in (x, y))
    xy, xx, yy = (float((pairs * product).sum()) for product in (above_x * above_y, above_x**2, above_y**2))
    return xy / math.sqrt(xx) / math.sqrt(yy) if xx and yy else math.nan
