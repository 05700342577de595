"""Whether a score orders sources and depths as the predicted accuracy does, and any better than a baseline."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from scipy.stats import weightedtau

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
    return float(weightedtau(score[finite], accuracy[finite]).statistic)
