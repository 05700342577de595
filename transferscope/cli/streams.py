"""Standard output and standard error, which may be closed, full or gone: words are lost then, and nothing else."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from transferscope.runtime.printable import styled_printable


class Guarded:
    """A stream whose writing never raises, and which a stranger's text cannot command the terminal through.

    Attributes
    ----------
    missing : bool
        Whether there has been none from the start.
    error : OSError or None
        Why words were lost. That a reader has seen enough is no error.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.missing = stream is None
        self.error: OSError | None = None
        self._stream: Any = io.StringIO() if stream is None else stream

    def write(self, text: str) -> int:
        """Write text, as far as that can be."""
        if not isinstance(text, str):
            raise TypeError(f"expected text, got {type(text).__name__}")  # by which click knows a stream of text
        if self.missing:
            self.error = OSError(errno.EBADF, "it is closed")
            return len(text)
        try:
            self._stream.write(styled_printable(text))
        except OSError as error:
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written, as far as that can be."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            self.error = error
        # What waits to be written would fail again, at the latest when Python ends.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def guarded() -> Iterator[Guarded]:
    """Guard both streams for the duration of the block; yields that of standard output."""
    # Else the next file that is opened would be taken for the one that is closed.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    output = Guarded(sys.stdout)
    sys.stdout, sys.stderr = output, Guarded(sys.stderr)
    try:
        yield output
    finally:
        output.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
