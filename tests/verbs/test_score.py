"""Feature arrays of one's own, from memory and from files, to a table of scores."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import transferscope as ts
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.verbs.score import read_features


def task(n=30, p=8, *, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.arange(n) % 3)
    return rng.normal(size=(n, p)) + rng.normal(size=(3, p))[codes], codes


# ts.score -----------------------------------------------------------------------------------------


def test_one_array_is_one_row_with_a_column_per_score():
    X, codes = task()
    table = ts.score(X, codes, measures=["ridge", "logme"])
    assert isinstance(table, pd.DataFrame)
    assert table.index.tolist() == ["features"]
    assert table.columns.tolist() == ["ridge", "logme"]
    assert (table.index.name, table.columns.name) == ("layer", "score")
    assert table.loc["features", "ridge"] == ts.transferability.ridge(X, codes)
    assert table.loc["features", "logme"] == ts.transferability.logme(X, codes)
    assert (table.dtypes == np.float64).all()


def test_several_layers_are_a_row_each():
    X, codes = task()
    layers = {"layer1": X, "layer2": X[:, :2]}
    table = ts.score(layers, codes, measures=(name for name in ["knn", "gbc"]))
    assert table.index.tolist() == ["layer1", "layer2"]
    for layer, array in layers.items():
        assert table.loc[layer].to_dict() == ts.transferability.panel(array, codes, ["knn", "gbc"])


def test_all_scores_with_and_without_probabilities():
    X, codes = task()
    everything = ts.score(X, codes, source_probabilities=np.full((30, 4), 0.25))
    assert everything.columns.tolist() == list(ts.transferability.SCORES)
    assert everything.notna().all(axis=None)
    assert ts.score(X, codes).columns.tolist() == everything.columns.drop(["leep", "nce"]).tolist()


def test_tensors_series_and_lists_are_taken():
    X, codes = task()
    plain = ts.score(X, codes, ["ridge", "leep"], source_probabilities=np.full((30, 4), 0.25))
    tensors = ts.score(
        torch.tensor(X, requires_grad=True),
        torch.tensor(codes),
        ["ridge", "leep"],
        source_probabilities=torch.full((30, 4), 0.25),
    )
    pd.testing.assert_frame_equal(tensors, plain)
    for labels in (pd.Series(codes), codes.tolist(), pd.Series(np.array(["a", "b", "c"])[codes])):
        pd.testing.assert_frame_equal(ts.score(X, labels, "ridge"), plain[["ridge"]])


def series_of_every_kind(codes):
    names = np.array(["a", "b", "c"])[codes]
    return [
        pd.Series(codes), pd.Series(codes, dtype="Int64"), pd.Series(codes, dtype="category"), pd.Series(names),
        pd.Series(names, dtype="string"), pd.Series(names, dtype=object), pd.cut(pd.Series(codes), 3),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", range(7))
def test_labels_of_every_kind_of_series(kind):
    X, codes = task()
    labels = series_of_every_kind(codes)[kind]
    assert ts.score(X, labels, "ridge").loc["features", "ridge"] == ts.transferability.ridge(X, codes)
    with pytest.raises(InputError, match=r"`labels` to name the class of every sample but 1 of 30 are missing"):
        ts.score(X, labels.where(labels.index != 4), "ridge")


def test_tables_and_labelled_arrays_are_taken():
    X, codes = task()
    plain = ts.score(X, codes, ["ridge", "leep"], source_probabilities=np.full((30, 4), 0.25))
    names = [f"{i}.png" for i in range(30)]
    table, labels = pd.DataFrame(X, index=names), pd.Series(codes, index=names)
    probabilities = pd.DataFrame(np.full((30, 4), 0.25), index=names)
    array = xr.DataArray(X, {"sample": names}, ("sample", "feature"))
    for features in (table, table.astype("Float64"), array, array.transpose(), array.drop_vars("sample")):
        for classes in (codes, labels, xr.DataArray(codes, {"sample": names}, ("sample",))):
            found = ts.score(features, classes, ["ridge", "leep"], source_probabilities=probabilities)
            pd.testing.assert_frame_equal(found, plain)
    mixed = table.iloc[:, :2].assign(flag=codes == 1)  # bools and floats together are objects to numpy
    found = ts.score({"mixed": mixed, "x": array}, labels, "ridge")
    assert found.index.tolist() == ["mixed", "x"]
    assert found.loc["mixed"].item() == ts.transferability.ridge(np.column_stack([X[:, :2], codes == 1]), codes)


def test_tables_that_do_not_fit_together_are_refused():
    X, codes = task()
    table, labels = pd.DataFrame(X), pd.Series(codes)
    refused = {
        "`labels` to have the same index as `features`, in the same order": (table, labels[::-1]),
        "layer 'b': .*`labels` to have the same index": ({"a": table, "b": table.set_axis(range(1, 31))}, labels),
        r"numbers in every column but not so 3, 'name'; drop it": (table.assign(name="a").astype({3: str}), labels),
        r"`features` to have dimensions \('sample', 'feature'\) but got \('dim_0', 'dim_1'\)": (xr.DataArray(X), codes),
        "finite values but got 1 NaN": (table.replace(table.iloc[2, 3], np.nan), labels),
    }
    for message, (features, classes) in refused.items():
        with pytest.raises(InputError, match=message):
            ts.score(features, classes, "ridge")
    with pytest.raises(InputError, match="`source_probabilities` to have the same index as `labels`"):
        ts.score(X, labels, "leep", source_probabilities=pd.DataFrame(np.full((30, 4), 0.25), index=range(1, 31)))


def test_what_goes_wrong_names_the_layer():
    X, codes = task()
    with pytest.raises(InputError, match=r"^layer 'b': .*`labels`"):
        ts.score({"a": X, "b": X[:-1]}, codes, "ridge")
    with pytest.warns(TransferscopeWarning, match=r"^layer 'b': the alignment is NaN"):
        table = ts.score({"a": X, "b": np.ones((30, 2))}, codes, "alignment")
    assert table["alignment"].isna().tolist() == [False, True]
    with pytest.raises(InputError, match="at least one layer"):
        ts.score({}, codes)
    with pytest.raises(InputError, match=r"numpy\.asarray"):
        ts.score(X.tolist(), codes)


# Files --------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """The same features and labels in every kind of file."""
    X, codes = task()
    labels = np.array(["ä", "b", "c"])[codes]
    probabilities = np.full((30, 4), 0.25)
    np.savez(tmp_path / "all.npz", features=X, labels=labels, source_probabilities=probabilities, paths=np.arange(3))
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", labels)
    xr.Dataset(
        {
            "features": (("feature", "sample"), X.T),
            "labels": ("sample", labels),
            "source_probabilities": (("sample", "source_class"), probabilities),
        }
    ).to_netcdf(tmp_path / "all.nc", engine="h5netcdf")
    return tmp_path, X, labels


@pytest.mark.parametrize("names", [("all.npz",), ("x.npy", "y.npy"), ("all.nc",)])
def test_every_kind_of_file_gives_the_same(saved, names):
    folder, X, labels = saved
    found = read_features(*(folder / name for name in names))
    np.testing.assert_array_equal(found.features, X)
    assert found.labels.tolist() == labels.tolist()
    assert (found.source_probabilities is None) == (names[0] == "x.npy")
    expected = ts.score(X, labels, ["ridge", "hscore"])
    pd.testing.assert_frame_equal(ts.score(found.features, found.labels, ["ridge", "hscore"]), expected)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("al.npz",), r"no file .*al\.npz \(did you mean 'all.npz'"),
        (("all.csv",), r"ends in \.npz, \.npy, \.nc but got"),
        (("x.npy",), "name an .npy file"),
        (("all.npz", "y.npy"), "holds its own"),
        (("x.npy", "all.npz"), r"pair of \.npy files but got .*all\.npz"),
        (("x.npy", "z.npy"), "no file .*z.npy"),
        (("sub.npz",), "expected a file, got the folder"),
    ],
)
def test_wrong_names_raise(saved, names, message):
    folder = saved[0]
    (folder / "sub.npz").mkdir()
    with pytest.raises(InputError, match=message):
        read_features(*(folder / name for name in names))


def test_other_names_inside_are_listed(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.eye(3), labels=np.arange(3))
    with pytest.raises(InputError, match=r"'features' and 'labels' but it holds 'X', 'labels'"):
        read_features(tmp_path / "a.npz")
    xr.Dataset({"features": (("sample", "feature"), np.eye(3))}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(InputError, match="but it holds 'features'"):
        read_features(tmp_path / "a.nc")
    wrong = {"features": (("image", "feature"), np.eye(3)), "labels": ("image", np.arange(3))}
    xr.Dataset(wrong).to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    with pytest.raises(InputError, match=r"dimensions \('sample', 'feature'\) but got \('image', 'feature'\)"):
        read_features(tmp_path / "b.nc")


def test_files_of_the_other_name_say_so(saved):
    folder = saved[0]
    (folder / "x.npy").rename(folder / "x.npz")
    (folder / "all.npz").rename(folder / "all.npy")
    with pytest.raises(InputError, match=r"single array; call it \.npy"):
        read_features(folder / "x.npz")
    with pytest.raises(InputError, match=r"archive of several; call it \.npz"):
        read_features(folder / "all.npy", folder / "y.npy")


class _Runs:
    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


@pytest.mark.parametrize("kind", ["npz", "npy", "a pickle"])
def test_nothing_is_unpickled(tmp_path, kind):
    harmful = np.array([_Runs(), _Runs()], dtype=object)
    np.savez(tmp_path / "bad.npz", features=np.eye(2), labels=harmful)
    np.save(tmp_path / "bad.npy", harmful)
    np.save(tmp_path / "good.npy", np.eye(2))
    if kind == "a pickle":
        import pickle

        (tmp_path / "bad.npz").write_bytes(pickle.dumps(_Runs()))
    with pytest.raises(InputError, match="Python objects, which are never read"):
        read_features(*([tmp_path / "good.npy", tmp_path / "bad.npy"] if kind == "npy" else [tmp_path / "bad.npz"]))


@pytest.mark.parametrize("name", ["all.npz", "all.nc", "x.npy"])
def test_damaged_files_are_an_input_error(saved, name):
    folder = saved[0]
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=f"Cannot read .*{name}"):
        read_features(folder / name, folder / "y.npy" if name == "x.npy" else None)
    (folder / name).write_bytes(b"")
    with pytest.raises(InputError, match=name):
        read_features(folder / name, folder / "y.npy" if name == "x.npy" else None)


class TestRegression:
    X = np.random.default_rng(3).normal(size=(30, 4))
    Y = X[:, :2] + 0.1

    def test_numbers_come_as_arrays_frames_and_series(self):
        table = ts.score({"a": self.X}, self.Y, task="regression")
        assert list(table.columns) == ["logme", "ridge", "kernel_ridge", "alignment", "effective_rank"]
        assert table.loc["a", "ridge"] > 0.99
        frame = pd.DataFrame(self.Y, columns=["x", "y"])
        pd.testing.assert_frame_equal(ts.score({"a": self.X}, frame, task="regression"), table)
        series = ts.score(self.X, frame["x"], "ridge", task="regression")
        expected = ts.score(self.X, self.Y[:, 0], "ridge", task="regression")
        assert series.loc["features", "ridge"] == pytest.approx(expected.loc["features", "ridge"])
        with pytest.raises(InputError, match="Expected `labels` to have the same index as `features`"):
            ts.score(pd.DataFrame(self.X), frame.iloc[::-1], task="regression")

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            (
                {"task": "regresion"},
                r"`task` to be one of classification, multi-label, regression, .* \(did you mean 'regression'",
            ),
            ({"source_probabilities": X}, "no `source_probabilities` for a regression, for which LEEP and NCE"),
            ({"measures": ["knn"]}, "'knn' is one of classes"),
            ({"labels": None}, "to hold numbers for every sample, but got None"),
            ({"labels": list("ab") * 15}, "to be numbers but got dtype <U1"),
        ],
    )
    def test_what_it_does_not_take(self, more, said):
        with pytest.raises(InputError, match=said):
            ts.score(**{"features": self.X, "labels": self.Y, "task": "regression", **more})
