"""Files that others name or send: regular ones alone are opened, for a pipe or a device can hold a run up for ever."""

import errno
import io
import os
import stat
from pathlib import Path

from transferscope.errors import InputError

AnyPath = str | os.PathLike[str]

_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}  # fmt: skip


def is_regular(path: AnyPath) -> bool:
    """Whether there is a regular file at `path`, or at the end of its links; False of a name that no file can have."""
    return _mode(path) == stat.S_IFREG


def is_folder(path: AnyPath) -> bool:
    """Whether there is a folder at `path`, or at the end of its links; False of a name that no folder can have."""
    return _mode(path) == stat.S_IFDIR


def irregular(path: AnyPath) -> str | None:
    """Say what is at `path` where it is neither a regular file nor nothing; it is not opened."""
    return _KINDS.get(_mode(path))


def open_regular(path: AnyPath) -> io.BufferedReader:
    """Open a regular file for reading; what it is is asked before.

    Raises
    ------
    OSError
        It cannot be opened, or is a pipe, a device or another thing that is no file.
    """
    # Opening alone may wait for a writer, or turn a tape.
    _check(os.stat(path), path)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check(os.fstat(descriptor), path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: AnyPath, most: int | None = None) -> bytes:
    """Return the bytes of a regular file.

    Parameters
    ----------
    path
        The file.
    most
        Bytes that it may have.

    Raises
    ------
    OSError
        As `open_regular`; or it has more bytes.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise OSError(errno.EFBIG, f"its {size} bytes are more than the {most} that are read", os.fspath(path))
        return file.read()


def expanded(path: AnyPath, what: str) -> Path:
    """Return a path with a home folder in the place of ``~``.

    Raises
    ------
    InputError
        There is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"{what} is {os.fspath(path)}, but nothing is known of the home folder that its ~ stands for; give the "
            "whole path"
        ) from error


def _mode(path: AnyPath) -> int:
    try:
        return stat.S_IFMT(os.stat(path).st_mode)
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        return 0


def _check(found: os.stat_result, path: AnyPath) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"it is {_KINDS.get(kind, 'a special file')}, not a file", os.fspath(path))
