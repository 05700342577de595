"""What lies in the cache, how old and how large it is, and taking the oldest away."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ENDINGS = (".safetensors", ".pickle", ".log", ".pt")
"""Of files that a cache consists of; no other is ever touched."""


@dataclass(frozen=True)
class CacheFile:
    """A file of the cache.

    Attributes
    ----------
    kind
        What it holds: ``features``, ``scores``, ``reference`` and so on.
    path
        Where it is.
    size
        In bytes.
    age
        Seconds since it was written.
    """

    kind: str
    path: Path
    size: int
    age: float


def cache_files(root: Path) -> list[CacheFile]:
    """Return the files of a cache, the oldest first; none where there is no cache."""
    return sorted(_files(root), key=lambda file: (-file.age, file.path))


def _files(root: Path) -> Iterator[CacheFile]:
    now = time.time()
    for path in root.rglob("*"):
        with contextlib.suppress(OSError):  # another process may take it away
            status = path.lstat()
            if path.suffix in ENDINGS and path.is_file() and not path.is_symlink():
                kind = path.relative_to(root).parts[0]
                yield CacheFile(kind, path, status.st_size, max(0.0, now - status.st_mtime))


def prune(
    root: Path, *, older_than: float | None = None, max_size: int | None = None, dry_run: bool = False
) -> list[CacheFile]:
    """Take away what is older than so many seconds, then the oldest until what is left has so many bytes at most.

    What another process reads meanwhile it reads to the end, or computes again. Nothing that is being written is
    touched.

    Returns
    -------
    list of CacheFile
        What was taken away or, with `dry_run`, would be.
    """
    files = cache_files(root)
    left = sum(file.size for file in files)
    gone = []
    for file in files:
        too_old = older_than is not None and file.age > older_than
        too_much = max_size is not None and left > max_size
        if not (too_old or too_much):
            continue
        if not dry_run:
            try:
                file.path.unlink()
            except FileNotFoundError:
                continue
            with contextlib.suppress(OSError):  # others are in it
                file.path.parent.rmdir()
        left -= file.size
        gone.append(file)
    return gone
