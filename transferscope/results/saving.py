"""Where results ask for their views: writers are called by name, so that results know neither pictures nor pages."""

import importlib
from collections.abc import Mapping
from typing import Any

_WRITERS = "transferscope.report.writers"


def views(result: Any) -> Mapping[str, bytes]:
    """Return the pictures and pages that are saved with a result: file name to content."""
    return importlib.import_module(_WRITERS).views(result)


def fragment(result: Any) -> str:
    """Return what a notebook shows of a result, as HTML."""
    return importlib.import_module(_WRITERS).fragment(result)
