"""How good the predictions of a model are that predicts several labels of an image, or numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from transferscope.results.recommendation import LEVEL
from transferscope.runtime.metrics import (
    MULTI_LABEL,
    Metric,
    average_precision,
    metric_of,
    metrics_of,
    r_squared,
    rank_correlation,
)

_DRAWS = 200
"""Draws of the test images with replacement, that an interval is taken of."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """Predictions of test images beside the truth.

    Attributes
    ----------
    task : str
        "multi-label" or "regression".
    names : tuple of str
        Of labels or numbers.
    truth : numpy.ndarray
        (n_samples, n_outputs): 0 or 1 of labels, or numbers.
    predicted : numpy.ndarray
        (n_samples, n_outputs): scores, above 0 where a label is predicted, or numbers.
    """

    task: str
    names: tuple[str, ...]
    truth: np.ndarray
    predicted: np.ndarray

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def metric(self) -> Metric:
        """What the model is judged by."""
        return metric_of(None, self.task)

    @property
    def reached(self) -> float:
        """Its value."""
        return self.metric.of(self.predicted, self.truth)

    @property
    def figures(self) -> dict[str, float]:
        """The value of every metric of the task, by column."""
        return {metric.column: metric.of(self.predicted, self.truth) for metric in metrics_of(self.task)}

    @cached_property
    def interval(self) -> tuple[float, float]:
        """80 % interval of what it would reach on other images like these: a percentile bootstrap over the images.

        References
        ----------
        Efron and Tibshirani (1993), An Introduction to the Bootstrap.
        """
        rng = np.random.default_rng(0)
        drawn = rng.integers(len(self), size=(_DRAWS, len(self)))
        values = [self.metric.of(self.predicted[rows], self.truth[rows]) for rows in drawn]
        low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)

    @property
    def table(self) -> pd.DataFrame:
        """A row a label, or a row a number.

        Of labels images that have it, average precision, recall and precision (NaN where nothing was); of numbers
        images, R², rank correlation and mean absolute error in its own unit.
        """
        columns = list(zip(self.truth.T, self.predicted.T, strict=True))
        if self.task == MULTI_LABEL:
            said = [(truth > 0, scores > 0) for truth, scores in columns]
            return pd.DataFrame(
                {
                    "label": self.names,
                    "images": [int(has.sum()) for has, _ in said],
                    "average_precision": [
                        average_precision(scores, truth) if truth.any() else np.nan for truth, scores in columns
                    ],
                    "recall": [_share(has & yes, has) for has, yes in said],
                    "precision": [_share(has & yes, yes) for has, yes in said],
                }
            )
        pairs = [(predicted[:, None], truth[:, None]) for truth, predicted in columns]
        return pd.DataFrame(
            {
                "number": self.names,
                "images": len(self),
                "r2": [r_squared(*pair) for pair in pairs],
                "rank_correlation": [rank_correlation(*pair) for pair in pairs],
                "mean_absolute_error": np.abs(self.predicted - self.truth).mean(axis=0),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what card.json holds of it."""
        return {"task": self.task, "truth": self.truth.tolist(), "predicted": self.predicted.tolist()}

    @classmethod
    def read(cls, record: Mapping[str, Any], names: tuple[str, ...]) -> "Outcome":
        """Return the outcome of which card.json holds this."""
        return cls(record["task"], names, np.array(record["truth"]), np.array(record["predicted"]))


def _share(both: np.ndarray, of: np.ndarray) -> float:
    return float(both.sum() / of.sum()) if of.any() else float("nan")
