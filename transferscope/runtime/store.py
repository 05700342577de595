"""A content-addressed cache on disk: what was computed once is never computed again.

An entry is a set of named arrays and a JSON record under the hash of everything it depends on. Entries are written
to a temporary file and moved into place, so an interrupted run leaves none half-written.
"""

import contextlib
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from transferscope.errors import TransferscopeWarning

logger = logging.getLogger("transferscope")

_ENDING = ".safetensors"


def home() -> Path:
    """Return the cache folder: $TRANSFERSCOPE_HOME, $XDG_CACHE_HOME/transferscope or ~/.cache/transferscope."""
    if home := os.environ.get("TRANSFERSCOPE_HOME"):
        return Path(home).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "transferscope"
    return Path.home() / ".cache" / "transferscope"


def digest(*parts: Any) -> str:
    """Return the sha256 (hex) of JSON-like `parts`; equal parts give equal digests in every process."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that the file is either the old one or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


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

    def get(
        self, kind: str, key: str, *, only: Collection[str] | None = None, rows: Sequence[int] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Return (arrays, record) of an entry, or None when there is none that can be read.

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
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("entry") != f"{kind}/{key}":
                    raise ValueError("it holds another entry")
                names, every = json.loads(metadata["order"]), ... if rows is None else rows
                arrays = {name: file.get_tensor(name)[every] for name in names if only is None or name in only}
                record = json.loads(metadata["record"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            logger.info("Cache entry %s cannot be read (%s); it is computed again.", path, error)
            return None
        return arrays, record

    def put(self, kind: str, key: str, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
        """Store an entry; a full or read-only disk costs the cache, not the result.

        A key of the form ``key/name`` puts it below a key, see `below`.
        """
        if not self._writable:
            return
        path = self._path(kind, key)
        # safetensors sorts its tensors; the order of the layers has to survive.
        metadata = {"entry": f"{kind}/{key}", "order": json.dumps(list(arrays)), "record": json.dumps(dict(record))}
        data = save({name: np.asarray(array, order="C") for name, array in arrays.items()}, metadata)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data)
        except OSError as error:
            self._writable = False
            warnings.warn(
                f"The cache folder {self.root} cannot be written ({error}); nothing is kept for the next run. "
                "Set TRANSFERSCOPE_HOME to a folder that can",
                TransferscopeWarning,
                stacklevel=2,
            )

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
