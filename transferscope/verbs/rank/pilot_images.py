"""Which images pilots are trained and tested on."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from transferscope.data.bank import Bank, sound
from transferscope.data.splits import hold_out
from transferscope.data.target import Target
from transferscope.runtime.progress import Report
from transferscope.verbs.bench import Bench

MOST_TESTED = 500
"""Images that a pilot is tested on at most: its accuracy then has a standard error of two points."""
_SMALLER = (1, 4, 16)
"""Pilots are trained on all images that they may be trained on, and on these fractions of each class."""
_LEAST = 5
"""Images of a class in a smaller pilot; of fewer, what is drawn decides more than what is tried."""


@dataclass(frozen=True)
class PilotImages:
    """The images of a target that pilots may use.

    Those of its own ``test`` split are never touched: they are left for whoever wants to know in the end how good the
    answer is, which they could not tell if it had been chosen by them. Pilots are tested on the ``val`` split where
    there is one; else on a quarter of the images, 500 at most, taken of those that no score was computed on (the probe)
    while there are ten of each class: a score and a pilot that saw the same images share their luck, and two that agree
    would say less than the model takes them to say. Of small targets the probe is everything; pilots are then tested on
    images that scores saw. In no case is a pilot tested on an image that it was trained on, or on a copy of one.
    Pilots are trained on draws of all other images, with as many as the answer is asked for, at most as many as
    scores are computed on.

    Attributes
    ----------
    target
        Without the images that are never touched.
    pool, test
        Indices into it, of what is trained on and tested on; some images may turn out to be broken.
    sizes
        Training images of each class, at most; the largest first.
    seed
        Of the draw.
    """

    target: Target
    pool: np.ndarray
    test: np.ndarray
    sizes: tuple[int, ...]
    seed: int

    @classmethod
    def of(cls, bench: Bench, n_samples: int) -> "PilotImages":
        """Divide the images of a bench for pilots of transfers that are trained on `n_samples` images.

        Raises
        ------
        InputError
            As `hold_out`: a class has one image only.
        """
        split = np.array(bench.target.split, dtype=object)
        touched = np.flatnonzero(split != "test")
        if not len(touched):
            touched = np.arange(len(split))
        images = bench.target.subset(touched)
        seen = np.flatnonzero(np.isin(touched, bench.probe.indices))
        pool, test = hold_out(images, most=MOST_TESTED, seed=bench.seed, seen=seen)
        counts = np.bincount(images.strata[pool])
        limit = min(n_samples, bench.probe.n_samples)
        of_each = max(
            (size for size in range(1, counts.max() + 1) if np.minimum(counts, size).sum() <= limit), default=1
        )
        sizes = dict.fromkeys(of_each // part for part in _SMALLER if part == 1 or of_each // part >= _LEAST)
        return cls(images, pool, test, tuple(sizes), bench.seed)

    def samples(self, size: int) -> int:
        """Return how many images a pilot with so many of each class is trained on."""
        return int(np.minimum(np.bincount(self.target.strata[self.pool]), size).sum())

    @cached_property
    def identity(self) -> list[str]:
        """What names the images in a cache."""
        return [self.target.subset(self.pool).hash, self.target.subset(self.test).hash]

    def decoded(self, bank: Bank, report: Report) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Decode the images for a bank; return pool, test and what is drawn at most, without broken ones."""
        return sound(self.target, self.pool, self.test, self.sizes, (self.seed,), bank, report)
