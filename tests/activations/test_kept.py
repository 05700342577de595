"""Features kept over batches: the same in memory and on disk, and no file left behind."""

import errno
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from transferscope.activations import kept as room
from transferscope.activations.kept import KeptFeatures, StoredRows
from transferscope.arrays.backend import to_numpy
from transferscope.arrays.linalg import sketched_svd
from transferscope.errors import InputError, TransferscopeError

WIDTHS = {"a": 7, "b": 1, ("c", 3): 30}
BATCHES = (5, 3, 1, 8)
BUDGETS = {"memory": 2**30, "disk": 0, "from memory to disk": 2000}


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Give each test a temporary folder of its own, which must be empty in the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture(name="xp")
def numpy_or_cupy(xp):
    if xp.__name__ == "array_api_strict":
        pytest.skip("features come from torch as NumPy or CuPy arrays")
    return xp


def layers(dtype=np.float32, constant=None):
    rng = np.random.default_rng(0)
    features = {layer: rng.normal(3, 2, (sum(BATCHES), p)).astype(dtype) for layer, p in WIDTHS.items()}
    if constant is not None:
        features[constant][:, 0] = 5
    return features


def fill(kept, features, xp=np):
    start = 0
    for n in BATCHES:
        for layer, X in features.items():
            kept.add(layer, xp.asarray(X[start : start + n]))
        start += n


def read(found):
    return to_numpy(found[:, :])


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_rows_come_back_in_order(xp, budget, dtype):
    features = layers(dtype)
    with KeptFeatures(budget=budget) as kept:
        fill(kept, features, xp)
        found = kept.features([("c", 3), "b", "a"])
        for X, layer in zip(found, [("c", 3), "b", "a"], strict=True):
            assert isinstance(X, StoredRows) is (budget < 2**30)
            assert X.shape == features[layer].shape
            part = X[2:9, 0:1]
            assert type(part) is type(xp.asarray(features[layer]))
            np.testing.assert_array_equal(read(X), features[layer])
            np.testing.assert_array_equal(to_numpy(part), features[layer][2:9, 0:1])
            assert to_numpy(part).dtype == dtype


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_features_are_z_scored_over_all_rows(xp, budget, dtype):
    features = layers(dtype, constant="a")
    with KeptFeatures(standardized=True, budget=budget) as kept:
        fill(kept, features, xp)
        for X, whole in zip(kept.features(list(features)), features.values(), strict=True):
            double = whole.astype(np.float64)
            spread = double.std(axis=0)
            expected = (double - double.mean(axis=0)) / np.where(spread > 0, spread, 1)
            np.testing.assert_allclose(read(X), expected, atol=1e-5 if dtype == np.float32 else 1e-12)


def test_z_scores_on_disk_are_worked_off_in_blocks_of_columns(monkeypatch):
    """Wider than one block of 2**24 numbers: blocks meet without a gap."""
    X = np.random.default_rng(0).normal(5, 3, (300, 60000)).astype(np.float32)
    blocks = []
    real = room.standardize
    monkeypatch.setattr(room, "standardize", lambda rows: blocks.append(rows.shape) or real(rows))
    with KeptFeatures(standardized=True, budget=0) as kept:
        kept.add("wide", X[:100])
        kept.add("wide", X[100:])
        (found,) = kept.features(["wide"])
        assert len(blocks) == 2
        for columns in (slice(0, 50), slice(2**24 // 300 - 50, 2**24 // 300 + 50), slice(59950, 60000)):
            part = X[:, columns].astype(np.float64)
            expected = (part - part.mean(axis=0)) / part.std(axis=0)
            np.testing.assert_allclose(found[:, columns], expected, atol=1e-5)


@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_rows_in_any_order_of_memory(order):
    X = np.arange(24.0).reshape(4, 6)
    given = {"C": X, "F": np.asfortranarray(X), "strided": np.repeat(X, 2, axis=1)[:, ::2]}[order]
    for budget in (0, 2**30):
        with KeptFeatures(budget=budget) as kept:
            kept.add("a", given)
            kept.add("a", given[:0])
            (found,) = kept.features(["a"])
            np.testing.assert_array_equal(read(found), X)


def test_the_budget_counts_all_layers_together(temporary):
    X = np.ones((10, 5))  # 400 bytes
    with KeptFeatures(budget=800) as kept:
        kept.add("a", X)
        kept.add("b", X)
        assert list(temporary.iterdir()) == []
        kept.add("c", X)
        (folder,) = temporary.iterdir()
        assert sorted(path.stat().st_size for path in folder.iterdir()) == [400, 400, 400]
        kept.add("a", X)
        kept.add("b", X)
        assert sum(path.stat().st_size for path in folder.iterdir()) == 1200
        assert [found.shape for found in kept.features(["a", "b", "c"])] == [(20, 5), (20, 5), (10, 5)]
        assert sum(path.stat().st_size for path in folder.iterdir()) == 2000


def test_the_default_budget_is_that_of_the_room(temporary, monkeypatch):
    monkeypatch.setattr(room, "BUDGET", 100)
    with KeptFeatures() as kept:
        kept.add("a", np.ones((10, 5)))
        assert len(list(temporary.iterdir())) == 1


def test_rows_from_disk_are_copies():
    """What comes from disk stays what it is when the file is gone."""
    with KeptFeatures(budget=0) as kept:
        kept.add("a", np.arange(6.0).reshape(3, 2))
        part = kept.features(["a"])[0][0:2, :]
    np.testing.assert_array_equal(part, [[0, 1], [2, 3]])
    assert part.flags.writeable


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_files_go_however_it_ends(temporary, error):
    with pytest.raises(error), KeptFeatures(budget=0) as kept:  # noqa: PT012
        kept.add("a", np.ones((3, 2)))
        assert len(list(temporary.iterdir())) == 1
        raise error
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("budget", [0, 2**30])
def test_images_of_another_size_are_an_input_error(budget):
    with KeptFeatures(budget=budget) as kept:
        kept.add("conv", np.ones((3, 8)))
        with pytest.raises(InputError, match="to give 8 features of layer 'conv', but got 12"):
            kept.add("conv", np.ones((3, 12)))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_says_what_to_do(monkeypatch):
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode: real(Path("/dev/full"), mode))
    with (
        KeptFeatures(budget=0) as kept,
        pytest.raises(TransferscopeError, match="is full of features; take fewer images or layers") as caught,
    ):
        kept.add("a", np.ones((300, 200)))
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, TransferscopeError), (errno.EDQUOT, TransferscopeError), (errno.EIO, OSError)],
)
def test_only_a_lack_of_room_is_called_so(monkeypatch, number, expected):
    real = Path.open

    def broken(path, mode):
        file = real(path, mode)
        file.close()
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", broken)
    with KeptFeatures(budget=0) as kept, pytest.raises(expected) as caught:
        kept.add("a", np.ones((3, 2)))
    assert type(caught.value) is expected


def test_a_sketch_reads_features_from_disk():
    X = np.random.default_rng(0).normal(size=(40, 300)) * 0.9 ** np.arange(300)
    with KeptFeatures(budget=100) as kept:
        kept.add("wide", X[:25])
        kept.add("wide", X[25:])
        (stored,) = kept.features(["wide"])
        assert not hasattr(stored, "dtype")
        sketch = sketched_svd(stored, 10, seed=0)
    centred = X - X.mean(axis=0)
    exact = np.linalg.svd(centred, compute_uv=False)
    assert sketch.total == pytest.approx(np.sum(centred**2))
    assert sketch.captured == pytest.approx(np.sum(exact[:10] ** 2) / np.sum(exact**2), rel=1e-3)
