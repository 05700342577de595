"""A comparison as people meet it: the closest layers, JSON, files that come together or not at all."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from comparisons import comparison, printed, similarity
from result_folders import visible

from transferscope.errors import InputError
from transferscope.results.files import rounded, write_together

pytestmark = pytest.mark.bounds

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


# --- JSON ---------------------------------------------------------------------------------------------------------


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
    assert [path.name for path in paths] == ["compare.nc", "compare_linear_cka.png", "compare_rsa.png", "report.html"]
    assert visible(paths[0].parent) == {path.name for path in paths}
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
    assert visible(tmp_path) == {"one"}
    assert (tmp_path / "one").read_bytes() == b"old"


def test_files_are_replaced_and_others_left_alone(tmp_path):
    for name in ("one", "mine"):
        (tmp_path / name).write_bytes(b"old")
    paths = write_together(tmp_path, {"one": b"new", "two": b"also"})
    assert paths == [tmp_path / "one", tmp_path / "two"]
    assert {name: (tmp_path / name).read_bytes() for name in visible(tmp_path)} == {
        "one": b"new", "two": b"also", "mine": b"old",
    }  # fmt: skip


def test_what_hdf5_says_of_a_full_disk_is_a_sentence(tmp_path, monkeypatch):
    def full(_data, _path, **_more):
        raise OSError(
            "Can't synchronously write data (file write failed: time = now\n, errno = 28, error message = 'No"
        )

    monkeypatch.setattr(xr.Dataset, "to_netcdf", full)
    with pytest.raises(InputError, match=r"is not \(No space left on device\); choose another one with -o"):
        comparison(similarity([[0.1]])).save(tmp_path)
    assert visible(tmp_path) == set()


def test_pictures_that_a_new_comparison_lacks_go_away(tmp_path):
    (tmp_path / "compare_mine.png").write_bytes(b"of another hand")
    comparison(similarity([[0.1]]), similarity([[0.3]], "rsa")).save(tmp_path)
    comparison(similarity([[0.1]])).save(tmp_path)
    assert visible(tmp_path) == {"compare.nc", "compare_linear_cka.png", "compare_mine.png", "report.html"}
