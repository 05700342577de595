"""The result of `predict`: a label and probabilities for each image, and which images could not be read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from transferscope.results.files import csv, csv_text, json_text, significant, write_file
from transferscope.runtime.failures import Failure
from transferscope.runtime.metrics import CLASSIFICATION, MULTI_LABEL, REGRESSION

SCHEMA_VERSION = 1

_LEAST, _BETWEEN = 0.5, "|"
COLUMNS = ("path", "label", "probability")


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of images.

    Attributes
    ----------
    paths : tuple of str
        Of the images that were read, in order; of images that are no files their place, counted from 0.
    classes : tuple of str
        Names; of labels or numbers, if the model was trained for these.
    probabilities : numpy.ndarray
        (n_samples, n_classes) float32; of each label by itself; or the numbers.
    task : str
        What is predicted.
    unreadable : tuple of Failure
        The other images, each with the reason.
    """

    paths: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: np.ndarray
    unreadable: tuple[Failure, ...] = ()
    task: str = CLASSIFICATION

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def labels(self) -> tuple[str, ...]:
        """The most probable class of each image; its labels of a probability of 0.5 or more, with | between them.

        Of numbers there are none.
        """
        if self.task == REGRESSION:
            return ()
        if self.task == MULTI_LABEL:
            return tuple(_BETWEEN.join(labels) for labels in self._labels())
        return tuple(self.classes[place] for place in self.probabilities.argmax(1))

    @property
    def table(self) -> pd.DataFrame:
        """A row an image: path, label, its probability, and a column for each class with the probability of that.

        A class that is called as one of the first columns has ``class`` before its name. Of several labels the
        probability is in their columns alone; of numbers there are path and a column for each.
        """
        if self.task != CLASSIFICATION:
            named = {} if self.task == REGRESSION else {"label": self.labels}
            frame = pd.DataFrame({"path": self.paths, **named})
            return frame.join(pd.DataFrame(self.probabilities, columns=_columns(self.classes, self.task)))
        first = pd.DataFrame(
            {"path": self.paths, "label": self.labels, "probability": self.probabilities.max(1, initial=0)}
        )
        return first.join(pd.DataFrame(self.probabilities, columns=_columns(self.classes)))

    def _labels(self) -> list[list[str]]:
        """Return the labels of each image that has several."""
        return [[self.classes[place] for place in np.flatnonzero(row >= _LEAST)] for row in self.probabilities]

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and mappings."""
        said: list[dict[str, Any]] = [{"label": label} for label in self.labels]
        if self.task == MULTI_LABEL:
            said = [{"labels": labels} for labels in self._labels()]
        name = "values" if self.task == REGRESSION else "probabilities"
        # Of float32 the fewest digits that tell it from others: 58.4912, not 58.49119949.
        values = self.probabilities.astype(str).astype(float)
        rows = zip(self.paths, said or [{}] * len(self), values, strict=True)
        return {
            "schema_version": SCHEMA_VERSION,
            "classes": list(self.classes),
            **({} if self.task == CLASSIFICATION else {"task": self.task}),
            "predictions": [{"path": path, **label, name: row.tolist()} for path, label, row in rows],
            "unreadable": [{"path": each.source, "error": each.error} for each in self.unreadable],
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON text; probabilities have six significant digits."""
        content = self.to_dict()
        return json_text(content if self.task == REGRESSION else significant(content))

    def to_csv(self) -> str:
        """Return `table` as CSV text; probabilities have six significant digits.

        Numbers have all that there are, for dates and the like differ in their last.
        """
        return csv_text(self.table, index=False) if self.task == REGRESSION else csv(self.table)

    def save(self, path: str | Path) -> Path:
        """Write `table` as a CSV file and return its path; the file is the old one or the whole new one.

        Raises
        ------
        InputError
            When it cannot be written.
        """
        return write_file(path, self.to_csv().encode(), "choose another file with -o")


def _columns(classes: Sequence[str], task: str = CLASSIFICATION) -> list[str]:
    what = {CLASSIFICATION: "class", MULTI_LABEL: "label", REGRESSION: "number"}[task]
    return [f"{what} {name}" if name in COLUMNS else name for name in classes]
