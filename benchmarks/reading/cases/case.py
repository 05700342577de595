"""One situation: what a user has, what happens, and whether that is right."""

import re
import shutil
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from transferscope.errors import TransferscopeError, TransferscopeWarning

_LONGEST = 300  # characters


@dataclass(frozen=True)
class Found:
    """What happens now, in one line, and whether it is right."""

    now: str
    right: bool


@dataclass(frozen=True)
class Case:
    """A situation, and how to try it."""

    has: str
    """What a user has."""
    wanted: str
    """What is right."""
    look: Callable[[Path], Found]
    """Makes the input in a folder, runs it and compares what comes out with the right value."""

    def run(self) -> Found:
        """Try it in a folder of its own; an error that comes through is what happens, too."""
        folder = Path(tempfile.mkdtemp())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = self.look(folder)
        except TransferscopeError as error:
            found = Found(f"error: {error}", False)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            found = Found(f"{type(error).__name__}: {error} ({Path(place.filename).name})", False)
        finally:
            shutil.rmtree(folder)
        return Found(_line(found.now, folder), found.right)


def _line(text: str, folder: Path) -> str:
    text = re.sub(rf"{re.escape(str(folder))}/?", "", " ".join(text.split()))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1].rstrip() + "…"


def warned(notes: Iterable[warnings.WarningMessage]) -> list[str]:
    """Return the messages of our own warnings."""
    return [str(note.message) for note in notes if issubclass(note.category, TransferscopeWarning)]
