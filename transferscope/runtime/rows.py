"""Rows on disk: a part for each time that some were computed, looked up by the content of what each row is of.

Parts are never changed, so that many processes may read and add at once, and adding costs what is added. Where two of
them hold a row of the same content, computed at the same time, the part of exactly the wanted rows goes first, then the
older one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transferscope.runtime.store import Store, digest

_CONTENTS = ".contents"


@dataclass(frozen=True)
class Part:
    """Wanted rows that were computed together."""

    places: np.ndarray
    """(n_rows,) which of the wanted contents each row is of."""
    arrays: dict[str, np.ndarray]
    """Each (n_rows, ...)."""
    record: dict[str, Any]


def read_rows(store: Store, kind: str, key: str, contents: Sequence[bytes]) -> list[Part]:
    """Return the rows that there are, those of one content once.

    Parameters
    ----------
    store : Store
        Where they are kept.
    kind, key : str
        Of the rows: everything that decides them beside the contents.
    contents : sequence of bytes
        Digests of equal length of what rows are wanted of, each once.
    """
    wanted = {content: place for place, content in enumerate(contents)}
    exact = _name(contents)
    parts = []
    for name in sorted(store.below(kind, key), key=lambda name: name != exact):
        if not wanted:
            break
        entry = store.get(kind, f"{key}/{name}", only=[_CONTENTS])
        held = [] if entry is None else [content.tobytes() for content in entry[0][_CONTENTS]]
        rows = [row for row, content in enumerate(held) if content in wanted]
        if rows and (entry := store.get(kind, f"{key}/{name}", rows=rows)) is not None:
            arrays, record = entry
            del arrays[_CONTENTS]
            parts.append(Part(np.array([wanted.pop(held[row]) for row in rows]), arrays, record))
    return parts


def write_rows(
    store: Store,
    kind: str,
    key: str,
    contents: Sequence[bytes],
    arrays: Mapping[str, np.ndarray],
    record: Mapping[str, Any],
) -> None:
    """Add a part: of each content a row of each array. None of their names is ``".contents"``."""
    digests = np.frombuffer(b"".join(contents), dtype=np.uint8).reshape(len(contents), -1)
    store.put(kind, f"{key}/{_name(contents)}", {_CONTENTS: digests, **arrays}, record)


def _name(contents: Sequence[bytes]) -> str:
    return digest([content.hex() for content in contents])[:32]
