"""Measurements in a folder: those of the same settings share it, others stay out."""

import contextlib
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transferscope.errors import InputError, TransferscopeWarning
from transferscope.runtime.locking import TAKEN, share, take, wait

NAME = ".measure.lock"

PATIENCE_S = 30.0
"""How long one that begins or records a run may take."""
_ASKED_EVERY_S = 0.01


def lock(folder: Path) -> tuple[int, bool]:
    """Come into a folder: alone in it, or beside others that have begun and share it.

    The operating system ends the lock with the process, however that ends; the file stays and means nothing by
    itself.

    Returns
    -------
    descriptor : int
        A file descriptor; closing it ends the lock, `let_in` shares it.
    alone : bool
        Whether nobody else is there, until `let_in`.

    Raises
    ------
    InputError
        Another measurement keeps the folder to itself.
    OSError
        The folder cannot be written.

    Warns
    -----
    TransferscopeWarning
        The file system knows no locks.
    """
    path = folder / NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    alone, end = True, time.monotonic() + PATIENCE_S
    while True:
        try:
            take(descriptor)
            break
        except OSError as error:
            if error.errno not in TAKEN:
                warnings.warn(
                    f"{folder} cannot be locked ({error.strerror}); make sure that no other measure runs in it",
                    TransferscopeWarning,
                    stacklevel=2,
                )
                break
            with contextlib.suppress(OSError):
                share(descriptor)
                alone = False
                break
            if time.monotonic() > end:
                said = busy(folder)
                os.close(descriptor)
                raise said from error
        time.sleep(_ASKED_EVERY_S)
    if alone:
        with contextlib.suppress(OSError):  # only for the message
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return descriptor, alone


def busy(folder: Path, reason: str = "") -> InputError:
    """Return what to say where another measurement that does not fit is running."""
    owner = ""
    with contextlib.suppress(OSError):
        owner = (folder / NAME).read_bytes()[:200].decode(errors="replace")
    return InputError(
        f"Expected {folder} to be free, but another measure is running in it{f' ({owner})' if owner else ''}"
        f"{f', and {reason}' if reason else ''}; wait for it, or choose another folder with -o"
    )


def let_in(descriptor: int) -> None:
    """Let others of the same settings come in."""
    with contextlib.suppress(OSError):  # a file system without locks, or without shared ones
        share(descriptor)


@contextmanager
def recording(path: Path) -> Iterator[None]:
    """Be the only one that changes a table, for the duration of the block; where there are no locks, be careful.

    Raises
    ------
    OSError
        Another process has been changing it for long, or it cannot be written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        wait(descriptor, PATIENCE_S, "it")
        yield
    finally:
        os.close(descriptor)
