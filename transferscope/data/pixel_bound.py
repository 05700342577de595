"""How many pixels an image may have: a stranger's file of a kilobyte can ask for all the memory there is."""

import os

from transferscope.errors import InputError

SETTING = "TRANSFERSCOPE_MAX_MEGAPIXELS"

_DEFAULT = 30.0
_BYTES = 5
"""Of values for each of these pixels at most."""
_FILE = 8
"""Bytes of a file for each of them: values of 16 bits in four bands that no compression made smaller."""


def max_pixels() -> int:
    """Return how many pixels an image may have.

    Raises
    ------
    InputError
        The environment variable is no number above 0.
    """
    text = os.environ.get(SETTING, "")
    try:
        millions = float(text or _DEFAULT)
    except ValueError:
        millions = 0.0
    if not 0 < millions < 1e6:
        raise InputError(f"{SETTING} must be a number above 0 and below a million, but is {text!r}")
    return int(millions * 1e6)


def max_bytes() -> int:
    """Return how many bytes a file of an image may have."""
    return _FILE * max_pixels()


def check_pixels(width: int, height: int, bands: int = 1, itemsize: int = 1) -> None:
    """Raise InputError where an image has more pixels than are read, or more values in them.

    Parameters
    ----------
    width, height, bands
        As its header says.
    itemsize
        Bytes of a value.
    """
    most = max_pixels()
    size = f"its {width} x {height} pixels"
    if bands * itemsize > _BYTES:
        size += f" of {bands} bands"
        most = most * _BYTES // (bands * itemsize)
    if width * height > most:
        raise InputError(
            f"{size} are more than the {most / 1e6:.3g} megapixels that are read; make it smaller, or set {SETTING} "
            "higher"
        )


def reduction(width: int, height: int, *, held: bool) -> int:
    """Return by what an image is divided in each direction, 1, 2, 4 or 8, so that it is small enough.

    `held` says that the whole of it is held in memory even so, which may be twice what is read.
    """
    most = max_pixels()
    if held and width * height > 2 * most:
        return 1
    return next((divisor for divisor in (1, 2, 4) if width * height <= most * divisor**2), 8)
