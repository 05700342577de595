"""Files, arrays and datasets as raw labelled samples, each read once: what a target is built from."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from transferscope.data.images import array_rgb, as_numpy, check_header, decode_rgb, image_rgb, read_bytes
from transferscope.errors import InputError
from transferscope.runtime.progress import Report, silent

_ENDINGS = "jpg jpeg jpe jfif png bmp gif tif tiff webp ppm pgm pbm pnm jp2 avif"
SUFFIXES = frozenset(f".{ending}" for ending in _ENDINGS.split(" "))
"""File names that end so (in any case) are images."""

_LABELS_WANTED = "labels must be whole numbers, bools or strings, one for each image"


class Pictures(Protocol):
    """Images by place; the implementations can be pickled, for workers in other processes."""

    def read(self, place: int) -> Image.Image:
        """Decode one image to RGB; `InputError` or `OSError` when it is broken."""

    def where(self, place: int) -> str:
        """Say what to call an image in a message."""


@dataclass
class Samples:
    """Labelled images as they came, before classes are counted and labels numbered."""

    pictures: Pictures
    labels: list[str] | list[int] | list[bool]
    digests: list[bytes]
    split: list[str | None]
    broken: list[tuple[str, str]] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    """Classes that were announced but have no image."""
    notes: list[str] = field(default_factory=list)
    """Further things to warn of."""
    one_class_hint: str = ""
    """What to do if only one class is there."""


def digest(*parts: bytes) -> bytes:
    """Return the SHA-256 of byte strings; their lengths count, so that borders cannot shift unnoticed."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


def _rgb_digest(image: Image.Image) -> bytes:
    return digest(repr(image.size).encode(), image.tobytes())


@dataclass(frozen=True)
class _Files:
    paths: tuple[Path, ...]
    names: tuple[str, ...]

    def read(self, place: int) -> Image.Image:
        return decode_rgb(read_bytes(self.paths[place]))

    def where(self, place: int) -> str:
        return self.names[place]


def from_files(
    paths: Sequence[Path],
    names: Sequence[str],
    labels: Sequence[str],
    split: Sequence[str | None],
    report: Report = silent,
) -> Samples:
    """Read each file once, for its digest and a look at its header; broken ones are set aside by `names`."""
    sound: list[int] = []
    digests: list[bytes] = []
    broken: list[tuple[str, str]] = []
    for place, path in enumerate(paths):
        report(place, len(paths))
        try:
            data = read_bytes(path)
            check_header(data)
        except InputError as error:
            broken.append((names[place], str(error)))
            continue
        sound.append(place)
        digests.append(digest(data))
    files = _Files(tuple(paths[place] for place in sound), tuple(names[place] for place in sound))
    return Samples(files, [labels[place] for place in sound], digests, [split[place] for place in sound], broken)


@dataclass(frozen=True, eq=False)
class _Pixels:
    pixels: np.ndarray  # (N, H, W, 3) uint8

    def read(self, place: int) -> Image.Image:
        return Image.fromarray(self.pixels[place])

    def where(self, place: int) -> str:
        return f"image {place}"


def from_arrays(pair: tuple[Any, ...]) -> Samples:
    """Copy a pair (images, labels) of arrays or tensors; see :func:`transferscope.data.target.load_target`."""
    if len(pair) != 2:
        raise InputError(f"a target of arrays is a pair (images, labels), but got {len(pair)} values")
    images = as_numpy(pair[0])
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise InputError(
            f"images must have shape (N, H, W), (N, H, W, C) or (N, C, H, W), none of them 0, but got {images.shape}"
        )
    values = label_array(pair[1])
    if len(values) != len(images):
        raise InputError(f"{_LABELS_WANTED}, but there are {len(images)} images and {len(values)} labels")
    first = array_rgb(images[0])
    pixels = np.empty((len(images), first.height, first.width, 3), dtype=np.uint8)
    digests = []
    for index, array in enumerate(images):
        try:
            image = array_rgb(array)
        except InputError as error:
            raise InputError(f"image {index}: {error}") from error
        pixels[index] = np.asarray(image)
        digests.append(_rgb_digest(image))
    return Samples(_Pixels(pixels), values.tolist(), digests, [None] * len(images))


def label_array(labels: Any) -> np.ndarray:
    """Return labels (n_samples,) as an array of whole numbers, bools or strings; `InputError` when they are not."""
    values = as_numpy(labels) if isinstance(labels, torch.Tensor) else np.asarray(labels)
    if values.dtype == object and all(isinstance(value, str) for value in values.flat):
        values = values.astype(str)
    if values.ndim != 1 or values.dtype.kind not in "biuU":
        raise InputError(f"{_LABELS_WANTED}, but got {values.dtype} of shape {values.shape}")
    return values


@dataclass(frozen=True, eq=False)
class _Items:
    dataset: Any
    items: tuple[int, ...]

    def read(self, place: int) -> Image.Image:
        return _item(self.dataset, self.items[place])[0]

    def where(self, place: int) -> str:
        return f"item {self.items[place]}"


def from_dataset(dataset: Any, report: Report = silent) -> Samples:
    """Read a map dataset of (image, label) pairs once; see :func:`transferscope.data.target.load_target`."""
    names = _class_names(dataset)
    files: Any = getattr(dataset, "samples", None)
    if names and getattr(dataset, "target_transform", None) is None and _are_image_files(files):
        root = getattr(dataset, "root", None) or os.sep
        paths = [Path(path) for path, _ in files]
        shown = [os.path.relpath(path, root) for path in paths]
        samples = from_files(paths, shown, _named([label for _, label in files], names), [None] * len(paths), report)
    else:
        samples = _from_items(dataset, names, report)
    present = set(samples.labels)
    samples.empty = [name for name in names if name not in present]
    return samples


def _from_items(dataset: Any, names: Sequence[str], report: Report) -> Samples:
    items: list[int] = []
    labels: list[Any] = []
    digests: list[bytes] = []
    broken: list[tuple[str, str]] = []
    for index in range(len(dataset)):
        report(index, len(dataset))
        try:
            image, label = _item(dataset, index)
        except OSError as error:  # what PIL raises for a damaged file; anything else is the dataset's own fault
            broken.append((f"item {index}", str(error)))
            continue
        items.append(index)
        labels.append(label)
        digests.append(_rgb_digest(image))
    for index, first_digest in list(zip(items, digests, strict=True))[:4]:
        if _rgb_digest(_item(dataset, index)[0]) != first_digest:
            raise InputError(
                f"item {index} of the dataset is a different image each time; remove its random "
                "transforms, as every network must see the same images"
            )
    values = label_array(labels).tolist() if labels else []
    return Samples(_Items(dataset, tuple(items)), _named(values, names), digests, [None] * len(items), broken)


def _item(dataset: Any, index: int) -> tuple[Image.Image, Any]:
    item = dataset[index]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise InputError(f"dataset[{index}] must be a pair (image, label), but is a {type(item).__name__}")
    image, label = item
    try:
        rgb = image_rgb(image) if isinstance(image, Image.Image) else array_rgb(image)
    except InputError as error:
        raise InputError(f"the image of dataset[{index}]: {error}") from error
    scalar = as_numpy(label) if isinstance(label, torch.Tensor) else np.asarray(label)
    if scalar.size != 1:
        raise InputError(f"{_LABELS_WANTED}, but dataset[{index}] has a label of shape {scalar.shape}")
    return rgb, scalar.item()


def _are_image_files(samples: Any) -> bool:
    return isinstance(samples, list) and all(
        isinstance(sample, tuple)
        and len(sample) == 2
        and isinstance(sample[0], str | os.PathLike)
        and Path(sample[0]).suffix.lower() in SUFFIXES
        for sample in samples
    )


def _class_names(dataset: Any) -> list[str]:
    """Return the names in `classes`, also those behind a `Subset`; equal names get numbers."""
    classes = getattr(dataset, "classes", None)
    if classes is None:
        return _class_names(dataset.dataset) if hasattr(dataset, "dataset") else []
    # ImageNet has tuples of synonyms
    names = [", ".join(name) if isinstance(name, tuple) else str(name) for name in classes]
    return [name if names.count(name) == 1 else f"{name} ({index})" for index, name in enumerate(names)]


def _named(labels: Iterable[Any], names: Sequence[str]) -> list[Any]:
    """Replace whole-number labels by the names at these places, if there are names."""
    values = list(labels)
    if not names or any(isinstance(value, str) for value in values):
        return values
    if values and not (min(values) >= 0 and max(values) < len(names)):
        raise InputError(
            f"the dataset's labels go from {min(values)} to {max(values)}, but it names {len(names)} classes"
        )
    return [names[value] for value in values]
