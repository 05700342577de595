"""The rows of runs.csv: a transfer each, as text and as values."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transferscope.runtime.metrics import CLASSIFICATION, TASKS, metrics_of
from transferscope.runtime.regular import read_regular
from transferscope.runtime.spreadsheets import quoted, unquoted

Row = dict[str, Any]

_BEFORE: dict[str, type] = {
    "source": str,
    "target": str,
    "protocol": str,
    "depth": int,
    "depths": int,
    "layer": str,
    "samples_per_class": int,
    "samples": int,
    "seed": int,
}
_AFTER: dict[str, type] = {
    "seconds": float,
    "flops": float,
    "kwh": float,
    "kgco2e": float,
    "peak_memory": float,
    "trials": float,
    "status": str,
}


def kinds_of(task: str) -> dict[str, type]:
    """Return the columns of runs.csv for a task, in their order; floats may be missing (empty there, NaN here)."""
    return {**_BEFORE, **{metric.column: float for metric in metrics_of(task)}, **_AFTER}


KINDS = kinds_of(CLASSIFICATION)
COLUMNS = tuple(KINDS)

DONE, FAILED = "done", "failed: "

_LONGEST_STATUS = 1000  # characters


class ForeignError(Exception):
    """Files in the folder are not of this grid; the text says why."""


def clean(row: Mapping[str, Any], task: str = CLASSIFICATION) -> Row:
    """Return the columns of a row, in the types that they have when they are read again."""
    cleaned: Row = {}
    for name, kind in kinds_of(task).items():
        cleaned[name] = kind(row[name]) if kind is not float or row.get(name) is not None else math.nan
    cleaned["status"] = " ".join(cleaned["status"].split())[:_LONGEST_STATUS]
    return cleaned


def as_line(row: Mapping[str, Any], task: str = CLASSIFICATION) -> bytes:
    """Return a row, or a `header`, as a line of the file."""
    line = io.StringIO()
    # With this end, both of its characters are quoted in a field; the lines of the file end in a plain newline.
    csv.writer(line, lineterminator="\r\n").writerow([_text(row[name]) for name in kinds_of(task)])
    return (line.getvalue()[:-2] + "\n").encode("utf-8", "backslashreplace")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value).removesuffix(".0")
    return quoted(str(value))


def header(task: str = CLASSIFICATION) -> dict[str, str]:
    """Return the names of the columns, as a row."""
    return {name: name for name in kinds_of(task)}


def read_rows(path: Path) -> tuple[list[Row], int]:
    """Return the rows of a table, and how many bytes of the file are whole rows.

    Raises
    ------
    ForeignError
        The file is not such a table.
    OSError
        It cannot be read.
    """
    try:
        raw = read_regular(path)
    except FileNotFoundError:
        return [], 0
    except IsADirectoryError as error:
        raise ForeignError(f"{path.name} is a folder") from error
    length = _whole(raw)
    if not length and any(as_line(header(task), task).startswith(raw) for task in TASKS):
        return [], 0
    try:
        lines = list(csv.reader(io.StringIO(raw[:length].decode(), newline=""), strict=True))
    except (ValueError, csv.Error) as error:
        raise ForeignError(f"{path.name} cannot be read ({error})") from error
    kinds = next((kinds for task in TASKS if lines and [*(kinds := kinds_of(task))] == lines[0]), None)
    if kinds is None:
        raise ForeignError(f"{path.name} has other columns")
    try:
        return [_parsed(line, kinds) for line in lines[1:]], length
    except ValueError as error:
        raise ForeignError(f"{path.name} has a row that is not a run ({error})") from error


def _whole(raw: bytes) -> int:
    """Return where the last whole row ends; a newline after an odd number of quotes lies between two and ends none."""
    end = position = quotes = 0
    for line in raw.split(b"\n")[:-1]:
        position += len(line) + 1
        quotes += line.count(b'"')
        if quotes % 2 == 0:
            end = position
    return end


def _parsed(line: Sequence[str], kinds: Mapping[str, type]) -> Row:
    if len(line) != len(kinds):
        raise ValueError(f"expected {len(kinds)} fields, got {len(line)}")
    row: Row = {
        name: math.nan if kind is float and not text else kind(unquoted(text) if kind is str else text)
        for (name, kind), text in zip(kinds.items(), line, strict=True)
    }
    if row["status"] != DONE and not row["status"].startswith(FAILED):
        raise ValueError(f"expected status done or failed, got {row['status']!r}")
    return row
