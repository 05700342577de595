"""By what transfers are judged: what it is called, in which column of a measurement it stands, what guessing gives."""

from dataclasses import dataclass

import numpy as np

from transferscope.errors import InputError, near


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

    def guessing(self, counts: np.ndarray) -> float:
        """Return what always guessing one class gives, of classes with these numbers of images, (n_classes,)."""
        counts = counts[counts > 0]
        return 1 / len(counts) if self.by_class else float(counts.max() / counts.sum())

    def worth(self, counts: np.ndarray) -> int:
        """Return how many images measure a share as exactly as these do, by the number of each class, (n_classes,).

        Of a mean over C classes with n_c images each, of which equal shares are right, the variance is that of
        C² / Σ 1 / n_c images.
        """
        counts = counts[counts > 0]
        if not self.by_class:
            return int(counts.sum())
        return max(1, round(len(counts) ** 2 / float((1 / counts).sum())))


ACCURACY = Metric("accuracy", "accuracy", "accuracy", by_class=False)
BALANCED = Metric("balanced-accuracy", "balanced accuracy", "balanced_accuracy", by_class=True)
METRICS = {metric.name: metric for metric in (ACCURACY, BALANCED)}
"""By name."""

UNEVEN = 5.0
"""Classes that differ by more than this factor in their images are worth a hint."""


def metric_of(name: str) -> Metric:
    """Return the metric of this name.

    Raises
    ------
    InputError
        There is none.
    """
    if not isinstance(name, str) or name not in METRICS:
        raise InputError(f"Expected `metric` to be one of {', '.join(METRICS)}, but got {name!r}{near(name, METRICS)}")
    return METRICS[name]


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
