"""A table of image files or of encoded images, as raw labelled samples; what it says twice counts once."""

from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from transferscope.data.columns import Columns, Found, find_columns
from transferscope.data.folders import SPLITS
from transferscope.data.labels import WANTED, label_array
from transferscope.data.notes import listed
from transferscope.data.reading import Reading
from transferscope.data.samples import Samples, from_bytes, from_files
from transferscope.data.several import Several, read_several
from transferscope.data.table_files import Table, read_table
from transferscope.data.table_paths import absolute, check_names, present, without_missing
from transferscope.errors import InputError, near
from transferscope.runtime.progress import Report, silent

_NO_LABEL = frozenset({"na", "n/a", "nan", "null", "none", "<na>", "?", "unknown", "unlabeled", "unlabelled"})
"""Labels, in lower case, that may stand for a missing one."""


def from_table_file(path: Path, asked: Columns, report: Report = silent, reading: Reading | None = None) -> Samples:
    """Read the images that a CSV or Parquet file lists; see :func:`transferscope.data.target.load_target`."""
    return from_table(read_table(path, asked), report, reading)


def from_frame(frame: pd.DataFrame, asked: Columns, report: Report = silent, reading: Reading | None = None) -> Samples:
    """Read the images that a DataFrame lists, whose relative paths start at the working directory."""
    return from_table(Table(frame, "the table", Path.cwd(), asked), report, reading)


def from_table(table: Table, report: Report = silent, reading: Reading | None = None) -> Samples:
    """Read the images of a table; see :func:`transferscope.data.target.load_target`."""
    found = find_columns(list(table.frame.columns), table.asked, table.what)
    several = _several(table, found)
    labels, notes = _labels(table, found) if several is None else (several.rows, [])
    split = _split(table, found)
    images = table.frame[found.images].tolist()
    if images and all(isinstance(image, dict | bytes) for image in images):
        samples = _from_encoded(images, found.images, labels, split, table, report, reading)
    else:
        samples = _from_paths(images, found.images, labels, split, table, report, reading)
    samples.notes = [*found.notes, *notes, *samples.notes]
    return samples.learning(several)


def _from_paths(
    images: list[Any],
    column: str,
    labels: list[Any],
    split: list[str | None],
    table: Table,
    report: Report,
    reading: Reading | None,
) -> Samples:
    names = check_names(images, column, table)
    paths = absolute(names, table.base)
    keep, notes = _once(names, paths, labels, split, table)
    names, paths, labels, split = (list(compress(each, keep)) for each in (names, paths, labels, split))
    there = present(paths)
    missing = without_missing(names, paths, table, there)
    if missing:
        names, paths, labels, split = (list(compress(each, there)) for each in (names, paths, labels, split))
    samples = from_files([Path(path) for path in paths], names, labels, split, report, reading)
    samples.notes = [*notes, *missing, *samples.notes]
    return samples


def _from_encoded(
    images: list[Any],
    column: str,
    labels: list[Any],
    split: list[str | None],
    table: Table,
    report: Report,
    reading: Reading | None,
) -> Samples:
    """Read images that stand in the table itself, as Hugging Face's Parquet files have them."""
    data: list[bytes] = []
    for number, image in enumerate(images):
        content = image.get("bytes") if isinstance(image, dict) else image
        if not isinstance(content, bytes):
            raise InputError(
                f"{column} must hold the bytes of an image in every row of {table.what}, but has none in "
                f"{table.row(number)}; leave this row out"
            )
        data.append(content)
    names = [f"the image in {table.row(number)}" for number in range(len(data))]
    return from_bytes(data, names, labels, split, report, reading)


def _several(table: Table, found: Found) -> Several | None:
    """Return what is to be learnt where that is no class of each image."""
    columns = {name: table.frame[name] for name in found.labels}
    return read_several(columns, table.asked.task, table.what, table.row) if len(table.frame) else None


def _labels(table: Table, found: Found) -> tuple[list[Any], list[str]]:
    """Return the label of each row, and what to warn of."""
    column = table.frame[found.labels[0]]
    if column.hasnans:
        _complain_of_missing(column, table, found)
    if not len(column):
        return [], []
    try:
        codes, values = pd.factorize(column)
    except TypeError as error:
        raise InputError(
            f"{WANTED}, but {found.labels[0]} of {table.what} holds others; give each image one"
        ) from error
    if not table.from_text:
        values = label_array(np.asarray(values))
        return values[codes].tolist(), []
    texts = [str(value).strip() for value in values]
    notes = _label_notes(texts, found.labels[0], table)
    whole = _whole_numbers(texts, len(column), found.labels[0], table)
    chosen = label_array(np.array(texts if whole is None else whole))
    return chosen[codes].tolist(), notes


def _complain_of_missing(column: pd.Series, table: Table, found: Found) -> None:
    missing = column.isna().to_numpy()
    row = int(missing.argmax())
    raise InputError(
        f"{found.labels[0]} must name the class in every row of {table.what}, but is missing in "
        f"{np.count_nonzero(missing)} of {len(missing)}, the first is {table.row(row)}: "
        f"{str(table.frame[found.images].iloc[row])[:80]}; fill it, or leave these rows out"
    )


def _whole_numbers(texts: list[str], rows: int, column: str, table: Table) -> list[int] | None:
    """Return labels that are all whole numbers as such, so that 10 comes after 9; None where they are names."""
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return None
    if not all(np.isfinite(numbers)):
        return None
    if any(number != int(number) for number in numbers):
        odd = next(text for text, number in zip(texts, numbers, strict=True) if number != int(number))
        raise InputError(
            f"{column} of {table.what} holds numbers with fractions, such as {odd}, which are no classes; give classes "
            "names or whole numbers, or ask for --task regression (in Python task='regression')"
        )
    whole = [int(number) for number in numbers]
    padded = any(text[:1] == "0" and text[1:2].isdigit() for text in texts)  # 007 is a name
    return None if padded or len(set(whole)) < len(texts) else whole


def _label_notes(texts: list[str], column: str, table: Table) -> list[str]:
    notes = []
    if absent := [text for text in texts if text.lower() in _NO_LABEL]:
        notes.append(
            f"{column} of {table.what} has {listed(list(map(repr, absent)))}, which counts as a class; leave "
            "these rows out if it means that there is no label"
        )
    alike: dict[str, list[str]] = {}
    for text in texts:
        alike.setdefault(" ".join(text.casefold().replace("_", " ").split()), []).append(text)
    twins = [names for names in alike.values() if len(set(names)) > 1]
    if twins:
        notes.append(
            f"{column} of {table.what} has {' and '.join(map(repr, sorted(set(twins[0]))))}, which count as different "
            "classes; spell them alike if they are one"
        )
    return notes


def _split(table: Table, found: Found) -> list[str | None]:
    if found.split is None:
        return [None] * len(table.frame)
    column = table.frame[found.split]
    try:
        codes, values = pd.factorize(column)
    except TypeError:  # lists, which are no split, but have to be shown
        codes, values = pd.factorize(column.map(str, na_action="ignore"))
    known: list[str | None] = []
    for code, value in enumerate(values):
        name = str(value).strip().lower()
        if name and name not in SPLITS:
            row = int((codes == code).argmax())
            raise InputError(
                f"split must be one of {', '.join(SPLITS)}, or missing, but is {value!r} in {table.row(row)}"
                f"{near(value, SPLITS)}; rename the column if it is something else"
            )
        known.append(SPLITS.get(name))
    known.append(None)  # -1: missing
    return [known[code] for code in codes.tolist()]


def _called(label: Any) -> str:
    """Return a class as it is written, numbers with commas between them."""
    return ", ".join(f"{number:g}" for number in label) if isinstance(label, tuple) else repr(label)


def _once(
    names: Sequence[str], paths: Sequence[str], labels: Sequence[Any], split: Sequence[str | None], table: Table
) -> tuple[list[bool], list[str]]:
    """Return which rows count, those that say nothing new left out, and what to warn of.

    Raises
    ------
    InputError
        Rows contradict each other.
    """
    if len(set(paths)) == len(paths):
        return [True] * len(paths), []
    first: dict[str, int] = {}
    keep: list[bool] = []
    again: list[tuple[int, int]] = []
    conflicts: list[tuple[int, int]] = []
    for row, path in enumerate(paths):
        before = first.setdefault(path, row)
        keep.append(before == row)
        if before == row:
            continue
        if split[before] != split[row]:
            raise InputError(
                f"{names[row]} is in the split {split[before]} in {table.row(before)} of {table.what}, but in "
                f"{split[row]} in {table.row(row)}; an image can be in one only"
            )
        (again if labels[before] == labels[row] else conflicts).append((before, row))
    if conflicts:
        before, row = conflicts[0]
        more = f" (and so do {len(conflicts) - 1} more rows)" if len(conflicts) > 1 else ""
        raise InputError(
            f"{names[row]} is {_called(labels[before])} in {table.row(before)} of {table.what}, but "
            f"{_called(labels[row])} in {table.row(row)}{more}; leave all but one of them out"
        )
    shown = [f"{names[row]} in {table.row(row)}" for _, row in again]
    return keep, [
        f"{len(again)} rows of {table.what} say again what another one says, and do not count: {listed(shown)}"
    ]
