"""Tables of runs that grow row by row and survive a kill: measure's columns and two more."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from transferscope.verbs.measure.rows import COLUMNS, clean

CPU_SECONDS, RECIPE = "cpu_seconds", "recipe"
"""Time on the processor, which other work on the machine changes less than `seconds`; and the recipe's version."""


def append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add runs to a table; they are on the disk afterwards. A row torn by a kill is cut off first.

    Parameters
    ----------
    path : Path
        Begun with a header if need be.
    rows : sequence of mapping
        `COLUMNS` of measure, `CPU_SECONDS` and `RECIPE`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    for row in rows:
        cleaned = clean(row)
        values = [cleaned[name] for name in COLUMNS]
        writer.writerow([*("" if value != value else value for value in values), row.get(CPU_SECONDS, ""), row[RECIPE]])
    with path.open("a+b") as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        header = "" if whole else ",".join([*COLUMNS, CPU_SECONDS, RECIPE]) + "\n"
        file.write((header + lines.getvalue()).encode())
        file.flush()
        os.fsync(file.fileno())


def read(paths: Sequence[Path]) -> pd.DataFrame:
    """Return the runs of these tables, those that failed too; the empty layer at depth 0 is an empty string."""
    tables = [pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"layer": str}) for path in paths]
    if not tables:
        return pd.DataFrame(columns=[*COLUMNS, CPU_SECONDS, RECIPE])
    return pd.concat(tables, ignore_index=True).fillna({"layer": ""})
