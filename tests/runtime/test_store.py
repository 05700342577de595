import os

import numpy as np
import pytest

from transferscope.errors import TransferscopeWarning
from transferscope.runtime import store as store_module
from transferscope.runtime.store import Store, digest, home, write_atomically


@pytest.fixture
def arrays():
    return {
        "z": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.array([1, 2], dtype=np.int64),
        "scalar": np.array(7),
        "strided": np.arange(12.0).reshape(3, 4)[:, ::2].T,
    }


def test_an_entry_comes_back_with_its_order_types_and_record(tmp_path, arrays):
    store = Store(tmp_path)
    store.put("features", "k1", arrays, {"note": "größe", "n": 3})
    found, record = Store(tmp_path).get("features", "k1")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)
    assert record == {"note": "größe", "n": 3}


def test_some_arrays_and_rows_may_be_read_alone(tmp_path, arrays):
    store = Store(tmp_path)
    store.put("features", "k1", arrays, {})
    found, _ = store.get("features", "k1", only=["strided", "z"], rows=[1, 0])
    assert list(found) == ["z", "strided"]
    for name, array in found.items():
        np.testing.assert_array_equal(array, arrays[name][[1, 0]])


def test_entries_below_a_key_are_listed_from_the_oldest(tmp_path, arrays):
    store = Store(tmp_path)
    assert store.below("features", "k1") == []
    for name, when in (("b", 1), ("c", 3), ("a", 2)):
        store.put("features", f"k1/{name}", arrays, {"name": name})
        (path,) = tmp_path.rglob(f"{name}.safetensors")
        os.utime(path, (when, when))
    store.put("features", "k1", arrays, {})
    store.put("scores", "k1/d", arrays, {})
    assert store.below("features", "k1") == ["b", "a", "c"]
    assert store.get("features", "k1/a")[1] == {"name": "a"}


def test_nothing_is_found_under_another_key_or_kind(tmp_path, arrays):
    store = Store(tmp_path)
    store.put("features", "k1", arrays, {})
    assert store.get("features", "k2") is None
    assert store.get("scores", "k1") is None


def test_a_damaged_entry_is_a_miss_and_can_be_written_again(tmp_path, arrays):
    store = Store(tmp_path)
    store.put("features", "k1", arrays, {})
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:40])
    assert store.get("features", "k1") is None
    store.put("features", "k1", arrays, {})
    assert store.get("features", "k1") is not None


def test_a_folder_that_cannot_be_written_warns_once_and_costs_only_the_cache(tmp_path, arrays):
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file")
    with pytest.warns(TransferscopeWarning, match="TRANSFERSCOPE_HOME"):
        store.put("features", "k1", arrays, {})
    store.put("features", "k2", arrays, {})
    assert store.get("features", "k1") is None


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    path.write_text("old")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store_module.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_digest_depends_on_every_part_and_not_on_the_order_of_keys():
    assert digest({"a": 1, "b": [2, None]}) == digest({"b": [2, None], "a": 1})
    assert len({digest("a", "b"), digest("ab"), digest("b", "a"), digest(["a", "b"]), digest("a", "b", None)}) == 5


def test_home_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("TRANSFERSCOPE_HOME", str(tmp_path / "own"))
    assert home() == tmp_path / "own"
    monkeypatch.delenv("TRANSFERSCOPE_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert home() == tmp_path / "transferscope"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / ".cache" / "transferscope"


def test_an_entry_copied_over_another_is_a_miss(tmp_path, arrays):
    store = Store(tmp_path)
    store.put("features", "k1", arrays, {})
    store.put("scores", "k1", arrays, {})
    (features,) = (tmp_path / "features").rglob("*.safetensors")
    (scores,) = (tmp_path / "scores").rglob("*.safetensors")
    scores.write_bytes(features.read_bytes())
    assert store.get("scores", "k1") is None
    assert store.get("features", "k1") is not None
