"""By what transfers are judged: what it is called, in which column of a measurement it stands, what guessing gives."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from transferscope.errors import InputError, near

CLASSIFICATION, MULTI_LABEL, REGRESSION = TASKS = ("classification", "multi-label", "regression")
"""What may be learnt of an image: its class, which of several labels it has, or numbers."""

STRATUM = {CLASSIFICATION: "class", MULTI_LABEL: "rarest label", REGRESSION: "range"}
OF_EACH = {task: f"each {stratum}" for task, stratum in STRATUM.items()}
"""What draws take images of, by task: the rarest label that an image has, a tenth of the images by their number."""
KIND = {CLASSIFICATION: "classes", MULTI_LABEL: "labels", REGRESSION: "numbers"}
"""What a network's outputs are, by task."""


@dataclass(frozen=True)
class Metric:
    """A figure of how good predictions of test images are."""

    name: str
    """As it is asked for."""
    title: str
    """As people read it."""
    column: str
    """Of runs.csv."""
    by_class: bool
    """Whether each class counts alike, however many images it has."""
    of: Callable[[np.ndarray, np.ndarray], float]
    """``f(predictions, truth)``: codes of classes, (n_samples,); of labels scores, (n_samples, n_labels), above 0 where
    a label is predicted, and 0 or 1; or numbers, (n_samples, n_numbers), twice. NaN where it is not defined."""
    task: str = CLASSIFICATION

    def guessing(self, counts: np.ndarray) -> float:
        """Return what always guessing one class gives, of classes with these numbers of images, (n_classes,)."""
        counts = counts[counts > 0]
        return 1 / len(counts) if self.by_class else float(counts.max() / counts.sum())

    def without_looking(self, truth: np.ndarray) -> float:
        """Return what the same prediction for all images gives, the best one, of the truth as in `of`."""
        if self.task == CLASSIFICATION:
            return self.guessing(np.bincount(truth))
        if self.task == REGRESSION:
            return 0.0
        shares = truth.mean(axis=0)
        shares = shares[shares > 0]
        # Of a label that all images are said to have, precision is its share and recall is 1.
        return float(np.mean(shares if self is AVERAGE_PRECISION else 2 * shares / (1 + shares)))

    def worth(self, counts: np.ndarray) -> int:
        """Return how many images measure a share as exactly as these do, by the number of each class, (n_classes,).

        Of a mean over C classes with n_c images each, of which equal shares are right, the variance is that of
        C² / Σ 1 / n_c images.
        """
        counts = counts[counts > 0]
        if not self.by_class:
            return int(counts.sum())
        return max(1, round(len(counts) ** 2 / float((1 / counts).sum())))

    def worth_of(self, truth: np.ndarray) -> int:
        """Return how many images measure a share as exactly as these do, by their truth as in `of`.

        A label counts by the images that have it, and all of them for no more than there are images: errors on one
        image go together. Of numbers each image counts.
        """
        if self.task == CLASSIFICATION:
            return self.worth(np.bincount(truth))
        if self.task == REGRESSION:
            return len(truth)
        return min(len(truth), self.worth(truth.sum(axis=0)))

    @property
    def heading(self) -> str:
        """Its title where a line or a sentence begins."""
        return self.title[:1].upper() + self.title[1:]

    @property
    def guess(self) -> str:
        """What `without_looking` does, in words."""
        if self.task != CLASSIFICATION:
            return "the same guess for every image"
        return "guessing one class" if self.by_class else "always guessing the largest class"


def accuracy(codes: np.ndarray, truth: np.ndarray) -> float:
    """Return the share of images that are classified correctly."""
    return float(np.mean(codes == truth))


def balanced_accuracy(codes: np.ndarray, truth: np.ndarray) -> float:
    """Return the same of each class that has images, the mean over classes."""
    return float(np.mean([np.mean(codes[truth == label] == label) for label in np.unique(truth)]))


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the precision averaged over recall, Σ (R_k - R_(k-1)) P_k over thresholds, in (0, 1].

    Parameters
    ----------
    scores
        (n_samples,), higher for those that rather have the label; equal ones share a threshold.
    truth
        (n_samples,) 0 or 1, of which one at least is 1.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    recalls = hits[ends] / hits[-1]
    return float(np.sum(np.diff(recalls, prepend=0.0) * hits[ends] / (ends + 1)))


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean of `average_precision` over labels that an image has; both are (n_samples, n_labels)."""
    columns = [average_precision(*pair) for pair in zip(scores.T, truth.T, strict=True) if pair[1].any()]
    return float(np.mean(columns)) if columns else np.nan


def macro_f1(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the harmonic mean of precision and recall of each label that an image has, the mean over labels.

    A label counts as predicted where its score is above 0; one that is predicted nowhere has 0.
    """
    predicted = scores > 0
    hits, both = (predicted & (truth > 0)).sum(axis=0), predicted.sum(axis=0) + truth.sum(axis=0)
    there = truth.any(axis=0)
    return float(np.mean(2 * hits[there] / both[there])) if there.any() else np.nan


def r_squared(predictions: np.ndarray, truth: np.ndarray) -> float:
    """Return 1 - Σ (truth - prediction)² / Σ (truth - mean)² of each number, the mean over numbers, in (-∞, 1]."""
    residual = np.sum((truth - predictions) ** 2, axis=0)
    total = np.sum((truth - truth.mean(axis=0)) ** 2, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.mean(1 - residual / np.where(total > 0, total, np.nan)))


def rank_correlation(predictions: np.ndarray, truth: np.ndarray) -> float:
    """Return Spearman's ρ of each number with its prediction, the mean over numbers, in [-1, 1]; 0 for a constant."""
    from scipy.stats import rankdata  # importing it takes longer than most of what needs no ranks

    columns = zip(predictions.T, truth.T, strict=True)
    return float(np.mean([_correlation(rankdata(x), rankdata(y)) for x, y in columns]))


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt(np.sum(x**2) * np.sum(y**2))
    return float(np.sum(x * y) / norm) if norm > 0 else 0.0


ACCURACY = Metric("accuracy", "accuracy", "accuracy", False, accuracy)
BALANCED = Metric("balanced-accuracy", "balanced accuracy", "balanced_accuracy", True, balanced_accuracy)
AVERAGE_PRECISION = Metric(
    "mean-average-precision",
    "mean average precision",
    "mean_average_precision",
    True,
    mean_average_precision,
    MULTI_LABEL,
)
F1 = Metric("macro-f1", "macro F1", "macro_f1", True, macro_f1, MULTI_LABEL)
R2 = Metric("r2", "R²", "r2", False, r_squared, REGRESSION)
SPEARMAN = Metric("spearman", "rank correlation", "spearman", False, rank_correlation, REGRESSION)
METRICS = {metric.name: metric for metric in (ACCURACY, BALANCED, AVERAGE_PRECISION, F1, R2, SPEARMAN)}
"""By name."""

UNEVEN = 5.0
"""Classes that differ by more than this factor in their images are worth a hint."""


def outputs(task: str, count: int) -> str:
    """Count what a network puts out for a task, in words."""
    one, several = {CLASSIFICATION: ("class", "classes"), MULTI_LABEL: ("label", "labels")}.get(
        task, ("number", "numbers")
    )
    return f"{count} {one if count == 1 else several}"


def check_task(name: str) -> str:
    """Return the name of a task; raise InputError when there is none of this name."""
    if not isinstance(name, str) or name not in TASKS:
        raise InputError(f"Expected `task` to be one of {', '.join(TASKS)}, but got {name!r}{near(name, TASKS)}")
    return name


def guess(metric: Metric) -> str:
    """Say what `Metric.without_looking` does."""
    return "always guessing the largest" if metric.task == CLASSIFICATION else "the same answer for all images"


def metrics_of(task: str) -> tuple[Metric, ...]:
    """Return the metrics of a task, first the one that counts where none is asked for."""
    return tuple(metric for metric in METRICS.values() if metric.task == task)


def metric_of(name: str | None, task: str | None = CLASSIFICATION) -> Metric:
    """Return the metric of this name, or that of the task where there is no name.

    Raises
    ------
    InputError
        There is none, or it has no meaning for the task; with None of any task.
    """
    if name is None and task is not None:
        return metrics_of(task)[0]
    known = {metric.name: metric for metric in METRICS.values() if task in (None, metric.task)}
    if isinstance(name, str) and name in METRICS and name not in known:
        raise InputError(
            f"Expected `metric` to be one of {', '.join(known)} for the task {task}, but {name} is one of "
            f"{METRICS[name].task}"
        )
    if not isinstance(name, str) or name not in known:
        raise InputError(f"Expected `metric` to be one of {', '.join(known)}, but got {name!r}{near(name, known)}")
    return known[name]


def uneven_hint(metric: Metric, classes: tuple[str, ...], counts: np.ndarray) -> str:
    """Return a hint where classes differ much in how many images they have and each image counts alike; else nothing.

    Parameters
    ----------
    metric : Metric
        What is asked for.
    classes : tuple of str
        Their names.
    counts : numpy.ndarray
        (n_classes,) images of each.
    """
    present = np.flatnonzero(counts)
    if metric.by_class or not len(present):
        return ""
    most, least = (int(present[place(counts[present])]) for place in (np.argmax, np.argmin))
    if counts[most] <= UNEVEN * counts[least]:
        return ""
    return (
        f"The classes differ in their number of images, from {counts[least]} ({classes[least]}) to {counts[most]} "
        f"({classes[most]}), so that accuracy tells most of the large ones; --metric {BALANCED.name} counts each class "
        "alike."
    )
