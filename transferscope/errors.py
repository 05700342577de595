"""What can go wrong and is expected: one base class and a handful of children.

Every message names the argument or file, what was expected, what came, and what to do about it.
"""

import difflib
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any, TypeGuard


class TransferscopeError(Exception):
    """Base of every error that transferscope raises on purpose."""

    exit_code = 1
    """What the command line exits with, 1 for a known failure and 2 for wrong usage or a bad file."""


class InputError(TransferscopeError, ValueError):
    """An argument or a file is not what it has to be."""

    exit_code = 2


class DeviceError(TransferscopeError):
    """The requested device does not exist or cannot do the work."""


class SourceError(TransferscopeError):
    """One source network could not be loaded, run or scored; the other sources are unaffected."""


class CaptureError(SourceError):
    """Activations could not be captured: a layer is unknown, never fired, or returned no tensor."""


def is_interrupt(error: BaseException | None) -> bool:
    """Whether a Ctrl-C is behind `error`: what Python or a library made of it on the way up."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


class TransferscopeWarning(UserWarning):
    """Something was skipped, dropped or cannot be trusted; the message says what follows from it."""


@contextmanager
def noted_warnings(*, shown: bool = True) -> Iterator[list[str]]:
    """Yield a list that fills with every `TransferscopeWarning` given inside; unless not `shown`, they are as ever."""
    noted: list[str] = []
    with warnings.catch_warnings():
        show = warnings.showwarning

        def note(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, TransferscopeWarning):
                if str(message) not in noted:
                    noted.append(str(message))
                if not shown:
                    return
            show(message, category, *rest, **more)

        warnings.showwarning = note
        yield noted


SUGGESTED = 10
"""Of how many wrong names in a list near ones are looked for: each takes time."""

_COMPARED = 10**7
"""Pairs of characters."""


def near(name: object, names: Iterable[str]) -> str:
    """Suggest the known names that look most like this one, in parentheses; nothing when none does.

    Where that would take seconds, of a very long name or among very many, nothing is suggested.
    """
    wanted, known = str(name), list(names)
    if len(wanted) * sum(map(len, known)) > _COMPARED:
        return ""
    close = difflib.get_close_matches(wanted, known, n=3)
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""


def is_whole(value: object, least: float = -math.inf) -> TypeGuard[int]:
    """Whether `value` is a whole number of at least `least`, Python's or NumPy's.

    A bool is none, although Python counts with it: `samples=True` is a flag that ended in the wrong place.
    """
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def check_whole(name: str, value: object, least: int, most: int = 2**63 - 1) -> int:
    """Return the argument `name` as an int; raise InputError unless it is a whole number from `least` to `most`."""
    if not is_whole(value, least) or value > most:
        raise InputError(f"Expected `{name}` to be a whole number of at least {least}, but got {value!r}")
    return int(value)
