"""What is to be learnt of the images of a target, and the strata that every draw of them takes its shares of."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from transferscope.data.notes import listed, thin_class_notes
from transferscope.data.samples import Samples, digest
from transferscope.errors import InputError
from transferscope.runtime.metrics import CLASSIFICATION, KIND, MULTI_LABEL, REGRESSION, outputs

BINS = 10
"""Ranges that numbers are divided into, at most."""
LEAST_OF_BIN = 10
"""Images of each of them, about."""
THIN = 5
"""A stratum that is no class and no rare label has as many images at least, or is joined with others."""


@dataclass(frozen=True, eq=False)
class Learnt:
    """What is to be learnt of images.

    Attributes
    ----------
    task : str
        "classification", "multi-label" or "regression".
    names : tuple of str
        Of classes, labels or numbers: of a network's outputs.
    values : numpy.ndarray
        Of each image the number of its class, (n_samples,) int64; which labels it has, (n_samples, n_labels) float64 of
        0 and 1; or its numbers, (n_samples, n_numbers) float64.
    strata : numpy.ndarray
        (n_samples,) int64, what draws are stratified by: the class; the rarest of the labels that an image has; a range
        of a number, or of the first principal component of several.
    groups : tuple of str
        Names of the strata, none of which is empty in the target that others are drawn from, but for classes.
    """

    task: str
    names: tuple[str, ...]
    values: np.ndarray
    strata: np.ndarray
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("values", "strata"):
            array = np.array(getattr(self, name))
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def what(self) -> str:
        """What its names are of."""
        return KIND[self.task]

    @property
    def counted(self) -> str:
        """How many there are of them, in words."""
        return outputs(self.task, len(self.names))

    @property
    def in_words(self) -> str:
        """What its strata are, in a message."""
        return {CLASSIFICATION: "classes", MULTI_LABEL: "rarest labels", REGRESSION: "ranges of numbers"}[self.task]

    def subset(self, chosen: np.ndarray) -> "Learnt":
        """Return it for the images at these places; strata stay what they are."""
        return replace(self, values=self.values[chosen], strata=self.strata[chosen])

    def hash(self, digests: np.ndarray) -> str:
        """Return a SHA-256 (hex) over names, task, and of each image its digest (32 bytes), values and stratum."""
        state = hashlib.sha256(digest(*(name.encode("utf-8", "surrogateescape") for name in self.names)))
        if self.task == CLASSIFICATION:
            columns = self.values.astype("<i8")[:, None]
        else:
            state.update(digest(self.task.encode()))
            columns = np.column_stack([self.values.astype("<f8").view("<i8"), self.strata]).astype("<i8")
        rows = np.ascontiguousarray(columns).view(np.uint8)
        state.update(np.concatenate([digests, rows], axis=1).tobytes())
        return state.hexdigest()

    def counts(self, pool: np.ndarray) -> np.ndarray:
        """Return how many images at these places have each class or label, or are there for each number."""
        if self.task == CLASSIFICATION:
            return np.bincount(self.values[pool], minlength=len(self.names))
        if self.task == MULTI_LABEL:
            return self.values[pool].sum(axis=0).astype(np.int64)
        return np.full(len(self.names), len(pool))


def learnt_of(samples: Samples, name: str) -> Learnt:
    """Return what samples are to teach, and their strata.

    Raises
    ------
    InputError
        There is one class only, or a label that all images have or none has.
    """
    if samples.task == CLASSIFICATION:
        values: list[Any] = sorted(set(samples.labels))
        if len(values) < 2:
            hint = samples.one_class_hint or "at least two are needed, each in a folder (or with a label) of its own"
            raise InputError(f"target {name!r} has one class only, {values[0]!r}: {hint}")
        number = {value: index for index, value in enumerate(values)}
        codes = np.array([number[label] for label in samples.labels], dtype=np.int64)
        classes = tuple(str(value) for value in values)
        return Learnt(CLASSIFICATION, classes, codes, codes, classes)
    rows = np.array(samples.labels, dtype=np.float64).reshape(len(samples.labels), -1)
    names = np.array(samples.outputs, dtype=object)
    if samples.task == MULTI_LABEL:
        shares = rows.mean(axis=0)
        samples.empty = [*samples.empty, *names[shares == 0]]
        rows, names = rows[:, shares > 0], names[shares > 0]
        if not len(names) or (shares == 1).any():
            who = f"all its images have {names[shares[shares > 0] == 1][0]!r}" if len(names) else "no image has one"
            raise InputError(f"target {name!r}: labels must tell images apart, but {who}; leave that label out")
        strata, groups = _rarest(rows, names.tolist())
    else:
        alike = rows.min(axis=0) == rows.max(axis=0)
        if alike.any():
            raise InputError(
                f"target {name!r} has {len(rows)} images, of which {names[alike][0]!r} does not differ: a regression "
                "needs numbers that do"
            )
        strata, groups = _ranges(rows)
    return Learnt(samples.task, tuple(names.tolist()), rows, strata, groups)


def notes_of(learnt: Learnt, name: str, pool: np.ndarray) -> list[str]:
    """Return what to warn of: classes or labels with too few images to draw from."""
    return thin_class_notes(name, learnt.names, learnt.counts(pool), learnt.what)


def empty_note(samples: Samples, name: str) -> list[str]:
    """Say which classes or labels no image has."""
    what = "labels" if samples.task == MULTI_LABEL else "classes"
    return [f"target {name!r}: without any image, these {what} are dropped: {listed(samples.empty)}"] * bool(
        samples.empty
    )


def _rarest(rows: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the rarest label of each image, and names.

    Images whose rarest label is that of few others, but not rare itself, are together with those that have none.
    """
    counts = rows.sum(axis=0)
    others = len(names)
    rank = np.empty(others)
    rank[np.argsort(counts, kind="stable")] = np.arange(others)
    strata = np.where(rows > 0, rank, others).argmin(axis=1)
    strata[~rows.any(axis=1)] = others
    sizes = np.bincount(strata, minlength=others + 1)
    thin = (sizes[:others] < THIN) & (sizes[:others] < counts)
    strata[np.isin(strata, np.flatnonzero(thin))] = others
    sizes = np.bincount(strata, minlength=others + 1)
    if 0 < sizes[others] < THIN and sizes[others] < len(rows):
        strata[strata == others] = sizes[:others].argmax()
    present, codes = np.unique(strata, return_inverse=True)
    called = [*names, "images of no rare label"]
    return codes.astype(np.int64), tuple(called[place] for place in present)


def _ranges(rows: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Divide images by quantiles of a number, or of the first principal component of several standardised ones."""
    number = rows[:, 0]
    if rows.shape[1] > 1:
        scaled = (rows - rows.mean(axis=0)) / rows.std(axis=0)
        axis = np.linalg.eigh(scaled.T @ scaled)[1][:, -1]
        number = scaled @ axis * np.sign(axis[np.abs(axis).argmax()])
        number = np.round(number, 9)  # equal rows are equal, and stay together
    values, places, counts = np.unique(number, return_inverse=True, return_counts=True)
    middles = (np.cumsum(counts) - counts / 2) / len(number)
    bins = np.floor(max(1, min(BINS, len(number) // LEAST_OF_BIN)) * middles).astype(np.int64)
    while len(sizes := np.bincount(bins, weights=counts)[np.unique(bins)]) > 1 and sizes.min() < THIN:
        bins = np.unique(bins, return_inverse=True)[1]
        small = int(sizes.argmin())
        beside = [place for place in (small - 1, small + 1) if 0 <= place < len(sizes)]
        bins[bins == small] = min(beside, key=lambda place: sizes[place])
    bins = np.unique(bins, return_inverse=True)[1]
    if rows.shape[1] > 1:
        groups = tuple(f"part {place + 1} of {bins.max() + 1}" for place in range(bins.max() + 1))
    else:
        ends = [values[bins == place][[0, -1]] for place in range(bins.max() + 1)]
        groups = tuple(f"{low:g}" if low == high else f"{low:g} to {high:g}" for low, high in ends)
    return bins[places.reshape(-1)].astype(np.int64), groups
