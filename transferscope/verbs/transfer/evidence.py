"""The measured result of a transfer as evidence for later rankings, in the files that `measure` writes."""

import json
from pathlib import Path

from transferscope.errors import InputError
from transferscope.verbs.measure.rows import ForeignError, Row, as_line, clean, header, read_rows
from transferscope.verbs.measure.runs import SETTINGS, TABLE, RunTable
from transferscope.verbs.measure.settings import Settings, check, read_settings


def as_files(row: Row, settings: Settings) -> dict[str, bytes]:
    """Return a table of one run, and what it holds for: name to content."""
    task = settings.task
    return {
        TABLE: as_line(header(task), task) + as_line(clean(row, task), task),
        SETTINGS: (json.dumps(settings.record(), indent=2) + "\n").encode(),
    }


def row_of(folder: Path) -> Row:
    """Return the run that the table in the folder of a model holds; raise InputError when it cannot be read."""
    try:
        (row, *_), _ = read_rows(folder / TABLE)
    except (ForeignError, OSError, ValueError) as error:
        raise InputError(f"The table {folder / TABLE} of a model cannot be read ({error}); remove {folder}") from error
    return row


def evidence_folder(path: str | Path) -> Path:
    """Return the folder of the argument `evidence`: the folder itself, or the one in which its runs.csv is.

    Raises
    ------
    InputError
        It is another file.
    """
    path = Path(path)
    if path.name == TABLE:
        return path.parent
    if path.suffix or path.is_file():
        raise InputError(f"Expected `evidence` to be a folder, or the {TABLE} in one, but got {path}")
    return path


def check_evidence(folder: Path, settings: Settings) -> None:
    """Raise InputError unless a run under these settings can join the evidence in a folder, or begins it there."""
    try:
        rows, _ = read_rows(folder / TABLE)
        if rows:
            check(read_settings(folder / SETTINGS), settings.record(), rows)
    except ForeignError as reason:
        raise InputError(
            f"Expected `evidence` to be new, or to hold runs of the same target on the same device, but {folder} does "
            f"not: {reason}; choose another folder"
        ) from reason
    except OSError as error:
        raise InputError(f"Expected `evidence` to be a folder, but {folder} cannot be read ({error})") from error


def append(folder: Path, row: Row, settings: Settings) -> Path:
    """Add the row of a run to the evidence in a folder, unless it is there, and return the path of the table."""
    with RunTable(folder, settings) as table:
        table.append([row])
        return table.path
