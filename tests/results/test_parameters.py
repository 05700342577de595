"""Parameter transferability as people meet it: means over seeds, labelled arrays, files."""

import errno
import json
import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from parameter_transfers import (
    SETTINGS,
    TABLES,
    UNMOVED,
    printed,
    result,
    stuck_transfers,
    transfer,
    transferred_grid,
)
from result_folders import visible

from transferscope.errors import InputError
from transferscope.report.plots import parameter_plots
from transferscope.results.parameters import CRITERIA, ParameterTransfer, over_seeds
from transferscope.runtime.failures import Failure


@pytest.fixture(scope="module")
def grid():
    return transferred_grid()


@pytest.fixture(scope="module")
def stuck():
    return stuck_transfers()


# --- tables -------------------------------------------------------------------------------------------------------


def test_runs_that_differ_in_the_seed_become_a_mean_with_its_standard_error():
    found = result(transfer([1.0, 5.0, 3.0]), transfer([2.0, 6.0, 7.0], seed=1), transfer([4.0, 4.0], "plain"))
    table = found.table
    assert table["source"].tolist() == ["birds"] * 3 + ["plain"] * 3
    assert table["criterion"].tolist() == ["epochs", "steps", "loss"] * 2
    assert table["n_seeds"].tolist() == [2, 2, 2, 1, 1, 1]
    # Means over layers: 3 and 5, times 1, 2 and 3; two numbers that are 2 apart have a standard error of 1.
    np.testing.assert_allclose(table["transferability"], [4, 8, 12, 4, 8, 12])
    np.testing.assert_allclose(table["standard_error"], [1, 2, 3, *[math.nan] * 3])
    np.testing.assert_allclose(table["accuracy"], [0.755] * 3 + [0.75] * 3)
    np.testing.assert_allclose(table["step"], [80, 20, 12.5] * 2)
    # Means over seeds: 1.5, 5.5 and 5.
    assert table["most_transferable"].tolist()[:3] == ["blocks.1"] * 3
    assert table["least_transferable"].tolist()[:3] == ["blocks.0"] * 3
    assert table["lowest_rank"].tolist() == [3, 3, 3, 1, 1, 1]
    assert table["layers"].tolist() == [3, 3, 3, 2, 2, 2]


def test_layers_over_seeds():
    layers = over_seeds(result(transfer([1.0, 5.0]), transfer([2.0, math.inf], seed=1)).layers)
    first = layers[layers["criterion"] == "epochs"]
    assert first["layer"].tolist() == ["blocks.0", "blocks.1"]
    np.testing.assert_allclose(first["transferability"], [1.5, math.inf])
    np.testing.assert_allclose(first["standard_error"], [0.5, math.nan])
    np.testing.assert_allclose(first["relative_change"], [0.01, 0.02])
    assert first["reason"].tolist() == ["", UNMOVED]


def test_infinite_layers_are_neither_the_most_nor_the_least_transferable(stuck):
    table = stuck.table.set_index(["target", "criterion"])
    shells, never = table.loc[("shells", "epochs")], table.loc[("signs", "loss")]
    assert (shells["most_transferable"], shells["least_transferable"]) == ("blocks.2", "blocks.0")
    assert (shells["transferability"], shells["lowest_rank"]) == (math.inf, 2)
    assert (never["most_transferable"], never["least_transferable"], never["n_seeds"]) == ("", "", 0)
    assert math.isnan(never["transferability"])
    assert math.isnan(never["lowest_rank"])


@pytest.mark.parametrize("name", ["layers", "runs", "trajectory"])
def test_a_missing_column_is_an_input_error(grid, name):
    tables = {each: getattr(grid, each) for each in ("layers", "runs", "trajectory")}
    tables[name] = tables[name].drop(columns=["transferability", "step"])
    with pytest.raises(InputError, match=f"`{name}` to have the columns .* but it lacks step, transferability"):
        ParameterTransfer(**tables, regression=pd.DataFrame(), correlations=pd.DataFrame(), settings=SETTINGS)


# --- labelled arrays ----------------------------------------------------------------------------------------------


def test_the_dataset_holds_every_layer_at_its_place(grid):
    dataset = grid.dataset
    assert dict(dataset.sizes) == {
        "source": 2, "target": 2, "samples_per_class": 2, "seed": 2, "criterion": 3, "depth": 3,
    }  # fmt: skip
    assert dataset["criterion"].to_numpy().tolist() == list(CRITERIA)
    assert dataset["layer"].to_numpy().tolist() == [["blocks.0", "blocks.1", "blocks.2"], ["blocks.0", "blocks.1", ""]]
    for row in grid.layers.itertuples():
        cell = dataset.sel({name: getattr(row, name) for name in dataset.dims})
        for name in dataset.data_vars:
            np.testing.assert_equal(float(cell[name]), getattr(row, name))
    assert int(dataset["transferability"].count()) == len(grid.layers)


def test_netcdf_keeps_infinite_values_and_where_they_come_from(stuck, tmp_path):
    path = tmp_path / "parameters.nc"
    stuck.dataset.to_netcdf(path, engine="h5netcdf")
    with xr.open_dataset(path, engine="h5netcdf") as dataset:
        xr.testing.assert_identical(dataset.load(), stuck.dataset)
        assert np.isinf(dataset["transferability"]).sum() == 3
        assert dataset["transferability"].attrs["units"] == "1"
        assert all("long_name" in dataset[name].attrs for name in dataset.variables)
        assert "2212.00399" in dataset.attrs["paper"]
        assert dataset.attrs["initial"] == "birds: redrawn, seeds 0 to 4; plain: given: plain.initial.pt"
        assert dataset.attrs["targets"] == f"shells ({'0f' * 32}), signs ({'1e' * 32})"
        assert dataset.attrs["matched_steps"] == 1200


# --- files --------------------------------------------------------------------------------------------------------


def test_json_is_strict_and_says_why_a_number_is_missing(stuck):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads(stuck.to_json(), parse_constant=refuse)
    assert content == stuck.to_dict()
    assert content["schema_version"] == 1
    # So small a number survives six significant digits, and would not survive six decimals.
    assert content["settings"] == SETTINGS
    layer = next(row for row in content["layers"] if row["reason"] == UNMOVED)
    assert (layer["layer"], layer["transferability"], layer["relative_change"]) == ("blocks.1", None, 0.02)
    never = next(row for row in content["results"] if row["n_seeds"] == 0)
    assert (never["transferability"], never["step"], never["lowest_rank"]) == (None, None, None)
    assert content["regression"] == {"reason": "birds (steps): 2 targets, and at least 4 are needed", "rows": []}
    assert content["correlations"] == {"reason": "", "rows": []}
    third = result(transfer([1 / 3, 1.0]), failed=[Failure("gone", "No file.")]).to_dict()
    assert third["layers"][0]["transferability"] == 0.333333
    assert third["failed"] == [{"source": "gone", "error": "No file."}]


def test_saved_tables_make_the_same_result_again(stuck, tmp_path):
    paths = stuck.save(tmp_path / "new")
    pictures = [f"transferability-birds-{name}.png" for name in ("heatmap", "depth", "steps")]
    assert [path.name for path in paths] == [*TABLES, *pictures, "report.html"]
    assert visible(tmp_path / "new") == {path.name for path in paths}
    layers, runs, trajectory = (pd.read_csv(paths[number]) for number in (1, 2, 3))
    again = ParameterTransfer(layers, runs, trajectory, stuck.regression, stuck.correlations, SETTINGS)
    assert np.isinf(again.layers["transferability"]).sum() == 3
    assert (again.to_json(), again.to_csv()) == (stuck.to_json(), stuck.to_csv())


def test_regression_and_correlations_are_saved_where_there_are_any(tmp_path):
    table = pd.DataFrame({
        "source": ["birds"], "criterion": ["loss"], "spearman": [0.5], "before_transfer": [True], "level": ["runs"],
    })  # fmt: skip
    names = [path.name for path in result(transfer([1.0, 2.0]), regression=table, correlations=table).save(tmp_path)]
    assert names[5:7] == ["regression.csv", "correlations.csv"]
    assert pd.read_csv(tmp_path / "regression.csv").to_dict("records") == table.to_dict("records")


def test_a_disk_that_fills_up_changes_no_file(grid, tmp_path, monkeypatch):
    (tmp_path / "parameters.json").write_bytes(b"old")

    def full(_data, _path, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", full)
    monkeypatch.setattr(parameter_plots, "figures", lambda _: {})
    with pytest.raises(InputError, match="No space left on device"):
        grid.save(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in visible(tmp_path)} == {"parameters.json": b"old"}


def test_without_any_transfer_there_are_tables_alone(grid, tmp_path):
    none = pd.DataFrame()
    tables = (table.iloc[:0] for table in (grid.layers, grid.runs, grid.trajectory))
    found = ParameterTransfer(*tables, none, none, SETTINGS, (Failure("gone", "No file."),))
    assert [path.name for path in found.save(tmp_path)] == [*TABLES, "report.html"]
    text = printed(found)
    assert "No source was fine-tuned on any target." in text
    assert "gone failed: No file." in text
