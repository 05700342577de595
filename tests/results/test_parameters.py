"""Parameter transferability as people meet it: means over seeds, labelled arrays, files, the terminal, pictures."""

import errno
import io
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from rich.console import Console

from transferscope.errors import InputError
from transferscope.report import plot
from transferscope.report.plots import parameter_plots
from transferscope.report.plots.drawing import hover_texts
from transferscope.report.terminal.parameters import print_parameters
from transferscope.results import labelled
from transferscope.results.parameters import CRITERIA, ParameterTransfer, over_seeds
from transferscope.runtime.failures import Failure

SETTINGS = {
    "targets": [
        {"name": "shells", "hash": "0f" * 32, "classes": 6, "n_test": 200},
        {"name": "signs", "hash": "1e" * 32, "classes": 4, "n_test": 100},
    ],
    "initial": {"birds": "redrawn, seeds 0 to 4", "plain": "given: plain.initial.pt"},
    "epochs": 40, "optimiser": "sgd", "learning_rate": 1e-7, "schedule": "constant", "matched_steps": 1200,
    "matched_loss": 0.25, "redraws": 5, "groups": "auto", "device": "cpu", "versions": {"torch": "2.9.0", "timm": "1"},
}  # fmt: skip
TABLES = ["parameters.json", "parameters.csv", "parameters-runs.csv", "trajectory.csv", "parameters.nc"]
STEPS = {"epochs": 80.0, "steps": 20.0, "loss": 12.5}
UNMOVED = "the layer did not move from the source"


def transfer(values, source="birds", target="shells", size=20, seed=0, *, shares=(1, 2, 3), spread=0.1, layers=None):
    """Return the layers, runs and trajectory of one fine-tuning; T is `values` times the criterion's share."""
    names = layers or [f"blocks.{number}" for number in range(len(values))]
    run = {"source": source, "target": target, "samples_per_class": size, "seed": seed}
    rows, runs = [], []
    for (criterion, step), share in zip(STEPS.items(), shares, strict=True):
        ratios = share * np.array(values, dtype=float)
        rows += [
            {
                **run, "samples": 6 * size, "criterion": criterion, "step": step if share == share else math.nan,
                "depth": depth, "layer": name, "transferability": ratio,
                "spread": spread if math.isfinite(ratio) else math.nan,
                "relative_change": depth / 100, "cka": 1 - depth / 10 if criterion == "epochs" else math.nan,
                "gradient_snr": depth / 8,
                "reason": UNMOVED if math.isinf(ratio) else "never reached" if math.isnan(ratio) else "",
            }
            for depth, (name, ratio) in enumerate(zip(names, ratios, strict=True), start=1)
        ]  # fmt: skip
        runs.append({
            **run, "samples": 6 * size, "classes": 6, "criterion": criterion, "step": rows[-1]["step"],
            "loss": 0.5 * share, "transferability": ratios.mean(), "spread": spread, "accuracy": 0.75 + seed / 100,
            "gradient_snr": 0.2, "frechet": math.nan, "mmd": math.nan, "within": 0.5, "between": 0.25,
        })  # fmt: skip
    path = [
        {**run, "step": step, "epoch": step / 2, "loss": 1 / step, "depth": depth, "layer": name,
         "transferability": 10 * value / step}
        for step in (1, 2, 4)
        for depth, (name, value) in enumerate(zip(names, values, strict=True), start=1)
    ]  # fmt: skip
    return rows, runs, path


def result(*transfers, failed=(), regression=None, correlations=None, **changes):
    layers, runs, trajectory = (
        pd.DataFrame([row for part in parts for row in part]) for parts in zip(*transfers, strict=True)
    )
    empty = pd.DataFrame()
    empty.attrs["reason"] = "birds (steps): 2 targets, and at least 4 are needed"
    return ParameterTransfer(
        layers, runs, trajectory, empty if regression is None else regression,
        pd.DataFrame() if correlations is None else correlations, {**SETTINGS, **changes}, tuple(failed),
    )  # fmt: skip


def printed(found, width=80):
    console = Console(width=width, file=io.StringIO())
    print_parameters(found, console)
    return console.file.getvalue()


def flat(text):
    return " ".join(text.split())


def words(text):
    return [line.split() for line in text.splitlines()]


@pytest.fixture(scope="module")
def grid():
    """Two sources of different depth, two targets, two sizes, two seeds; one layer of one of them does not move."""
    return result(*(
        transfer(
            [(1 + seed) * value for value in (*(level * depth for depth in range(1, depths)), last)],
            source, target, size, seed,
        )
        for source, depths, last in (("birds", 3, 2.0), ("plain", 2, 9.0))
        for target, level in (("shells", 1.0), ("signs", 4.0))
        for size in (5, 20)
        for seed in (0, 1)
    ))  # fmt: skip


@pytest.fixture(scope="module")
def stuck():
    """A layer that never moved, and a transfer that never came to the loss that runs are matched at."""
    return result(
        transfer([2.0, math.inf, 4.0], target="shells"),
        transfer([1.0, 2.0, 3.0], "birds", "signs", shares=(1, 2, np.nan)),
    )


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
    assert [path.name for path in paths] == [*TABLES, *pictures]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in paths)
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
    write = Path.write_bytes

    def full(path, data):
        if path.name == "parameters.nc":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(parameter_plots, "figures", lambda _: {})
    with pytest.raises(InputError, match="No space left on device"):
        grid.save(tmp_path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("parameters.json", b"old")]


def test_without_any_transfer_there_are_tables_alone(grid, tmp_path):
    none = pd.DataFrame()
    tables = (table.iloc[:0] for table in (grid.layers, grid.runs, grid.trajectory))
    found = ParameterTransfer(*tables, none, none, SETTINGS, (Failure("gone", "No file."),))
    assert [path.name for path in found.save(tmp_path)] == TABLES
    text = printed(found)
    assert "No source has been moved to any target." in text
    assert "gone failed: No file." in text


# --- the terminal -------------------------------------------------------------------------------------------------


def test_one_transfer_is_printed_layer_by_layer():
    text = printed(result(transfer([1.0, 5.0, 3.0], spread=0.25)))
    assert text.splitlines()[0].startswith(
        "birds: mean T 3.00 after 40 epochs; most transferable blocks.1 (5.00), least"
    )
    assert "least blocks.0 (1.00)." in flat(text)
    lines = words(text)
    assert ["shells", "20", "epochs", "80", "0.500", "3.00", "±0.25", "0.750"] in lines
    assert ["steps", "20", "1.000", "6.00", "±0.25"] in lines
    assert ["loss", "12.5", "1.500", "9.00", "±0.25"] in lines
    assert ["layer", "T", "epochs", "T", "steps", "T", "loss", "change", "CKA", "SNR"] in lines
    assert ["blocks.1", "5.00", "10.00", "15.00", "0.020", "0.800", "0.250"] in lines
    whole = flat(text)
    assert "matched steps (1,200)" in whole
    assert "matched training loss (0.250 of that of guessing)" in whole
    assert "Initial weights of birds: redrawn, seeds 0 to 4." in whole
    assert "from those of birds is unknown: no `images` in the zoo" in whole
    assert "No regression of T for birds (steps): 2 targets, and at least 4 are needed." in whole
    assert "over seeds" not in whole


def test_several_targets_and_sizes_are_printed_without_layers(grid):
    text = printed(grid)
    # Layers at 1, 2 and 2 and at 4, 8 and 2, once and twice: means 5/3 × 1.5 and 14/3 × 1.5.
    assert "birds: mean T 4.75 after 40 epochs (2.50 to 7.00 over targets and images)" in flat(text)
    assert ["shells", "5", "epochs", "80", "0.500", "2.50", "±0.83", "±0.10", "0.755"] in words(text)
    assert ["20", "epochs", "80", "0.500", "2.50", "±0.83", "±0.10", "0.755"] in words(text)
    assert "CKA" not in text
    assert "±0.83: standard error" not in text
    assert "standard error over seeds" in flat(text)
    assert "Initial weights of plain: given: plain.initial.pt." in text


def test_what_is_known_of_the_source_images_and_initial_weights_is_not_said_to_be_missing():
    found = result(transfer([1.0, 2.0], spread=math.nan))
    text = printed(ParameterTransfer(
        found.layers, found.runs.assign(frechet=0.5), found.trajectory, pd.DataFrame(), pd.DataFrame(), SETTINGS
    ))  # fmt: skip
    assert "zoo" not in text
    assert "redraws" not in text
    assert "regression" not in text


def test_infinite_layers_and_failures_are_listed_with_their_reasons(stuck):
    text = flat(printed(stuck))
    assert "mean T ∞ after 40 epochs (2.00 to ∞" in text
    assert f"birds on shells: T of blocks.1 is infinite or unknown: {UNMOVED}" in text
    assert "birds on signs: T of every layer is infinite or unknown: never reached" in text
    many = result(transfer([1.0, 2.0]), failed=[Failure(f"net{number}", "No file.") for number in range(12)])
    assert "net9 failed: No file. … and 2 more; all are in parameters.json." in flat(printed(many))


def test_what_goes_with_t_is_printed_in_short():
    fit = {"source": "birds", "r_squared": 0.625, "n_targets": 5}
    fits = pd.DataFrame([
        {**fit, "criterion": "epochs", "predictor": "within", "coefficient": 9.0, "lower": 8.0, "upper": 10.0},
        {**fit, "criterion": "steps", "predictor": "log_samples", "coefficient": -0.5, "lower": -0.75, "upper": 0.25},
        {**fit, "criterion": "steps", "predictor": "within", "coefficient": 0.25, "lower": math.nan, "upper": math.nan},
    ])  # fmt: skip
    rank = {"source": "birds", "criterion": "steps", "lower": 0.0, "upper": 1.0}
    ranks = pd.DataFrame([
        {**rank, "level": "runs", "companion": "mmd", "before_transfer": True, "spearman": 0.5},
        {**rank, "level": "runs", "companion": "frechet", "before_transfer": True, "spearman": math.nan},
        {**rank, "level": "runs", "companion": "later", "before_transfer": False, "spearman": 0.5},
    ])  # fmt: skip
    text = flat(printed(result(transfer([1.0, 2.0]), regression=fits, correlations=ranks)))
    assert "standard deviation of log_samples -0.50 (-0.75 to +0.25), within +0.25; R² 0.62 over 5 targets." in text
    assert "rank correlation of T over runs with mmd +0.50 (+0.00 to +1.00)." in text


def test_names_that_look_like_markup_are_printed_as_they_are():
    text = printed(result(transfer([1.0, 2.0], "[b]net[/b]", "[red]", layers=["[a]", "[/b]"])))
    for name in ("[b]net[/b]: mean T", "[red]", "[a]", "[/b]"):
        assert name in text


def test_lines_fit_into_80_columns_and_numbers_are_whole():
    name = "a-data-set-with-quite-a-long-name"
    layers = [f"encoder.layers.encoder_layer_{number}.self_attention.projection" for number in range(2)]
    found = result(*(transfer([1234.0, 5.0], target=name, size=5000, seed=seed, layers=layers) for seed in (0, 1)))
    text = printed(found)
    assert max(map(len, text.splitlines())) <= 80
    for whole in ("5000", "epochs", "620 ±0.00", "±0.10", "0.755", "1,234"):
        assert whole in text


# --- pictures -----------------------------------------------------------------------------------------------------


def labels(ticks):
    return [tick.get_text() for tick in ticks]


def curves(ax):
    """Return the drawn lines that have markers, without those for what is infinite."""
    return [line.get_xydata() for line in ax.get_lines() if line.get_marker() not in ("None", "^")]


def legend(owner):
    return [text.get_text() for text in owner.texts]


def test_the_heatmap_has_layers_by_targets_the_first_at_the_bottom(grid):
    given = Figure().subplots()
    ax = plot.parameter_heatmap(grid.layers, "birds", samples_per_class=5, ax=given)
    assert ax is given
    np.testing.assert_allclose(ax.collections[0].get_array(), np.array([[1, 4], [2, 8], [2, 2]]) * 1.5)
    assert labels(ax.get_xticklabels()) == ["shells", "signs"]
    assert labels(ax.get_yticklabels()) == ["blocks.0", "blocks.1", "blocks.2"]
    low, high = ax.get_ylim()
    assert low < high
    assert [text.get_text() for text in ax.texts] == ["1.5", "6", "3", "12", "3", "3"]
    assert not isinstance(ax.collections[0].norm, LogNorm)
    assert ax.get_title() == "birds\n5 images of each class\nafter all epochs"
    assert len(ax.collections) == 1


def test_infinite_cells_are_hatched_and_unknown_ones_blank(stuck):
    ax = plot.parameter_heatmap(stuck.layers, "birds", criterion="loss", ax=Figure().subplots())
    cells, hatched = ax.collections
    assert np.ma.getmaskarray(cells.get_array()).tolist() == [[False, True], [True, True], [False, True]]
    assert hatched.get_hatch()
    (path,) = hatched.get_paths()
    assert path.get_extents().get_points().tolist() == [[0, 1], [1, 2]]
    assert ax.get_xlabel() == "hatched: infinite"


@pytest.mark.parametrize(("largest", "logarithmic"), [(10.0, False), (10.5, True)])
def test_more_than_a_decade_is_drawn_on_a_logarithmic_scale(largest, logarithmic):
    layers = result(transfer([1.0, largest])).layers
    ax = plot.parameter_heatmap(layers, "birds", ax=Figure().subplots())
    assert isinstance(ax.collections[0].norm, LogNorm) == logarithmic
    ax = plot.parameter_transferability(layers, "birds", ax=Figure().subplots())
    assert (ax.get_yscale() == "log") == logarithmic


def test_many_cells_are_not_annotated_and_their_layers_thinned():
    names = [f"encoder.layers.encoder_layer_{number}.self_attention" for number in range(50)]
    layers = result(transfer(range(1, 51), layers=names)).layers
    ax = plot.parameter_heatmap(layers, "birds", ax=Figure().subplots())
    assert list(ax.texts) == []
    shown = labels(ax.get_yticklabels())
    step = 50 // len(shown) + 1
    assert shown == [f"…encoder_layer_{number}…" for number in range(0, 50, step)]
    assert 10 < len(shown) < 50
    ax = plot.parameter_transferability(layers, "birds", ax=Figure().subplots())
    assert labels(ax.get_xticklabels())[0] == "…encoder_layer_0…"


def test_without_a_size_the_most_that_targets_share_is_drawn():
    both = [transfer([1.0, 2.0], target=name, size=5) for name in ("shells", "signs")]
    layers = result(*both, transfer([3.0, 4.0], size=20)).layers
    ax = plot.parameter_heatmap(layers, "birds", ax=Figure().subplots())
    assert "5 images of each class" in ax.get_title()
    np.testing.assert_allclose(ax.collections[0].get_array(), [[1, 1], [2, 2]])
    layers = result(transfer([3.0, 4.0], size=20), transfer([1.0, 2.0], target="signs", size=7)).layers
    ax = plot.parameter_heatmap(layers, "birds", ax=Figure().subplots())
    assert labels(ax.get_xticklabels()) == ["shells (20)", "signs (7)"]
    np.testing.assert_allclose(ax.collections[0].get_array(), [[3, 1], [4, 2]])


def test_over_depth_has_a_line_for_each_target_with_bands_and_a_line_at_one(grid):
    ax = plot.parameter_transferability(
        grid.layers, "birds", criterion="steps", samples_per_class=20, ax=Figure().subplots()
    )
    shells, signs = curves(ax)
    np.testing.assert_allclose(shells, [[1, 3], [2, 6], [3, 6]])
    np.testing.assert_allclose(signs, [[1, 12], [2, 24], [3, 6]])
    # At the first layer T is 2 and 4: a standard error of 1.
    band = ax.collections[0].get_paths()[0].vertices
    assert sorted({y for x, y in band if x == 1}) == [2, 4]
    assert [line.get_ydata()[0] for line in ax.get_lines() if line.get_linestyle() == "--"] == [1]
    assert legend(ax.get_legend()) == ["shells", "signs", "T = 1", "standard error over seeds"]
    assert len({line.get_marker() for line in ax.get_lines()[:2]}) == 2


def test_with_one_seed_bands_are_the_spread_over_redraws_and_with_given_weights_there_are_none():
    layers = result(transfer([2.0, 4.0], spread=0.5)).layers
    ax = plot.parameter_transferability(layers, "birds", ax=Figure().subplots())
    box = ax.collections[0].get_paths()[0].get_extents()
    assert (box.y0, box.y1) == (1.5, 4.5)
    assert legend(ax.get_legend())[-1] == "standard deviation\nover redraws"
    layers = result(transfer([2.0, 4.0], spread=math.nan)).layers
    assert legend(plot.parameter_transferability(layers, "birds", ax=Figure().subplots()).get_legend()) == [
        "shells",
        "T = 1",
    ]


def test_an_infinite_layer_leaves_a_gap_with_a_mark_at_the_top(stuck):
    ax = plot.parameter_transferability(stuck.layers, "birds", ax=Figure().subplots())
    line, points = ax.get_lines()[:2]
    np.testing.assert_array_equal(line.get_xydata(), [[1, 2], [2, np.nan], [3, 4]])
    np.testing.assert_array_equal(points.get_xydata(), [[1, 2], [3, 4]])
    assert hover_texts(points) == ("birds on shells · blocks.0: 2", "birds on shells · blocks.2: 4")
    (mark,) = (line for line in ax.get_lines() if line.get_marker() == "^")
    assert hover_texts(mark) == ("birds on shells · blocks.1: inf",)
    assert mark.get_xdata().tolist() == [2]
    assert mark.get_transform() == ax.get_xaxis_transform()
    assert "infinite" in legend(ax.get_legend())


def test_over_steps_has_the_mean_of_the_layers_that_moved_for_each_size():
    runs = [transfer([1.0, 3.0], size=20), transfer([3.0, 5.0], size=20, seed=1), transfer([4.0, math.inf], size=5)]
    ax = plot.parameter_steps(result(*runs).trajectory, "birds", "shells", Figure().subplots())
    many, few = curves(ax)
    np.testing.assert_allclose(many, [[1, 30], [2, 15], [4, 7.5]])
    np.testing.assert_allclose(few, [[1, 40], [2, 20], [4, 10]])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert legend(ax.get_legend()) == ["5", "20", "T = 1"]
    # Means of 20 and 40 after one step: a standard error of 10.
    band = ax.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == (5, 40)


def test_a_source_of_which_no_layer_moved_can_be_drawn(tmp_path):
    names = [path.name for path in result(transfer([math.inf, math.inf])).save(tmp_path)]
    assert len(names) == len(TABLES) + 3


def test_names_that_are_alike_when_they_are_shortened_keep_their_lines():
    targets = [f"a-target-with-quite-a-long-name-of-{number}-images" for number in range(2)]
    layers = result(*(transfer([1.0, 2.0], target=target) for target in targets)).layers
    ax = plot.parameter_transferability(layers, "birds", ax=Figure().subplots())
    first, second = ax.get_legend().legend_handles[:2]
    assert first.get_color() != second.get_color()


def test_one_fine_tuning_is_drawn_over_its_layers():
    array = labelled.parameter_array(np.array([2.0, math.inf, 4.0]), ["a", "b", "c"], {"spread": [0.5, math.nan, 1.0]})
    ax = plot.parameter_transferability(array, ax=Figure().subplots())
    line, points, infinite = ax.get_lines()[:3]
    np.testing.assert_array_equal(line.get_xydata(), [[1, 2], [2, np.nan], [3, 4]])
    assert (hover_texts(points), hover_texts(infinite)) == (("a: 2", "c: 4"), ("b: inf",))
    assert labels(ax.get_xticklabels()) == ["a", "b", "c"]
    assert legend(ax.get_legend()) == ["T = 1", "standard deviation\nover redraws", "infinite"]
    certain = plot.parameter_transferability(array.drop_vars("spread"), ax=Figure().subplots())
    assert legend(certain.get_legend()) == ["T = 1", "infinite"]


def test_a_result_is_drawn_like_its_tables_and_its_only_source_need_not_be_named(grid):
    drawn = [
        curves(plot.parameter_transferability(each, "birds", Figure().subplots()))[0].tolist()
        for each in (grid, grid.layers, grid.layers[grid.layers["source"] == "birds"])
    ]
    assert drawn[0] == drawn[1] == drawn[2]
    only = plot.parameter_transferability(grid.layers[grid.layers["source"] == "birds"], ax=Figure().subplots())
    assert curves(only)[0].tolist() == drawn[0]
    heat = plot.parameter_heatmap(grid, "plain", ax=Figure().subplots())
    # Four numbers are written and drawn; the second layer on shells has T 9, twice that with the second seed.
    assert hover_texts(heat.collections[0])[2] == "plain on shells · blocks.1: 13.5"


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda found: plot.parameter_transferability(found),
            "`source` to be one of birds, plain, but got None",
        ),
        (
            lambda found: plot.parameter_transferability(found.dataset["transferability"]),
            r"to have the dimension \('layer',\) and at least one layer, but got",
        ),
        (
            lambda found: plot.parameter_heatmap(found.table[["source"]], "birds"),
            "`transferability` to be what .* returns, or its `layers`, but got a table with other columns",
        ),
        (
            lambda found: plot.parameter_steps([1], "birds", "shells"),
            "`transferability` to be what .* returns, or its `trajectory`, but got list",
        ),
        (
            lambda found: plot.parameter_heatmap(found.layers, "fish"),
            "`source` to be one of birds, plain, but got 'fish'",
        ),
        (
            lambda found: plot.parameter_transferability(found.layers, "birds", criterion="time"),
            "`criterion` to be one of epochs, steps, loss, but got 'time'",
        ),
        (
            lambda found: plot.parameter_heatmap(found.layers, "birds", samples_per_class=7),
            "`samples_per_class` to be one of 5, 20, but got 7",
        ),
        (
            lambda found: plot.parameter_steps(found.trajectory, "fish", "shells"),
            "`source` to be one of birds, plain",
        ),
        (
            lambda found: plot.parameter_steps(found.trajectory, "birds", "fish"),
            "`target` to be one of shells, signs",
        ),
    ],
)
def test_what_is_not_there_cannot_be_drawn(grid, draw, message):
    with pytest.raises(InputError, match=message):
        draw(grid)


def test_every_source_has_three_pictures_with_shared_scales(grid):
    figures = parameter_plots.figures(grid)
    assert list(figures) == [
        f"transferability-{source}-{name}.png"
        for source in ("birds", "plain")
        for name in ("heatmap", "depth", "steps")
    ]
    heat = figures["transferability-birds-heatmap.png"]
    panels = heat.axes[:3]
    assert [ax.get_title() for ax in panels] == list(CRITERIA.values())
    assert len({id(ax.collections[0].norm) for ax in panels}) == 1
    # From 1.5 after all epochs to 12 × 3 at matched loss.
    assert (panels[0].collections[0].norm.vmin, panels[0].collections[0].norm.vmax) == (1.5, 36)
    assert heat.get_suptitle() == "birds, 20 images of each class"
    depth = figures["transferability-birds-depth.png"]
    assert [ax.get_title() for ax in depth.axes] == list(CRITERIA.values())
    assert len({ax.get_ylim() for ax in depth.axes}) == 1
    assert {ax.get_yscale() for ax in depth.axes} == {"log"}
    steps = figures["transferability-birds-steps.png"]
    assert [ax.get_title() for ax in steps.axes] == ["shells", "signs"]
    assert legend(steps.legends[0]) == ["5", "20", "T = 1"]


def test_of_many_targets_six_are_followed_and_the_picture_says_so():
    figures = parameter_plots.figures(result(*(transfer([1.0, 2.0], "a$b", f"target{i}") for i in range(8))))
    steps = figures["transferability-a$b-steps.png"]
    assert [ax.get_title() for ax in steps.axes] == [f"target{i}" for i in range(6)]
    assert steps.get_suptitle() == r"a\$b, 6 of 8 targets"
