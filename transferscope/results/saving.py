"""Where results ask for their views: writers are called by name, so that results know neither pictures nor pages."""

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from transferscope.runtime.provenance import versions
from transferscope.runtime.regular import is_regular, read_regular
from transferscope.runtime.store import Store, digest

_WRITERS = "transferscope.report.writers"
_VERSION = 2
"""Goes up when views change and the version of the package does not."""
_DRAWN_WITH = ("matplotlib", "seaborn", "jinja2")
_LARGEST = 2**20
"""Bytes of a file of matplotlib's settings that is looked at."""
_kept: ContextVar[Store | None] = ContextVar("kept", default=None)


@contextmanager
def kept_views(store: Store) -> Iterator[None]:
    """Inside, views of a result that equals an earlier one, drawn in the same style, come from the cache."""
    token = _kept.set(store)
    try:
        yield
    finally:
        _kept.reset(token)


def views(result: Any) -> Mapping[str, bytes]:
    """Return the pictures and pages that are saved with a result: file name to content."""
    store = _kept.get()
    if store is None or not hasattr(result, "identity"):
        return _drawn(result)
    key = digest(_VERSION, result.identity(), versions(), [version(name) for name in _DRAWN_WITH], _style())
    if (entry := store.get("views", key)) is not None:
        return {name: array.tobytes() for name, array in entry[0].items()}
    drawn = _drawn(result)
    store.put("views", key, {name: np.frombuffer(content, np.uint8) for name, content in drawn.items()}, {})
    return drawn


def fragment(result: Any) -> str:
    """Return what a notebook shows of a result, as HTML."""
    return str(importlib.import_module(_WRITERS).fragment(result))


def _drawn(result: Any) -> Mapping[str, bytes]:
    found: Mapping[str, bytes] = importlib.import_module(_WRITERS).views(result)
    return found


def _style() -> list[str]:
    """Return what decides how matplotlib draws: its settings, or the files that it will read them from."""
    if (matplotlib := sys.modules.get("matplotlib")) is not None:
        return [f"{name}: {value!r}" for name, value in sorted(matplotlib.rcParams.items())]
    # Importing matplotlib to ask takes longer than most of what it would be asked for.
    places = [Path("matplotlibrc"), *_places("MATPLOTLIBRC"), *_places("MPLCONFIGDIR"), *_places("XDG_CONFIG_HOME")]
    home = Path.home()
    places += [home / ".config" / "matplotlib" / "matplotlibrc", home / ".matplotlib" / "matplotlibrc"]
    return [digest(str(path), read_regular(path, _LARGEST).hex()) for path in places if is_regular(path)]


def _places(variable: str) -> list[Path]:
    value = os.environ.get(variable)
    if not value:
        return []
    return [Path(value), Path(value) / "matplotlibrc", Path(value) / "matplotlib" / "matplotlibrc"]
