"""Files, arrays and datasets as raw labelled samples, each read once: what a target is built from."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from transferscope.data.arrays import as_numpy, has_hidden_pixels, read_array
from transferscope.data.decoding import FORMATS, Look
from transferscope.data.images import read_bytes
from transferscope.data.labels import WANTED, label_array
from transferscope.data.rasters import Picture, Raster, as_picture
from transferscope.data.reading import Reading, Survey
from transferscope.data.several import Several, columns_of, read_several
from transferscope.errors import InputError
from transferscope.runtime.metrics import CLASSIFICATION
from transferscope.runtime.progress import Report, silent

SUFFIXES = frozenset(f".{ending}" for endings in FORMATS.values() for ending in endings.split())
"""File names that end so (in any case) are images."""


class Pictures(Protocol):
    """Images by place; the implementations can be pickled, for workers in other processes."""

    def read(self, place: int) -> Picture:
        """Decode one image to 8 bits; `InputError` or `OSError` when it is broken."""

    def where(self, place: int) -> str:
        """Say what to call an image in a message."""


@dataclass
class Samples:
    """Labelled images as they came, before classes are counted and labels numbered."""

    pictures: Pictures
    labels: list[Any]
    """Of each a text, a whole number or a bool that names its class; of another task a number for each of `outputs`."""
    digests: list[bytes]
    split: list[str | None]
    broken: list[tuple[str, str]] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    """Classes that were announced but have no image."""
    notes: list[str] = field(default_factory=list)
    """Further things to warn of."""
    one_class_hint: str = ""
    """What to do if only one class is there."""
    reading: Reading = field(default_factory=Reading)
    """How their numbers became 8 bits."""
    task: str = CLASSIFICATION
    outputs: tuple[str, ...] = ()
    """Names of labels or numbers, where they are no classes."""

    def learning(self, several: Several | None) -> "Samples":
        """Note what the labels are where they are no classes, and return itself."""
        if several is not None:
            self.task, self.outputs = several.task, several.names
        return self


def digest(*parts: bytes) -> bytes:
    """Return the SHA-256 of byte strings; their lengths count, so that borders cannot shift unnoticed."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


def picture_digest(image: Picture) -> bytes:
    """Return the SHA-256 of an image's pixels."""
    size = image.size if isinstance(image, Image.Image) else image.shape
    return digest(repr(size).encode(), image.tobytes())


@dataclass(frozen=True)
class _Files:
    paths: tuple[Path, ...]
    names: tuple[str, ...]
    reading: Reading

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process may stand in another folder.
        return _Files, (tuple(path.absolute() for path in self.paths), self.names, self.reading)

    def read(self, place: int) -> Picture:
        return self.reading.decode(read_bytes(self.paths[place]))

    def where(self, place: int) -> str:
        return self.names[place]


def from_files(
    paths: Sequence[Path],
    names: Sequence[str],
    labels: Sequence[Any],
    split: Sequence[str | None],
    report: Report = silent,
    reading: Reading | None = None,
) -> Samples:
    """Read each file once, for its digest and a look at its header; broken ones are set aside by `names`.

    Those of more than 8 bits a value are decoded too where `reading` does not say what range they have.
    """

    def kept(sound: list[int], settled: Reading) -> Pictures:
        return _Files(tuple(paths[place] for place in sound), tuple(names[place] for place in sound), settled)

    return from_encoded(lambda place: read_bytes(paths[place]), kept, names, labels, split, report, reading)


@dataclass(frozen=True, eq=False)
class _Encoded:
    data: tuple[bytes, ...]
    names: tuple[str, ...]
    reading: Reading

    def read(self, place: int) -> Picture:
        return self.reading.decode(self.data[place])

    def where(self, place: int) -> str:
        return self.names[place]


def from_bytes(
    data: Sequence[bytes],
    names: Sequence[str],
    labels: Sequence[Any],
    split: Sequence[str | None],
    report: Report = silent,
    reading: Reading | None = None,
) -> Samples:
    """Do what `from_files` does with the contents of files; they stay in memory."""

    def kept(sound: list[int], settled: Reading) -> Pictures:
        return _Encoded(tuple(data[place] for place in sound), tuple(names[place] for place in sound), settled)

    return from_encoded(data.__getitem__, kept, names, labels, split, report, reading)


def from_encoded(
    read: Callable[[int], bytes],
    kept: Callable[[list[int], Reading], Pictures],
    names: Sequence[str],
    labels: Sequence[Any],
    split: Sequence[str | None],
    report: Report = silent,
    reading: Reading | None = None,
) -> Samples:
    """Read each image once, for its digest and a look at its header; broken ones are set aside.

    Parameters
    ----------
    read : callable
        Returns the content of the image file at a place, or raises InputError.
    kept : callable
        Returns the pictures at these places, read so.
    names, labels, split
        Of each place.
    report, reading
        As in `from_files`.
    """
    sound: list[int] = []
    digests: list[bytes] = []
    looks: list[Look] = []
    broken: list[tuple[str, str]] = []
    survey = Survey(reading or Reading())
    for place, name in enumerate(names):
        report(place, len(names))
        try:
            data = read(place)
            looks.append(survey.file(name, data))
        except InputError as error:
            broken.append((name, str(error)))
            continue
        sound.append(place)
        digests.append(digest(data))
    settled, notes = survey.settled()
    # What makes another picture of the same bytes is part of what it is.
    tags = [settled.tag(look) for look in looks]
    digests = [digest(content, tag) if tag else content for content, tag in zip(digests, tags, strict=True)]
    return Samples(
        kept(sound, settled),
        [labels[place] for place in sound],
        digests,
        [split[place] for place in sound],
        broken,
        notes=notes,
        reading=settled,
    )


@dataclass(frozen=True, eq=False)
class _Pixels:
    pixels: np.ndarray  # (N, H, W, bands) uint8

    def read(self, place: int) -> Picture:
        return as_picture(self.pixels[place])

    def where(self, place: int) -> str:
        return f"image {place}"


def from_arrays(pair: tuple[Any, ...], reading: Reading | None = None, task: str | None = None) -> Samples:
    """Copy a pair (images, labels) of arrays or tensors; see :func:`transferscope.data.target.load_target`."""
    if len(pair) != 2:
        raise InputError(f"a target of arrays is a pair (images, labels), but got {len(pair)} values")
    images = as_numpy(pair[0])
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise InputError(
            f"images must have shape (N, H, W), (N, H, W, C) or (N, C, H, W), none of them 0, but got {images.shape}"
        )
    several = read_several(columns_of(pair[1], len(images)), task, "the labels", lambda place: f"row {place}")
    values = label_array(pair[1]).tolist() if several is None else several.rows
    if len(values) != len(images):
        raise InputError(f"{WANTED}, but there are {len(images)} images and {len(values)} labels")
    asked = reading or Reading()
    survey = Survey(asked)
    for index, array in enumerate(images):
        try:
            hides = asked.bands is None and has_hidden_pixels(array)
            survey.item(f"image {index}", read_array(array, asked), hides)
        except InputError as error:
            raise InputError(f"image {index}: {error}") from error
    settled, notes = survey.settled()
    pixels: list[np.ndarray] = []
    digests = []
    for array in images:
        read = read_array(array, asked)
        picture = settled.picture(read) if isinstance(read, Raster) else read
        pixels.append(np.asarray(picture))
        digests.append(picture_digest(picture))
    samples = Samples(_Pixels(np.stack(pixels)), values, digests, [None] * len(images), notes=notes, reading=settled)
    return samples.learning(several)


READ_BY_ANY_THREAD = (_Files, _Pixels)
"""Kinds of `Pictures` that hold nothing which belongs to a thread."""
