"""The result of `advise`: what each way to transfer one source would give and cost, and which of them to take."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from transferscope.results import saving
from transferscope.results.files import csv, json_text, prepare_folder, significant, write_together
from transferscope.results.pilots import Pilot
from transferscope.results.summary import TargetSummary
from transferscope.runtime.failures import Failure
from transferscope.runtime.metrics import ACCURACY, metric_of
from transferscope.runtime.numbers import short_number

SCHEMA_VERSION = 1

NAMES = {
    "truncate": "linear head",
    "fne": "full-network embedding",
    "toptuning": "top-tuning",
    "reinit": "partial fine-tuning",
    "defrost": "fine-tuning, first stages frozen",
    "finetune": "full fine-tuning",
    "scratch": "from scratch",
}
"""The ways to transfer, by the name that `measure` has for each, in the order in which they are shown."""


@dataclass(frozen=True)
class Way:
    """One way to transfer the source, with what to expect of it."""

    protocol: str
    """As `measure` calls it: one of `NAMES`."""
    depth: int
    """Stages that are kept (`fne` reads all of them); 0 from scratch."""
    layer: str
    """The last of them; empty from scratch."""
    expected_accuracy: float
    interval: tuple[float, float]
    """80 % interval."""
    seconds: float
    """Of the whole transfer on this machine: features, the search for settings, training."""
    kwh: float
    """Electricity; NaN where it is not known."""
    kgco2e: float
    trials: int
    """Trainings or fits that the choice of settings takes; the other figures include them."""

    @property
    def name(self) -> str:
        """What people call it."""
        return NAMES[self.protocol]


@dataclass(frozen=True)
class Change:
    """Where the advice becomes another one as there are more images."""

    between: tuple[int, int]
    """Images per class: the last number that was looked at before it, and the first after it."""
    before: str
    """Protocol that is advised up to the first number."""
    after: str
    """The one from the second number on."""


@dataclass(frozen=True)
class Advice:
    """Which way to transfer a source to a target, with expected accuracy and cost of each way.

    Attributes
    ----------
    target : TargetSummary
        The images that scores were computed on.
    source : str
        Its name.
    depths : int
        Its stages.
    samples : int
        Images to train on that everything is for.
    tolerance : float
        Accuracy that may be lost for the sake of cost.
    ways : tuple of Way
        In the order of `NAMES`.
    advised : str
        Protocol of the quickest way within `tolerance` of the most accurate.
    changes : tuple of Change
        With more images or fewer, within `looked_at`.
    looked_at : (int, int)
        Fewest and most images per class at which advice was sought.
    energy : str
        How electricity was measured or estimated, in one line.
    measured_seconds : float
        Time that the steps took from which costs are known.
    left_out : tuple of Failure
        Ways that this source does not allow, each with the reason.
    failed : tuple of Failure
        Sources that could not be ranked.
    pilots : tuple of Pilot
        Real transfers that were run before the answer, those of other sources too.
    hint : str
        What pilots would bring, in one sentence; empty where some were run, or would bring nothing.
    metric : str
        What the accuracies are, of `METRICS`.
    """

    target: TargetSummary
    source: str
    depths: int
    samples: int
    tolerance: float
    ways: tuple[Way, ...]
    advised: str
    changes: tuple[Change, ...]
    looked_at: tuple[int, int]
    energy: str
    measured_seconds: float
    left_out: tuple[Failure, ...] = ()
    failed: tuple[Failure, ...] = ()
    pilots: tuple[Pilot, ...] = ()
    hint: str = ""
    metric: str = ACCURACY.name

    @property
    def best(self) -> Way:
        """The way to take."""
        return next(way for way in self.ways if way.protocol == self.advised)

    @property
    def most_accurate(self) -> Way:
        """The way with the highest expected accuracy, whatever it costs."""
        return max(self.ways, key=lambda way: way.expected_accuracy)

    @property
    def samples_per_class(self) -> float:
        """Images to train on of each class, the mean over classes."""
        return self.samples / self.target.classes

    @property
    def table(self) -> pd.DataFrame:
        """A row for each way, `advised` marking the one to take."""
        rows = []
        for way in self.ways:
            row = {"way": way.name, **asdict(way)}
            row["lower"], row["upper"] = row.pop("interval")
            rows.append({**row, "advised": way.protocol == self.advised})
        return pd.DataFrame(rows)

    @property
    def verdict(self) -> str:
        """The answer in words."""
        way, top = self.best, self.most_accurate
        scratch = way.protocol == "scratch"
        text = f"Train {self.source} from scratch" if scratch else f"Transfer {self.source} by {_how(way)}"
        text += f", with {_count(self.samples_per_class)} images of each class: "
        text += f"expected {metric_of(self.metric).title} {_accuracy(way)} in "
        energy = "" if math.isnan(way.kwh) else f" ({short_number(way.kwh)} kWh)"
        text += f"{short_number(way.seconds)} s{energy}."
        if way is top:
            return f"{text} Nothing is expected to be more accurate."
        return (
            f"{text} The most accurate, {_how(top)}, is expected to reach {_accuracy(top)} and takes "
            f"{short_number(top.seconds / way.seconds)} times as long."
        )

    @property
    def turning(self) -> str:
        """In words, with how many images the advice would be another one."""
        low, high = self.looked_at
        if not self.changes:
            return f"The advice stays the same from {low} to {high} images of each class."
        parts = [
            f"between {change.between[0]} and {change.between[1]} images of each class from {NAMES[change.before]} to "
            f"{NAMES[change.after]}"
            for change in self.changes
        ]
        return f"The advice changes {'; '.join(parts)} (from {low} to {high} images of each class)."

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain lists and mappings; values that are not finite become None."""
        rows = [{"way": way.name, **asdict(way), "interval": list(way.interval)} for way in self.ways]
        return {
            "schema_version": SCHEMA_VERSION,
            "target": asdict(self.target),
            "metric": self.metric,
            "source": self.source,
            "depths": self.depths,
            "samples": self.samples,
            "samples_per_class": self.samples_per_class,
            "tolerance": self.tolerance,
            "advised": self.advised,
            "ways": rows,
            "changes": [{**asdict(change), "between": list(change.between)} for change in self.changes],
            "looked_at": list(self.looked_at),
            "energy": self.energy,
            "measured_seconds": self.measured_seconds,
            "left_out": [asdict(failure) for failure in self.left_out],
            "failed": [asdict(failure) for failure in self.failed],
            "pilots": [asdict(pilot) for pilot in self.pilots],
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON text; numbers have six significant digits."""
        return json_text(significant(self.to_dict()))

    def to_csv(self) -> str:
        """Return `table` as CSV text; numbers have six significant digits."""
        return csv(self.table)

    def save(self, folder: str | Path) -> list[Path]:
        """Write advice.json, advice.csv, advice.png and report.html into `folder`; return their paths.

        report.html is a page that holds all of it and needs no other file. All files are written or none is.

        Raises
        ------
        InputError
            When the folder cannot be made or written.
        """
        folder = prepare_folder(folder)
        files = {"advice.json": self.to_json().encode(), "advice.csv": self.to_csv().encode()}
        return write_together(folder, {**files, **saving.views(self)})


def _how(way: Way) -> str:
    """Name a way with its cut, where that is a choice."""
    return {
        "truncate": f"a linear head after {way.layer}",
        "fne": "the full-network embedding",
        "toptuning": f"top-tuning after {way.layer}",
        "reinit": f"partial fine-tuning, frozen up to {way.layer}",
        "defrost": f"fine-tuning with its first stages frozen, up to {way.layer}",
    }.get(way.protocol, f"training {way.name}" if way.protocol == "scratch" else way.name)


def _accuracy(way: Way) -> str:
    return f"{way.expected_accuracy:.3f} [{way.interval[0]:.3f}, {way.interval[1]:.3f}]"


def _count(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"
