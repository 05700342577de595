"""Files that change together: a folder holds those of one run, whatever is interrupted, killed or full.

New files are written to a folder inside, where nobody looks. One rename makes them the valid ones; then the old ones
move out, and when the last is gone the new ones move in, so that at no time files of two runs are seen. A run that is
killed before that rename leaves the old files. One that is killed after it leaves the rest of the moving to whoever
reads or writes there next. The folder itself stays, with what else is in it: people stand in it, servers show it.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

from transferscope.runtime import locking, marker, signals

Content = bytes | Callable[[Path], object]
"""Of a file: its bytes, or a function that writes it to a path."""

_UNFINISHED, _SWITCH = ".transferscope-new-", ".transferscope-switch"
_PLAN = "plan.json"

_PATIENCE_S = 60.0


def write_set(folder: Path, files: Mapping[str, Content], outdated: Collection[str] = ()) -> None:
    """Write files into a folder, in place of those of these names and of the outdated ones.

    Nobody ever sees some of them without the others beside files of an earlier run, and when this raises all is as it
    was. Others who write there meanwhile have to wait.

    Parameters
    ----------
    folder : Path
        It has to exist. It is marked as one of results.
    files : mapping of str to bytes or function
        Name to content; a name may be a path below the folder, as ``code/net.py``.
    outdated : collection of str
        Names of further files of an earlier run, which go away.

    Raises
    ------
    OSError
        They cannot be written, or others write there for more than a minute.
    """
    marker.mark(folder)
    with _alone(folder):
        _tidy(folder)
        waiting = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder))
        try:
            for name in ("new", "old"):
                (waiting / name).mkdir()
            for name, content in files.items():
                _check_place(folder, name)
                path = waiting / "new" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content) if isinstance(content, bytes) else content(path)
                _sync(path)
            plan = {"new": list(files), "outdated": sorted(set(outdated) - set(files))}
            (waiting / _PLAN).write_text(json.dumps(plan), encoding="utf-8")
            _sync(waiting / _PLAN)
            for place in {(waiting / "new" / name).parent for name in files} | {waiting / "new", waiting}:
                _sync_folder(place)
            with signals.held():
                waiting.rename(folder / _SWITCH)
                _sync_folder(folder)
                _switch(folder)
        finally:
            shutil.rmtree(waiting, ignore_errors=True)


def complete(folder: Path) -> None:
    """Finish what a kill left half done in a folder, so that it can be read; it need not exist."""
    with suppress(OSError):  # what reads next says what is wrong with it
        if (folder / _SWITCH).is_dir():
            with _alone(folder):
                _tidy(folder)


def _tidy(folder: Path) -> None:
    """Finish the switch of a run that was killed in it, and remove what others that were killed had not finished."""
    if (folder / _SWITCH).is_dir():
        _switch(folder)
    for left in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)


def _switch(folder: Path) -> None:
    """Move old files out and new ones in, as far as that is not done yet."""
    switch = folder / _SWITCH
    new, old, path = switch / "new", switch / "old", switch / _PLAN
    if (plan := _plan(path)) is not None:  # else all is moved, and only the rest of this folder is left
        names = [name for name in plan["new"] if os.path.lexists(new / name)]
        try:
            for name in (*names, *plan["outdated"]):
                if os.path.lexists(folder / name):
                    _move(folder / name, old / name)
            for name in names:
                _move(new / name, folder / name)
        except OSError:
            _move_back(folder, plan["new"])
            path.unlink()
            shutil.rmtree(switch, ignore_errors=True)
            raise
        for place in {(folder / name).parent for name in names} | {folder}:
            _sync_folder(place)
        path.unlink()
    shutil.rmtree(switch, ignore_errors=True)


def _plan(path: Path) -> dict[str, list[str]] | None:
    """Read what moves; None when that is done, or when the folder came from elsewhere with a plan that reaches out."""
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        names = [name for kind in ("new", "outdated") for name in plan[kind]]
        inside = all(isinstance(name, str) and _is_below(name) for name in names)
        inside = inside and not any(_leads_away(path.parents[1], name) for name in names)
        places = (path.parent, path.parent / "new", path.parent / "old")
        return plan if inside and not any(map(os.path.islink, places)) else None
    except (FileNotFoundError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _move_back(folder: Path, names: Collection[str]) -> None:
    new, old = folder / _SWITCH / "new", folder / _SWITCH / "old"
    for name in names:
        if os.path.lexists(folder / name) and not os.path.lexists(new / name):
            _move(folder / name, new / name)
    for path in sorted(old.rglob("*")):
        if not path.is_dir() or path.is_symlink():
            _move(path, folder / path.relative_to(old))


def _move(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    os.replace(path, to)


def _check_place(folder: Path, name: str) -> None:
    """Raise OSError where a file of this name would take the place of a folder, or lie beyond a link."""
    if not _is_below(name):
        raise ValueError(f"{name!r} is no name of a file below a folder")
    if (folder / name).is_dir():
        raise IsADirectoryError(errno.EISDIR, f"{name} is a folder")
    if _leads_away(folder, name):
        raise NotADirectoryError(errno.ENOTDIR, f"{name} lies behind a link to another folder")


def _is_below(name: str) -> bool:
    path = PurePath(name)
    return bool(path.parts) and not path.anchor and path.as_posix() == name and ".." not in path.parts


def _leads_away(folder: Path, name: str) -> bool:
    return any((folder / parent).is_symlink() for parent in PurePath(name).parents if parent.parts)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Have the folder to oneself, as far as its file system knows locks."""
    path = folder / marker.NAME
    descriptor = os.open(path, os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY)
    try:
        locking.wait(descriptor, _PATIENCE_S, "there")
        yield
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every system can
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
