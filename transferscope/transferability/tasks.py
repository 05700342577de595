"""What may be learnt of images: classes, several labels an image, or numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from transferscope.errors import InputError
from transferscope.runtime.metrics import check_task
from transferscope.transferability.multi_label import MULTI_LABEL
from transferscope.transferability.regression import REGRESSION
from transferscope.transferability.scores import ACCURACIES, NEEDED, SCORES, Score, choose_scores
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


HEADS = ("ridge",)
"""Scores of any task that are leave-one-out figures of what is trained on frozen features there: a linear head."""


def needed_of(name: str) -> tuple[str, ...]:
    """Return the scores that predictions for a task are made from."""
    return NEEDED if task_of(name) is None else HEADS


def figures_of(name: str) -> tuple[str, ...]:
    """Return the scores of a task that are figures of what it is judged by, of samples left out."""
    task = task_of(name)
    return ACCURACIES if task is None else tuple(each for each, score in task.scores.items() if score.judged)


def chosen_scores(scores: str | Iterable[str], name: str) -> tuple[str, ...]:
    """Return the names of the scores that are asked for, as `choose_scores` does, for a task.

    Of a task beside classification "default" and "all" are all that have a meaning; it has few, and they cost little.

    Raises
    ------
    InputError
        A name is unknown, or has no meaning for the task.
    """
    task, asked = task_of(name), [scores] if isinstance(scores, str) else list(scores)
    known = choose_scores(asked)
    if task is None:
        return known
    if meaningless := [each for each in asked if each in SCORES and each not in task.scores]:
        raise InputError(
            f"Expected `scores` to have a meaning for {task.of_what}, but {' and '.join(map(repr, meaningless))} "
            f"{'are' if len(meaningless) > 1 else 'is one'} of classes; there are {', '.join(task.scores)}"
        )
    wanted = {*HEADS, *asked} if not {"default", "all"} & set(asked) else set(task.scores)
    return tuple(each for each in task.scores if each in wanted)
