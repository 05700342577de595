"""A measurement as people meet it: means over seeds, labelled arrays, files, a table for the terminal, pictures."""

import io
import json
import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console

from transferscope.errors import InputError
from transferscope.report import plot
from transferscope.report.plots import transfer_plots
from transferscope.report.plots.drawing import hover_texts
from transferscope.report.terminal.measurement import print_measurement
from transferscope.results.measurement import PROTOCOLS, Measurement
from transferscope.runtime.failures import Failure
from transferscope.verbs.measure import plan
from transferscope.verbs.measure.rows import COLUMNS

pytestmark = pytest.mark.bounds

SETTINGS = {
    "target": "shells", "target_hash": "0f" * 32, "classes": 6, "n_test": 200, "chance": 0.25,
    "energy": "CPU power is estimated.", "device": "cpu", "versions": {"torch": "2.9.0", "timm": "1.0.12"},
}  # fmt: skip
PICTURES = ["accuracy-by-depth.png", "accuracy-by-samples.png", "accuracy-by-seconds.png", "accuracy-by-energy.png"]


def run(accuracy, protocol="truncate", depth=1, size=5, seed=0, *, source="birds", depths=3, layer=None, **costs):
    """Return a row of runs.csv; an accuracy of None is a run that failed."""
    done = accuracy is not None
    named = {"fne": "all", "scratch": ""}.get(protocol, f"blocks.{depth - 1}" if depth else "")
    numbers = {
        "accuracy": accuracy, "balanced_accuracy": accuracy, "seconds": 2.0, "flops": 3e9, "kwh": 4e-7,
        "kgco2e": 2e-7, "peak_memory": 1e8, "trials": 7.0, **costs,
    }  # fmt: skip
    return {
        "source": source, "target": "shells", "protocol": protocol, "depth": depth, "depths": depths,
        "layer": named if layer is None else layer, "samples_per_class": size, "samples": 6 * size, "seed": seed,
        **{name: value if done else math.nan for name, value in numbers.items()},
        "status": "done" if done else "failed: out of memory",
    }  # fmt: skip


def measurement(*runs, failed=(), **changes):
    return Measurement(pd.DataFrame(runs, columns=list(COLUMNS)), {**SETTINGS, **changes}, failed)


def printed(found, width=80):
    console = Console(width=width, file=io.StringIO())
    print_measurement(found, console)
    return console.file.getvalue()


def words(text):
    return [line.split() for line in text.splitlines()]


@pytest.fixture(scope="module")
def grid():
    """Two sources of different depth, protocols of every kind, two sizes, two seeds, one of the runs failed."""
    rows = []
    for source, depths in (("birds", 3), ("plain", 2)):
        for size in (5, 20):
            for seed in (0, 1):
                at = {"source": source, "depths": depths, "size": size, "seed": seed}
                level = 0.3 + size / 50 + seed / 100
                rows += [
                    run(level + depth / 50, depth=depth, seconds=depth * size, **at) for depth in range(1, depths + 1)
                ]
                rows += [run(level, "fne", depths, layer=name, **at) for name in plan.LAYER_SETS]
                rows.append(run(level - 0.1, "scratch", 0, seconds=0.0, **at))
    rows[0] = run(None, source="birds", depths=3, size=5, seed=0)
    return measurement(*rows)


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
    table = measurement(*(run(0.5, "fne", 3, layer=name) for name in plan.LAYER_SETS)).table
    assert sorted(table["layer"]) == sorted(plan.LAYER_SETS)
    assert table["best"].sum() == 1


def test_protocols_are_known_here_in_the_order_in_which_they_run():
    assert tuple(plan.PROTOCOLS) == PROTOCOLS


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
    assert [path.name for path in paths] == ["measurement.json", "measurement.csv", "measurement.nc", *PICTURES]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in paths)
    assert len(pd.read_csv(tmp_path / "new" / "measurement.csv")) == len(grid.table)


def test_where_nothing_came_to_an_end_there_are_no_pictures(tmp_path):
    for name, found in (("failed", measurement(run(None))), ("empty", measurement())):
        written = [path.name for path in found.save(tmp_path / name)]
        assert written == ["measurement.json", "measurement.csv", "measurement.nc"]
        assert "No run has come to an end without failing." in printed(found)


# --- the terminal -------------------------------------------------------------------------------------------------


def test_the_best_depths_are_printed_with_what_they_cost():
    found = measurement(
        run(0.5, depth=1), run(0.6, depth=2, seconds=12.345), run(0.8, depth=2, seed=1, seconds=12.345),
        run(0.65, "fne", 3, layer="upper 75%"), run(0.9, depth=3, size=20, seconds=1234.5, kwh=0.25),
    )  # fmt: skip
    text = printed(found)
    lines = words(text)
    assert ["5", "truncate", "2/3", "0.700", "±0.100", "12.3", "4e-07"] in lines
    assert ["fne", "(upper", "75%)", "3/3", "0.650", "2", "4e-07"] in lines
    assert ["20", "truncate", "3/3", "0.900", "1,234", "0.25"] in lines
    flat = " ".join(text.split())
    assert "in hindsight" in flat
    assert "mean over 1 to 2 seeds" in flat
    assert "always guessing the largest gives 0.250" in flat
    assert "CPU power is estimated." in flat
    assert ["20", "truncate", "blocks.2", "3/3", "0.900", "1,234", "0.25"] in words(printed(found, 120))


def test_with_several_sources_the_best_one_is_named():
    text = printed(measurement(run(0.5), run(0.6, source="[b]plain[/b]")))
    assert ["5", "truncate", "[b]plain[/b]", "1/3", "0.600", "2", "4e-07"] in words(text)
    assert "source and depth" in text


def test_lines_fit_into_80_columns_and_numbers_are_whole():
    name = "a-network-with-quite-a-long-name.in21k_ft_in1k"
    found = measurement(
        *(run(0.5, protocol, 12, depths=12, size=5000, seed=seed, seconds=123456.0, kwh=1.23e-5, source=source)
          for protocol in ("nearest_mean", "fne") for seed in (0, 1) for source in (name, f"{name}.more")),
    )  # fmt: skip
    text = printed(found)
    assert max(map(len, text.splitlines())) <= 80
    for whole in ("5000", "nearest_mean", "12/12", "0.500 ±0.000", "123,456", "1.23e-05"):
        assert whole in text


def test_what_failed_is_listed_with_its_reason():
    runs = [run(None, protocol, seed=seed) for protocol in ("truncate", "svm") for seed in (0, 1)]
    text = printed(measurement(*runs, run(0.5, seed=2), failed=(Failure("gone", "No file."),)))
    assert "gone failed: No file." in text
    assert "birds: 4 runs failed (truncate, svm): out of memory" in text
    many = measurement(*(run(None, source=f"source{i}") for i in range(13)))
    assert "… and 3 more; all are in runs.csv." in printed(many)


def test_energy_that_was_not_measured_is_not_shown(tmp_path):
    found = measurement(run(0.5, kwh=math.nan, kgco2e=math.nan), energy="Energy was not measured.")
    assert "kWh" not in printed(found)
    assert "Energy was not measured.\nNo run's electricity is known, so there is no accuracy-by-energy.png." in printed(
        found
    )
    assert [path.name for path in found.save(tmp_path)][3:] == PICTURES[:3]


# --- pictures -----------------------------------------------------------------------------------------------------


def curves(ax):
    """Return the drawn lines that have points, without horizontal ones."""
    return [line.get_xydata() for line in ax.get_lines() if line.get_marker() != "None" and len(line.get_xdata())]


def levels(ax, style):
    return [line.get_ydata()[0] for line in ax.get_lines() if line.get_linestyle() == style]


def test_accuracy_by_depth_has_a_line_for_each_size_with_bands_and_scratch(grid):
    given = Figure().subplots()
    ax = plot.accuracy_by_depth(grid.table, "birds", "truncate", given, chance=0.25)
    assert ax is given
    few, many = curves(ax)
    np.testing.assert_allclose(few, [[1, 0.43], [2, 0.445], [3, 0.465]])  # at depth 1 the first seed failed
    np.testing.assert_allclose(many, [[1, 0.725], [2, 0.745], [3, 0.765]])
    np.testing.assert_allclose(levels(ax, "--"), [0.305, 0.605])
    assert levels(ax, ":") == [0.25]
    # Two values that are 0.01 apart have a standard error of 0.005.
    band = ax.collections[1].get_paths()[0].get_extents()
    np.testing.assert_allclose([band.y0, band.y1], [0.72, 0.77])
    assert ax.get_xlabel() == "stages kept, of 3"
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["images of each class", "5", "20", "from scratch", "guessing the largest class"]


def test_sets_of_layers_stand_side_by_side_the_fewest_first(grid):
    ax = plot.accuracy_by_depth(grid.table, "birds", "fne", Figure().subplots(), legend=False)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["25%", "50%", "75%", "all"]
    np.testing.assert_allclose(curves(ax)[0], [[x, 0.405] for x in range(4)])
    assert ax.get_legend() is None


def test_learning_curves_show_the_best_depth(grid):
    ax = plot.learning_curves(grid.table, "birds", Figure().subplots())
    truncate, fne, scratch = curves(ax)
    np.testing.assert_allclose(truncate, [[5, 0.465], [20, 0.765]])
    np.testing.assert_allclose(fne, [[5, 0.405], [20, 0.705]])
    np.testing.assert_allclose(scratch, [[5, 0.305], [20, 0.605]])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["5", "20"]
    assert ax.get_xscale() == "log"


def test_accuracy_by_cost_shows_every_depth_and_those_that_cost_nothing(grid):
    ax = plot.accuracy_by_cost(grid.table, "plain", "seconds", Figure().subplots())
    pale, best = (np.array(points.get_offsets()) for points in ax.collections[:2])
    np.testing.assert_allclose(pale, [[5, 0.425], [20, 0.725]])
    np.testing.assert_allclose(best, [[10, 0.445], [40, 0.745]])
    small, large = ax.collections[1].get_sizes()
    assert small < large
    scratch = np.array(ax.collections[5].get_offsets())
    np.testing.assert_allclose(scratch, [[1, 0.305], [1, 0.605]])  # half of 2 seconds, the least there is
    assert ax.get_xlabel() == "seconds per transfer (0 is drawn at 1)"
    energy = plot.accuracy_by_cost(grid.table, "plain", "kwh", Figure().subplots())
    assert energy.get_xlabel() == "kWh per transfer"


def test_protocols_look_alike_in_all_pictures_and_differ_without_colour(grid):
    alone = plot.learning_curves(measurement(run(0.5, "scratch", 0)).table, "birds", Figure().subplots())
    among = plot.learning_curves(grid.table, "birds", Figure().subplots())
    assert alone.get_lines()[0].get_color() == among.get_lines()[2].get_color()
    assert alone.get_lines()[0].get_marker() == among.get_lines()[2].get_marker()
    assert len({line.get_marker() for line in among.get_lines()}) == 3


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda table: plot.learning_curves(table, "fish"), "`source` to be one of birds, plain, but"),
        (lambda table: plot.accuracy_by_depth(table, "birds", "svm"), "`protocol` to be one of truncate"),
        (lambda table: plot.accuracy_by_cost(table, "birds", "euro"), "`cost` to be one of seconds, kwh"),
    ],
)
def test_what_is_not_there_cannot_be_drawn(grid, draw, message):
    with pytest.raises(InputError, match=message):
        draw(grid.table)


def test_a_measurement_is_drawn_like_its_table_and_knows_what_guessing_gives(grid):
    ax = plot.learning_curves(grid, "birds", Figure().subplots())
    assert levels(ax, ":") == [0.25]
    assert levels(plot.learning_curves(grid, "birds", Figure().subplots(), chance=math.nan), ":") == []
    table = plot.learning_curves(grid.table, "birds", Figure().subplots())
    assert levels(table, ":") == []
    for mine, other in zip(curves(ax), curves(table), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_every_point_says_what_it_is(grid):
    line = plot.accuracy_by_depth(grid, "birds", "truncate", Figure().subplots()).get_lines()[0]
    assert hover_texts(line)[:2] == (
        "birds · truncate · blocks.0 (1/3) · 5 images of each class: 0.430",
        "birds · truncate · blocks.1 (2/3) · 5 images of each class: 0.445 ± 0.005",
    )
    scratch = plot.learning_curves(grid, "birds", Figure().subplots()).get_lines()[2]
    assert hover_texts(scratch)[1] == "birds · scratch · 20 images of each class: 0.605 ± 0.005"
    points = plot.accuracy_by_cost(grid, "plain", "seconds", Figure().subplots()).collections[1]
    assert hover_texts(points)[0] == "plain · truncate · blocks.1 (2/2) · 5 images of each class: 0.445 ± 0.005, 10 s"


@pytest.mark.parametrize("wrong", [None, pd.DataFrame({"accuracy": [0.5]})])
def test_something_else_than_a_measurement_is_an_input_error(wrong):
    with pytest.raises(InputError, match="`measurement` to be what `measure` returns, or its `table`, but got"):
        plot.learning_curves(wrong, "birds")


def titles(figure):
    return [ax.get_title() for ax in figure.axes]


def test_every_source_and_protocol_has_a_panel_also_where_all_runs_failed():
    found = measurement(
        run(0.5), run(0.6, "svm"), run(None, source="plain"), run(0.4, "svm", source="plain"), run(0.3, "scratch", 0)
    )
    figures = transfer_plots.figures(found.table)
    depth = figures["accuracy-by-depth.png"]
    assert titles(depth) == ["birds\ntruncate", "birds\nsvm", "plain\ntruncate", "plain\nsvm"]
    assert [text.get_text() for text in depth.axes[2].texts] == ["no result"]
    assert titles(figures["accuracy-by-samples.png"]) == ["birds", "plain"]


def test_of_many_sources_the_best_are_drawn_and_the_picture_says_so():
    found = measurement(*(run(0.1 + i / 20, source=f"source{i}", kwh=math.nan) for i in range(8)))
    figures = transfer_plots.figures(found.table)
    assert titles(figures["accuracy-by-seconds.png"]) == [f"source{i}" for i in range(2, 8)]
    for figure in figures.values():
        assert figure.get_supxlabel() == "The 6 best of 8 sources."


def test_scratch_alone_and_a_source_whose_cost_is_unknown_can_be_drawn(tmp_path):
    found = measurement(run(0.5, "scratch", 0), run(0.4, "scratch", 0, source="$x", seconds=math.nan, kwh=0.0))
    assert [path.name for path in found.save(tmp_path)][3:] == PICTURES
    assert titles(transfer_plots.figures(found.table)["accuracy-by-depth.png"]) == [
        r"\$x" "\nscratch",
        "birds\nscratch",
    ]


def test_sizes_that_would_overlap_are_not_all_written():
    table = measurement(*(run(0.5, size=size) for size in (1, 20, 21, 22, 1000))).table
    ax = plot.learning_curves(table, "birds", Figure().subplots())
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "22", "1000"]
