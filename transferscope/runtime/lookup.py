"""Is a file or a folder there, and if not, which names beside it look like it."""

from pathlib import Path

from transferscope.errors import near


def missing_file(path: Path) -> str:
    """Say that a file is not there, with near names from its folder."""
    if path.is_dir():
        return f"expected a file, got the folder {path}"
    return f"there is no file {path}{_beside(path)}"


def missing_folder(path: Path, what: str) -> str:
    """Say that a folder of something is not there, with near names from the one around it."""
    if path.exists():
        return f"expected a folder of {what}, got the file {path}"
    return f"there is no folder {path}{_beside(path)}"


def _beside(path: Path) -> str:
    beside = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    return near(path.name, beside) or "; correct the path"
