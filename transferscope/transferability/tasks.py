"""What may be learnt of images: classes, several labels an image, or numbers."""

from __future__ import annotations

from collections.abc import Mapping

from transferscope.errors import InputError, near
from transferscope.transferability.multi_label import MULTI_LABEL
from transferscope.transferability.regression import REGRESSION
from transferscope.transferability.scores import SCORES, Score
from transferscope.transferability.task import Task, TaskScore

CLASSIFICATION = "classification"
OTHERS: dict[str, Task] = {task.name: task for task in (MULTI_LABEL, REGRESSION)}
"""Tasks beside classification, by name."""


def task_of(name: str) -> Task | None:
    """Return a task, None for classification.

    Raises
    ------
    InputError
        There is none of this name.
    """
    known = (CLASSIFICATION, *OTHERS)
    if not isinstance(name, str) or name not in known:
        raise InputError(f"Expected `task` to be one of {', '.join(known)}, but got {name!r}{near(name, known)}")
    return OTHERS.get(name)


def scores_of(name: str) -> Mapping[str, Score | TaskScore]:
    """Return the scores of a task, by name."""
    task = task_of(name)
    return SCORES if task is None else task.scores
