"""A comparison as people meet it: the closest layers, JSON, heatmaps, files that come together or not at all."""

import errno
import io
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from transferscope.errors import InputError
from transferscope.report.terminal.comparison import print_comparison
from transferscope.results import labelled
from transferscope.results.comparison import Comparison
from transferscope.results.files import rounded, write_together
from transferscope.results.summary import Reference, TargetSummary

pytestmark = pytest.mark.bounds

TARGET = TargetSummary("shells", 90, 6, "0f" * 32)


def similarity(values, measure="linear_cka", informative=None, names_x="abc", names_y="vwxyz", **known):
    values = np.array(values, dtype=float)
    shown = np.ones(values.shape, bool) if informative is None else np.array(informative)
    cells = {"informative": shown, **{name: np.array(array) for name, array in known.items()}}
    return labelled.similarity_array(
        values, list(names_x)[: len(values)], list(names_y)[: values.shape[1]], cells,
        measure=measure, reduce="flatten", standardize=0, estimator="exact", x="birds", y="plain",
    )  # fmt: skip


def comparison(*arrays, x="birds", y="plain", reference=None):
    return Comparison(x, y, TARGET, reference, {array.attrs["measure"]: array for array in arrays})


def printed(found, width=100):
    console = Console(width=width, file=io.StringIO())
    print_comparison(found, console)
    return console.file.getvalue()


# --- the closest layer --------------------------------------------------------------------------------------------


def test_the_closest_layer_is_the_most_similar_one_that_means_something():
    found = comparison(
        similarity(
            [[0.2, 0.7, 0.9], [0.8, 0.3, 0.4], [np.nan, 1.0, 0.6]],
            informative=[[True, True, False], [True, True, True], [False, False, False]],
            standard_error=[[0.01, 0.02, 0.03], [0.04, 0.05, 0.06], [np.nan, 0.07, 0.08]],
        )
    ).closest
    assert found["layer_y"].tolist() == ["w", "v", "w"]
    assert found["value"].tolist() == [0.7, 0.8, 1.0]
    assert found["standard_error"].tolist() == [0.02, 0.04, 0.07]
    assert found["informative"].tolist() == [True, True, False]


def test_less_information_imbalance_is_closer():
    found = comparison(similarity([[0.9, 0.1], [1.0, 1.2]], "information_imbalance"), similarity(np.eye(2))).closest
    assert found["layer_y"].tolist() == ["w", "v", "v", "w"]


def test_a_layer_of_which_nothing_is_known_has_no_closest():
    found = comparison(similarity([[np.nan, np.nan], [0.3, 0.4]], informative=[[False, False], [True, True]]))
    assert found.closest["layer_y"].tolist() == ["", "w"]
    assert "nan" in printed(found)


def test_in_one_network_a_layer_is_not_its_own_closest():
    same = similarity([[1.0, 0.2, 0.4], [0.2, 1.0, 0.9], [0.4, 0.9, 1.0]], names_x="abc", names_y="abc")
    assert comparison(same, x="birds", y="birds").closest["layer_y"].tolist() == ["c", "c", "b"]
    assert comparison(same).closest["layer_y"].tolist() == ["a", "b", "c"]
    alone = similarity([[1.0]], names_y="a")
    assert comparison(alone, x="birds", y="birds").closest["layer_y"].tolist() == [""]


# --- text ---------------------------------------------------------------------------------------------------------


def test_the_table_shows_what_is_known_and_no_more():
    plain = printed(comparison(similarity([[0.25, 0.5]], "rsa")))
    assert "RSA" in plain
    assert ["a", "w", "0.500"] in [line.split() for line in plain.splitlines()]
    for absent in ("±", " p ", "says nothing", "nan", "permutations"):
        assert absent not in plain
    reference = Reference("compact residual network", 0.5, 200, 80, 31, "early")
    full = printed(
        comparison(
            similarity(
                [[0.25, 0.5]], informative=[[False, False]], standard_error=[[0.125, 0.0625]], p_value=[[1, 0.04]]
            ),
            reference=reference,
        )
    )
    assert ["a", "w", "0.500", "0.062", "0.04", "says", "nothing"] in [line.split() for line in full.splitlines()]
    assert "90 images of shells" in full
    assert "compact residual network, trained on 80 of them for 31 epochs (early), accuracy 0.500 on 200" in " ".join(
        full.split()
    )


def test_names_that_look_like_markup_are_printed_as_they_are():
    array = similarity([[0.5]], names_x=["[red]a[/red]"], names_y=["[b]"])
    assert ["[red]a[/red]", "[b]", "0.500"] in [line.split() for line in printed(comparison(array)).splitlines()]


def test_json_is_strict_and_rounded():
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    text = comparison(similarity([[np.nan, 1 / 3], [-1e-9, 1.0]], informative=[[False, True], [True, True]])).to_json()
    content = json.loads(text, parse_constant=refuse)
    assert content["measures"]["linear_cka"]["values"] == [[None, 0.333333], [0.0, 1.0]]
    assert content["measures"]["linear_cka"]["informative"] == [[False, True], [True, True]]
    assert (content["layers_x"], content["layers_y"]) == (["a", "b"], ["v", "w"])
    assert content["reference"] is None


def test_rounding_goes_all_the_way_down():
    assert rounded({"a": [(1 / 3, np.inf)], "b": {"c": -0.0}, "d": True, "e": "1.0000000001", "f": 7}) == {
        "a": [[0.333333, None]], "b": {"c": 0.0}, "d": True, "e": "1.0000000001", "f": 7,
    }  # fmt: skip
    assert str(rounded(-1e-9)) == "0.0"


# --- files --------------------------------------------------------------------------------------------------------


def test_saved_files_load_again(tmp_path):
    one = similarity([[0.1, 0.2]], informative=[[True, False]], standard_error=[[0.01, np.nan]])
    other = similarity([[0.3, 0.4]], "rsa")
    paths = comparison(one, other).save(tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["compare.nc", "compare_linear_cka.png", "compare_rsa.png"]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(path.name for path in paths)
    with xr.open_dataset(paths[0], engine="h5netcdf") as dataset:
        assert set(dataset.data_vars) == {
            "linear_cka", "linear_cka_informative", "linear_cka_standard_error", "rsa", "rsa_informative",
        }  # fmt: skip
        np.testing.assert_array_equal(dataset["linear_cka"], one)
        np.testing.assert_array_equal(dataset["linear_cka_informative"], [[True, False]])
        np.testing.assert_array_equal(dataset["linear_cka_standard_error"], [[0.01, np.nan]])
        np.testing.assert_array_equal(dataset["rsa"].sel(layer_x="a"), [0.3, 0.4])


@pytest.mark.parametrize("broken", ["one", "two"])
def test_a_disk_that_fills_up_changes_no_file(tmp_path, monkeypatch, broken):
    (tmp_path / "one").write_bytes(b"old")
    write = Path.write_bytes

    def full(path, data):
        if path.name == broken:
            write(path, data[:1])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_together(tmp_path, {"one": b"new", "two": b"new"})
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert (tmp_path / "one").read_bytes() == b"old"


def test_files_are_replaced_and_others_left_alone(tmp_path):
    for name in ("one", "mine"):
        (tmp_path / name).write_bytes(b"old")
    paths = write_together(tmp_path, {"one": b"new", "two": b"also"})
    assert paths == [tmp_path / "one", tmp_path / "two"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "one": b"new", "two": b"also", "mine": b"old",
    }  # fmt: skip
