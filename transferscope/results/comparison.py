"""The result of `compare_sources`: every similarity of two networks' layers, and each layer's closest one."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from transferscope.results import labelled, saving
from transferscope.results.files import (
    DIGITS,
    Content,
    csv_text,
    json_text,
    netcdf,
    prepare_folder,
    rounded,
    write_together,
)
from transferscope.results.summary import Reference, TargetSummary
from transferscope.similarity import MEASURES

SCHEMA_VERSION = 1
_KNOWN = ("standard_error", "p_value", "informative")


@dataclass(frozen=True, eq=False)
class Comparison:
    """The layers of network `x` compared with those of network `y` on the images of a target."""

    x: str
    y: str
    target: TargetSummary
    reference: Reference | None
    """What the scratch network is, when it is one of the two."""
    results: dict[str, xr.DataArray]
    """Measure to similarity over (layer_x, layer_y), as `compare` returns it."""

    @property
    def dataset(self) -> xr.Dataset:
        """All of it in one labelled object: what compare.nc holds."""
        scratch = {} if self.reference is None else {"reference": self.reference.network}
        return labelled.similarity_dataset(
            self.results,
            {"x": self.x, "y": self.y, "target": self.target.name, "target_hash": self.target.hash, **scratch},
        )

    @property
    def table(self) -> pd.DataFrame:
        """A row for every measure and pair of layers; standard_error and p_value are NaN where none was asked for."""
        return pd.concat([_rows(measure, array) for measure, array in self.results.items()], ignore_index=True)

    @property
    def closest(self) -> pd.DataFrame:
        """A row for every measure and layer of x, with the most similar layer of y.

        Pairs whose number means nothing count only where a layer has no others. In a network that is compared with
        itself a layer is not its own closest.
        """
        nearest = []
        for measure, rows in self.table.groupby("measure", sort=False):
            # In the direction in which more is more similar.
            rows = rows.assign(order=rows["value"] * (-1 if str(measure).endswith("_imbalance") else 1))
            for layer, pairs in rows.groupby("layer_x", sort=False):
                others = pairs[pairs["layer_y"] != layer] if self.x == self.y else pairs
                ordered = others.dropna(subset="order").sort_values(
                    ["informative", "order"], ascending=False, kind="stable"
                )
                blank = {"measure": measure, "layer_x": layer, "layer_y": "", "value": math.nan, "informative": False}
                nearest.append(ordered.iloc[0].drop("order").to_dict() if len(ordered) else blank)
        return pd.DataFrame(nearest, columns=self.table.columns)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain lists and mappings; numbers have six decimals, what is not finite is None."""
        some = next(iter(self.results.values()))
        content = {
            "schema_version": SCHEMA_VERSION,
            "x": self.x,
            "y": self.y,
            "target": asdict(self.target),
            "reference": None if self.reference is None else asdict(self.reference),
            "layers_x": some["layer_x"].to_numpy().tolist(),
            "layers_y": some["layer_y"].to_numpy().tolist(),
            "measures": {
                measure: {
                    "title": MEASURES[measure].title,
                    "reduce": array.attrs["reduce"],
                    "standardize": bool(array.attrs["standardize"]),
                    "estimator": array.attrs["estimator"],
                    "values": array.to_numpy().tolist(),
                    **{name: array[name].to_numpy().tolist() for name in _KNOWN if name in array.coords},
                }
                for measure, array in self.results.items()
            },
        }
        return rounded(content)

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return json_text(self.to_dict(), indent=None)

    def to_csv(self) -> str:
        """Return `table` as CSV text."""
        return csv_text(self.table.round(DIGITS), index=False)

    def save(self, folder: str | Path) -> list[Path]:
        """Write compare.nc, a heatmap for each measure (compare_<measure>.png) and report.html; return their paths.

        report.html is a page that holds all of it and needs no other file. All files are written or none is.

        Raises
        ------
        InputError
            When the folder cannot be made or written.
        """
        files: dict[str, Content] = {"compare.nc": netcdf(self.dataset), **saving.views(self)}
        return write_together(
            prepare_folder(folder), files, outdated=[f"compare_{measure}.png" for measure in MEASURES]
        )


def _rows(measure: str, array: xr.DataArray) -> pd.DataFrame:
    """Return a row for every pair of layers, a column for everything that can be known of it."""
    pairs = pd.MultiIndex.from_product([array["layer_x"].to_numpy(), array["layer_y"].to_numpy()])
    columns = {
        name: array[name].to_numpy().ravel() if name in array.coords else np.full(array.size, math.nan)
        for name in _KNOWN
    }
    return pd.DataFrame(
        {
            "measure": measure,
            "layer_x": pairs.get_level_values(0),
            "layer_y": pairs.get_level_values(1),
            "value": array.to_numpy().ravel(),
            **columns,
        }
    )
