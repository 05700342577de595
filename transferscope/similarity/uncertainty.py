"""How far a similarity can be trusted: standard errors, permutation tests, and numbers that mean nothing."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transferscope.arrays import backend
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.similarity import MEASURES, MinibatchCKA, Representation
from transferscope.similarity.representation import Report, silent

GROUPS = 20
"""Groups of samples that the jackknife leaves out in turn."""


@dataclass(frozen=True)
class Cells:
    """A similarity of all pairs of layers, each array (layers of x, layers of y)."""

    values: np.ndarray
    informative: np.ndarray
    """False where the value means nothing."""
    standard_error: np.ndarray | None = None
    """Over samples."""
    p_value: np.ndarray | None = None
    """Share of permutations of the samples of y that are at least as similar."""

    def known(self) -> dict[str, np.ndarray]:
        """Return what is known beside the values, by name."""
        return {name: array for name, array in vars(self).items() if name != "values" and array is not None}


def linear_cka_cells(cka: MinibatchCKA) -> Cells:
    """Read off an accumulator what it knows."""
    values = backend.to_numpy(cka.result())
    return Cells(
        values,
        np.isfinite(values),
        backend.to_numpy(cka.standard_error()),
        backend.to_numpy(cka.p_value()) if cka.permutations else None,
    )


def representations(features: Sequence[Any]) -> list[Representation]:
    """Bring the features of every layer, arrays or rows on disk, into memory for measures of `similarity.MEASURES`."""
    return [Representation(X if hasattr(X, "dtype") else X[:, :]) for X in features]


def measure_cells(
    measure: str,
    xs: Sequence[Representation],
    ys: Sequence[Representation],
    *,
    standard_error: bool,
    permutations: int,
    seed: int,
    group: int = 1,
    report: Report = silent,
) -> Cells:
    """Compare all pairs of layers by a measure of `similarity.MEASURES`.

    Parameters
    ----------
    measure : str
        Its name.
    xs, ys
        Layers of the same samples.
    standard_error : bool
        Whether to compute one: a jackknife over `GROUPS` groups of samples.
    permutations : int
        How often to permute the samples of y for the p-values.
    seed : int
        Of groups and permutations.
    group : int
        Consecutive rows that belong to one sample and are left out and permuted together.
    report : Report
        Told of layers and pairs, all that is to be done with them counted.

    Raises
    ------
    InputError
        When there are too few samples for the jackknife.
    """
    this = MEASURES[measure]
    rounds = 1 + GROUPS * standard_error + permutations

    def part(number: int) -> Report:
        return lambda done, total: report(number * total + done, rounds * total)

    values = backend.to_numpy(this.pairs(xs, ys, part(0)))
    informative = np.isfinite(values) & ~backend.to_numpy(this.uninformative(xs, ys))
    error = p_value = None
    # What is wrong with a layer has been said once, of all samples in their order.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TransferscopeWarning)
        if standard_error:
            parts = [part(1 + number) for number in range(GROUPS)]
            error = _jackknife(measure, xs, ys, np.random.default_rng(seed), group, parts)
        if permutations:
            rng = np.random.default_rng(seed)
            parts = [part(rounds - permutations + number) for number in range(permutations)]
            p_value = _permutation_test(measure, xs, ys, values, rng, group, parts)
    return Cells(values, informative, error, p_value)


def _jackknife(
    measure: str,
    xs: Sequence[Representation],
    ys: Sequence[Representation],
    rng: np.random.Generator,
    group: int,
    reports: Sequence[Report],
) -> np.ndarray:
    n = xs[0].n_samples // group
    if n < 2 * GROUPS:
        raise InputError(
            f"Expected at least {2 * GROUPS} images for the standard error of {MEASURES[measure].title}, a jackknife "
            f"over {GROUPS} groups, but got {n}; take more images, or leave `standard_error` out"
        )
    replicates = []
    for left_out, report in zip(np.array_split(rng.permutation(n), GROUPS), reports, strict=True):
        images = np.setdiff1d(np.arange(n), left_out)
        rows = backend.from_numpy(_rows(images, group), like=xs[0].like)
        subsets = [[layer.subset(rows) for layer in side] for side in ((xs,) if ys is xs else (xs, ys))]
        replicates.append(backend.to_numpy(MEASURES[measure].pairs(subsets[0], subsets[-1], report)))
    deviations = np.stack(replicates) - np.mean(replicates, axis=0)
    return np.sqrt((GROUPS - 1) / GROUPS * np.sum(deviations**2, axis=0))


def _permutation_test(
    measure: str,
    xs: Sequence[Representation],
    ys: Sequence[Representation],
    values: np.ndarray,
    rng: np.random.Generator,
    group: int,
    reports: Sequence[Report],
) -> np.ndarray:
    sign = -1 if measure.endswith(("_imbalance", "_distance")) else 1
    at_least = np.ones(values.shape)
    for report in reports:
        order = backend.from_numpy(_rows(rng.permutation(xs[0].n_samples // group), group), like=xs[0].like)
        permuted = MEASURES[measure].pairs(xs, [layer.permuted(order) for layer in ys], report)
        at_least += sign * backend.to_numpy(permuted) >= sign * values
    return np.where(np.isnan(values), math.nan, at_least / (len(reports) + 1))


def _rows(samples: np.ndarray, group: int) -> np.ndarray:
    return (samples[:, None] * group + np.arange(group)).ravel()
