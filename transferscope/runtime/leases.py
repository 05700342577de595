"""Who is at work on what, among processes and machines that share a folder: a file that its holder keeps touching.

Leases save work and never decide what is right: whoever writes, writes whole files, and where two have worked on the
same, both have written the same. So a folder that cannot be written, or a holder that was cut off, costs time alone.
"""

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transferscope.runtime import locking
from transferscope.runtime.regular import open_regular

logger = logging.getLogger("transferscope")

BEAT_S = 5.0
"""How often a holder touches its files."""
PATIENCE_S = 60.0
"""How long one stands still before its holder counts as dead, on the clock of whoever waits: clocks may differ."""
_ASKED_EVERY_S = 0.1
_MOST_BYTES = 200
_SAID_AFTER_S = 5.0

_held: dict[Path, int] = {}
"""The files that this process holds, with their descriptors."""
_lock = threading.Lock()
_beating: threading.Thread | None = None


def here() -> str:
    """Return what tells this machine from others that share a folder; fit for a file name."""
    return "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname())


@contextmanager
def lease(path: Path, what: str, *, wait: bool = True) -> Iterator[bool]:
    """Be the only one at work on something, for the duration of the block.

    Parameters
    ----------
    path : Path
        Of the file; the same for all who might work on it.
    what : str
        What it is, for those who wait.
    wait : bool
        Whether to wait for another holder, until it has ended or counts as dead.

    Yields
    ------
    bool
        Without `wait`, whether nobody else is at work on it. With it, whether somebody else was, so that it may be
        done by now.
    """
    waited, taken = False, _take(path)
    if taken is None and wait:
        waited = True
        taken = _wait(path, what)
    try:
        yield waited if wait else taken is not None
    finally:
        if taken is not None:
            _release(path, taken)


def _take(path: Path) -> int | None:
    """Make the file; None where there is one. Where none can be made, nobody else can either: -1."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError:  # a file in its way too, which is no lease that exists
        return -1
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return None
    except OSError:
        return -1
    with contextlib.suppress(OSError):  # a file system without locks
        locking.take(descriptor)
    with contextlib.suppress(OSError):
        os.write(descriptor, f"{here()} {os.getpid()}".encode())
    with _lock:
        _held[path] = descriptor
        _beat()
    return descriptor


def _release(path: Path, descriptor: int) -> None:
    if descriptor < 0:
        return
    with _lock:
        _held.pop(path, None)
    with contextlib.suppress(OSError):
        if os.path.samestat(os.fstat(descriptor), path.stat()):  # else it was taken away, for standing still
            path.unlink()
    os.close(descriptor)


def _wait(path: Path, what: str) -> int:
    """Wait until the file is gone or its holder counts as dead; take it."""
    seen: tuple[int, int] | None = None
    since = began = time.monotonic()
    said = False
    while True:
        if (taken := _take(path)) is not None:
            return taken
        state = _state(path)
        if state != seen:
            seen, since = state, time.monotonic()
        if seen is not None and (_is_abandoned(path) or time.monotonic() - since > PATIENCE_S):
            if not _take_away(path, seen):
                return -1
            continue
        if not said and time.monotonic() - began > _SAID_AFTER_S:
            said = True
            logger.info("Waiting for %s, which %s is at work on.", what, _holder(path))
        time.sleep(_ASKED_EVERY_S)


def _state(path: Path) -> tuple[int, int] | None:
    """Return what changes while the holder lives."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _holder(path: Path) -> str:
    try:
        with open_regular(path) as file:
            host, _, process = file.read(_MOST_BYTES).decode(errors="replace").partition(" ")
    except OSError:
        return "another process"
    return f"process {process} on {host}" if process else "another process"


def _is_abandoned(path: Path) -> bool:
    """Whether the holder was a process of this machine that is gone: then nobody has the lock."""
    try:
        with open_regular(path) as file:
            if file.read(_MOST_BYTES).decode(errors="replace").partition(" ")[0] != here():
                return False
            locking.take(file.fileno())
    except OSError:
        return False
    return True


def _take_away(path: Path, seen: tuple[int, int]) -> bool:
    """Remove the file of a dead holder, and no other that was made meanwhile; False where that is not allowed."""
    aside = path.with_name(f"{path.name}.{here()}-{os.getpid()}-{threading.get_ident()}")
    with contextlib.suppress(OSError):
        os.rename(path, aside)  # one of those who wait succeeds
        if _state(aside) != seen:
            with contextlib.suppress(OSError):
                os.link(aside, path)
        aside.unlink()
    return _state(path) != seen


def _beat() -> None:
    """Keep a thread at touching the files that are held."""
    global _beating
    if _beating is None or not _beating.is_alive():
        _beating = threading.Thread(target=_touch, daemon=True, name="transferscope leases")
        _beating.start()


def _touch() -> None:
    while True:
        time.sleep(BEAT_S)
        with _lock:
            if not _held:
                return
            for descriptor in _held.values():
                with contextlib.suppress(OSError):
                    os.utime(descriptor)
