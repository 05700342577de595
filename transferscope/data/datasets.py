"""Map datasets, as of torchvision or Hugging Face, as raw labelled samples."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from transferscope.data.arrays import as_numpy, has_hidden_pixels, read_array
from transferscope.data.columns import Columns
from transferscope.data.decoding import image_raster
from transferscope.data.images import image_rgb
from transferscope.data.items import LABELS, pair_of
from transferscope.data.labels import WANTED, label_array
from transferscope.data.rasters import Picture, Raster
from transferscope.data.reading import Reading, Survey
from transferscope.data.samples import SUFFIXES, Samples, from_files, picture_digest
from transferscope.data.several import Several, read_several
from transferscope.errors import InputError
from transferscope.runtime.metrics import CLASSIFICATION, REGRESSION
from transferscope.runtime.progress import Report, silent


@dataclass(frozen=True, eq=False)
class _Items:
    dataset: Any
    items: tuple[int, ...]
    asked: Columns
    reading: Reading

    def read(self, place: int) -> Picture:
        return _shown(_item(self.dataset, self.items[place], self.asked, self.reading)[0], self.reading)

    def where(self, place: int) -> str:
        return f"item {self.items[place]}"


def from_dataset(
    dataset: Any, asked: Columns | None = None, report: Report = silent, reading: Reading | None = None
) -> Samples:
    """Read a map dataset of images and labels once; see :func:`transferscope.data.target.load_target`.

    Where it has `splits`, they say which split each item is of.
    """
    reading, asked = reading or Reading(), asked or Columns()
    names = _class_names(dataset, asked.labels) if len(asked.labels) < 2 else []
    files: Any = getattr(dataset, "samples", None)
    plain = not asked.given and asked.task in (None, CLASSIFICATION)
    if names and plain and getattr(dataset, "target_transform", None) is None and _are_image_files(files):
        root = getattr(dataset, "root", None) or os.sep
        paths = [Path(path) for path, _ in files]
        beneath = [os.path.relpath(path, root) for path in paths]
        labels = _named([label for _, label in files], names)
        samples = from_files(paths, beneath, labels, [None] * len(paths), report, reading)
    else:
        samples = _from_items(dataset, names, asked, report, reading)
    present = set(samples.labels if samples.task == CLASSIFICATION else samples.outputs)
    samples.empty = [name for name in names if name not in present] if samples.task != REGRESSION else []
    return samples


def _from_items(dataset: Any, names: Sequence[str], keys: Columns, report: Report, asked: Reading) -> Samples:
    items: list[int] = []
    labels: list[Any] = []
    digests: dict[int, bytes] = {}
    waiting: list[int] = []
    broken: list[tuple[str, str]] = []
    survey = Survey(asked)
    for index in range(len(dataset)):
        report(index, len(dataset))
        try:
            image, label, hides = _item(dataset, index, keys, asked)
        except OSError as error:  # what PIL raises for a damaged file; anything else is the dataset's own fault
            broken.append((f"item {index}", str(error)))
            continue
        items.append(index)
        labels.append(label)
        survey.item(f"item {index}", image, hides)
        if isinstance(image, Raster):
            waiting.append(index)
        else:
            digests[index] = picture_digest(image)
    reading, notes = survey.settled()
    for index in waiting:
        digests[index] = picture_digest(_shown(_item(dataset, index, keys, reading)[0], reading))
    for index in items[:4]:
        if picture_digest(_shown(_item(dataset, index, keys, reading)[0], reading)) != digests[index]:
            raise InputError(
                f"item {index} of the dataset is a different image each time; remove its random "
                "transforms, as every network must see the same images"
            )
    several = _several(labels, items, names, keys)
    values = label_array([_array(row[0]).item() for row in labels]).tolist() if labels and several is None else []
    pictures = _Items(dataset, tuple(items), keys, reading)
    content = [digests[index] for index in items]
    splits = getattr(dataset, "splits", None)
    split = [splits[index] for index in items] if isinstance(splits, tuple) else [None] * len(items)
    rows = _named(values, names) if several is None else several.rows
    return Samples(pictures, rows, content, split, broken, notes=notes, reading=reading).learning(several)


def _item(dataset: Any, index: int, keys: Columns, reading: Reading) -> tuple[Image.Image | Raster, list[Any], bool]:
    """Return image and labels of an item, and whether a channel without a name hides something of the image."""
    item = dataset[index]
    pairs = [pair_of(item, f"dataset[{index}]", keys.images, key) for key in keys.labels or (None,)]
    image, labels = pairs[0][0], [label for _, label in pairs]
    try:
        read = _read(image, reading)
        hides = reading.bands is None and not isinstance(image, Image.Image) and has_hidden_pixels(image)
    except InputError as error:
        raise InputError(f"the image of dataset[{index}]: {error}") from error
    if any(label is None for label in labels):
        raise InputError(f"{WANTED}, but dataset[{index}] has none; leave such items out, as with dataset.filter")
    return read, labels, hides


def _several(labels: list[list[Any]], items: list[int], names: Sequence[str], keys: Columns) -> Several | None:
    """Return what is to be learnt where an item has no class, which is one number or text, whatever holds it."""
    where = [f"item {item}" for item in items]
    wide = next((row for row, values in enumerate(labels) if _array(values[0]).size != 1), None)
    if keys.task in (None, CLASSIFICATION) and len(keys.labels) < 2 and wide is None:
        return None
    columns = {name: [row[place] for row in labels] for place, name in enumerate(keys.labels or ("label",))}
    if len(columns) == 1 and names:
        columns = {name: [_names_in(cell, names) for cell in cells] for name, cells in columns.items()}
    return read_several(columns, keys.task, "the dataset", where.__getitem__)


def _names_in(label: Any, names: Sequence[str]) -> Any:
    """Return a list of codes as one of names; anything else as it is."""
    return _named(label, names) if isinstance(label, list | tuple | set) else label


def _array(label: Any) -> np.ndarray:
    """Return a label as an array; a ragged list has as many places as it is long."""
    if isinstance(label, torch.Tensor):
        return as_numpy(label)
    many = isinstance(label, list | set | frozenset | tuple)
    return np.asarray(list(label), dtype=object) if many else np.asarray(label)


def _read(image: Any, reading: Reading) -> Image.Image | Raster:
    if not isinstance(image, Image.Image):
        return read_array(image, reading)
    wide = image.mode.startswith("I") or image.mode == "F"
    return image_raster(image) if wide or reading.bands is not None else image_rgb(image)


def _shown(image: Image.Image | Raster, reading: Reading) -> Picture:
    return reading.picture(image) if isinstance(image, Raster) else image


def _are_image_files(samples: Any) -> bool:
    return isinstance(samples, list) and all(
        isinstance(sample, tuple)
        and len(sample) == 2
        and isinstance(sample[0], str | os.PathLike)
        and Path(sample[0]).suffix.lower() in SUFFIXES
        for sample in samples
    )


def _class_names(dataset: Any, keys: Sequence[str] = ()) -> list[str]:
    """Return the names in `classes`, or those of the label's feature, also those behind a `Subset`.

    Equal names get numbers.
    """
    classes = (None if keys else getattr(dataset, "classes", None)) or _feature_names(dataset, keys)
    if classes is None:
        return _class_names(dataset.dataset, keys) if hasattr(dataset, "dataset") else []
    # ImageNet has tuples of synonyms
    names = [", ".join(name) if isinstance(name, tuple) else str(name) for name in classes]
    return [name if names.count(name) == 1 else f"{name} ({index})" for index, name in enumerate(names)]


def _feature_names(dataset: Any, keys: Sequence[str]) -> Any:
    """Return what a Hugging Face dataset calls the classes."""
    features = getattr(dataset, "features", None)
    named = [features[key] for key in keys or LABELS if key in features] if isinstance(features, Mapping) else []
    return getattr(named[0], "names", None) if len(named) == 1 else None


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
