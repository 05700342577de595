"""phases.csv: how long each phase of each run took, beside runs.csv, which has the sums."""

import csv
import io
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from transferscope.runtime.spreadsheets import quoted, unquoted
from transferscope.runtime.store import write_atomically

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


def drop_orphans(path: Path, recorded: Collection[tuple[Any, ...]]) -> None:
    """Remove lines of runs that are not recorded: a kill came between them and the row, and the run is repeated.

    Parameters
    ----------
    path : Path
        Of the file; there need be none.
    recorded : collection of tuple
        What tells runs from others, of all that have a row.

    Raises
    ------
    OSError
        The file cannot be read or written.
    """
    if not path.is_file():
        return
    known = {tuple(map(str, identity)) for identity in recorded}
    kept, dropped = io.StringIO(), False
    writer = csv.writer(kept, lineterminator="\n")
    for line in csv.reader(io.StringIO(path.read_bytes().decode(errors="replace"), newline="")):
        orphan = line[:1] != ["source"] and tuple(map(unquoted, line[: len(_COLUMNS) - 2])) not in known
        dropped |= orphan
        if not orphan:
            writer.writerow(line)
    if dropped:
        write_atomically(path, kept.getvalue().encode())
