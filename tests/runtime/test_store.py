import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scale.stress import WRONG

from transferscope.errors import InputError, TransferscopeWarning
from transferscope.runtime import store as store_module
from transferscope.runtime.leases import here
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


def _entry(folder):
    (path,) = folder.rglob("*.safetensors")
    return path


def test_any_flipped_bit_is_a_miss_or_changes_nothing(tmp_path, caplog):
    store = Store(tmp_path)
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([True, False])}
    store.put("scores", "k1", arrays, {"n": 3})
    path = _entry(tmp_path)
    sound = path.read_bytes()
    for place in range(0, len(sound), 3):  # each of the eight bits in turn
        damaged = bytearray(sound)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        found = store.get("scores", "k1")
        if found is not None:
            assert found[1] == {"n": 3}
            assert all((found[0][name] == array).all() for name, array in arrays.items())
    assert "was changed); it is computed again" in caplog.text
    path.write_bytes(sound)
    assert store.get("scores", "k1")[1] == {"n": 3}


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays, metadata: (arrays | {"a": arrays["a"].astype(np.float64)}, metadata),
        lambda arrays, metadata: (arrays | {"a": arrays["a"].reshape(3, 2)}, metadata),
        lambda arrays, metadata: (arrays | {"a": arrays["a"] + 1}, metadata),
        lambda arrays, metadata: ({"a": arrays["a"]}, metadata),
        lambda arrays, metadata: ({"a": arrays["b"], "b": arrays["a"]}, metadata),
        lambda arrays, metadata: (arrays, metadata | {"record": '{"n": 4}'}),
        lambda arrays, metadata: (arrays, metadata | {"record": "3"}),
        lambda arrays, metadata: (arrays, metadata | {"arrays": "[]"}),
        lambda arrays, metadata: (arrays, {key: text for key, text in metadata.items() if key != "checksum"}),
    ],
)
def test_an_entry_that_was_changed_is_computed_again(tmp_path, caplog, change):
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    store = Store(tmp_path)
    store.put("scores", "k1", {"a": np.ones((2, 3), np.float32), "b": np.zeros(4)}, {"n": 3})
    path = _entry(tmp_path)
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    arrays, metadata = change(load_file(path), metadata)
    save_file(arrays, path, metadata)
    assert store.get("scores", "k1") is None
    assert "cannot be used" in caplog.text


def test_what_an_earlier_layout_wrote_is_a_miss_without_a_word(tmp_path, caplog, arrays):
    from safetensors.numpy import save_file

    store = Store(tmp_path)
    store.put("scores", "k1", arrays, {})
    save_file({"a": np.ones(3)}, _entry(tmp_path), {"entry": "scores/k1", "order": '["a"]', "record": "{}"})
    assert store.get("scores", "k1") is None
    assert not caplog.text


def test_a_pipe_in_the_place_of_an_entry_is_a_miss(tmp_path, arrays):
    store = Store(tmp_path)
    store.put("scores", "k1", arrays, {})
    path = _entry(tmp_path)
    path.unlink()
    os.mkfifo(path)
    assert store.get("scores", "k1") is None


@pytest.mark.parametrize("name", ["TRANSFERSCOPE_HOME", "XDG_CACHE_HOME", "HOME"])
def test_the_home_of_nobody_is_an_error_that_says_so(monkeypatch, name):
    for each in ("TRANSFERSCOPE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(each, raising=False)
    if name == "HOME":
        monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as where the user has no entry
    else:
        monkeypatch.setenv(name, "~no-such-user/cache")
    with pytest.raises(InputError, match=r"is ~.*, but nothing is known of the home folder .*; give the whole path"):
        home()


def test_a_home_that_cannot_be_looked_at_costs_only_the_cache(tmp_path, monkeypatch, arrays):
    def forbidden(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    store = Store(tmp_path / "home")
    monkeypatch.setattr("transferscope.runtime.regular.os.stat", forbidden)
    monkeypatch.setattr("pathlib.Path.mkdir", forbidden)
    assert store.get("scores", "k1") is None
    with pytest.warns(TransferscopeWarning, match="cannot be written"):
        store.put("scores", "k1", arrays, {})


def test_what_killed_runs_did_not_finish_is_removed_and_nothing_else(tmp_path, arrays):
    unfinished = tmp_path / "scores" / ".unfinished"
    unfinished.mkdir(parents=True)
    now = time.time()
    for name, age in ((f"killed.{here()}-9-a", 20), (f"held.{here()}-9-a", 20), ("held-for-days", 1e6), ("begun", 0)):
        (unfinished / name).write_bytes(b"half")
        os.utime(unfinished / name, (now - age, now - age))
    with (unfinished / f"held.{here()}-9-a").open("rb") as file:
        fcntl = pytest.importorskip("fcntl")
        fcntl.flock(file, fcntl.LOCK_EX)
        Store(tmp_path).put("scores", "k1", arrays, {})
    assert sorted(path.name for path in unfinished.iterdir()) == ["begun", f"held.{here()}-9-a"]


def test_a_write_is_held_against_others_that_sweep(tmp_path, arrays, monkeypatch):
    replace, swept = os.replace, []

    def meanwhile(source, to):
        os.utime(source, (1, time.time() - 60))
        store_module._sweep(tmp_path / "scores" / ".unfinished")
        swept.append(os.path.exists(source))
        replace(source, to)

    monkeypatch.setattr(store_module.os, "replace", meanwhile)
    store = Store(tmp_path)
    store.put("scores", "k1", arrays, {})
    assert swept == [True]
    assert store.get("scores", "k1") is not None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_eight_writers_of_whom_some_are_killed_leave_no_entry_torn_lost_or_computed_twice(tmp_path):
    path = Path(__file__).parents[2] / "benchmarks/scale/stress.py"  # in a process without threads, which may fork
    done = subprocess.run(
        [sys.executable, path, tmp_path, "--seconds", "0.6"], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["entries"] > 10
    assert found["processes killed"] > 0
    assert {name: found[name] for name in WRONG} == dict.fromkeys(WRONG, 0)
