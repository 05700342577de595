"""Several transferability scores of one feature matrix from one factorisation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from transferscope.arrays.backend import Array
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.runtime.metrics import ACCURACY, Metric
from transferscope.runtime.threads import side_by_side
from transferscope.transferability.labels import encode_labels
from transferscope.transferability.layer import Layer
from transferscope.transferability.scores import ACCURACIES, SCORES, choose, needs_predictions
from transferscope.transferability.tasks import task_of


def panel(
    features: Array,
    labels: Any,
    measures: str | Iterable[str] | None = None,
    *,
    source_probabilities: Array | None = None,
    balanced: bool = False,
) -> dict[str, float]:
    """Score features by several measures, of which none takes another down.

    Features, labels and probabilities that are no such raise an error. A score that is not defined for them (PARC
    where no class has two samples, say) is NaN, with a warning that names it and says why.

    Parameters
    ----------
    features
        (n_samples, n_features), at least 2 samples.
    labels
        (n_samples,) integers, booleans or strings, at least two classes.
    measures
        Names of `SCORES`, one or several; None for all that can be computed.
    source_probabilities
        (n_samples, n_source_classes), what the source predicts for its own classes: needed by LEEP and NCE alone.
    balanced
        Whether those that are accuracies are balanced ones: the mean over classes.

    Returns
    -------
    dict
        Score name to value, in the order of `measures`; all are better the higher.

    Raises
    ------
    InputError
        When features, labels or probabilities are not as above, or a name is unknown.
    """
    chosen = choose(measures, with_probabilities=source_probabilities is not None)
    layer = Layer(features)
    codes = encode_labels(labels, layer.n_samples)
    names = [score.name for score in chosen]
    return panel_from_layer(layer, codes, names, source_probabilities=source_probabilities, balanced=balanced)


def panel_from_layer(
    layer: Layer,
    codes: np.ndarray,
    measures: str | Iterable[str] | None = None,
    *,
    source_probabilities: Array | None = None,
    balanced: bool = False,
) -> dict[str, float]:
    """Do what `panel` does, from a layer and the codes of `encode_labels`."""
    values = {}
    for score in choose(measures, with_probabilities=source_probabilities is not None):
        if score.from_layer is None:
            values[score.name] = score.function(source_probabilities, codes)
            continue
        try:
            more = {"balanced": True} if balanced and score.name in ACCURACIES else {}
            values[score.name] = score.from_layer(layer, codes, **more)
        except (InputError, np.linalg.LinAlgError) as error:
            warnings.warn(f"the score {score.name} is NaN: {error}", TransferscopeWarning, stacklevel=2)
            values[score.name] = math.nan
    return values


def score_source(
    layers: Iterable[Layer],
    probabilities: Any | None,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    metric: Metric = ACCURACY,
    threads: int = 1,
) -> dict[str, np.ndarray]:
    """Return the scores of every layer, and those of the source's own predictions, which no layer has.

    Parameters
    ----------
    layers : iterable of Layer
        One after the other, so that what a layer holds can be released before the next one comes.
    probabilities : array or None
        (n_samples, n_source_classes), what the source predicts for its own classes.
    labels : numpy.ndarray
        (n_samples,); of a task beside classification (n_samples, n_targets), as its `encode` takes them.
    names : sequence of str
        Of `transferability.SCORES`.
    metric : Metric
        Of the task: what leave-one-out predictions are judged by.
    threads : int
        Layers that are scored side by side.

    Returns
    -------
    dict of str to numpy.ndarray
        Score name to (depths,), or to () where it needs probabilities: NaN without them.
    """
    if (task := task_of(metric.task)) is not None:
        encoded = task.encode(labels, len(labels))
        found = list(side_by_side(lambda layer: task.panel_from_layer(layer, encoded, names, metric), layers, threads))
        return {name: np.array([values[name] for values in found]) for name in names}
    codes = encode_labels(labels, len(labels))
    of_predictions = needs_predictions(names)
    of_layers = [name for name in names if name not in of_predictions]
    scores: dict[str, list[float]] = {name: [] for name in of_layers}

    def panel_of(layer: Layer) -> dict[str, float]:
        return panel_from_layer(layer, codes, of_layers, balanced=metric.by_class)

    for values in side_by_side(panel_of, layers if of_layers else (), threads):
        for name, value in values.items():
            scores[name].append(value)
    arrays = {name: np.array(values) for name, values in scores.items()}
    for name in of_predictions:
        has_probabilities = probabilities is not None
        arrays[name] = np.array(SCORES[name].function(probabilities, labels) if has_probabilities else np.nan)
    return arrays
