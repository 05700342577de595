"""The images of a grid of transfers, decoded once and kept as bytes."""

import warnings
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from transferscope.data.images import Transform
from transferscope.data.notes import BROKEN_LIMIT
from transferscope.data.splits import draw
from transferscope.data.target import Target
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.runtime.checks import ALL, Size
from transferscope.runtime.metrics import CLASSIFICATION
from transferscope.runtime.progress import Report, silent


class Bank:
    """Images of a target as one transform sees them, by their index in the target.

    Parameters
    ----------
    target : Target
        Where the images come from.
    transform : Transform
        Resizes and crops them once; normalises them whenever they are asked for.
    """

    def __init__(self, target: Target, transform: Transform) -> None:
        self.transform = transform
        self._target = target
        self._place: dict[int, int] = {}
        self._pixels = torch.empty((0, *transform.shape), dtype=torch.uint8)

    def add(self, indices: Iterable[int], report: Report = silent) -> dict[int, str]:
        """Decode the images that are not here yet; return those that cannot be decoded, each with the reason."""
        wanted = [int(index) for index in indices if int(index) not in self._place]
        decoded: list[torch.Tensor] = []
        broken: dict[int, str] = {}
        for done, index in enumerate(wanted, 1):
            try:
                image = self._target.image(index)
            except InputError as error:
                broken[index] = str(error)
            else:
                decoded.append(self.transform.pixels(image))
                self._place[index] = len(self._pixels) + len(decoded) - 1
            report(done, len(wanted))
        if decoded:
            self._pixels = torch.cat([self._pixels, torch.stack(decoded)])
        return broken

    def images(self, indices: np.ndarray) -> torch.Tensor:
        """Return images (n, channels, height, width), float32 and normalised, in the order of `indices`."""
        return self.transform.normalize(self._pixels[[self._place[int(index)] for index in indices]])

    def batches(self, indices: np.ndarray, batch_size: int, report: Report = silent) -> Iterator[torch.Tensor]:
        """Yield the images at `indices`, in order, `batch_size` at most at a time."""
        for start in range(0, len(indices), batch_size):
            yield self.images(indices[start : start + batch_size])
            report(min(start + batch_size, len(indices)), len(indices))


def sound(
    images: Target,
    pool: np.ndarray,
    test: np.ndarray,
    sizes: Sequence[Size],
    seeds: Iterable[int],
    bank: Bank,
    report: Report,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Leave broken images out of the pool and the test part, and draw anew, until every image that is needed is sound.

    More broken ones than a share of `BROKEN_LIMIT` are an error. Images are drawn for each of `sizes` and `seeds`.

    Returns
    -------
    pool, test, drawn : numpy.ndarray
        Indices into the target; `drawn` are those of the pool that some run trains on.
    """
    seeds = tuple(seeds)
    most = max(len(pool) if size == ALL else size for size in sizes)
    all_broken: dict[int, str] = {}
    while True:
        strata = images.strata[pool]
        drawn = np.unique(np.concatenate([pool[draw(strata, most, seed)] for seed in seeds]))
        broken = bank.add([*drawn, *test], report)
        if not broken:
            return pool, test, drawn
        all_broken |= broken
        checked = len(drawn) + len(test)
        listed = "; ".join(list(broken.values())[:5]) + "; …" * (len(broken) > 5)
        if len(all_broken) > BROKEN_LIMIT * checked:
            raise InputError(
                f"target {images.name!r}: {len(all_broken)} of {checked} images are broken, over {BROKEN_LIMIT:.0%}: "
                f"{listed}; repair or remove them"
            )
        warnings.warn(f"{len(broken)} images are left out: {listed}", TransferscopeWarning, stacklevel=2)
        pool, test = (np.setdiff1d(part, list(broken)) for part in (pool, test))
        for part, what in ((pool, "train on"), (test, "test on")):
            needed = range(len(images.classes)) if images.task == CLASSIFICATION else ()
            missing = sorted(set(needed) - set(images.strata[part].tolist()))
            if missing or not len(part):
                named = ", ".join(images.classes[place] for place in missing[:5]) or images.name
                raise InputError(f"target {images.name!r}: no sound image is left to {what} in {named}; repair some")
