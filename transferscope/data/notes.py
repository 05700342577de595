"""What a user is told of the images of a target: broken ones, and classes with too few."""

from collections.abc import Sequence

import numpy as np

from transferscope.errors import InputError

BROKEN_LIMIT = 0.05
"""More broken images than this share of those checked are an error."""


def broken_note(name: str, broken: Sequence[tuple[str, str]], checked: int) -> str:
    """Say what was skipped; raise `InputError` when it is more than `BROKEN_LIMIT`."""
    reasons = ", ".join(f"{where} ({reason})" for where, reason in broken[:5]) + (", …" if len(broken) > 5 else "")
    if len(broken) > BROKEN_LIMIT * checked:
        raise InputError(
            f"target {name!r}: {len(broken)} of {checked} images are broken, over {BROKEN_LIMIT:.0%}: "
            f"{reasons}; repair or remove them"
        )
    return f"target {name!r}: {len(broken)} of {checked} images are broken and skipped: {reasons}"


def thin_class_notes(target: str, classes: Sequence[str], counts: np.ndarray, what: str = "classes") -> list[str]:
    """Say which classes have no image, or a single one, to draw a probe from; `counts` are those of the others."""
    none, one = ([name for name, count in zip(classes, counts, strict=True) if count == few] for few in (0, 1))
    notes = []
    if none:
        notes.append(
            f"target {target!r}: without a training image, these {what} are missing from every probe "
            f"set: {listed(none)}"
        )
    if one:
        notes.append(
            f"target {target!r}: with a single image to draw from, these {what} can never be predicted "
            f"leave-one-out, so that each such image counts as wrong: {listed(one)}"
        )
    return notes


def listed(names: Sequence[str]) -> str:
    """Name the first five, and count the others."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
