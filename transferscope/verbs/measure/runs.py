"""The table that a grid of transfers fills, a row for each as it ends."""

import contextlib
import errno
import json
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd

from transferscope.errors import InputError, TransferscopeError, TransferscopeWarning
from transferscope.runtime.filesets import complete
from transferscope.runtime.marker import mark
from transferscope.runtime.store import write_atomically
from transferscope.verbs.measure.lock import busy, let_in, lock, recording
from transferscope.verbs.measure.phases import PHASES, append_phases, drop_orphans
from transferscope.verbs.measure.rows import DONE, ForeignError, Row, as_line, clean, header, kinds_of, read_rows
from transferscope.verbs.measure.settings import Settings, check, read_settings
from transferscope.verbs.running.run import Run

logger = logging.getLogger("transferscope")

TABLE, SETTINGS = "runs.csv", "measure.json"

IDENTITY = ("source", "protocol", "depth", "layer", "samples_per_class", "seed")


class RunTable:
    """The results of a grid in a folder, which survive whatever happens to the process.

    A row is on the disk when `append` returns. A grid that is begun again goes on with the rows that are there, and
    may have more sources, protocols, depths, sizes and seeds than before. Where anything else has changed, or the
    files are not ours, they are set aside under other names. Several processes may have it open with the same settings:
    each sees the rows of the others when it records one of its own, or looks.

    Parameters
    ----------
    folder : Path
        Made if need be.
    settings : Settings
        What the rows hold for.

    Raises
    ------
    InputError
        The folder cannot be used, or another measurement with other settings runs in it.

    Warns
    -----
    TransferscopeWarning
        Files were set aside.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.path = folder / TABLE
        self._settings = folder / SETTINGS
        self._task = settings.task
        self._rows: dict[tuple[Any, ...], Row] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._size = 0
            descriptor, alone = lock(folder)
            self._lock: int | None = descriptor
            try:
                if alone:
                    self._open(settings.record())
                    let_in(descriptor)
                else:
                    self._join(settings.record())
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise InputError(
                f"Expected to be able to read and write {TABLE} and {SETTINGS} in {folder}, but that failed "
                f"({error.strerror or error}); correct that, or choose another folder with -o"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._rows)

    def close(self) -> None:
        """Let others into the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def done(self, run: Run, *, retry_failed: bool = False) -> bool:
        """Whether a run is in the table; with `retry_failed` only if it did not fail."""
        row = self._rows.get(run.identity)
        return row is not None and (row["status"] == DONE or not retry_failed)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record runs that ended; all of them are on the disk afterwards, or none.

        Parameters
        ----------
        rows : sequence of mapping
            Each with the columns that `rows.kinds_of` names; a number that is missing or NaN stays empty. ``phases``,
            seconds by name, are added to phases.csv; other keys do not count. ``target`` is
            recorded as it was called when the table was begun. ``status`` is ``"done"``, or ``"failed: "`` and the
            reason, which is made one line.

        Raises
        ------
        TransferscopeError
            They cannot be written; the file is as before.
        """
        ended = [clean({**row, "target": self._target}, self._task) for row in rows]
        try:
            with recording(self.path):
                self._catch_up()
                append_phases(self.path.with_name(PHASES), rows)
                self._write(ended)
        except OSError as error:
            raise TransferscopeError(
                f"{len(ended)} ended run(s) could not be recorded in {self.path} ({error.strerror or error}); what was "
                "recorded before is intact. Make room or correct that, and start again: it goes on from there"
            ) from error

    def refresh(self) -> None:
        """Read what other processes have recorded."""
        with contextlib.suppress(OSError):  # gone: then it is written anew with the next row
            if self.path.stat().st_size != self._size:
                with recording(self.path):
                    self._catch_up()

    def frame(self) -> pd.DataFrame:
        """Return a row for each run, sorted by what tells them apart; of a run recorded twice, the last."""
        rows = [self._rows[identity] for identity in sorted(self._rows)]
        kinds = kinds_of(self._task)
        return pd.DataFrame(rows, columns=list(kinds)).astype({n: k for n, k in kinds.items() if k is not str})

    def _open(self, wanted: dict[str, Any]) -> None:
        mark(self.path.parent)
        complete(self.path.parent)
        for left in self.path.parent.glob(".*.*.tmp"):  # by a run that was killed: nobody else is here
            left.unlink(missing_ok=True)
        try:
            recorded = read_settings(self._settings)
            rows, length = read_rows(self.path)
            if rows:
                check(recorded, wanted, rows)
        except ForeignError as reason:
            self._set_aside(str(reason))
            rows, length = [], 0
        if rows and recorded:
            wanted["target"] = recorded["target"]
            wanted["sources"] = {**recorded["sources"], **wanted["sources"]}
        self._target = wanted["target"]["name"]
        write_atomically(self._settings, (json.dumps(wanted, indent=2) + "\n").encode())
        self._remember(rows)
        if self.path.exists() and (torn := self.path.stat().st_size - length):
            os.truncate(self.path, length)
            logger.info("%s ended in the middle of a row; these %d bytes are cut off.", self.path, torn)
        drop_orphans(self.path.with_name(PHASES), self._rows)
        self._write([])

    def _join(self, wanted: dict[str, Any]) -> None:
        """Come to a table that others have open."""
        with recording(self.path):
            try:
                recorded = read_settings(self._settings)
                check(recorded, wanted, [])
                rows, _ = read_rows(self.path)
            except ForeignError as reason:
                raise busy(self.path.parent, str(reason)) from reason
            assert recorded is not None  # for then it is foreign
            wanted["target"] = recorded["target"]
            wanted["sources"] = {**recorded["sources"], **wanted["sources"]}
            self._target = wanted["target"]["name"]
            write_atomically(self._settings, (json.dumps(wanted, indent=2) + "\n").encode())
            self._remember(rows)
            self._catch_up()

    def _catch_up(self) -> None:
        """Read the rows of others, and cut off what a process that was killed had not finished."""
        size = self.path.stat().st_size
        if size == self._size or not size:
            return
        try:
            rows, length = read_rows(self.path)
        except ForeignError as error:
            raise OSError(errno.EINVAL, f"it was changed meanwhile: {error}") from error
        if length < size:
            os.truncate(self.path, length)
        self._size = length
        self._remember(rows)

    def _set_aside(self, reason: str) -> None:
        """Rename the files that are there, to the first number that is free for all."""
        number = 1
        # The settings first: a table without them is never gone on with.
        paths = (self._settings, self.path, self.path.with_name(PHASES))
        while any(_numbered(path, number).exists() for path in paths):
            number += 1
        moved = [(path, _numbered(path, number)) for path in paths if path.exists()]
        for path, free in moved:
            path.rename(free)
        warnings.warn(
            f"{' and '.join(path.name for path, _ in moved)} in {self.path.parent} cannot be resumed: {reason}. "
            f"Set aside as {' and '.join(free.name for _, free in moved)}; a new table is begun",
            TransferscopeWarning,
            stacklevel=4,
        )

    def _write(self, rows: list[Row]) -> None:
        """Append rows in one write, with the header and all earlier ones if the file is empty or gone."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self.path, flags, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            lines = [*([] if size else [header(self._task), *self._rows.values()]), *rows]
            data = b"".join(as_line(line, self._task) for line in lines)
            try:
                if os.write(descriptor, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(descriptor)
                self._size = size + len(data)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        self._remember(rows)

    def _remember(self, rows: list[Row]) -> None:
        self._rows.update({tuple(row[name] for name in IDENTITY): row for row in rows})


def recorded(folder: Path) -> dict[tuple[Any, ...], Row]:
    """Return the rows of a table by what tells them apart, without touching it; none where there is no such table."""
    try:
        rows, _ = read_rows(folder / TABLE)
    except (ForeignError, OSError):
        return {}
    return {tuple(row[name] for name in IDENTITY): row for row in rows}


def _numbered(path: Path, number: int) -> Path:
    return path.with_stem(f"{path.stem}-{number}")
