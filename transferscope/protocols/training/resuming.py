"""What a training run needs to go on after an interruption, in one file that is either whole or not there."""

import contextlib
import io
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from transferscope.errors import TransferscopeWarning
from transferscope.runtime.regular import is_regular
from transferscope.runtime.store import write_atomically

INTERVAL_S = 10.0
"""Seconds between two writes at least, and before the first one."""


class StateFile:
    """The state of one training run on disk.

    Parameters
    ----------
    path : pathlib.Path
        Its folder is made where it is missing.
    run : str
        Tells this run from others; a file of another run is not used.
    """

    def __init__(self, path: Path, run: str) -> None:
        self._path, self._run = path, run
        self._written = time.monotonic()
        self._writable = True

    def read(self, device: torch.device) -> dict[str, Any] | None:
        """Return what was kept, on `device`; None, with a warning if there is a file, when it is of no use."""
        if not is_regular(self._path):
            return None
        try:
            checkpoint = torch.load(self._path, map_location=device, weights_only=True)
            if checkpoint["of"] != self._run:
                raise ValueError("it belongs to another run")
            state: dict[str, Any] = checkpoint["state"]
        except Exception as error:  # torch.load fails in many ways on bytes that are not its own.
            reason = str(error).partition("\n")[0] or type(error).__name__
            warnings.warn(
                f"The training state {self._path} cannot be used ({reason}); training starts anew and overwrites it",
                TransferscopeWarning,
                stacklevel=2,
            )
            return None
        return state

    def write(self, state: Callable[[], dict[str, Any]]) -> None:
        """Keep what `state` returns, unless the last time was moments ago; a full disk costs the file, not the run."""
        if not self._writable or time.monotonic() - self._written < INTERVAL_S:
            return
        data = io.BytesIO()
        torch.save({"of": self._run, "state": state()}, data)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, data.getvalue())
        except OSError as error:
            self._writable = False
            warnings.warn(
                f"The training state {self._path} cannot be written ({error}); if training is interrupted, it starts "
                "anew",
                TransferscopeWarning,
                stacklevel=2,
            )
        self._written = time.monotonic()

    def remove(self) -> None:
        """Remove the file of a run that is over."""
        # One that stays behind is overwritten or gone on from.
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
