"""One measurement at a time in a folder."""

import contextlib
import os
import socket
import warnings
from pathlib import Path

from transferscope.errors import InputError, TransferscopeWarning
from transferscope.runtime.locking import TAKEN, take

NAME = ".measure.lock"


def lock(folder: Path) -> int:
    """Keep other measurements out of `folder`.

    The operating system ends the lock with the process, however that ends; the file stays and means nothing by
    itself.

    Returns
    -------
    int
        A file descriptor; closing it ends the lock.

    Raises
    ------
    InputError
        Another measurement is running there.
    OSError
        The folder cannot be written.

    Warns
    -----
    TransferscopeWarning
        The file system knows no locks.
    """
    path = folder / NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        take(descriptor)
    except OSError as error:
        if error.errno in TAKEN:
            owner = os.read(descriptor, 200).decode(errors="replace")
            os.close(descriptor)
            raise InputError(
                f"Expected {folder} to be free, but another measure is running in it{f' ({owner})' if owner else ''}; "
                "wait for it, or choose another folder with -o"
            ) from error
        warnings.warn(
            f"{folder} cannot be locked ({error.strerror}); make sure that no other measure runs in it",
            TransferscopeWarning,
            stacklevel=2,
        )
    with contextlib.suppress(OSError):  # only for the message
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return descriptor
