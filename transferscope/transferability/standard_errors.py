"""How much a score depends on which images were drawn: the delete-d jackknife over stratified draws."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from transferscope.arrays import backend
from transferscope.arrays.strata import apportion
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.runtime.links import link_of
from transferscope.runtime.metrics import ACCURACY, CLASSIFICATION, Metric
from transferscope.transferability import Layer
from transferscope.transferability.panel import score_source
from transferscope.transferability.tasks import figures_of

KEPT = 0.8
"""Share of the images in a draw."""


def stratified_draws(labels: np.ndarray, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Yield sorted indices of images, drawn without replacement class by class.

    Every draw has the same number of images, `KEPT` of all. Each class gives its share, rounded up or down at random,
    but never fewer than two images, or its only one: no class is lost, and none becomes unlearnable.

    Without replacement, because most scores leave each image out in turn or look at its neighbours: the copies that a
    bootstrap makes of an image would give its label away.

    Parameters
    ----------
    labels : numpy.ndarray
        (n_samples,) class of each image.
    draws : int
        How many.
    seed : int
        Decides the draws.

    Raises
    ------
    InputError
        When there are too few images to leave any out.
    """
    n = len(labels)
    classes, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    size = max(round(KEPT * n), int(np.minimum(counts, 2).sum()))
    if size == n:
        raise InputError(
            f"Expected more than {n} images of {len(classes)} classes for `uncertainty`, which leaves some images out "
            "but no class with fewer than two; take more with `samples`, or leave `uncertainty` out"
        )
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        order, offsets = np.empty(n), np.empty(len(counts))
        for label, count in enumerate(counts):
            order[codes == label] = rng.permutation(count)
            offsets[label] = rng.random()
        wanted = apportion(counts, total=size, least=2, offset=offsets)
        yield np.flatnonzero(order < wanted[codes])


def jackknife_standard_error(values: np.ndarray, kept: int, n_samples: int) -> np.ndarray:
    """Return the standard error of a statistic from its values on draws without replacement.

    That is the delete-d jackknife: √(m / d) times the standard deviation over the draws, m images kept and d left out.
    For a mean it is the usual standard error. It holds for statistics that are less smooth than leaving out one image
    at a time allows, such as a median or a rank correlation, and errs on the side of too much where they are far from
    linear in their images.

    Parameters
    ----------
    values : numpy.ndarray
        (draws, ...), at least two draws.
    kept : int
        Images in each draw.
    n_samples : int
        Images in all.

    References
    ----------
    Shao and Wu (1989), A General Theory for Jackknife Variance Estimation.
    """
    return np.sqrt(kept / (n_samples - kept)) * np.std(values, axis=0, ddof=1)


def standard_errors(
    scores: Mapping[str, np.ndarray],
    features: Mapping[str, Any],
    probabilities: Any | None,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    draws: int,
    seed: int,
    worth: int | None = None,
    metric: Metric = ACCURACY,
    strata: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return the standard error of every score, of the shape of the score.

    Of an accuracy it is that of a share, p̃ (1 - p̃) / (n + 3) under the root, p̃ = (n p + 1) / (n + 2): the standard
    deviation of its posterior after a uniform prior; of a figure of another task what its `Link` says. Of any other
    score it is a delete-d jackknife over stratified
    draws of the images without replacement, see `stratified_draws`. What is undefined on one of the draws is NaN;
    why, is not said again for each of them.

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
    worth : int, optional
        How many images measure an accuracy as exactly as these: fewer where it is a balanced one of uneven classes.
    metric : Metric
        As in `score_source`.
    strata : numpy.ndarray, optional
        (n_samples,), what draws are stratified by; by default the labels.

    Raises
    ------
    InputError
        When there are too few images to leave any out.
    """
    n = len(labels)
    figures = figures_of(metric.task)
    errors = {name: _figure_error(scores[name], worth or n, metric) for name in names if name in figures}
    redrawn = [name for name in names if name not in errors]
    if not redrawn:
        return errors
    replicates: dict[str, list[np.ndarray]] = {name: [] for name in redrawn}
    draw_size = 0
    for drawn in stratified_draws(labels if strata is None else strata, draws, seed):
        draw_size = len(drawn)
        layers = (Layer(_rows(array, drawn)) for array in features.values())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TransferscopeWarning)
            draw_probabilities = None if probabilities is None else _rows(probabilities, drawn)
            of_draw = _scored(layers, draw_probabilities, labels[drawn], redrawn, metric, len(features))
        for name in redrawn:
            replicates[name].append(of_draw[name])
    return errors | {name: jackknife_standard_error(np.stack(replicates[name]), draw_size, n) for name in redrawn}


def _figure_error(figures: np.ndarray, n_samples: int, metric: Metric) -> np.ndarray:
    if metric.task == CLASSIFICATION:
        return np.sqrt(posterior(figures, n_samples)[1])
    return np.asarray(link_of(metric).standard_error(figures, n_samples))


def _scored(
    layers: Iterator[Layer], probabilities: Any | None, labels: np.ndarray, names: Sequence[str], metric: Metric, n: int
) -> dict[str, np.ndarray]:
    """Return the scores of a draw, NaN at all `n` layers where its labels cannot be told apart."""
    try:
        return score_source(layers, probabilities, labels, names, metric=metric)
    except InputError:
        if metric.task == CLASSIFICATION:
            raise
        return {name: np.full(n, np.nan) for name in names}


def _rows(array: Any, rows: np.ndarray) -> Any:
    return backend.array_namespace(array).take(array, backend.from_numpy(rows, like=array), axis=0)


def posterior(accuracy: np.ndarray, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the beta distribution of an accuracy measured on `n_samples` images, uniform before."""
    mean = (accuracy * n_samples + 1) / (n_samples + 2)
    return mean, mean * (1 - mean) / (n_samples + 3)
