"""phases.csv: how long each phase of each run took, beside runs.csv, which has the sums."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transferscope.runtime.spreadsheets import quoted

PHASES = "phases.csv"

_COLUMNS = ("source", "protocol", "depth", "layer", "samples_per_class", "seed", "phase", "seconds")


def append_phases(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add a line for each phase of each run to a file, in one write; a line torn by an interruption is cut off first.

    Parameters
    ----------
    path : Path
        Begun with a header if need be.
    rows : sequence of mapping
        What tells the run from others, and ``phases``, seconds by name; without it there is nothing to add.

    Raises
    ------
    OSError
        The file cannot be written; it is as before.
    """
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    for row in rows:
        for phase, seconds in row.get("phases", {}).items():
            about = [quoted(row[name]) if isinstance(row[name], str) else row[name] for name in _COLUMNS[:-2]]
            writer.writerow([*about, phase, f"{seconds:.6g}"])
    if not lines.getvalue():
        return
    with path.open("a+b") as file:
        file.seek(0)
        held = file.read()
        size = held.rfind(b"\n") + 1
        file.truncate(size)
        header = "" if size else ",".join(_COLUMNS) + "\n"
        try:
            file.write((header + lines.getvalue()).encode())
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise
