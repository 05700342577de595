"""Locks on files: the operating system ends them with the process, however that ends."""

import errno
import os
import sys

TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
"""Error numbers that say that another process has the lock; others, that the file system knows none."""

if sys.platform == "win32":
    import msvcrt

    def take(descriptor: int) -> None:
        """Lock an open file, or raise OSError at once; closing it ends the lock."""
        os.lseek(descriptor, 2**30, os.SEEK_SET)  # a byte beyond the content, which others read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def take(descriptor: int) -> None:
        """Lock an open file, or raise OSError at once; closing it ends the lock."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
