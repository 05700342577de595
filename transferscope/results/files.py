"""Result files: numbers for JSON, CSV and sentences, and the files of a result, that appear together or not at all."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transferscope.errors import InputError
from transferscope.runtime import filesets
from transferscope.runtime.filesets import Content
from transferscope.runtime.marker import mark
from transferscope.runtime.printable import printable_json
from transferscope.runtime.spreadsheets import quoted_table
from transferscope.runtime.store import digest, write_atomically

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

DIGITS = 6


def rounded(value: Any) -> Any:
    """Round floats, so that the last bits of a reduction do not make equal answers differ; not finite becomes None."""
    if isinstance(value, float):
        # Adding 0 turns -0.0, which prints otherwise, into 0.0.
        return round(value, DIGITS) + 0.0 if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return value


def significant(value: Any) -> Any:
    """Round floats to six significant digits: energy in kWh can be a millionth; not finite becomes None."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: significant(item) for key, item in value.items()}
    if isinstance(value, list):
        return [significant(item) for item in value]
    return value


def json_text(content: Any, indent: int | None = 1) -> str:
    """Return JSON-like content as the text of a file, which a terminal can show."""
    return printable_json(json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def csv(table: pd.DataFrame) -> str:
    """Return a table as CSV text; numbers have six significant digits."""
    return csv_text(table, index=False, float_format=f"%.{DIGITS}g")


def csv_text(table: pd.DataFrame, **options: Any) -> str:
    """Return a table as CSV text, with the options that pandas has; no text in it is a formula for a spreadsheet."""
    text = quoted_table(table).to_csv(lineterminator="\n", **options)
    return text.encode("utf-8", "backslashreplace").decode()  # a name may hold bytes that are no letters


def dataset_digest(dataset: xr.Dataset) -> str:
    """Return a digest of the variables, coordinates and attributes of a dataset: equal ones give equal digests."""
    parts = [[str(name), str(value)] for name, value in sorted(dataset.attrs.items())]
    for name, variable in sorted(dataset.variables.items(), key=lambda item: str(item[0])):
        values = variable.to_numpy()
        content = repr(values.tolist()) if values.dtype.hasobject else values.tobytes().hex()
        parts.append([str(name), str(variable.dims), str(values.dtype), str(dict(variable.attrs)), content])
    return digest(parts)


def netcdf(dataset: xr.Dataset) -> Content:
    """Return a data set as the content of a NetCDF file."""

    def write(path: Path) -> None:
        try:
            dataset.to_netcdf(path, engine="h5netcdf")
        except (OSError, RuntimeError) as error:
            # HDF5 says it in many words.
            number = re.search(r"errno = (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error

    return write


def write_together(folder: Path, files: Mapping[str, Content], outdated: Iterable[str] = ()) -> list[Path]:
    """Write a result into `folder`, which has to exist and gets the mark of one of results.

    At no time does it hold files of two results, and a run that is killed leaves those of the old or of the new one;
    see `runtime/filesets.py`.

    Parameters
    ----------
    folder : Path
        Where to.
    files : mapping of str to bytes or function
        Name to content, or to a function that writes it to a path.
    outdated : iterable of str
        Names that an earlier result of this kind may have had and this one lacks; these files go away.

    Raises
    ------
    InputError
        When they cannot be written.
    """
    try:
        filesets.write_set(folder, files, set(outdated))
    except OSError as error:
        raise _unwritable(folder, error) from error
    return [folder / name for name in files]


def write_file(path: str | Path, data: bytes, instead: str = "choose another path") -> Path:
    """Write a file, whole or not at all, that makes no folder of results of where it lies, and return its path.

    Parameters
    ----------
    path : path
        Its folder is made if need be.
    data : bytes
        What it holds.
    instead : str
        What to do where it cannot be written, for the message.

    Raises
    ------
    InputError
        When it cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise InputError(f"The file cannot be written to {path} ({error.strerror or error}); {instead}") from error
    return path


def prepare_folder(folder: str | Path) -> Path:
    """Make `folder` if need be, mark it as one of results and make sure that files can be written there.

    Raises
    ------
    InputError
        When they cannot.
    """
    if not str(folder):
        raise InputError("Expected the output folder to have a name, but got an empty one; choose one with -o")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        mark(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"Expected the output folder to be writable, but {folder} is not ({error.strerror or error}); choose another "
        "one with -o"
    )
