"""The result of `measure`: what each transfer really gave and cost, over draws of the training images."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import pandas as pd
import xarray as xr

from transferscope.errors import InputError
from transferscope.results import saving
from transferscope.results.files import Content, csv, json_text, netcdf, prepare_folder, significant, write_together
from transferscope.results.labelled import runs_dataset
from transferscope.runtime.failures import Failure
from transferscope.runtime.metrics import CLASSIFICATION, METRICS, Metric, metric_of, metrics_of

SCHEMA_VERSION = 1

_PICTURES = (
    "accuracy-by-depth.png", "accuracy-by-samples.png", "accuracy-by-seconds.png", "accuracy-by-energy.png",
)  # fmt: skip

PROTOCOLS = (
    "nearest_mean", "truncate", "svm", "toptuning", "fne", "reinit", "finetune", "defrost", "surgical", "scratch",
)  # fmt: skip
"""The order in which protocols are shown."""

CELL = ["source", "protocol", "depth", "depths", "layer", "samples_per_class", "samples"]
"""What runs that differ in the seed alone have in common."""

_COSTS = {
    "seconds": "s",
    "flops": "1",
    "kwh": "kWh",
    "kgco2e": "kg CO2e",
    "peak_memory": "byte",
    "trials": "1",
}
UNITS = {**dict.fromkeys((metric.column for metric in METRICS.values()), "1"), **_COSTS}
"""What is measured of a run, with its unit."""

_DESCRIPTIONS = {
    "accuracy": "Share of the test images that are classified correctly.",
    "balanced_accuracy": "The same, averaged over classes.",
    "mean_average_precision": "Precision averaged over recall, of each label, the mean over labels.",
    "macro_f1": "Harmonic mean of precision and recall of each label at a probability of 0.5, the mean over labels.",
    "r2": "1 less the squared error as a share of the variance of the test images, the mean over numbers.",
    "spearman": "Spearman's rank correlation of predictions and truth, the mean over numbers.",
    "seconds": "Time of the transfer: features of the training images, search and training; without testing.",
    "flops": "Floating-point operations of the transfer (a multiply-add counts as two).",
    "kwh": "Electricity that the transfer used.",
    "kgco2e": "Emissions of that electricity.",
    "peak_memory": "Most memory that the transfer held at once.",
    "trials": "Fits that the search for settings tried.",
    "depth": "Stages of the source that are kept or frozen.",
    "samples_per_class": "Training images of each class, at most.",
    "seed": "Of the draw of the training images and of the weights.",
}


class Settings(TypedDict):
    """What all runs of a measurement share."""

    target: str
    target_hash: str
    classes: int
    n_test: int
    """Test images, the same for all runs."""
    chance: float
    """What the same prediction for all of them reaches, such as the share of the largest class."""
    energy: str
    """How electricity was measured or estimated, in one line."""
    device: str
    versions: Mapping[str, str]
    task: NotRequired[str]
    """Classification without."""
    metric: NotRequired[str]
    """What the best is by, where that is not the first of the task."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """Real transfers over sources, protocols, depths, numbers of images and seeds.

    Attributes
    ----------
    runs : pandas.DataFrame
        A row for each run that ended: the columns of runs.csv. Numbers of failed runs are NaN.
    settings : Settings
        What all of them share.
    failed : tuple of Failure
        Sources that could not be loaded, so that none of their runs was begun.
    networks : pandas.DataFrame
        A row for each source and depth: layer, params, flops and latency (seconds) of one image through the network
        cut there.

    Raises
    ------
    InputError
        When `runs` lacks a column.
    """

    runs: pd.DataFrame
    settings: Settings
    failed: tuple[Failure, ...] = ()
    networks: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __post_init__(self) -> None:
        missing = [name for name in [*CELL, "seed", *self._units, "status"] if name not in self.runs]
        if missing:
            raise InputError(
                f"Expected `runs` to have the columns of runs.csv, but it lacks {', '.join(missing)}; `measure` "
                "returns a Measurement"
            )
        # Where pandas has read runs.csv, the empty layer at depth 0 is NaN, and would be dropped from groups.
        layers = self.runs["layer"].astype(object).fillna("")
        object.__setattr__(self, "runs", self.runs.assign(layer=layers))

    @property
    def metric(self) -> Metric:
        """What the best is by."""
        return metric_of(self.settings.get("metric"), self.settings.get("task", CLASSIFICATION))

    @property
    def _units(self) -> dict[str, str]:
        """What is measured of its runs, with its unit."""
        columns = [metric.column for metric in metrics_of(self.metric.task)]
        return {name: UNITS[name] for name in [*columns, *_COSTS]}

    @property
    def table(self) -> pd.DataFrame:
        """A row for each source, protocol, depth, layer and number of images, over the seeds.

        Accuracies, or what else is measured for the task, and costs are means over the seeds that did not fail
        (`n_seeds` of them, `failed` did); NaN where all failed. `peak_memory` is the largest of them. `standard_error`
        is the standard deviation of what the best is by over seeds, divided by √n_seeds, NaN for a single one: it tells
        how far the draw of the training images and of the weights moves the mean. All runs are tested on the same
        images, whose own finite number is not in it.
        `best` marks, for each source, protocol and number of images, the row with the highest accuracy (the
        shallowest of equals), which is known only after all of them have been measured.
        """
        largest = {"peak_memory": "max"}
        means = {name: (name, largest.get(name, "mean")) for name in self._units}
        judged = self.metric.column
        table = (
            self.runs.assign(failed=self.runs["status"] != "done")
            .groupby(CELL, as_index=False, sort=False)
            .agg(
                n_seeds=(judged, "count"),
                failed=("failed", "sum"),
                **{judged: means.pop(judged)},
                standard_error=(judged, "sem"),
                **means,
            )
        )
        order = ["source", "protocol", "samples_per_class", "depth", "layer"]
        table = table.sort_values(order, key=_place, ignore_index=True)
        table.attrs["metric"] = self.metric.name
        return table.assign(best=table.index.isin(best_of(table, ["source", "protocol", "samples_per_class"]).index))

    @property
    def dataset(self) -> xr.Dataset:
        """All runs over (source, protocol, depth, samples_per_class, seed): what measurement.nc holds.

        A run that failed or is not there is NaN. Each set of layers of a full-network embedding is a protocol of its
        own, such as "fne (upper 75%)". The coordinate `layer` over (source, depth) is the layer of the cut, empty
        where there is none.
        """
        layers = self.runs["layer"].where(self.runs["protocol"] != "fne")
        return runs_dataset(
            self.runs.assign(protocol=variant(self.runs), layer=layers),
            ["source", "protocol", "depth", "samples_per_class", "seed"],
            list(self._units),
            _place,
            {name: (UNITS.get(name, "1"), text) for name, text in _DESCRIPTIONS.items()},
            self.settings,
        )

    @property
    def failed_runs(self) -> pd.DataFrame:
        """The runs that failed, each with its reason in the column `error`."""
        runs = self.runs[self.runs["status"] != "done"]
        names = ["source", "protocol", "depth", "layer", "samples_per_class", "seed"]
        return runs[names].assign(error=runs["status"].str.removeprefix("failed: "))

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the single runs as plain lists and mappings; what is not finite is None."""
        settings = self.settings
        shared: dict[str, Any] = {**settings}
        target = {name: shared[name] for name in ("classes", "n_test", "chance", "task") if name in shared}
        return {
            "schema_version": SCHEMA_VERSION,
            "target": {"name": settings["target"], "hash": settings["target_hash"], **target},
            **({"metric": shared["metric"]} if "metric" in shared else {}),
            "device": settings["device"],
            "energy": settings["energy"],
            "versions": dict(settings["versions"]),
            "results": self.table.to_dict("records"),
            "failed_runs": self.failed_runs.to_dict("records"),
            "failed": [asdict(failure) for failure in self.failed],
            "networks": self.networks.to_dict("records"),
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON text; numbers have six significant digits."""
        return json_text(significant(self.to_dict()))

    def to_csv(self) -> str:
        """Return `table` as CSV text; numbers have six significant digits."""
        return csv(self.table)

    def save(self, folder: str | Path) -> list[Path]:
        """Write measurement.json, .csv, .nc, networks.csv, the pictures and report.html; return their paths.

        report.html is a page that needs no other file. None is moved into place before all are complete. Pictures of
        what was not measured are left out.

        Raises
        ------
        InputError
            When the folder cannot be made or written.
        """
        folder = prepare_folder(folder)
        files: dict[str, Content] = {
            "measurement.json": self.to_json().encode(),
            "measurement.csv": self.to_csv().encode(),
            "measurement.nc": netcdf(self.dataset),
        }
        if len(self.networks):
            files["networks.csv"] = csv(self.networks).encode()
        return write_together(folder, {**files, **saving.views(self)}, outdated=("networks.csv", *_PICTURES))


def best_of(table: pd.DataFrame, within: list[str]) -> pd.DataFrame:
    """Return the row with the highest accuracy for each combination of the columns `within`, in their order.

    That is the accuracy or what else the table is `judged_by`. A row without one is left out; of equals the first in
    the table is taken.
    """
    judged = judged_by(table).column
    ordered = table.dropna(subset=judged).sort_values(judged, ascending=False, kind="stable")
    return ordered.drop_duplicates(within).sort_values(within, key=_place)


def judged_by(table: pd.DataFrame) -> Metric:
    """Return what the best of a table is by: what it says itself, else the first figure that it has.

    Raises
    ------
    InputError
        It has none.
    """
    known = [metric for metric in METRICS.values() if metric.column in table]
    chosen = METRICS.get(str(table.attrs.get("metric")))
    if chosen in known:
        return chosen
    if not known:
        raise InputError(f"Expected a table with one of {', '.join(metric.column for metric in METRICS.values())}")
    return known[0]


def variant(runs: pd.DataFrame) -> pd.Series:
    """Return the protocol of each run; for full-network embeddings with the set of layers, as "fne (upper 75%)"."""
    return runs["protocol"].where(runs["protocol"] != "fne", "fne (" + runs["layer"] + ")")


def _place(column: pd.Series) -> pd.Series:
    """Return what a column is sorted by."""
    if column.name != "protocol":
        return column
    places = {name: f"{number:02d}" for number, name in enumerate(PROTOCOLS)}
    # A variant follows its protocol.
    return column.map(lambda name: places.get(str(name).split(" ")[0], "") + str(name))
