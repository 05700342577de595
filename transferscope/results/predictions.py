"""The result of `predict`: a label and probabilities for each image, and which images could not be read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from transferscope.results.files import csv, json_text, significant, write_file
from transferscope.runtime.failures import Failure

SCHEMA_VERSION = 1

COLUMNS = ("path", "label", "probability")


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of images.

    Attributes
    ----------
    paths : tuple of str
        Of the images that were read, in order; of images that are no files their place, counted from 0.
    classes : tuple of str
        Names.
    probabilities : numpy.ndarray
        (n_samples, n_classes) float32.
    unreadable : tuple of Failure
        The other images, each with the reason.
    """

    paths: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: np.ndarray
    unreadable: tuple[Failure, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def labels(self) -> tuple[str, ...]:
        """The most probable class of each image."""
        return tuple(self.classes[place] for place in self.probabilities.argmax(1))

    @property
    def table(self) -> pd.DataFrame:
        """A row an image: path, label, its probability, and a column for each class with the probability of that.

        A class that is called as one of the first columns has ``class`` before its name.
        """
        first = pd.DataFrame(
            {"path": self.paths, "label": self.labels, "probability": self.probabilities.max(1, initial=0)}
        )
        return first.join(pd.DataFrame(self.probabilities, columns=_columns(self.classes)))

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and mappings."""
        rows = zip(self.paths, self.labels, self.probabilities.astype(float), strict=True)
        return {
            "schema_version": SCHEMA_VERSION,
            "classes": list(self.classes),
            "predictions": [{"path": path, "label": label, "probabilities": row.tolist()} for path, label, row in rows],
            "unreadable": [{"path": each.source, "error": each.error} for each in self.unreadable],
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON text; numbers have six significant digits."""
        return json_text(significant(self.to_dict()))

    def to_csv(self) -> str:
        """Return `table` as CSV text; numbers have six significant digits."""
        return csv(self.table)

    def save(self, path: str | Path) -> Path:
        """Write `table` as a CSV file and return its path; the file is the old one or the whole new one.

        Raises
        ------
        InputError
            When it cannot be written.
        """
        return write_file(path, self.to_csv().encode(), "choose another file with -o")


def _columns(classes: Sequence[str]) -> list[str]:
    return [f"class {name}" if name in COLUMNS else name for name in classes]
