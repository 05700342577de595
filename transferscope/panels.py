"""Which transferability scores are computed of a source, their values at every depth, and their standard errors."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from transferscope import backend, transferability
from transferscope.draws import jackknife_standard_error, stratified_draws
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.lookup import near
from transferscope.ties import posterior
from transferscope.transferability import SCORES, Layer

NEEDED = ("logme", "knn", "nearest_mean", "ridge", "effective_rank")
"""What every prediction is made from."""
DEFAULT_SCORES = (*NEEDED, "hscore", "alignment")
"""What costs little beyond the factorisation that the similarities need anyway."""
ACCURACIES = tuple(name for name, score in SCORES.items() if score.range == "[0, 1]")
"""Scores that are a share of images classified correctly."""


def choose_scores(scores: str | Iterable[str]) -> tuple[str, ...]:
    """Return the names of the scores that are asked for, in the order of the registry.

    Parameters
    ----------
    scores : str or iterable of str
        Names of `transferability.SCORES`, "default" for `DEFAULT_SCORES`, or "all". Those that predictions are made
        from (`NEEDED`) are always among them.

    Raises
    ------
    InputError
        When a name is unknown.
    """
    groups = {"default": DEFAULT_SCORES, "all": tuple(SCORES)}
    chosen = set(NEEDED)
    for name in [scores] if isinstance(scores, str) else scores:
        if name not in SCORES and name not in groups:
            hint = near(name, [*SCORES, *groups]) or f"; there are {', '.join([*SCORES, *groups])}"
            raise InputError(f"Expected `scores` to name scores, 'default' or 'all', but got {name!r}{hint}")
        chosen.update(groups.get(name, (name,)))
    return tuple(name for name in SCORES if name in chosen)


def needs_predictions(names: Iterable[str]) -> list[str]:
    """Return those of the scores that look at the source's own class probabilities, and not at features."""
    return [name for name in names if SCORES[name].needs == "source_probabilities"]


def score_source(
    layers: Iterable[Layer], probabilities: Any | None, labels: np.ndarray, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return the scores of every layer, and those of the source's own predictions, which no layer has.

    Parameters
    ----------
    layers : iterable of Layer
        One after the other, so that what a layer holds can be released before the next one comes.
    probabilities : array or None
        (n_samples, n_source_classes), what the source predicts for its own classes.
    labels : numpy.ndarray
        (n_samples,)
    names : sequence of str
        Of `transferability.SCORES`.

    Returns
    -------
    dict of str to numpy.ndarray
        Score name to (depths,), or to () where it needs probabilities: NaN without them.
    """
    codes = transferability.encode_labels(labels, len(labels))
    own = needs_predictions(names)
    of_layers = [name for name in names if name not in own]
    found: dict[str, list[float]] = {name: [] for name in of_layers}
    for layer in layers if of_layers else ():
        for name, value in transferability.panel_from_layer(layer, codes, of_layers).items():
            found[name].append(value)
    arrays = {name: np.array(values) for name, values in found.items()}
    for name in own:
        known = probabilities is not None
        arrays[name] = np.array(SCORES[name].function(probabilities, labels) if known else np.nan)
    return arrays


def standard_errors(
    scores: Mapping[str, np.ndarray],
    features: Mapping[str, Any],
    probabilities: Any | None,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    draws: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Return the standard error of every score, of the shape of the score.

    Of an accuracy it is that of a share, p̃ (1 - p̃) / (n + 3) under the root, p̃ = (n p + 1) / (n + 2): the standard
    deviation of its posterior after a uniform prior. Of any other score it is a delete-d jackknife over stratified
    draws of the images without replacement, see `draws`. What is undefined on one of the draws is NaN; why, is not said
    again for each of them.

    The jackknife would do for accuracies too, but overstates their error, since every draw fits anew and turns single
    images from right to wrong.

    Parameters
    ----------
    scores
        What `score_source` returned for all images.
    features
        Layer name to (n_samples, n_features).
    probabilities, labels, names
        As in `score_source`.
    draws : int
        How many, at least 2.
    seed : int
        Decides the draws.

    Raises
    ------
    InputError
        When there are too few images to leave any out.
    """
    n = len(labels)
    errors = {name: np.sqrt(posterior(scores[name], n)[1]) for name in names if name in ACCURACIES}
    redrawn = [name for name in names if name not in errors]
    if not redrawn:
        return errors
    found: dict[str, list[np.ndarray]] = {name: [] for name in redrawn}
    kept = 0
    for drawn in stratified_draws(labels, draws, seed):
        kept = len(drawn)
        layers = (Layer(_rows(array, drawn)) for array in features.values())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TransferscopeWarning)
            own = None if probabilities is None else _rows(probabilities, drawn)
            of_draw = score_source(layers, own, labels[drawn], redrawn)
        for name in redrawn:
            found[name].append(of_draw[name])
    return errors | {name: jackknife_standard_error(np.stack(found[name]), kept, n) for name in redrawn}


def _rows(array: Any, rows: np.ndarray) -> Any:
    return backend.array_namespace(array).take(array, backend.from_numpy(rows, like=array), axis=0)
