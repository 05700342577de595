"""The scores that a kind of labels has: what is learnt, how labels are read, and which scores mean something there."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from transferscope.arrays.backend import Array, from_numpy, to_numpy
from transferscope.errors import InputError, TransferscopeWarning, near
from transferscope.runtime.metrics import Metric
from transferscope.transferability.layer import Layer
from transferscope.transferability.scores import SCORES


class TaskScore(NamedTuple):
    """A score of features for labels that are no classes."""

    title: str
    """As people read it."""
    range: str
    """Of its values; n is the number of samples."""
    from_layer: Callable[[Layer, Array], Any]
    """``f(layer, targets)``, of targets as the task's `encode` returns them, beside the features."""
    judged: bool = False
    """Whether that returns predictions of samples left out, (n_samples, n_targets) as a metric takes them, of which the
    metric is the score; its title and range are those of the metric that a task has by itself."""


@dataclass(frozen=True)
class Task:
    """A kind of labels.

    Attributes
    ----------
    name : str
        As it is asked for.
    of_what : str
        What its scores are of, in a message.
    encode : callable
        ``f(labels, n_samples)`` returns targets (n_samples, n_targets) float64 on the host, or raises InputError.
    telling : callable
        ``f(labels)``: which columns of labels (n_samples, n_targets), sound ones, tell samples apart, (n_targets,).
    scores : mapping of str to TaskScore
        Of the scores in `SCORES` those that mean something, by the same names.
    metric : Metric
        What predictions are judged by where nothing else is asked for.
    """

    name: str
    of_what: str
    encode: Callable[[Any, int], np.ndarray]
    telling: Callable[[np.ndarray], np.ndarray]
    scores: Mapping[str, TaskScore]
    metric: Metric

    def choose(self, measures: str | Iterable[str] | None) -> list[str]:
        """Return the names of these scores, each once; None means all.

        Raises
        ------
        InputError
            A name is unknown, or has no meaning here.
        """
        if measures is None:
            return list(self.scores)
        names = list(dict.fromkeys([measures] if isinstance(measures, str) else measures))
        for name in names:
            if name in SCORES and name not in self.scores:
                raise InputError(
                    f"Expected `measures` to name scores of {self.of_what} but {name!r} is one of classes; there are "
                    f"{', '.join(self.scores)}"
                )
            if name not in self.scores:
                hint = near(name, self.scores) or f"; there are {', '.join(self.scores)}"
                raise InputError(f"Expected `measures` to name scores but {name!r} is none{hint}")
        if not names:
            raise InputError(
                "Expected `measures` to name at least one score but got none; leave it out for all of them"
            )
        return names

    def panel(self, features: Array, labels: Any, measures: str | Iterable[str] | None = None) -> dict[str, float]:
        """Score features, as `panel.panel` does it for classes.

        Parameters
        ----------
        features
            (n_samples, n_features), at least 2 samples.
        labels
            As `encode` takes them.
        measures
            Names of `scores`; None for all.

        Returns
        -------
        dict
            Score name to value; all are better the higher. What is not defined is NaN, with a warning that says why.

        Raises
        ------
        InputError
            When features or labels are not as above, or a name is unknown.
        """
        names = self.choose(measures)
        layer = Layer(features)
        return self.panel_from_layer(layer, self.encode(labels, layer.n_samples), names, self.metric)

    def panel_from_layer(
        self, layer: Layer, encoded: np.ndarray, names: Iterable[str], metric: Metric
    ) -> dict[str, float]:
        """Do what `panel` does, from a layer and what `encode` returned, predictions judged by a metric of the task."""
        targets = from_numpy(encoded, like=layer.centred.left)
        values = {}
        for name in names:
            score = self.scores[name]
            try:
                found = score.from_layer(layer, targets)
                values[name] = metric.of(to_numpy(found), encoded) if score.judged else found
            except (InputError, np.linalg.LinAlgError) as error:
                warnings.warn(f"the score {name} is NaN: {error}", TransferscopeWarning, stacklevel=2)
                values[name] = math.nan
        return values
