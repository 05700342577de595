"""The image files that a table names: where they are, which are missing, and what may be meant instead."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import compress
from pathlib import Path

import pandas as pd

from transferscope.data.notes import BROKEN_LIMIT, listed
from transferscope.data.table_files import Table
from transferscope.errors import InputError

_LISTED_FROM = 50
"""Files of one folder from which on the folder is listed, rather than each of them looked for."""
_LONGEST = 4096
"""Characters of a path; systems take no more."""
_ADDRESS = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")


def check_names(names: Sequence[object], column: str, table: Table) -> list[str]:
    """Return the paths of all rows as texts, with the machine's own separators.

    Raises
    ------
    InputError
        One is empty, no text, or the address of something elsewhere.
    """
    for number, name in enumerate(names):
        if not isinstance(name, str | os.PathLike) or not os.fspath(name):
            empty = isinstance(name, str) or (pd.api.types.is_scalar(name) and pd.isna(name))
            said = "empty" if empty else repr(name)[:80]
            raise InputError(
                f"{column} must be that of a file in every row of {table.what}, but is {said} in {table.row(number)}; "
                "fill it, or leave this row out"
            )
    texts = [os.fspath(name) for name in names]  # type: ignore[call-overload]
    if texts and len(longest := max(texts, key=len)) > _LONGEST:
        raise InputError(
            f"{column} has {len(longest)} characters in {table.row(texts.index(longest))} of {table.what}, and "
            f"begins with {longest[:40]}, which is no path; correct it"
        )
    addresses = [number for number, text in enumerate(texts) if ":" in text and _ADDRESS.match(text)]
    if addresses:
        raise InputError(
            f"{column}: {len(addresses)} of {len(texts)} rows of {table.what} name no files but addresses, the first "
            f"is {texts[addresses[0]]}; download the images and write their paths"
        )
    if os.sep == "/" and any("\\" in text for text in texts[:100]) and not any("/" in text for text in texts):
        slashed = [text.replace("\\", "/") for text in texts]
        if any(os.path.lexists(os.path.join(table.base, text)) for text in slashed[:100]):
            return slashed
    return texts


def absolute(names: Sequence[str], base: Path) -> list[str]:
    """Return absolute paths, which are equal for files that are named differently."""
    begins = os.path.abspath(base)
    normal, sep, home = os.path.normpath, os.sep, os.path.expanduser
    if os.name == "posix":
        return [
            normal(name) if name[0] == sep else normal(home(name)) if name[0] == "~" else normal(begins + sep + name)
            for name in names
        ]
    return [normal(os.path.join(begins, home(name))) for name in names]


def present(paths: Sequence[str]) -> list[bool]:
    """Whether there is a file, or something of that name, at each of the paths."""
    folders: defaultdict[str, int] = defaultdict(int)
    places = [os.path.dirname(path) for path in paths] if os.name != "posix" else [_above(path) for path in paths]
    for folder in places:
        folders[folder] += 1
    inside = {folder: _names_in(folder) for folder, count in folders.items() if count >= _LISTED_FROM}
    lowered = {folder: frozenset(map(str.lower, listing)) for folder, listing in inside.items()}

    def there(path: str, folder: str) -> bool:
        if folder not in inside:
            return os.path.lexists(path)
        name = path[len(folder) + 1 :]
        # Only some file systems take names in other letters for the same.
        return name in inside[folder] or (name.lower() in lowered[folder] and os.path.lexists(path))

    return [there(path, folder) for path, folder in zip(paths, places, strict=True)]


def without_missing(names: Sequence[str], paths: Sequence[str], table: Table, there: Sequence[bool]) -> list[str]:
    """Return what to say of files that do not exist.

    Raises
    ------
    InputError
        None exists, or more than `BROKEN_LIMIT` of them do not.
    """
    missing = list(compress(names, (not each for each in there)))
    if not missing:
        return []
    hint = _hint(missing[0], paths[there.index(False)], table)
    if len(missing) == len(names):
        raise InputError(
            f"no file of {table.what} exists, the first is {missing[0]}; relative paths start at "
            f"{os.path.abspath(table.base)}{hint}"
        )
    if len(missing) > BROKEN_LIMIT * len(names):
        raise InputError(
            f"{len(missing)} of {len(names)} files of {table.what} do not exist, over {BROKEN_LIMIT:.0%}: "
            f"{listed(missing)}; put them there or leave their rows out{hint}"
        )
    return [f"{len(missing)} of {len(names)} files of {table.what} do not exist and are left out: {listed(missing)}"]


def _above(path: str) -> str:
    return path[: path.rfind("/")]


def _names_in(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder or os.sep))
    except OSError:
        return frozenset()


def _hint(name: str, path: str, table: Table) -> str:
    """Say what may be meant by a file that does not exist."""
    folder, last = os.path.split(path)
    beside = sorted(_names_in(folder))
    if found := next((each for each in beside if each.lower() == last.lower()), None):
        return f"; there is {found}, with other letters in upper case"
    if found := next((each for each in beside if os.path.splitext(each)[0] == last), None):
        return f"; there is {found}: write the names with their endings"
    if "\\" in name and os.path.lexists(os.path.join(table.base, name.replace("\\", "/"))):
        return "; write / and not \\ between folders"
    if os.path.lexists(name):
        return f"; there is one from the working directory, {Path.cwd()}, but paths start at the folder of the table"
    if (inner := _inner(name, table.base)) is not None:
        return f"; there is {inner}: write the folder before the names"
    return ""


def _inner(name: str, base: Path) -> str | None:
    """Return the path of a file of this name in a folder beside the table."""
    try:
        folders = sorted(entry.name for entry in os.scandir(base) if entry.is_dir())
    except OSError:
        return None
    last = os.path.basename(name)
    candidates = [f"{folder}/{each}" for folder in folders[:100] for each in (name, last)]
    return next((each for each in candidates if os.path.lexists(os.path.join(base, each))), None)
