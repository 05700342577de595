"""Shards of a WebDataset: tar files in which an image and its label are files of one name with different endings."""

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transferscope.data.columns import Columns, shown
from transferscope.data.folders import SPLITS
from transferscope.data.items import LABELS
from transferscope.data.labels import label_array
from transferscope.data.pixel_bound import max_bytes
from transferscope.data.rasters import Picture
from transferscope.data.reading import Reading
from transferscope.data.samples import SUFFIXES as IMAGE_SUFFIXES
from transferscope.data.samples import Pictures, Samples, from_encoded
from transferscope.data.several import read_several
from transferscope.errors import InputError, near
from transferscope.runtime.metrics import MULTI_LABEL, REGRESSION
from transferscope.runtime.progress import Report, silent
from transferscope.runtime.regular import open_regular

SUFFIX = ".tar"
_NUMBER, _TEXTS, _RECORD = "cls", ("txt", "label"), "json"
_MOST_TEXT = 2**20
"""Bytes of a label or a record; more are something else."""


@dataclass(frozen=True)
class _Member:
    shard: Path
    name: str
    start: int
    size: int


@dataclass(frozen=True, eq=False)
class _Members:
    members: tuple[_Member, ...]
    reading: Reading

    def read(self, place: int) -> Picture:
        return self.reading.decode(_content(self.members[place]))

    def where(self, place: int) -> str:
        return _where(self.members[place])


def from_shards(
    shards: Sequence[Path], asked: Columns, report: Report = silent, reading: Reading | None = None
) -> Samples:
    """Read the images of shards; see :func:`transferscope.data.target.load_target`."""
    if len(asked.labels) > 1:
        raise InputError(f"labels: expected one ending or key of the shards, but got {shown(asked.labels)}")
    images: list[_Member] = []
    labels: list[Any] = []
    split: list[str | None] = []
    unlabelled: list[str] = []
    for shard in shards:
        for key, members in _samples(shard):
            image = _image(members, asked, shard, key)
            if image is None:
                continue
            label = _label(members, asked, shard, key)
            if label is None:
                unlabelled.append(_where(image))
                continue
            images.append(image)
            labels.append(label)
            split.append(_split(shard))
    if not images:
        raise InputError(_nothing(shards, unlabelled))
    if unlabelled:
        raise InputError(
            f"{len(unlabelled)} of {len(unlabelled) + len(images)} images of {_called(shards)} have no label beside "
            f"them, the first is {unlabelled[0]}; write the shards without them"
        )
    if len(set(split)) > 1 and None in split:
        split = [None] * len(split)

    def kept(sound: list[int], settled: Reading) -> Pictures:
        return _Members(tuple(images[place] for place in sound), settled)

    names = [_where(image) for image in images]
    named = {asked.labels[0] if asked.labels else "label": labels}
    several = read_several(named, asked.task, _called(shards), names.__getitem__)
    values = _classes(labels) if several is None else several.rows
    samples = from_encoded(lambda place: _content(images[place]), kept, names, values, split, report, reading)
    return samples.learning(several)


def _classes(labels: list[Any]) -> list[Any]:
    alike = labels if len(set(map(type, labels))) == 1 else [str(label) for label in labels]
    return label_array(np.array(alike)).tolist()


def shards_in(folder: Path) -> list[Path]:
    """Return the tar files of a folder, sorted."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == SUFFIX and path.is_file())


def _samples(shard: Path) -> Iterator[tuple[str, dict[str, _Member]]]:
    """Yield the name of each sample, up to the first dot after the last folder, and its files by their endings."""
    samples: dict[str, dict[str, _Member]] = {}
    try:
        with open_regular(shard) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                folder, slash, last = member.name.rpartition("/")
                stem, _, ending = last.partition(".")
                if not member.isreg() or not ending or not stem:
                    continue
                files = samples.setdefault(f"{folder}{slash}{stem}", {})
                files[ending.lower()] = _Member(shard, member.name, member.offset_data, member.size)
    except OSError as error:
        raise InputError(f"shard {shard} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # whatever the library makes of numbers that are none
        raise InputError(
            f"shard {shard} cannot be read as a tar file: {error}; write it again, without compression"
        ) from error
    if samples:
        last_member = max((each for files in samples.values() for each in files.values()), key=lambda each: each.start)
        if last_member.start + last_member.size > shard.stat().st_size:
            raise InputError(f"shard {shard} ends in the middle of {last_member.name}; copy it again")
    yield from samples.items()


def _image(members: dict[str, _Member], asked: Columns, shard: Path, key: str) -> _Member | None:
    if asked.images is not None:
        return members.get(asked.images.lower().removeprefix("."))
    found = [ending for ending in members if f".{ending.rpartition('.')[2]}" in IMAGE_SUFFIXES]
    if len(found) > 1:
        raise InputError(
            f"{key} of shard {shard} has images {shown(found)}; say which with --images {found[0]} (in Python images=)"
        )
    return members[found[0]] if found else None


def _label(members: dict[str, _Member], asked: Columns, shard: Path, key: str) -> Any:
    wanted = asked.labels[0] if asked.labels else None
    if wanted is not None and wanted.lower().removeprefix(".") in members:
        ending = wanted.lower().removeprefix(".")
        text = _text(members[ending])
        return int(text) if ending == _NUMBER and re.fullmatch(r"-?\d+", text) else text
    if wanted is None and _NUMBER in members:
        text = _text(members[_NUMBER])
        return int(text) if re.fullmatch(r"-?\d+", text) else text
    if wanted is None and (texts := [ending for ending in _TEXTS if ending in members]):
        return _text(members[texts[0]])
    if _RECORD not in members:
        return None
    return _of_record(_text(members[_RECORD]), wanted, f"{key}.json of shard {shard}", asked.task)


def _of_record(text: str, wanted: str | None, where: str, task: str | None) -> Any:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is no JSON: {error}; write the shard again") from error
    if isinstance(record, dict):
        found = [key for key in ([wanted] if wanted else LABELS) if key in record]
        if len(found) > 1:
            raise InputError(
                f"{where} has {shown(found)}, each of which could be the label; say which with --labels NAME"
            )
        if not found:
            hint = near(wanted, record) if wanted else ""
            raise InputError(
                f"{where} has no {wanted or 'label'}{hint}, only {shown(list(record)) or 'nothing'}; say which key "
                "is the label with --labels NAME (in Python labels=)"
            )
        record = record[found[0]]
    several = {MULTI_LABEL: (list,), REGRESSION: (list, float), None: (list,)}.get(task, ())
    if not isinstance(record, (str, int, *several)):
        raise InputError(f"{where}: the label must be a text or a whole number, but is {str(record)[:80]}")
    return record


def _text(member: _Member) -> str:
    if member.size > _MOST_TEXT:
        raise InputError(f"{_where(member)} has {member.size} bytes, which is no label; write the shard again")
    data = _content(member)
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{_where(member)} is not encoded in UTF-8; write the shard again") from error


def _content(member: _Member) -> bytes:
    if member.size > max_bytes():
        raise InputError(f"its {member.size} bytes are more than the {max_bytes()} that are read")
    try:
        with open_regular(member.shard) as file:
            file.seek(member.start)
            return file.read(member.size)
    except OSError as error:
        raise InputError(f"shard {member.shard} cannot be read: {error.strerror or error}") from error


def _where(member: _Member) -> str:
    return f"{member.shard.name}/{member.name}"


def _split(shard: Path) -> str | None:
    """Return the split that a shard's name begins with, as in train-0003.tar."""
    return SPLITS.get(re.split(r"[^a-z]", shard.stem.lower())[0])


def _called(shards: Sequence[Path]) -> str:
    return str(shards[0]) if len(shards) == 1 else f"{len(shards)} shards, such as {shards[0]},"


def _nothing(shards: Sequence[Path], unlabelled: Sequence[str]) -> str:
    if unlabelled:
        return (
            f"no image of {_called(shards)} has a label beside it: a file of the same name that ends in .cls, .txt or "
            f".json, such as {Path(unlabelled[0]).stem}.cls for {unlabelled[0]}; write the shards so, or unpack an "
            "archive of class folders and give the folder"
        )
    return f"{_called(shards)} holds no images; a shard has images and their labels, such as 0001.jpg and 0001.cls"
