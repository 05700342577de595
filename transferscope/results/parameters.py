"""The result of `parameters`: how much of each layer's parameters survives the move to each target."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd
import xarray as xr

from transferscope.errors import InputError
from transferscope.results import saving
from transferscope.results.files import DIGITS, Content, csv, json_text, netcdf, prepare_folder, write_together
from transferscope.results.labelled import runs_dataset
from transferscope.runtime.failures import Failure

SCHEMA_VERSION = 1

_PICTURES = ("heatmap", "depth", "steps")
PAPER = "Chen et al. 2022, arXiv:2212.00399"

CRITERIA = {"epochs": "after all epochs", "steps": "at matched steps", "loss": "at matched training loss"}
"""Where on the way a transfer is looked at: as published, and at what makes transfers comparable."""

CELL = ["source", "target", "samples_per_class", "criterion"]
"""What runs that differ in the seed alone have in common."""

VARIABLES = {
    "transferability": "T: distance from the initial weights over distance from the source's, mean over redraws.",
    "spread": "Standard deviation of T over redraws of the initial weights; unknown where those are given.",
    "relative_change": "Norm of the change of the weights over the norm of the source's weights.",
    "cka": "Debiased linear CKA of the layer's output before and after the transfer, at the end of training.",
    "gradient_snr": "Signal-to-noise ratio of the gradient before the transfer.",
}
"""What is known of a layer after a transfer, all without a unit."""

_COLUMNS = {
    "layers": [*CELL, "samples", "seed", "step", "depth", "layer", *VARIABLES, "reason"],
    "runs": [
        *CELL, "classes", "samples", "seed", "step", "loss", "transferability", "spread", "accuracy", "gradient_snr",
        "frechet", "mmd", "within", "between",
    ],
    "trajectory": [
        "source", "target", "samples_per_class", "seed", "step", "epoch", "loss", "depth", "layer", "transferability",
    ],
}  # fmt: skip


class Settings(TypedDict):
    """What all runs share."""

    targets: list[dict[str, Any]]
    """Of each its name, hash, classes, and n_test: the test images, the same for all runs."""
    initial: dict[str, str]
    """Source to where its initial weights come from, as `Initial.description` says it."""
    epochs: int
    optimiser: str
    learning_rate: float
    schedule: str
    matched_steps: int
    matched_loss: float
    """Mean cross-entropy of the training images over that of guessing."""
    redraws: int
    groups: str
    """Which weights make a layer."""
    device: str
    versions: dict[str, str]


@dataclass(frozen=True, eq=False)
class ParameterTransfer:
    """How much of each layer's parameters survives the move to each target (Chen et al. 2022).

    Attributes
    ----------
    layers : pandas.DataFrame
        A row for each source, target, number of images, seed, criterion and layer: the columns of parameters.csv.
        An infinite or unknown `transferability` has its reason beside it.
    runs : pandas.DataFrame
        A row for each source, target, number of images, seed and criterion: the columns of parameters-runs.csv.
    trajectory : pandas.DataFrame
        T of each layer over the optimiser's steps: the columns of trajectory.csv.
    regression, correlations : pandas.DataFrame
        What T goes with; either may be empty, with the reason in `attrs["reason"]`.
    settings : Settings
        What all runs share.
    failed : tuple of Failure
        Sources that could not be loaded, and runs that failed.

    Raises
    ------
    InputError
        When `layers`, `runs` or `trajectory` lacks a column.
    """

    layers: pd.DataFrame
    runs: pd.DataFrame
    trajectory: pd.DataFrame
    regression: pd.DataFrame
    correlations: pd.DataFrame
    settings: Settings
    failed: tuple[Failure, ...] = ()

    def __post_init__(self) -> None:
        for name, columns in _COLUMNS.items():
            missing = [column for column in columns if column not in getattr(self, name)]
            if missing:
                raise InputError(
                    f"Expected `{name}` to have the columns {', '.join(columns)}, but it lacks {', '.join(missing)}"
                )
        # Where pandas has read parameters.csv, no reason is NaN.
        object.__setattr__(self, "layers", self.layers.assign(reason=self.layers["reason"].astype(object).fillna("")))

    @property
    def table(self) -> pd.DataFrame:
        """A row for each source, target, number of images and criterion, over the seeds.

        Numbers are means over the `n_seeds` seeds for which T is known; `standard_error` is that of T over seeds,
        NaN for a single one. `most_transferable` and `least_transferable` are the layers with the largest and the
        smallest finite T, `lowest_rank` is the place of the first layer among them, 1 for the most transferable of
        `layers`; NaN where its T is not finite.
        """
        means = {name: (name, "mean") for name in ("step", "loss", "accuracy", "transferability", "spread")}
        table = (
            self.runs.groupby(CELL, as_index=False, sort=False)
            .agg(n_seeds=("transferability", "count"), **means, standard_error=("transferability", "sem"))
            .sort_values(CELL, key=_place, ignore_index=True)
        )
        order = [_order(rows) for _, rows in over_seeds(self.layers).groupby(CELL, sort=False)]
        columns = [*CELL, "most_transferable", "least_transferable", "lowest_rank", "layers"]
        return table.merge(pd.DataFrame(order, columns=columns), how="left", on=CELL)

    @property
    def dataset(self) -> xr.Dataset:
        """All layers over (source, target, samples_per_class, seed, criterion, depth): what parameters.nc holds.

        What is not there is NaN. The coordinate `layer` over (source, depth) names the layers, and is empty where a
        source has none.
        """
        settings = self.settings
        return runs_dataset(
            self.layers,
            [*CELL[:3], "seed", "criterion", "depth"],
            list(VARIABLES),
            _place,
            {
                **{name: ("1", text) for name, text in VARIABLES.items()},
                "depth": ("1", "Place of the layer in the source, 1 for the first."),
                "samples_per_class": ("1", "Training images of each class, at most."),
                "seed": ("1", "Of the draw of the training images and of their order."),
                "criterion": ("", "; ".join(f"{name}: {title}" for name, title in CRITERIA.items())),
            },
            {
                "paper": PAPER,
                **settings,
                "targets": ", ".join(f"{target['name']} ({target['hash']})" for target in settings["targets"]),
                "initial": "; ".join(f"{source}: {what}" for source, what in settings["initial"].items()),
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything over the seeds as plain lists and mappings.

        Numbers have six significant digits. What is not finite is None; of a layer, `reason` says why.
        """
        content = {
            "schema_version": SCHEMA_VERSION,
            "paper": PAPER,
            "settings": self.settings,
            "results": self.table.to_dict("records"),
            "layers": over_seeds(self.layers).to_dict("records"),
            "regression": _explained(self.regression),
            "correlations": _explained(self.correlations),
            "failed": [asdict(failure) for failure in self.failed],
        }
        return json.loads(
            json.dumps(content),
            parse_float=lambda digits: float(f"{float(digits):.{DIGITS}g}"),
            parse_constant=lambda _: None,
        )

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return json_text(self.to_dict())

    def to_csv(self) -> str:
        """Return `layers` as CSV text; numbers have six significant digits, an infinite one is written inf."""
        return csv(self.layers)

    def save(self, folder: str | Path) -> list[Path]:
        """Write everything and its pictures into `folder`; return the paths.

        They are parameters.json, parameters.csv, parameters-runs.csv, trajectory.csv, parameters.nc, regression.csv
        and correlations.csv where there is any, the pictures, and report.html, a page that needs no other file. None is
        moved into place before all are complete.

        Raises
        ------
        InputError
            When the folder cannot be made or written.
        """
        folder = prepare_folder(folder)
        files: dict[str, Content] = {
            "parameters.json": self.to_json().encode(),
            "parameters.csv": self.to_csv().encode(),
            "parameters-runs.csv": csv(self.runs).encode(),
            "trajectory.csv": csv(self.trajectory).encode(),
            "parameters.nc": netcdf(self.dataset),
        }
        for name in ("regression", "correlations"):
            if len(getattr(self, name)):
                files[f"{name}.csv"] = csv(getattr(self, name)).encode()
        pictures = [path.name for kind in _PICTURES for path in folder.glob(f"transferability-*-{kind}.png")]
        outdated = ("regression.csv", "correlations.csv", *pictures)
        return write_together(folder, {**files, **saving.views(self)}, outdated)


def over_seeds(layers: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each source, target, number of images, criterion and layer, with means over the seeds.

    Parameters
    ----------
    layers : pandas.DataFrame
        `ParameterTransfer.layers`.

    Returns
    -------
    pandas.DataFrame
        The same columns without `samples` and `seed`; `n_seeds`, the seeds for which T is known, and
        `standard_error`, that of T over them (NaN for a single one), are new. A T that is infinite for one seed is.
    """
    means = {name: (name, "mean") for name in ("step", *VARIABLES)}
    table = layers.groupby([*CELL, "depth", "layer"], as_index=False, sort=False).agg(
        n_seeds=("transferability", "count"),
        **means,
        standard_error=("transferability", "sem"),
        reason=("reason", lambda reasons: "; ".join(filter(None, reasons.unique()))),
    )
    return table.sort_values([*CELL, "depth"], key=_place, ignore_index=True)


def _order(rows: pd.DataFrame) -> tuple[Any, ...]:
    """Return the cell of one transfer's layers, the most and the least transferable, and the place of the first."""
    finite = rows[np.isfinite(rows["transferability"])].set_index("layer")["transferability"]
    first = rows.loc[rows["depth"].idxmin(), "transferability"]
    return (
        *rows.iloc[0][CELL],
        finite.idxmax() if len(finite) else "",
        finite.idxmin() if len(finite) else "",
        1.0 + (finite > first).sum() if math.isfinite(first) else math.nan,
        len(rows),
    )


def _place(column: pd.Series) -> pd.Series:
    """Return what a column is sorted by."""
    return column.map(list(CRITERIA).index) if column.name == "criterion" else column


def _explained(table: pd.DataFrame) -> dict[str, Any]:
    return {"reason": table.attrs.get("reason", ""), "rows": table.to_dict("records")}
