"""Is a file there, and if not, which names beside it look like it."""

from pathlib import Path

from transferscope.errors import near


def missing_file(path: Path) -> str:
    """Say that a file is not there, with near names from its folder."""
    if path.is_dir():
        return f"expected a file, got the folder {path}"
    beside = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    return f"there is no file {path}{near(path.name, beside) or '; correct the path'}"
