"""The mark of a folder of results, by which it is never taken for a class of images."""

import os
from pathlib import Path

NAME = ".transferscope"
"""Of the file in each folder that results are written to."""

_TEXT = "Results of transferscope; not a class of images.\n"


def mark(folder: Path) -> None:
    """Mark a folder that there is; a marked one is left as it is."""
    if not is_marked(folder):
        (folder / NAME).write_text(_TEXT, encoding="utf-8")


def is_marked(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder carries the mark."""
    return os.path.isfile(os.path.join(folder, NAME))
