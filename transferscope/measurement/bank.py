"""The images of a grid of transfers, decoded once and kept as bytes."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from transferscope.data import Target
from transferscope.errors import InputError
from transferscope.images import Transform
from transferscope.progress import Report, silent


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
        self._pixels = torch.empty((0, 3, transform.size, transform.size), dtype=torch.uint8)

    def add(self, indices: Iterable[int], report: Report = silent) -> dict[int, str]:
        """Decode the images that are not here yet; return those that cannot be decoded, each with the reason."""
        wanted = [int(index) for index in indices if int(index) not in self._place]
        decoded: list[torch.Tensor] = []
        broken: dict[int, str] = {}
        for done, index in enumerate(wanted, 1):
            try:
                decoded.append(self.transform.pixels(self._target.image(index)))
                self._place[index] = len(self._pixels) + len(decoded) - 1
            except InputError as error:
                broken[index] = str(error)
            report(done, len(wanted))
        if decoded:
            self._pixels = torch.cat([self._pixels, torch.stack(decoded)])
        return broken

    def images(self, indices: np.ndarray) -> torch.Tensor:
        """Return images (n, 3, size, size), float32 and normalised, in the order of `indices`."""
        return self.transform.normalize(self._pixels[[self._place[int(index)] for index in indices]])

    def batches(self, indices: np.ndarray, batch_size: int, report: Report = silent) -> Iterator[torch.Tensor]:
        """Yield the images at `indices`, in order, `batch_size` at most at a time."""
        for start in range(0, len(indices), batch_size):
            yield self.images(indices[start : start + batch_size])
            report(min(start + batch_size, len(indices)), len(indices))
