"""Whatever may be given as a target, as raw labelled samples."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from transferscope.data.columns import Columns
from transferscope.data.datasets import from_dataset
from transferscope.data.folders import SPLITS, from_folder, image_files
from transferscope.data.reading import Reading
from transferscope.data.samples import Samples, from_arrays
from transferscope.data.shards import SUFFIX, from_shards, shards_in
from transferscope.data.table_files import SUFFIXES, is_table, other_kind
from transferscope.data.tables import from_frame, from_table_file
from transferscope.errors import InputError, near
from transferscope.runtime.metrics import CLASSIFICATION
from transferscope.runtime.progress import Report


def samples_of(source: Any, asked: Columns, report: Report, reading: Reading) -> tuple[Samples, str]:
    """Return the images of anything but a target, and what to call them.

    Raises
    ------
    InputError
        As :func:`transferscope.data.target.load_target` says.
    """
    if isinstance(source, str | os.PathLike):
        return _from_path(Path(source), asked, report, reading)
    if isinstance(source, pd.DataFrame):
        return from_frame(source, asked, report, reading), "table"
    if isinstance(source, tuple):
        _refuse_names(asked, "a pair of arrays")
        return from_arrays(source, reading, asked.task), "arrays"
    kind = type(source).__name__
    if isinstance(source, Mapping) and source and all(map(_is_dataset, source.values())):
        return from_dataset(_Splits.of(source), asked, report, reading), kind
    if _is_dataset(source):
        return from_dataset(source, asked, report, reading), kind
    if hasattr(source, "__iter__") and hasattr(source, "features"):
        raise InputError(
            f"the target is a {kind}, which is read as it comes; load it without streaming, so that it has a length"
        )
    raise InputError(
        "the target must be a folder, a table (a file or a DataFrame of paths and labels), shards, a dataset with "
        f"__len__ and __getitem__, a pair (images, labels) or a Target, but is a {kind}; of a DataLoader pass its "
        "dataset"
    )


def _is_dataset(source: Any) -> bool:
    return hasattr(source, "__len__") and hasattr(source, "__getitem__") and not isinstance(source, Mapping)


def _from_path(path: Path, asked: Columns, report: Report, reading: Reading) -> tuple[Samples, str]:
    # A name that is not UTF-8 could not be printed or written into a result.
    name = os.fsencode(path.resolve().name).decode("utf-8", "replace")
    if path.is_dir():
        shards = shards_in(path)
        if shards and not image_files(path):
            return from_shards(shards, asked, report, reading), name
        _refuse_names(asked, f"the folder {path}{_tables_in(path)}")
        if asked.task not in (None, CLASSIFICATION):
            raise InputError(
                f"the target is the folder {path}{_tables_in(path)}: its sub-folders are classes; for the task "
                f"{asked.task} give a table of paths and labels"
            )
        return from_folder(path, report, reading), name
    if path.exists() and is_table(path):
        return from_table_file(path, asked, report, reading), Path(name).stem
    if path.exists() and path.suffix.lower() == SUFFIX:
        return from_shards([path], asked, report, reading), Path(name).stem
    if path.exists() and (advice := other_kind(path)):
        raise InputError(f"target {path} is {advice}")
    if not path.exists() and (is_table(path) or path.suffix.lower() == SUFFIX):
        beside = [each.name for each in path.parent.glob("*") if each.suffix.lower() in (*SUFFIXES, SUFFIX)]
        raise InputError(f"target {path} does not exist{near(path.name, beside)}; give a table, a shard or a folder")
    return from_folder(path, report, reading), name


def _refuse_names(asked: Columns, what: str) -> None:
    if asked.given:
        raise InputError(
            f"images and labels name columns of a table or a dataset, but the target is {what}; leave them out"
        )


def _tables_in(folder: Path) -> str:
    tables = sorted(each.name for each in folder.iterdir() if is_table(each))
    return f", in which {tables[0]} lies: give that file" if tables else ""


class _Splits:
    """Several datasets as one, each of them a split."""

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self._parts = parts
        self.splits: tuple[str, ...] = tuple(
            SPLITS[name.lower()] for name, part in parts.items() for _ in range(len(part))
        )
        self._places = [(name, place) for name, part in parts.items() for place in range(len(part))]
        first = next(iter(parts.values()))
        self.features = getattr(first, "features", None)
        self.classes = getattr(first, "classes", None)

    @classmethod
    def of(cls, parts: Mapping[Any, Any]) -> "_Splits":
        """Check that the names are those of splits."""
        for name in parts:
            if not isinstance(name, str) or name.lower() not in SPLITS:
                raise InputError(
                    f"the target is a dict of datasets, whose names must be splits, {', '.join(SPLITS)}, but one is "
                    f"{name!r}{near(name, SPLITS)}; give the datasets that count under such names"
                )
        return cls(parts)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Any:
        name, place = self._places[index]
        return self._parts[name][place]
