"""Locks on files: the operating system ends them with the process, however that ends."""

import errno
import os
import sys
import time

TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
"""Error numbers that say that another process has the lock; others, that the file system knows none."""
_ASKED_EVERY_S = 0.01

if sys.platform == "win32":
    import msvcrt

    def take(descriptor: int) -> None:
        """Lock an open file, or raise OSError at once; closing it ends the lock."""
        os.lseek(descriptor, 2**30, os.SEEK_SET)  # a byte beyond the content, which others read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

    def share(_descriptor: int) -> None:
        """Raise OSError: nobody shares a lock here."""
        raise OSError(errno.EACCES, "locks cannot be shared")

else:
    import fcntl

    def take(descriptor: int) -> None:
        """Lock an open file, or raise OSError at once; closing it ends the lock."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def share(descriptor: int) -> None:
        """Lock an open file together with others who share it, or raise OSError at once; ends an exclusive lock."""
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def wait(descriptor: int, seconds: float, place: str) -> None:
    """Lock an open file as soon as others let go of it; where the file system knows no locks, go on without.

    Raises
    ------
    OSError
        Others have kept it for so long; `place` says where they write.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            take(descriptor)
            return
        except OSError as error:
            if error.errno not in TAKEN:
                return
            if time.monotonic() > end:
                raise OSError(error.errno, f"another process has been writing {place} for {seconds:.0f} s") from error
            time.sleep(_ASKED_EVERY_S)
