"""Images that are resized once for all networks that take them alike."""

from collections.abc import Iterator

import numpy as np
import torch

from transferscope.data.ahead import ahead
from transferscope.data.batches import batches
from transferscope.data.images import Transform
from transferscope.data.target import Target
from transferscope.runtime.progress import Report, silent

LIMIT = 2**29
"""Bytes of pixels that are kept; what takes more is made anew each time."""

_Geometry = tuple[object, ...]


class SharedPixels:
    """The images of a target as networks take them, each resized and cropped once for all transforms that do it alike.

    Parameters
    ----------
    target : Target
        Whose images they are.
    limit : int
        Bytes that may be kept; the sizes that were asked for longest ago are forgotten first.
    """

    def __init__(self, target: Target, limit: int = LIMIT) -> None:
        self._target = target
        self._limit = limit
        self._pixels: dict[_Geometry, torch.Tensor] = {}
        self._known: dict[_Geometry, np.ndarray] = {}

    def batches(
        self, indices: np.ndarray, transform: Transform, batch_size: int, report: Report = silent
    ) -> Iterator[torch.Tensor]:
        """Yield the images at `indices`, in order, as `transform` makes them, `batch_size` at most at a time.

        Where another thread may read them, it makes the next batch meanwhile.

        Raises
        ------
        InputError
            When an image cannot be read.
        """
        made = self._batches(indices, transform, batch_size, report)
        return ahead(made) if self._target.any_thread else made

    def _batches(
        self, indices: np.ndarray, transform: Transform, batch_size: int, report: Report
    ) -> Iterator[torch.Tensor]:
        key: _Geometry = (transform.size, transform.resize, transform.interpolation, len(transform.mean))
        if not self._has_room(key, transform):
            yield from batches(self._target.subset(indices), transform, batch_size, report)
            return
        pixels, known = self._pixels[key], self._known[key]
        for start in range(0, len(indices), batch_size):
            part = np.asarray(indices[start : start + batch_size])
            for index in part[~known[part]].tolist():
                pixels[index] = transform.pixels(self._target.image(index))
                known[index] = True
            yield transform.normalize(pixels[torch.from_numpy(part)])
            report(start + len(part), len(indices))

    def _has_room(self, key: _Geometry, transform: Transform) -> bool:
        if key in self._pixels:
            return True
        shape = (self._target.n_samples, *transform.shape)
        needed = int(np.prod(shape))
        if needed > self._limit:
            return False
        while sum(kept.numel() for kept in self._pixels.values()) + needed > self._limit:
            oldest = next(iter(self._pixels))
            del self._pixels[oldest], self._known[oldest]
        self._pixels[key] = torch.empty(shape, dtype=torch.uint8)
        self._known[key] = np.zeros(shape[0], dtype=bool)
        return True
