"""Which column of a table, or which key of an item, is the image, what is to be learnt, and the split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transferscope.data.items import LABELS
from transferscope.errors import InputError, near
from transferscope.runtime.metrics import check_task

PATHS = (
    "path", "image", "image_path", "img", "img_path", "file", "filename", "file_name", "filepath", "file_path",
    "image_file", "image_name", "image_filename", "pixel_values",
)  # fmt: skip
"""Columns of image files, in lower case."""
NAMED = (*LABELS, "class_name", "label_name", "category")
"""Columns of labels."""
SPLIT = "split"

_SHOWN = 12


@dataclass(frozen=True)
class Columns:
    """Which columns or keys the caller names; the others are found.

    Attributes
    ----------
    images : str or None
        Of the images or their files.
    labels : tuple of str
        Of what is to be learnt; empty if it is to be found.
    task : str or None
        What they are: "classification", "multi-label" or "regression"; None if the columns are to tell.

    Raises
    ------
    InputError
        When a name is none, or one is named twice, or there is no such task.
    """

    images: str | None = None
    labels: Any = ()
    """Once made: a tuple."""
    task: str | None = None

    def __post_init__(self) -> None:
        if self.images is not None and (not isinstance(self.images, str) or not self.images):
            raise InputError(f"Expected `images` to be the name of a column, but got {self.images!r}")
        given = self.labels
        names = (given,) if isinstance(given, str) else tuple(given or ()) if _lists(given) else (given,)
        if not all(isinstance(name, str) and name for name in names):
            raise InputError(f"Expected `labels` to be the name of a column, or several, but got {self.labels!r}")
        if len(set(names)) != len(names) or self.images in names:
            raise InputError(
                "Expected `images` and `labels` to name different columns, each once, but got "
                f"{', '.join(repr(name) for name in (self.images, *names) if name is not None)}"
            )
        if self.task is not None:
            check_task(self.task)
        object.__setattr__(self, "labels", names)

    @property
    def given(self) -> bool:
        """Whether anything is named."""
        return self.images is not None or bool(self.labels)


@dataclass(frozen=True)
class Found:
    """The columns of a table."""

    images: str
    labels: tuple[str, ...]
    split: str | None
    notes: tuple[str, ...] = ()
    """What was taken though nothing but the lack of another choice says so."""


def find_columns(header: Sequence[Any], asked: Columns, what: str) -> Found:
    """Return which columns of `header` are meant.

    Those that are asked for; else those whose names are well known, in any case of letters; for labels the only one
    that is left, with a note.

    Raises
    ------
    InputError
        A column is missing, comes twice or cannot be told.
    """
    names = [str(name) for name in header]
    images = _named("images", asked.images, names, what) if asked.images else _known(
        names, PATHS, "image files", "--images", "images", what, exclude=asked.labels
    )  # fmt: skip
    split = next((name for name in names if name.lower() == SPLIT and name not in asked.labels), None)
    whole = ",".join(asked.labels)
    if len(asked.labels) > 1 and whole in names:  # a column that is called so
        return Found(images, (whole,), split)
    if asked.labels:
        return Found(images, tuple(_named("labels", name, names, what) for name in asked.labels), split)
    rest = [name for name in names if name not in (images, split)]
    known = [name for name in rest if name.lower() in NAMED]
    if not known and len(rest) == 1:
        note = (
            f"the labels of {what} are taken from its column {rest[0]!r}, the only one beside the images; name it with "
            f"--labels {rest[0]} (in Python labels={rest[0]!r}) to have it said"
        )
        return Found(images, (rest[0],), split, (note,))
    label = _known(rest, NAMED, "labels", "--labels", "labels", what)
    _once(label, names, what)
    return Found(images, (label,), split)


def _named(argument: str, wanted: str, names: Sequence[str], what: str) -> str:
    if wanted not in names:
        hint = near(wanted, names) or f"; it has {shown(names)}"
        raise InputError(f"{argument}: {what} has no column {wanted!r}{hint}")
    _once(wanted, names, what)
    return wanted


def _once(name: str, names: Sequence[str], what: str) -> None:
    if names.count(name) > 1:
        raise InputError(f"{what} has {names.count(name)} columns {name!r}; give each a name of its own")


def _known(
    names: Sequence[str],
    known: Sequence[str],
    kind: str,
    option: str,
    argument: str,
    what: str,
    exclude: Sequence[str] = (),
) -> str:
    found = [name for name in names if name.lower() in known and name not in exclude]
    if len(found) == 1:
        return found[0]
    advice = f"say which with {option} NAME (in Python {argument}=)"
    if len(set(found)) == 1:
        _once(found[0], names, what)
    if found:
        raise InputError(f"{what} has columns {shown(found)}, each of which could be that of the {kind}; {advice}")
    raise InputError(
        f"{what} has no column that is known to be that of the {kind} ({', '.join(known[:4])} …), only "
        f"{shown(names) or 'none'}; {advice}"
    )


def shown(names: Sequence[str]) -> str:
    """Name the first columns, and count the others."""
    texts = [name if len(name) <= 40 else f"{name[:37]}…" for name in names[:_SHOWN]]
    return ", ".join(texts) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _lists(value: Any) -> bool:
    return value is None or isinstance(value, list | tuple)
