"""Targets: folders as they lie on disks, containers, and data sets of other libraries."""

import io
import shutil
import tarfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import transferscope as ts
from reading.cases.case import Case, Found, warned
from reading.pictures import CLASSES, coloured, write_folder
from reading.verbs import command
from transferscope.errors import TransferscopeError

KIND = "Targets"


def _loaded(source: Any, images: int, classes: tuple[str, ...], *words: str) -> Found:
    """Load a target; right with so many images, these classes, and what was said holding these words."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        try:
            target = ts.load_target(source)
        except TransferscopeError as error:
            return Found(f"error: {error}", False)
    said = warned(notes)
    right = len(target) == images and target.classes == classes and all(word in " ".join(said) for word in words)
    note = f"; {said[0]}" if said else ""
    return Found(f"{len(target)} images of {', '.join(target.classes)}{note}", right)


def _refused(source: Any, *words: str) -> Found:
    """Right when it is refused in a sentence that holds all of these words."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target = ts.load_target(source)
    except TransferscopeError as error:
        return Found(f"error: {error}", all(word in str(error) for word in words))
    return Found(f"{len(target)} images of {', '.join(target.classes)}", False)


def _clips(folder: Path, classes: tuple[str, ...], above: str = "") -> Path:
    rng = np.random.default_rng(0)
    for kind, name in zip(CLASSES, classes, strict=True):
        for clip in range(2):
            place = folder / above / name / f"clip{clip}{name}"
            place.mkdir(parents=True)
            for number in range(3):
                Image.fromarray(coloured(kind, rng)).save(place / f"{number}.png")
    return folder


def _vehicles(folder: Path) -> Found:
    return _loaded(_clips(folder / "vehicles", ("bus", "ship", "train")), 18, ("bus", "ship", "train"))


def _splits(folder: Path) -> Found:
    for split, count in (("train", 6), ("test", 2)):
        write_folder(folder / "split" / split, count)
    return _loaded(folder / "split", 24, CLASSES)


def _thumbnails(folder: Path) -> Found:
    root = write_folder(folder / "nas", 6)
    for kind in CLASSES:
        for path in sorted((root / kind).glob("*.png")):
            place = root / kind / "@eaDir" / path.name
            place.mkdir(parents=True)
            with Image.open(path) as image:
                image.resize((20, 20)).save(place / "SYNOPHOTO_THUMB_S.jpg")
    top = root / "@eaDir" / "folder.jpg"
    top.mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(top / "SYNOPHOTO_THUMB_S.jpg")
    return _loaded(root, 18, CLASSES, "@eaDir")


def _foreign(folder: Path) -> Found:
    root = write_folder(folder / "mac", 6)
    for place in (root / "__MACOSX" / "across", root / "across" / ".ipynb_checkpoints"):
        place.mkdir(parents=True)
        shutil.copy(root / "across" / "00.png", place / "00-checkpoint.png")
    (root / "__MACOSX" / "across" / "._00.png").write_bytes(b"\0\5\x16\7")
    (root / "across" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    return _loaded(root, 18, CLASSES, "__MACOSX")


def _shards(folder: Path) -> Found:
    rng = np.random.default_rng(0)
    (folder / "shards").mkdir()
    with tarfile.open(folder / "shards" / "train-000000.tar", "w") as archive:
        for number in range(6):
            data = io.BytesIO()
            Image.fromarray(coloured(CLASSES[number % 3], rng)).save(data, "JPEG")
            for name, content in ((f"{number:04}.jpg", data.getvalue()), (f"{number:04}.cls", b"%d" % (number % 3))):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return _loaded(folder / "shards", 6, ("0", "1", "2"))


def _arrays(folder: Path) -> Found:
    rng = np.random.default_rng(0)
    for kind in CLASSES:
        (folder / "npy" / kind).mkdir(parents=True)
        for number in range(4):
            np.save(folder / "npy" / kind / f"{number}.npy", coloured(kind, rng))
    return _refused(folder / "npy", ".npy")


def _flat(folder: Path) -> Found:
    rng = np.random.default_rng(0)
    (folder / "flat").mkdir()
    lines = ["file_name,label"]
    for number in range(12):
        kind = CLASSES[number % 3]
        Image.fromarray(coloured(kind, rng)).save(folder / "flat" / f"{number}.png")
        lines.append(f"{number}.png,{kind}")
    (folder / "flat" / "labels.csv").write_text("\n".join(lines))
    return _refused(folder / "flat", "sub-folder")


class _Items(torch.utils.data.Dataset):
    """Twelve images, each item as `form` makes it of an image and a class."""

    def __init__(self, form: Callable[[Any, int], Any]) -> None:
        rng = np.random.default_rng(0)
        self._pairs = [(Image.fromarray(coloured(CLASSES[n % 3], rng)), n % 3) for n in range(12)]
        self._form = form

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Any:
        return self._form(*self._pairs[index])


class _Stream(torch.utils.data.IterableDataset):
    def __iter__(self) -> Iterator[Any]:
        return iter([(Image.new("RGB", (8, 8)), 0)])


NUMBERS = ("0", "1", "2")


def _unlabelled(folder: Path) -> Found:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, -1], 10)
    np.save(folder / "features.npy", rng.normal(size=(40, 5)) + labels[:, None])
    np.save(folder / "labels.npy", labels)
    said = command("score", str(folder / "features.npy"), str(folder / "labels.npy"), "--measure", "logme")
    return Found(said.message or "scored, with -1 as a fourth class", "-1" in said.message or "−1" in said.message)


CASES = (
    Case("Classes bus, ship and train, a folder for each clip in them", "three classes", _vehicles),
    Case("Folders train and test, classes in them", "three classes, two splits", _splits),
    Case("Thumbnails of a NAS: `@eaDir` in each folder", "left out, and counted", _thumbnails),
    Case("`__MACOSX`, `.ipynb_checkpoints` and `Thumbs.db`", "left out, and counted", _foreign),
    Case("Shards of WebDataset, `.tar`", "6 images of three classes", _shards),
    Case("An `.npy` for each image", "refused, and the kind named", _arrays),
    Case("Images in one folder, with a `labels.csv`", "refused, with what is wanted", _flat),
    Case(
        "A data set whose items are dicts, `image` and `label`",
        "12 images of three classes",
        lambda f: _loaded(_Items(lambda image, label: {"image": image, "label": label}), 12, NUMBERS),
    ),
    Case(
        "Items `pixel_values` and `labels`",
        "12 images of three classes",
        lambda f: _loaded(
            _Items(lambda image, label: {"pixel_values": np.asarray(image), "labels": label}), 12, NUMBERS
        ),
    ),
    Case(
        "Items of three: image, label, path",
        "12 images of three classes",
        lambda f: _loaded(_Items(lambda image, label: (image, label, "a/path.png")), 12, NUMBERS),
    ),
    Case(
        "A DataLoader",
        "refused, with what is wanted",
        lambda f: _refused(
            torch.utils.data.DataLoader(_Items(lambda image, label: (np.asarray(image), label))), "dataset"
        ),
    ),
    Case("A stream (`IterableDataset`)", "refused, with what is wanted", lambda f: _refused(_Stream(), "len")),
    Case(
        "Several labels for an image, as 0 and 1",
        "each of them a label of its own",
        lambda f: _loaded(
            _Items(lambda image, label: (image, np.eye(3, dtype=int)[label])), 12, ("label 0", "label 1", "label 2")
        ),
    ),
    Case(
        "Labels that are floats",
        "refused, with what is wanted",
        lambda f: _refused(_Items(lambda image, label: (image, label / 2)), "label"),
    ),
    Case("`score` with labels of −1", "asked about, or said", _unlabelled),
)
