"""What may be learnt of images: classes, several labels an image, or numbers."""

from __future__ import annotations

from collections.abc import Mapping

from transferscope.runtime.metrics import check_task
from transferscope.transferability.multi_label import MULTI_LABEL
from transferscope.transferability.regression import REGRESSION
from transferscope.transferability.scores import SCORES, Score
from transferscope.transferability.task import Task, TaskScore

OTHERS: dict[str, Task] = {task.name: task for task in (MULTI_LABEL, REGRESSION)}
"""Tasks beside classification, by name."""


def task_of(name: str) -> Task | None:
    """Return a task, None for classification.

    Raises
    ------
    InputError
        There is none of this name.
    """
    return OTHERS.get(check_task(name))


def scores_of(name: str) -> Mapping[str, Score | TaskScore]:
    """Return the scores of a task, by name."""
    task = task_of(name)
    return SCORES if task is None else task.scores
