"""Features of many layers kept over a stream of batches: in memory while they are few, on disk beyond that."""

import errno
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from transferscope.arrays import backend
from transferscope.arrays.linalg import standardize
from transferscope.errors import InputError, TransferscopeError

BUDGET = 2**30
"""Bytes of features that stay in memory by default."""


_ROWS_MAPPED = 500


class StoredRows:
    """Features (n_samples, n_features) in a file, of which slices `[rows, columns]` are read as arrays."""

    def __init__(self, path: Path, shape: tuple[int, int], like: backend.Array) -> None:
        self.shape = shape
        self._path = path
        self._like = like

    def __getitem__(self, index: tuple[slice, slice]) -> backend.Array:
        rows, columns = (range(*part.indices(size)) for part, size in zip(index, self.shape, strict=True))
        block = np.empty((len(rows), len(columns)), dtype=backend.to_numpy(self._like).dtype)
        for start in range(0, len(rows), _ROWS_MAPPED):
            # Mapped anew each time: pages of a lasting map, and the system maps many around each that is read, would
            # count as this process's memory.
            mapped = np.memmap(self._path, dtype=block.dtype, mode="r", shape=self.shape)
            taken = rows[start : start + _ROWS_MAPPED]
            block[start : start + len(taken)] = mapped[taken.start : taken.stop, index[1]]
        return backend.from_numpy(block, like=self._like)


class KeptFeatures:
    """Rows of features of each layer, appended batch by batch; a context manager that removes its files.

    Parameters
    ----------
    standardized : bool
        Z-score every feature with the statistics of all rows.
    budget : int
        Bytes of features, of all layers together, that stay in memory. Beyond it everything moves to files in the
        system's temporary folder (`TMPDIR`).
    """

    def __init__(self, *, standardized: bool = False, budget: int | None = None) -> None:
        self._standardized = standardized
        self._budget = BUDGET if budget is None else budget
        self._bytes = 0
        self._parts: dict[Any, list[backend.Array]] = {}
        self._shapes: dict[Any, tuple[int, int]] = {}
        self._likes: dict[Any, backend.Array] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._paths: dict[Any, Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, layer: Any, rows: backend.Array) -> None:
        """Append `rows` (n_rows, n_features) to the features of `layer`.

        Raises
        ------
        InputError
            When there are more or fewer features than before.
        TransferscopeError
            When the temporary folder is full.
        """
        n, p = self._shapes.get(layer, (0, rows.shape[1]))
        if rows.shape[1] != p:
            raise InputError(
                f"Expected all images to give {p} features of layer {layer!r}, but got {rows.shape[1]}; take images of "
                "one size, or `reduce='mean'`"
            )
        self._shapes[layer] = n + rows.shape[0], p
        self._likes.setdefault(layer, rows[:0, :])
        self._parts.setdefault(layer, []).append(rows)
        self._bytes += rows.shape[0] * p * backend.array_namespace(rows).finfo(rows.dtype).bits // 8
        if self._bytes > self._budget:
            self._spill()

    def features(self, layers: Sequence[Any]) -> list[Any]:
        """Return the features of each of `layers`, once all rows are there: arrays, or `StoredRows` from disk."""
        if self._folder is not None:
            self._spill()
        return [self._features(layer) for layer in layers]

    def _features(self, layer: Any) -> Any:
        shape, like = self._shapes[layer], self._likes[layer]
        if self._folder is None:
            parts = self._parts.pop(layer)
            whole = backend.array_namespace(*parts).concat(parts) if len(parts) > 1 else parts[0]
            return standardize(whole) if self._standardized else whole
        if self._standardized:
            mapped = np.memmap(self._paths[layer], dtype=backend.to_numpy(like).dtype, mode="r+", shape=shape)
            step = max(1, 2**24 // shape[0])
            for start in range(0, shape[1], step):
                mapped[:, start : start + step] = standardize(mapped[:, start : start + step])
        return StoredRows(self._paths[layer], shape, like)

    def _spill(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="transferscope-")
        for layer, parts in self._parts.items():
            path = self._paths.setdefault(layer, Path(self._folder.name) / str(len(self._paths)))
            try:
                with path.open("ab") as file:
                    for rows in parts:
                        # Not tofile, which does not say that the disk is full.
                        file.write(np.ascontiguousarray(backend.to_numpy(rows)).data)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise TransferscopeError(
                    f"The temporary folder {self._folder.name} is full of features; take fewer images or layers, "
                    "`reduce='mean'`, or point TMPDIR to a larger disk"
                ) from error
            parts.clear()
        self._bytes = 0
