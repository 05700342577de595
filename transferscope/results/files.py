"""Result files: numbers for JSON, CSV and sentences, and a set of files that appears as a whole or not at all."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transferscope.errors import InputError

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


def short_cost(value: float) -> str:
    """Write seconds or kWh for a reader: three significant digits, or all before the point; NaN becomes empty."""
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def csv(table: pd.DataFrame) -> str:
    """Return a table as CSV text; numbers have six significant digits."""
    return table.to_csv(index=False, float_format=f"%.{DIGITS}g", lineterminator="\n")


def netcdf(dataset: xr.Dataset) -> bytes:
    """Return a data set as the bytes of a NetCDF file."""
    # By way of a file: for this engine only newer versions of xarray give the bytes themselves.
    with tempfile.TemporaryDirectory(prefix="transferscope-") as folder:
        path = Path(folder) / "dataset.nc"
        dataset.to_netcdf(path, engine="h5netcdf")
        return path.read_bytes()


def write_together(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write `files`, name to content, into `folder`; none is replaced before all of them are on the disk.

    Raises
    ------
    InputError
        When they cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".transferscope-", dir=folder) as waiting:
            for name, data in files.items():
                (Path(waiting) / name).write_bytes(data)
            for name in files:
                os.replace(Path(waiting) / name, folder / name)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return [folder / name for name in files]


def prepare_folder(folder: str | Path) -> Path:
    """Make `folder` if need be and make sure that files can be written there.

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
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"Expected the output folder to be writable, but {folder} is not ({error.strerror or error}); choose another "
        "one with -o"
    )
