"""The result of `transfer`: what was delivered, what was expected of it and what it was measured to do."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from transferscope.errors import InputError
from transferscope.results import saving
from transferscope.results.files import csv, json_text, significant
from transferscope.results.outcome import Outcome
from transferscope.results.recommendation import LEVEL, how
from transferscope.results.summary import TargetSummary
from transferscope.runtime.metrics import CLASSIFICATION, REGRESSION, Metric, metric_of
from transferscope.runtime.provenance import Provenance
from transferscope.runtime.regular import read_regular

SCHEMA_VERSION = 1

SCRATCH = "scratch"
"""The source of a network that is trained from scratch without one."""

_HEADS = {
    "truncate": "logistic regression",
    "svm": "a linear SVM",
    "nearest_mean": "the nearest class mean",
    "toptuning": "top-tuning (Gaussian kernel ridge regression)",
}


@dataclass(frozen=True)
class Expectation:
    """What a ranking expected of a transfer."""

    accuracy: float
    interval: tuple[float, float]
    """80 % interval of the accuracy of one transfer on new images."""
    samples: int
    """Images to train on that it is for."""
    rank: int
    """In that ranking."""
    metric: str | None = None
    """What is expected, by name; None: what the task is judged by."""


@dataclass(frozen=True, eq=False)
class Transfer:
    """A transfer that was run: its model lies in a folder, from which `load_transfer` makes predictions."""

    target: TargetSummary
    """`samples` are all its images."""
    classes: tuple[str, ...]
    source: str
    protocol: str
    depth: int
    """Stages of the source that are kept or frozen; 0 from scratch."""
    depths: int
    layer: str
    """The last of them; the set of layers for a full-network embedding; empty from scratch."""
    trained_on: int
    """Images."""
    held_out: str
    """Which images it was measured on, in words."""
    confusion: np.ndarray | None
    """Images measured on, (n_classes, n_classes): true class by predicted class; None of another task."""
    balanced_accuracy: float
    """Accuracy averaged over the classes; NaN of another task."""
    temperature: float
    """What logits are divided by before the softmax; fitted on the images measured on, it changes no prediction."""
    seconds: Mapping[str, float]
    """By phase, without reading images and measuring."""
    kwh: float
    """Electricity of these; NaN where it is not known."""
    kgco2e: float
    energy: str
    """How electricity was measured or estimated, in one line."""
    params: float
    """Of the network that was delivered: an integer, NaN when unknown."""
    identity: str
    """Tells it from other transfers: equal ones give equal models on one machine."""
    expected: Expectation | None = None
    """None without a ranking."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 (hex) of the files that predictions are made from, by name."""
    provenance: Provenance | None = None
    folder: Path = field(default=Path(), compare=False)
    """Where the model lies; not saved."""
    outcome: Outcome | None = None
    """Of a model that predicts several labels, or numbers."""

    @property
    def task(self) -> str:
        """What it predicts: a class, several labels or numbers."""
        return CLASSIFICATION if self.outcome is None else self.outcome.task

    @property
    def metric(self) -> Metric:
        """What it is judged by."""
        return metric_of(None, self.task)

    @property
    def measured_on(self) -> int:
        """Images that the accuracy was measured on, none of which it was trained on."""
        return len(self.outcome) if self.outcome is not None else int(self.matrix.sum())

    @property
    def matrix(self) -> np.ndarray:
        """Its confusion matrix.

        Raises
        ------
        InputError
            It predicts no classes.
        """
        if self.confusion is None:
            raise InputError(f"Expected a transfer to classes, but this one is a {self.task} without confusion matrix")
        return self.confusion

    @property
    def accuracy(self) -> float:
        """Share of them that are classified correctly."""
        return float(np.trace(self.matrix) / self.measured_on)

    @property
    def reached(self) -> float:
        """What it was measured to reach by its metric: the accuracy, if it predicts classes."""
        return self.accuracy if self.outcome is None else self.outcome.reached

    @property
    def figures(self) -> dict[str, float]:
        """The value of every metric of the task, by column."""
        if self.outcome is not None:
            return self.outcome.figures
        return {"accuracy": self.accuracy, "balanced_accuracy": self.balanced_accuracy}

    @property
    def metric_expected(self) -> Metric:
        """What a ranking expected a value of."""
        return self.metric if self.expected is None else metric_of(self.expected.metric, self.task)

    @property
    def interval(self) -> tuple[float, float]:
        """80 % interval of that on new images like these: Wilson's, from their number alone; of others a bootstrap."""
        if self.outcome is not None:
            return self.outcome.interval
        from scipy.stats import binomtest  # which takes longer to import than a result to be read

        found = binomtest(int(np.trace(self.matrix)), self.measured_on).proportion_ci(LEVEL, method="wilson")
        return float(found.low), float(found.high)

    @property
    def how(self) -> str:
        """What was done with the source, in words."""
        stages = f"{self.layer} (depth {self.depth} of {self.depths})"
        if self.protocol == "scratch":
            return "its architecture re-initialised and trained"
        if self.protocol == "fne":
            head = "ridge regression" if self.task == REGRESSION else "a linear SVM"
            return f"frozen, a full-network embedding of its layers ({self.layer}) under {head}"
        if self.protocol == "surgical":
            return "the whole network fine-tuned, each stage at a learning rate of its own, with a new head"
        if self.protocol in _HEADS:
            ridge = self.task == REGRESSION and self.protocol == "truncate"
            head = "ridge regression" if ridge else _HEADS[self.protocol]
            return f"cut after {stages}, its features frozen, {head} on them"
        return how(self) if self.depth else "the whole network fine-tuned with a new head"

    @property
    def is_evidence(self) -> bool:
        """Whether a ranking can learn from it: it is of a source, by a protocol that rankings choose among."""
        return self.source != SCRATCH and self.protocol in ("truncate", "reinit", "finetune", "defrost", "scratch")

    @property
    def verdict(self) -> str:
        """What it does, against what was expected, in one sentence or two."""
        low, high = self.interval
        text = (
            f"Measured {self.metric.title} {self.reached:.3f} [{low:.3f}, {high:.3f}] on {self.measured_on} images "
            "that it was not trained on"
        )
        if self.expected is None:
            return f"{text}."
        lower, upper = self.expected.interval
        metric = self.metric_expected
        reached = self.figures[metric.column]
        inside = lower <= reached <= upper
        place = "within" if inside else "above" if reached > upper else "below"
        if metric is not self.metric:
            text += f"; {metric.title} {reached:.3f}"
        sentence = f"{text}; expected {self.expected.accuracy:.3f} [{lower:.3f}, {upper:.3f}], so {place} the interval."
        if self.expected.samples != self.trained_on:
            sentence += (
                f" That was expected for {self.expected.samples} images to train on; it was trained on "
                f"{self.trained_on}."
            )
        return sentence

    @property
    def by_class(self) -> pd.DataFrame:
        """A row a class: images measured on, recall, precision (NaN where nothing was), and what it is taken for most.

        The last is the class that most of its images which were classified wrongly went to; empty without any. Of
        labels or numbers a row each, see `Outcome.table`.
        """
        if self.outcome is not None:
            return self.outcome.table
        matrix = self.matrix
        correct, true, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
        wrong = matrix - np.diag(correct)
        with np.errstate(invalid="ignore"):
            recall, precision = correct / true, correct / predicted
        most = [self.classes[row.argmax()] if row.any() else "" for row in wrong]
        return pd.DataFrame(
            {"class": self.classes, "images": true, "recall": recall, "precision": precision, "taken_for": most}
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what card.json holds; values that are not finite become None."""
        return {
            "schema_version": SCHEMA_VERSION,
            "target": asdict(self.target),
            "classes": list(self.classes),
            "source": self.source,
            "protocol": self.protocol,
            "depth": self.depth,
            "depths": self.depths,
            "layer": self.layer,
            "how": self.how,
            "trained_on": self.trained_on,
            "measured": {
                **({"accuracy": self.accuracy} if self.outcome is None else self.outcome.figures),
                "interval": list(self.interval),
                "level": LEVEL,
                "samples": self.measured_on,
                "images": self.held_out,
                **({"balanced_accuracy": self.balanced_accuracy} if self.outcome is None else {}),
            },
            "expected": None if self.expected is None else asdict(self.expected),
            **({} if self.outcome is None else {"outcome": self.outcome.to_dict()}),
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            "temperature": self.temperature,
            "seconds": dict(self.seconds),
            "kwh": self.kwh,
            "kgco2e": self.kgco2e,
            "energy": self.energy,
            "params": self.params,
            "identity": self.identity,
            "hashes": dict(self.hashes),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON text; numbers have six significant digits."""
        return json_text(significant(self.to_dict()))

    def to_csv(self) -> str:
        """Return `by_class` as CSV text."""
        return csv(self.by_class)

    def files(self) -> dict[str, bytes]:
        """Return card.json and its views, README.md and confusion.png or another picture: name to content."""
        return {"card.json": self.to_json().encode(), **saving.views(self)}


def read_card(folder: Path) -> Transfer:
    """Return the transfer whose card lies in a folder.

    Raises
    ------
    InputError
        There is none, or of another schema version.
    """
    try:
        content = json.loads(read_regular(folder / "card.json"))
        if content["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"its schema_version is {content['schema_version']!r}, not {SCHEMA_VERSION}")
        more: dict[str, Any] = {
            name: content[name]
            for name in (
                "source", "protocol", "depth", "depths", "layer", "trained_on", "temperature", "seconds", "energy",
                "hashes", "identity",
            )
        }  # fmt: skip
        more |= {name: float("nan") if content[name] is None else content[name] for name in ("kwh", "kgco2e", "params")}
        if (expected := content["expected"]) is not None:
            more["expected"] = Expectation(**{**expected, "interval": tuple(expected["interval"])})
        if content["provenance"] is not None:
            more["provenance"] = Provenance(**content["provenance"])
        return Transfer(
            target=TargetSummary(**content["target"]),
            classes=tuple(content["classes"]),
            held_out=content["measured"]["images"],
            balanced_accuracy=content["measured"].get("balanced_accuracy", float("nan")),
            confusion=None if content["confusion"] is None else np.array(content["confusion"], dtype=np.int64),
            outcome=Outcome.read(content["outcome"], tuple(content["classes"])) if "outcome" in content else None,
            folder=folder,
            **more,
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"Expected {folder} to be the folder of a model, as `transfer -o` writes it, but its card.json cannot be "
            f"read ({error})"
        ) from error
