"""Files of tables, CSV and Parquet, as data frames: what the file says, and a sentence for what it does not."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from transferscope.data.columns import Columns, find_columns
from transferscope.errors import InputError
from transferscope.runtime.regular import open_regular, read_regular

CSV = {".csv": None, ".tsv": "\t"}
"""Endings of text tables, with what stands between columns; None: what the header tells."""
PARQUET = (".parquet", ".pq")
SUFFIXES = (*CSV, *PARQUET)
"""Endings of tables that are read, in lower case."""

_BETWEEN = (",", ";", "\t", "|")
_MOST_BYTES = 8 * 2**30
_OTHERS = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "a spreadsheet: save it as CSV (UTF-8)"),
    **dict.fromkeys((".json", ".jsonl"), "no table that is read: make a CSV of it, or load it with pandas"),
    **dict.fromkeys((".feather", ".arrow", ".pkl", ".h5"), "no table that is read: load it with pandas in Python"),
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst"), "compressed: unpack it and give what is inside"),
}


@dataclass(frozen=True)
class Table:
    """A table of images.

    Attributes
    ----------
    frame : pandas.DataFrame
        As it was given; of a CSV all cells are texts, None where they are empty.
    what : str
        What to call it in a message.
    base : Path
        Where relative paths start.
    asked : Columns
        What the caller names of it.
    from_text : bool
        Whether the cells are the texts of a file.
    by_line : bool
        Whether each row is a line of that file, the header the first.
    """

    frame: pd.DataFrame
    what: str
    base: Path
    asked: Columns
    from_text: bool = False
    by_line: bool = False

    def row(self, number: int) -> str:
        """Say where the row of this number (from 0) is."""
        return f"line {number + 2}" if self.by_line else f"row {number}"


def is_table(path: Path) -> bool:
    """Whether a name ends like that of a table."""
    return path.suffix.lower() in SUFFIXES


def read_table(path: Path, asked: Columns) -> Table:
    """Read the columns of a table that are needed.

    Raises
    ------
    InputError
        It is no such table, or has not the columns.
    """
    what = f"table {path.name}"
    if path.suffix.lower() in PARQUET:
        return Table(_parquet(path, what, asked), what, path.parent, asked)
    frame, by_line = _csv(path, what, asked)
    return Table(frame, what, path.parent, asked, from_text=True, by_line=by_line)


def other_kind(path: Path) -> str:
    """Say what to do with a file that is no table that is read, nothing where its name tells nothing."""
    return _OTHERS.get(path.suffix.lower(), "")


def _csv(path: Path, what: str, asked: Columns) -> tuple[pd.DataFrame, bool]:
    text = _text(path, what)
    first = text.lstrip().partition("\n")[0]
    if not first:
        raise InputError(f"{what} is empty; its first line must name the columns")
    between = CSV.get(path.suffix.lower()) or max(_BETWEEN, key=first.count)
    if _is_regular(text, between):
        names = first.rstrip("\r").split(between)
        wanted = _wanted(names, asked, what)
        frame = pd.read_csv(
            io.StringIO(text), sep=between, dtype=object, header=None, skiprows=1, usecols=list(wanted.values()),
            keep_default_na=False, na_values=[""], quoting=csv.QUOTE_NONE, index_col=False,
        )  # fmt: skip
        return pd.DataFrame({name: frame[place] for name, place in wanted.items()}), True
    lines = io.StringIO(text, newline="")
    try:
        rows = [row for row in csv.reader(lines, delimiter=between, strict=True) if row]
    except csv.Error as error:
        raise InputError(
            f"{what} cannot be read as CSV: {error}; a quote that is opened has to be closed, and quotes inside are "
            'doubled, as in "a ""b"""'
        ) from error
    names = rows[0]
    if len(names) == 1 and len(rows) > 1:
        raise InputError(
            f"{what} has a single column, {names[0]!r}; its first line must name at least two, one of image files and "
            "one of labels, with a comma between them"
        )
    _check_widths(rows, len(names), what, between)
    wanted = _wanted(names, asked, what)
    by_line = len(rows) == len(text.rstrip().splitlines())
    del rows[0]
    columns = {name: pd.Series([row[place] or None for row in rows], dtype=object) for name, place in wanted.items()}
    return pd.DataFrame(columns), by_line


def _wanted(header: Sequence[str], asked: Columns, what: str) -> dict[str, int]:
    """Return the places of the columns that are needed, by their names."""
    names = [name.strip() for name in header]
    found = find_columns(names, asked, what)
    return {name: names.index(name) for name in (found.images, *found.labels, found.split) if name is not None}


def _is_regular(text: str, between: str) -> bool:
    """Whether pandas, which is quick, reads a text as it is meant: all lines of as many cells, without quotes."""
    if '"' in text or text[:1].isspace() or "\r" in text.replace("\r\n", "") or between not in text:
        return False
    data = np.frombuffer(text.rstrip("\r\n").encode(), dtype=np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    cells = np.add.reduceat(data == ord(between), np.concatenate([[0], ends]), dtype=np.int64)
    return len(ends) > 0 and bool((cells == cells[0]).all())


def _check_widths(rows: Sequence[list[str]], width: int, what: str, between: str) -> None:
    if set(map(len, rows)) == {width}:
        return
    number, row = next((number, row) for number, row in enumerate(rows, 1) if len(row) != width)
    mark = {"\t": "a tab"}.get(between, repr(between))
    raise InputError(
        f"{what}: line {number} has {len(row)} cells where the first line names {width} columns, with {mark} between "
        f"them; put cells that contain {mark} in double quotes"
    )


def _text(path: Path, what: str) -> str:
    data = _content(path, what)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif b"\0" in data[:4096]:
        raise InputError(f"{what} is no text; save it as CSV (UTF-8)")
    else:
        encoding = "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{what} is not encoded in UTF-8: byte 0x{data[error.start]:02x} in line {line}; save it as CSV (UTF-8), "
            "or convert it, as with `iconv -f latin1 -t utf8`"
        ) from error


def _content(path: Path, what: str) -> bytes:
    try:
        return read_regular(path, _MOST_BYTES)
    except OSError as error:
        raise InputError(f"{what} cannot be read: {error.strerror or error}") from error


def _parquet(path: Path, what: str, asked: Columns) -> pd.DataFrame:
    _content_begins(path, what)
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise InputError(
            f"{what} is a Parquet file, which needs pyarrow: pip install 'transferscope[parquet]', or save it as CSV"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            found = find_columns(file.schema_arrow.names, asked, what)
            wanted = [found.images, *found.labels, *([found.split] if found.split else [])]
            return file.read(columns=wanted).to_pandas()[wanted]
    except InputError:
        raise
    except Exception as error:  # whatever pyarrow makes of a damaged file
        reason = str(error).splitlines()[0].rstrip(". ") if str(error) else type(error).__name__
        raise InputError(f"{what} cannot be read as Parquet: {reason}; write it again") from error


def _content_begins(path: Path, what: str) -> None:
    """Complain of what begins otherwise than Parquet files, before pyarrow is needed."""
    try:
        with open_regular(path) as file:
            begins = file.read(4)
    except OSError as error:
        raise InputError(f"{what} cannot be read: {error.strerror or error}") from error
    if begins != b"PAR1":
        raise InputError(f"{what} is no Parquet file, whatever its name ends with; write it again")
