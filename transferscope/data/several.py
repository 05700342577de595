"""What is to be learnt where that is no class: several labels an image, or numbers, from columns of anything."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import pandas as pd
import torch

from transferscope.errors import InputError
from transferscope.runtime.metrics import CLASSIFICATION, MULTI_LABEL, REGRESSION

_YES_NO = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "false": 0.0, "true": 1.0, "no": 0.0, "yes": 1.0}
_BETWEEN = ("|", ";", ",")
"""What may stand between the labels in a text; the first that is in any of them."""
_LEAST, _MOST = 1e-100, 1e100
"""Between the least and the greatest of numbers that are learnt: their squares are summed and divided by."""
_APART = 1e-5
"""Of the greatest number the least that numbers span: of a float32 the last digit is about its ten-millionth."""


@dataclass(frozen=True)
class Several:
    """What is to be learnt of each image.

    Attributes
    ----------
    task
        "multi-label" or "regression".
    names
        Of the labels, or of the numbers.
    rows
        Of each image a number for each name: 0 or 1 of labels.
    """

    task: str
    names: tuple[str, ...]
    rows: list[tuple[float, ...]]


def read_several(
    columns: Mapping[str, Sequence[Any] | np.ndarray | pd.Series],
    task: str | None,
    what: str,
    where: Callable[[int], str],
) -> Several | None:
    """Return what columns say that are no classes; None where they are classes.

    Several columns are labels, which hold 0 and 1, if they are not asked for as numbers; so is one that holds lists.

    Parameters
    ----------
    columns
        By name, all with a cell for each image and none missing.
    task
        What is asked for; None: the columns tell.
    what, where
        What to call them all, and the row of an image, in a message.

    Raises
    ------
    InputError
        A cell does not suit the task.
    """
    listed = len(columns) == 1 and _hold_lists(next(iter(columns.values())))
    if task == CLASSIFICATION:
        if len(columns) > 1:
            raise InputError(
                f"labels: {', '.join(columns)} of {what} are {len(columns)} columns, but a class is named by one; name "
                "one, or ask for the task multi-label or regression"
            )
        if listed:
            raise InputError(
                f"labels must be whole numbers, bools or strings, one for each image, but {next(iter(columns))} of "
                f"{what} holds lists; give each image one, or ask for the task multi-label"
            )
        return None
    if task is None and len(columns) == 1 and not listed:
        return None
    if listed:
        (name, cells), *_ = columns.items()
        if task == REGRESSION or _are_vectors(cells):
            columns = _taken_apart(name, cells, what, where)
        else:
            return _of_lists([_as_list(cell) for cell in cells], name, what, where)
    if task == REGRESSION:
        read = [_numbers(name, cells, what, where) for name, cells in columns.items()]
        return Several(REGRESSION, tuple(columns), _rows(read))
    indicators = [_indicators(name, cells, what, where, alone=len(columns) == 1) for name, cells in columns.items()]
    if indicators[0] is None:
        (name, cells), *_ = columns.items()
        lists, codes = _split(cells, name, what, where)
        return _of_lists(lists, name, what, lambda place: where(int((codes == place).argmax())), codes)
    return Several(MULTI_LABEL, tuple(columns), _rows([column for column in indicators if column is not None]))


def columns_of(labels: Any, n_samples: int) -> Mapping[str, Any]:
    """Return labels that are given beside arrays as columns: of a DataFrame its own, of (n_samples, k) by number."""
    if isinstance(labels, pd.DataFrame):
        return {str(name): labels[name] for name in labels}
    if not _is_array(labels):
        return {"labels": list(labels)} if isinstance(labels, list | tuple) else {"labels": labels}
    array = labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else labels
    if array.ndim > 2:
        raise InputError(
            f"Expected labels to have a row for each of {n_samples} images, and one or more columns, but got "
            f"{array.shape}"
        )
    if array.ndim != 2:
        return {"labels": array}
    if len(array) != n_samples:
        raise InputError(
            f"Expected labels in columns to have a row for each of {n_samples} images, but got {array.shape}"
        )
    return {str(place): column for place, column in enumerate(array.T)}


def _rows(columns: Sequence[np.ndarray]) -> list[tuple[float, ...]]:
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _hold_lists(cells: Any) -> bool:
    """Whether any of the cells is a list of some kind."""
    if isinstance(cells, np.ndarray | pd.Series) and cells.dtype != object:
        return False
    kinds = set(map(type, cells))
    if any(issubclass(kind, list | tuple | set | frozenset) for kind in kinds):
        return True
    arrays = any(issubclass(kind, np.ndarray | torch.Tensor) for kind in kinds)
    return arrays and any(_is_array(cell) and cell.ndim > 0 for cell in cells)


def _is_array(cell: Any) -> TypeGuard[np.ndarray | torch.Tensor]:
    return isinstance(cell, np.ndarray | torch.Tensor)


def _are_vectors(cells: Iterable[Any]) -> bool:
    """Whether all are arrays of as many numbers, each 0 or 1: which labels an image has, not their names."""
    vectors = [np.asarray(cell) for cell in cells if _is_array(cell)]
    return (
        len(vectors) == len(list(cells))
        and {vector.shape for vector in vectors} == {vectors[0].shape}
        and vectors[0].ndim == 1
        and len(vectors[0]) > 1
        and all(vector.dtype.kind in "biuf" and np.isin(vector, (0, 1)).all() for vector in vectors)
    )


def _taken_apart(name: str, cells: Any, what: str, where: Callable[[int], str]) -> dict[str, np.ndarray]:
    rows = [_as_list(cell) for cell in cells]
    for place, row in enumerate(rows):
        if len(row) != len(rows[0]) or not row:
            raise InputError(
                f"{name} of {what} has {len(row)} numbers in {where(place)}, but {len(rows[0])} in {where(0)}; give "
                "each image as many"
            )
    return {f"{name} {i}": np.array(column, dtype=object) for i, column in enumerate(zip(*rows, strict=True))}


def _as_list(cell: Any) -> list[Any]:
    if _is_array(cell):
        values: list[Any] = np.atleast_1d(np.asarray(cell)).tolist()
        return values
    return list(cell) if isinstance(cell, list | tuple | set | frozenset) else [cell]


def _unique(cells: Any) -> tuple[np.ndarray, list[Any]]:
    """Return the place of each cell among the different ones, and these: a million rows are read in a second."""
    try:
        codes, values = pd.factorize(cells if isinstance(cells, pd.Series) else pd.Series(cells, dtype=object))
    except (TypeError, ValueError):  # some of them hold others
        codes, values = pd.factorize(pd.Series([str(cell) for cell in cells], dtype=object))
    return codes, list(values)


def _numbers(name: str, cells: Any, what: str, where: Callable[[int], str]) -> np.ndarray:
    codes, values = _unique(cells)
    numbers = np.array([*map(_number, values), math.nan], dtype=np.float64)  # the last is that of a missing one
    wrong = ~np.isfinite(numbers)[codes]
    if wrong.any():
        row = int(wrong.argmax())
        found = "missing" if codes[row] < 0 else repr(str(values[codes[row]])[:40])
        raise InputError(
            f"{name} must be a finite number in every row of {what} for a regression, but is {found} in {where(row)}"
            f"{_more(wrong)}; correct it, or leave these rows out"
        )
    column = numbers[codes]
    if len(column) and column.min() == column.max():
        raise InputError(f"{name} of {what} is {column[0]:g} for all images, so nothing is to be learnt; leave it out")
    # Of halves, for the difference of the greatest numbers that there are is none.
    if len(column) and not _LEAST < np.ptp(column / 2) < _MOST:
        raise InputError(
            f"{name} of {what} goes from {column.min():g} to {column.max():g}, but the squares of its differences must "
            "be numbers too; give it in another unit"
        )
    if len(column) and np.ptp(column / 2) < _APART * np.abs(column / 2).max():
        raise InputError(
            f"{name} of {what} goes from {column.min():.15g} to {column.max():.15g}: networks put out float32, which "
            f"hardly tells these apart; subtract {column.min():.15g} from all"
        )
    return column


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _fractions(texts: Iterable[str]) -> bool:
    """Whether all are numbers, not all of them whole ones."""
    numbers = np.array(list(map(_number, texts)))
    return bool(np.isfinite(numbers).all() and (numbers % 1).any())


def _indicators(name: str, cells: Any, what: str, where: Callable[[int], str], *, alone: bool) -> np.ndarray | None:
    """Return 0 or 1 of each cell; None where a column that stands alone holds texts, which name labels then."""
    codes, values = _unique(cells)
    known = np.array([*(_YES_NO.get(str(value).strip().lower(), math.nan) for value in values), math.nan])
    wrong = np.isnan(known)[codes]
    if not wrong.any():
        return known[codes]
    row = int(wrong.argmax())
    texts = all(isinstance(value, str) for value in values)
    if alone and texts and not _fractions(values):
        return None
    found = "missing" if codes[row] < 0 else repr(str(values[codes[row]])[:40])
    raise InputError(
        f"{name} must say by 0 and 1 which images of {what} have that label, but is {found} in {where(row)}"
        f"{_more(wrong)}; correct it, or ask for --task regression (in Python task='regression') if it is a number"
    )


def _more(wrong: np.ndarray) -> str:
    count = int(np.count_nonzero(wrong)) - 1
    return f" (and in {count} more)" if count else ""


def _split(cells: Any, name: str, what: str, where: Callable[[int], str]) -> tuple[list[list[Any]], np.ndarray]:
    """Return the labels that different texts name, and the place of each cell's among them.

    A text is a JSON list, or has a mark between labels; there are none where it is missing.
    """
    codes, values = _unique(cells)
    texts = [str(value).strip() for value in values]
    between = next((mark for mark in _BETWEEN if any(mark in text for text in texts if text[:1] != "[")), None)
    read: list[list[Any]] = []
    for number, text in enumerate(texts):
        if text[:1] != "[":
            parts = text.split(between) if between else [text]
            read.append([part.strip() for part in parts if part.strip()])
            continue
        try:
            labels = json.loads(re.sub(r"'([^'\"]*)'", r'"\1"', text))
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{name} of {what} is no list in {where(int((codes == number).argmax()))}: {text[:80]!r}; write "
                '["a", "b"], or a|b'
            ) from error
        read.append(labels)
    return [*read, []], np.where(codes < 0, len(read), codes)


def _of_lists(
    lists: Sequence[list[Any]], name: str, what: str, where: Callable[[int], str], codes: np.ndarray | None = None
) -> Several:
    """Return which labels each image has, of which `lists` has the names; or of that at its place in `codes`."""
    for place, labels in enumerate(lists):
        for label in labels:
            if not isinstance(label, str | int | np.integer) or label in ("", -1, -100):
                raise InputError(
                    f"{name} of {what} must list texts or whole numbers that name labels, but has "
                    f"{str(label)[:40]!r} in {where(place)}; correct it, or leave it out"
                )
    kinds = {isinstance(label, str) for labels in lists for label in labels}
    if len(kinds) > 1:
        lists = [[str(label) for label in labels] for labels in lists]
    values = sorted({label for labels in lists for label in labels})
    number = {value: place for place, value in enumerate(values)}
    indicators = np.zeros((len(lists), len(values)))
    for row, labels in enumerate(lists):
        indicators[row, [number[label] for label in labels]] = 1
    rows: list[tuple[float, ...]] = list(map(tuple, indicators.tolist()))
    return Several(MULTI_LABEL, tuple(map(str, values)), rows if codes is None else [rows[i] for i in codes.tolist()])
