"""Is a file or a folder there, and if not, which names beside it look like it."""

import os
from pathlib import Path

from transferscope.errors import near
from transferscope.runtime.regular import irregular, is_folder, is_regular


def missing_file(path: Path) -> str:
    """Say that a file is not there, with near names from its folder."""
    if is_folder(path):
        return f"expected a file, got the folder {path}"
    if (kind := irregular(path)) is not None:
        return f"expected a file, but {path} is {kind}, which is not read"
    return f"there is no file {path}{_beside(path)}"


def missing_folder(path: Path, what: str) -> str:
    """Say that a folder of something is not there, with near names from the one around it."""
    if is_regular(path) or irregular(path) is not None:
        return f"expected a folder of {what}, got the file {path}"
    return f"there is no folder {path}{_beside(path)}"


def _beside(path: Path) -> str:
    try:
        beside = sorted(os.listdir(path.parent))
    except (OSError, ValueError):
        beside = []
    return near(path.name, beside) or "; correct the path"
