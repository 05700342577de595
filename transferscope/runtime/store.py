"""A content-addressed cache on disk: what was computed once is never computed again.

An entry is a set of named arrays and a JSON record under the hash of everything it depends on. Entries are written
to a temporary file and moved into place, so an interrupted run leaves none half-written. What is read is checked: a
disk, a copy or a stranger may have changed it, and a wrong entry would be a wrong answer.
"""

import contextlib
import hashlib
import json
import logging
import os
import secrets
import sys
import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from transferscope.errors import TransferscopeWarning
from transferscope.runtime import leases, locking
from transferscope.runtime.regular import expanded, is_regular

logger = logging.getLogger("transferscope")

_ENDING = ".safetensors"
_LAYOUT = "2"
"""Of what an entry consists; what another version wrote in another way is computed again."""
_UNFINISHED = ".unfinished"
_MOVES_OPEN_FILES = sys.platform != "win32"
_YOUNG, _OLD = 10, 86400
"""Seconds after which an unfinished file that nobody holds, and any at all, is what a killed run left."""


def home() -> Path:
    """Return the cache folder: $TRANSFERSCOPE_HOME, $XDG_CACHE_HOME/transferscope or ~/.cache/transferscope."""
    if home := os.environ.get("TRANSFERSCOPE_HOME"):
        return expanded(home, "TRANSFERSCOPE_HOME")
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return expanded(shared, "XDG_CACHE_HOME") / "transferscope"
    return expanded("~", "the folder of the cache") / ".cache" / "transferscope"


def digest(*parts: Any) -> str:
    """Return the sha256 (hex) of JSON-like `parts`; equal parts give equal digests in every process."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that the file is either the old one or the whole new one."""
    temporary = path.with_name(f".{path.name}.{_own_name()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _own_name() -> str:
    """Return what no other process writes to, on any machine that shares the folder."""
    return f"{leases.here()}-{os.getpid()}-{secrets.token_hex(3)}"


class Store:
    """Arrays and records on disk, by kind and key.

    Parameters
    ----------
    root : pathlib.Path, optional
        Folder of the cache; `home()` by default. A folder that cannot be written is reported once, and the work
        goes on without a cache.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = home() if root is None else root
        self._writable = True
        self._swept: set[str] = set()

    def get(
        self, kind: str, key: str, *, only: Collection[str] | None = None, rows: Sequence[int] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Return (arrays, record) of an entry as it was put, or None when there is none or it was changed since.

        Parameters
        ----------
        kind, key : str
            As in `put`.
        only : collection of str, optional
            Names of the arrays to read; all by default.
        rows : sequence of int, optional
            Rows of these arrays to keep; all by default.
        """
        path = self._path(kind, key)
        if not is_regular(path):
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("layout") != _LAYOUT:
                    logger.debug("Cache entry %s was written by another version.", path)
                    return None
                if metadata.pop("checksum", "") != digest(metadata):
                    raise ValueError("what it says of itself was changed")
                if metadata["entry"] != f"{kind}/{key}":
                    raise ValueError("it holds another entry")
                every = ... if rows is None else rows
                arrays = {
                    name: _checked(name, file.get_tensor(name), written)[every]
                    for name, written in json.loads(metadata["arrays"])
                    if only is None or name in only
                }
                return arrays, json.loads(metadata["record"])
        except Exception as error:  # libraries raise nearly anything on bytes that are not their own
            logger.warning("Cache entry %s cannot be used (%s); it is computed again", path, error)
            return None

    def put(self, kind: str, key: str, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
        """Store an entry; a full or read-only disk costs the cache, not the result.

        A key of the form ``key/name`` puts it below a key, see `below`.
        """
        if not self._writable:
            return
        path = self._path(kind, key)
        stored = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        # safetensors sorts its tensors; the order of the layers has to survive.
        written = [(name, _described(array)) for name, array in stored.items()]
        metadata = {"layout": _LAYOUT, "entry": f"{kind}/{key}"}
        metadata |= {"arrays": json.dumps(written), "record": json.dumps(dict(record))}
        data = save(stored, metadata | {"checksum": digest(metadata)})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write(self.root / kind / _UNFINISHED, path, data)
        except OSError as error:
            self._writable = False
            warnings.warn(
                f"The cache folder {self.root} cannot be written ({error}); nothing is kept for the next run. "
                "Set TRANSFERSCOPE_HOME to a folder that can",
                TransferscopeWarning,
                stacklevel=2,
            )

    def _write(self, unfinished: Path, path: Path, data: bytes) -> None:
        unfinished.mkdir(exist_ok=True)
        if unfinished.parent.name not in self._swept:
            self._swept.add(unfinished.parent.name)
            _sweep(unfinished)
        temporary = unfinished / f"{path.name}.{_own_name()}"
        try:
            with temporary.open("wb") as file:
                _hold(file.fileno())
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # else a machine that goes down could leave the name with nothing behind it
                if _MOVES_OPEN_FILES:
                    os.replace(temporary, path)
            if not _MOVES_OPEN_FILES:
                os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def lease(self, kind: str, key: str, *, wait: bool = True) -> contextlib.AbstractContextManager[bool]:
        """Be the only one that computes an entry, for the duration of a `with` block, see `leases.lease`.

        Whoever waited looks whether the entry is there by now.
        """
        return leases.lease(self.root / "leases" / f"{kind}-{digest(key)[:32]}", f"{kind} {key[:12]}", wait=wait)

    def below(self, kind: str, key: str) -> list[str]:
        """Return the names of the entries below a key, the oldest first."""
        folder = self._path(kind, key).with_suffix("")
        try:
            entries = [(entry.stat().st_mtime_ns, entry.name) for entry in os.scandir(folder)]
        except OSError:
            return []
        return [name.removesuffix(_ENDING) for _, name in sorted(entries) if name.endswith(_ENDING)]

    def _path(self, kind: str, key: str) -> Path:
        return self.root / kind / key[:2] / f"{key}{_ENDING}"


def _described(array: np.ndarray) -> str:
    """Return what an array is: kind and size of its values, shape, and a digest of its bytes."""
    content = hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()
    return f"{array.dtype.str} {array.shape} {content}"


def _checked(name: str, array: np.ndarray, written: str) -> np.ndarray:
    if _described(array) != written:
        raise ValueError(f"{name!r} was changed")
    return array


def _hold(descriptor: int) -> bool:
    """Lock a file against being swept, until it is closed; False where another process does."""
    try:
        locking.take(descriptor)
    except OSError:
        return False
    return True


def _sweep(folder: Path) -> None:
    """Remove the files that killed runs did not finish."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            age = time.time() - path.stat().st_mtime
            ours = f".{leases.here()}-" in path.name  # locks of other machines may not be seen here
            if age > _OLD or (age > _YOUNG and ours and _is_abandoned(path)):
                path.unlink()


def _is_abandoned(path: Path) -> bool:
    with path.open("rb") as file:
        return _hold(file.fileno())
