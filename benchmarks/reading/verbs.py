"""The verbs of the command line, run in this process as a user would run them: what they print, warn of and return."""

import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from transferscope.cli import run

OK, REFUSED, FAILED, WRONG = "ok", "refused", "failed", "wrong"
VERDICTS = (OK, REFUSED, FAILED, WRONG)
"""Refused: not done, with a reason in words. Failed: an error of Python or torch came through, or the time was up."""

_RAISED = re.compile(r"\b(?:[A-Z]\w*(?:Error|Exception|Exit)|KeyError|AssertionError|Traceback)\b")


@dataclass(frozen=True)
class Said:
    """What one command said."""

    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The sentence of the error, empty without one."""
        lines = [line.removeprefix("error: ") for line in self.stderr.splitlines() if line.startswith("error: ")]
        return lines[-1] if lines else ""

    @property
    def message(self) -> str:
        """The error; else all that stands on stderr, on one line."""
        return self.error or " ".join(self.stderr.split())


def command(*words: str) -> Said:
    """Run `transferscope` with these words."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(words)
    return Said(code, out.getvalue(), err.getvalue())


def verdict(message: str) -> str:
    """Tell a refusal in words from an error that came through."""
    return FAILED if _RAISED.search(message) else REFUSED


def worst(verdicts: Sequence[str]) -> str:
    """Return the most serious of these verdicts."""
    return max(verdicts, key=VERDICTS.index, default=OK)
