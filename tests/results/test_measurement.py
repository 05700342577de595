"""A measurement as people meet it: means over seeds, labelled arrays, files."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from measurements import PICTURES, SETTINGS, measured_grid, measurement, printed, run
from result_folders import visible

from transferscope.errors import InputError
from transferscope.results.measurement import PROTOCOLS, Measurement
from transferscope.runtime.failures import Failure
from transferscope.verbs.running import run as running

pytestmark = pytest.mark.bounds


@pytest.fixture(scope="module")
def grid():
    return measured_grid()


# --- the table ----------------------------------------------------------------------------------------------------


def test_runs_that_differ_in_the_seed_become_a_mean_with_its_standard_error():
    table = measurement(
        run(0.5, seed=0, seconds=1.0, peak_memory=10.0, balanced_accuracy=0.4),
        run(0.7, seed=1, seconds=3.0, peak_memory=30.0, balanced_accuracy=0.5),
        run(0.9, seed=2, seconds=5.0, peak_memory=20.0, balanced_accuracy=0.9),
        run(0.6, depth=2),
    ).table
    assert table["depth"].tolist() == [1, 2]
    assert table["n_seeds"].tolist() == [3, 1]
    assert table["failed"].tolist() == [0, 0]
    np.testing.assert_allclose(table["accuracy"], [0.7, 0.6])
    # Deviations of -0.2, 0, 0.2: variance 0.08 / 2, over 3 seeds.
    np.testing.assert_allclose(table["standard_error"], [math.sqrt(0.04 / 3), math.nan])
    np.testing.assert_allclose(table["balanced_accuracy"], [0.6, 0.4 + 0.2])
    np.testing.assert_allclose(table["seconds"], [3.0, 2.0])
    np.testing.assert_allclose(table["peak_memory"], [30.0, 1e8])
    assert table["samples"].tolist() == [30, 30]


def test_failed_runs_are_counted_and_leave_the_mean_alone():
    table = measurement(run(None, seed=0), run(0.5, seed=1), run(0.7, seed=2), run(None, depth=2)).table
    assert table["n_seeds"].tolist() == [2, 0]
    assert table["failed"].tolist() == [1, 1]
    np.testing.assert_allclose(table["accuracy"], [0.6, math.nan])
    np.testing.assert_allclose(table["standard_error"], [0.1, math.nan])
    assert table["best"].tolist() == [True, False]


def test_the_best_depth_is_found_for_each_source_protocol_and_size():
    table = measurement(
        run(0.4, depth=1), run(0.6, depth=2), run(0.6, depth=3),
        run(0.9, depth=1, size=20), run(0.8, depth=2, size=20),
        run(0.7, "svm", depth=3), run(0.1, depth=2, source="plain"), run(0.5, "scratch", 0),
    ).table  # fmt: skip
    best = table[table["best"]][["source", "protocol", "samples_per_class", "depth"]]
    assert best.to_numpy().tolist() == [
        ["birds", "truncate", 5, 2],  # of equals the shallowest
        ["birds", "truncate", 20, 1],
        ["birds", "svm", 5, 3],
        ["birds", "scratch", 5, 0],
        ["plain", "truncate", 5, 2],
    ]


def test_sets_of_layers_are_rows_of_their_own():
    table = measurement(*(run(0.5, "fne", 3, layer=name) for name in running.LAYER_SETS)).table
    assert sorted(table["layer"]) == sorted(running.LAYER_SETS)
    assert table["best"].sum() == 1


def test_protocols_are_known_here_in_the_order_in_which_they_run():
    assert tuple(running.PROTOCOLS) == PROTOCOLS


def test_runs_that_pandas_has_read_give_the_same_table(tmp_path, grid):
    grid.runs.to_csv(tmp_path / "runs.csv", index=False)
    again = Measurement(pd.read_csv(tmp_path / "runs.csv"), SETTINGS)
    assert "scratch" in set(again.table["protocol"])
    assert again.to_csv() == grid.to_csv()


def test_a_missing_column_is_an_input_error(grid):
    with pytest.raises(InputError, match=r"columns of runs\.csv, but it lacks kwh, status"):
        Measurement(grid.runs.drop(columns=["kwh", "status"]), SETTINGS)


# --- labelled arrays ----------------------------------------------------------------------------------------------


def test_the_dataset_holds_every_run_at_its_place(grid):
    dataset = grid.dataset
    assert dict(dataset.sizes) == {"source": 2, "protocol": 6, "depth": 4, "samples_per_class": 2, "seed": 2}
    assert dataset["depth"].to_numpy().tolist() == [0, 1, 2, 3]
    assert dataset["protocol"].to_numpy().tolist() == [
        "truncate", "fne (all)", "fne (upper 25%)", "fne (upper 50%)", "fne (upper 75%)", "scratch",
    ]  # fmt: skip
    assert dataset["layer"].sel(source="birds").to_numpy().tolist() == ["", "blocks.0", "blocks.1", "blocks.2"]
    assert dataset["layer"].sel(source="plain").to_numpy().tolist() == ["", "blocks.0", "blocks.1", ""]
    for row in grid.runs.itertuples():
        protocol = f"fne ({row.layer})" if row.protocol == "fne" else row.protocol
        place = {"depth": row.depth, "samples_per_class": row.samples_per_class, "seed": row.seed}
        cell = dataset.sel(source=row.source, protocol=protocol, **place)
        np.testing.assert_equal(float(cell["accuracy"]), row.accuracy)
        np.testing.assert_equal(float(cell["seconds"]), row.seconds)
    assert int(dataset["accuracy"].count()) == len(grid.runs) - 1


def test_netcdf_keeps_values_units_and_where_they_come_from(grid, tmp_path):
    path = tmp_path / "measurement.nc"
    grid.dataset.to_netcdf(path, engine="h5netcdf")
    with xr.open_dataset(path, engine="h5netcdf") as dataset:
        xr.testing.assert_identical(dataset.load(), grid.dataset)
        assert dataset["kwh"].attrs["units"] == "kWh"
        assert dataset["seconds"].attrs["units"] == "s"
        assert dataset.attrs["target_hash"] == "0f" * 32
        assert json.loads(dataset.attrs["versions"]) == {"torch": "2.9.0", "timm": "1.0.12"}
        assert all("long_name" in dataset[name].attrs for name in dataset.variables)
        assert dataset.attrs["n_test"] == 200


# --- files --------------------------------------------------------------------------------------------------------


def test_json_is_strict_and_keeps_six_digits_of_small_numbers():
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    found = measurement(
        run(1 / 3, kwh=1.23456789e-7), run(None, depth=2, kwh=1.0), failed=(Failure("gone", "No file."),)
    )
    content = json.loads(found.to_json(), parse_constant=refuse)
    assert list(content) == [
        "schema_version", "target", "device", "energy", "versions", "results", "failed_runs", "failed",
        "networks",
    ]  # fmt: skip
    assert content["schema_version"] == 1
    assert content["target"] == {"name": "shells", "hash": "0f" * 32, "classes": 6, "n_test": 200, "chance": 0.25}
    assert content["versions"] == {"torch": "2.9.0", "timm": "1.0.12"}
    first, second = content["results"]
    assert (first["accuracy"], first["standard_error"], first["kwh"]) == (0.333333, None, 1.23457e-7)
    assert (first["best"], first["n_seeds"], first["failed"]) == (True, 1, 0)
    assert (second["accuracy"], second["n_seeds"], second["failed"]) == (None, 0, 1)
    assert content["failed_runs"] == [
        {"source": "birds", "protocol": "truncate", "depth": 2, "layer": "blocks.1", "samples_per_class": 5, "seed": 0}
        | {"error": "out of memory"}
    ]
    assert content["failed"] == [{"source": "gone", "error": "No file."}]
    assert "1.23457e-07" in found.to_csv()


def test_saved_files_and_pictures(grid, tmp_path):
    paths = grid.save(tmp_path / "new")
    assert [path.name for path in paths] == [
        "measurement.json", "measurement.csv", "measurement.nc", *PICTURES, "report.html"
    ]  # fmt: skip
    assert visible(tmp_path / "new") == {path.name for path in paths}
    assert len(pd.read_csv(tmp_path / "new" / "measurement.csv")) == len(grid.table)


def test_where_nothing_came_to_an_end_there_are_no_pictures(tmp_path):
    cases = (("failed", measurement(run(None)), "Every run failed."), ("empty", measurement(), "No run has ended yet."))
    for name, found, said in cases:
        written = [path.name for path in found.save(tmp_path / name)]
        assert written == ["measurement.json", "measurement.csv", "measurement.nc", "report.html"]
        assert said in printed(found)


def test_the_best_is_by_the_metric_that_was_asked_for():
    rows = [run(0.9, depth=1, balanced_accuracy=0.4), run(0.5, depth=2, balanced_accuracy=0.6)]
    assert measurement(*rows).table["best"].tolist() == [True, False]
    balanced = measurement(*rows, metric="balanced-accuracy")
    assert balanced.table["best"].tolist() == [False, True]
    assert balanced.to_dict()["metric"] == "balanced-accuracy"
    assert "balanced accuracy" in printed(balanced)
