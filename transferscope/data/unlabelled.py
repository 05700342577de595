"""Images without labels, in whatever form a user has them: named, and decoded one by one."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from transferscope.data.arrays import as_numpy, read_array
from transferscope.data.decoding import image_raster
from transferscope.data.folders import image_files
from transferscope.data.images import image_rgb, read_bytes
from transferscope.data.items import image_of
from transferscope.data.rasters import Picture, Raster
from transferscope.data.reading import Reading
from transferscope.data.target import Target
from transferscope.errors import InputError
from transferscope.runtime.lookup import missing_file


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Images by their place.

    Attributes
    ----------
    names : tuple of str
        Paths of files; else places, counted from 0.
    """

    names: tuple[str, ...]
    _items: Any
    _reading: Reading

    def __len__(self) -> int:
        return len(self.names)

    def image(self, place: int) -> Picture:
        """Decode one image to 8 bits, as those of a target; InputError or OSError with the reason if it is broken."""
        if isinstance(self._items, Target):
            return self._items.image(place)
        item = self._items[place]
        if isinstance(item, Path):
            return self._reading.decode(read_bytes(item))
        return _shown(image_of(item, f"item {place} of `images`"), self._reading)


def unlabelled(images: Any, reading: Reading) -> Unlabelled:
    """Return images to be looked at one by one.

    Parameters
    ----------
    images
        A folder, whose image files are taken at any depth; an image file; a sequence of files and folders; an array or
        tensor (N, H, W), (N, H, W, C) or (N, C, H, W) as `load_target` takes it, not normalised; a map dataset whose
        items are images, or begin with one, or are dicts with one; a `Target`.
    reading
        How numbers become 8 bits.

    Raises
    ------
    InputError
        It is something else, there are no such files, or there is no image in them. One file of several that is not
        there is found broken when it is decoded.
    """
    if isinstance(images, str | os.PathLike):
        images = [images]
    if isinstance(images, list | tuple) and images and all(isinstance(each, str | os.PathLike) for each in images):
        paths = [Path(each).expanduser() for each in images]
        if not any(path.exists() for path in paths):
            raise InputError(missing_file(paths[0]))
        files = [file for path in paths for file in _files(path)]
        return Unlabelled(tuple(_printable(file) for file in files), files, reading)
    if isinstance(images, np.ndarray | torch.Tensor):
        images = as_numpy(images)
        if images.ndim not in (3, 4) or 0 in images.shape:
            raise InputError(
                f"Expected `images` to have shape (N, H, W), (N, H, W, C) or (N, C, H, W), none of them 0, but got "
                f"{images.shape}"
            )
    is_dataset = hasattr(images, "__len__") and hasattr(images, "__getitem__") and not isinstance(images, dict)
    if not (is_dataset or isinstance(images, Target)):
        raise InputError(
            "Expected `images` to be a folder, files, an array or tensor, a Target or a dataset with __len__ and "
            f"__getitem__, but got {type(images).__name__}; of a DataLoader pass its dataset"
        )
    if not len(images):
        raise InputError("Expected at least one image in `images`, but there are none")
    return Unlabelled(tuple(map(str, range(len(images)))), images, reading)


def _files(path: Path) -> Sequence[Path]:
    if path.is_dir():
        if not (files := image_files(path)):
            raise InputError(f"Expected images in the folder {path}, but no file in it ends as an image's does")
        return files
    return [path]


def _printable(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "replace")


def _shown(image: Any, reading: Reading) -> Picture:
    if not isinstance(image, Image.Image):
        read = read_array(image, reading)
    else:
        wide = image.mode.startswith("I") or image.mode == "F"
        read = image_raster(image) if wide or reading.bands is not None else image_rgb(image)
    return reading.picture(read) if isinstance(read, Raster) else read
