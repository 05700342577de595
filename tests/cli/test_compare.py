"""`compare` on the command line: two networks of a zoo, end to end, against formulas written here."""

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from image_folders import coloured_noise
from PIL import Image
from result_folders import visible
from torch import nn

import transferscope as ts
from transferscope.cli import run
from transferscope.networks.loading import load_network
from transferscope.protocols import scratch

FACTORY = """
from torch import nn


class Wide(nn.Sequential):
    def __init__(self, side=16, width=4, fail=None):
        inner = (side - 1) // 2 - 2
        super().__init__(nn.Conv2d(3, width, 3, 2), nn.ReLU(inplace=True), nn.Conv2d(width, 6, 3), nn.Flatten(),
                         nn.Linear(6 * inner**2, 5))
        self.fail = fail

    def forward(self, x):
        if self.fail == "always" or (self.fail == "in batches" and len(x) > 1):
            raise RuntimeError("the cable is out")
        if self.fail == "interrupt":
            raise KeyboardInterrupt
        return super().forward(x)


build = Wide
"""

ZOO = """
version: 1
sources:
  - {name: one, loader: python, factory: "nets.py:build", transform: {size: 16, mean: [0.5, 0.5, 0.5], std: [1, 1, 1]}}
  - {name: two, loader: python, factory: "nets.py:build", kwargs: {side: 12, width: 8}, layers: ["0", "2", "4"],
     transform: {size: 12, mean: [0, 0, 0], std: [0.5, 0.5, 0.5]}}
  - {name: broken, loader: python, factory: "nets.py:build", kwargs: {fail: always}, transform: {size: 16}}
  - {name: late, loader: python, factory: "nets.py:build", kwargs: {fail: in batches}, transform: {size: 16}}
  - {name: stopped, loader: python, factory: "nets.py:build", kwargs: {fail: interrupt}, transform: {size: 16}}
  - {name: gone, loader: python, factory: "nets.py:build", checkpoint: gone.pt, transform: {size: 16}}
"""


@pytest.fixture(autouse=True)
def house(quiet_house):
    """Give each test images and a zoo in its working folder."""
    coloured_noise(Path("data"), per_class=14, size=16)
    Path("nets.py").write_text(FACTORY, encoding="utf-8")
    Path("zoo.yaml").write_text(ZOO, encoding="utf-8")


def compare(*arguments):
    options = ["--target", "data", "--sources", "zoo.yaml", "--trust-code", "--device", "cpu", "-o", "out"]
    return run(["compare", *options, *arguments])


def answer(capsys, *arguments):
    assert compare(*arguments, "--format", "json") == 0
    return json.loads(capsys.readouterr().out)


def features(name, layers):
    """Outputs of a source's layers for all images, prepared by hand: (n_samples, n_features) each."""
    size, mean, deviation = {"one": (16, 0.5, 1.0), "two": (12, 0.0, 0.5)}[name]
    net = load_network(ts.load_zoo("zoo.yaml")[name], trust_code=True).module
    images = []
    for colour in ("blue", "green", "red"):
        for i in range(14):
            with Image.open(f"data/{colour}/{i:02}.png") as image:
                small = image.resize((size, size), Image.Resampling.BILINEAR)
            images.append((np.asarray(small, dtype=np.float32) / 255 - mean) / deviation)
    batch = torch.from_numpy(np.stack(images).astype(np.float32)).movedim(3, 1)
    with torch.no_grad():
        return [nn.Sequential(*list(net)[: int(layer) + 1])(batch).flatten(1).double().numpy() for layer in layers]


def debiased_cka(X, Y):
    """Song et al. (2012), as printed."""

    def hsic(K, L):
        n = len(K)
        total = np.trace(K @ L) + K.sum() * L.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (K @ L).sum()
        return total / (n * (n - 3))

    K, L = (Z @ Z.T * (1 - np.eye(len(Z))) for Z in (X, Y))
    return hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))


def test_json_is_debiased_cka_of_networks_that_see_the_images_their_own_way(capsys):
    assert compare("one", "two", "--format", "json", "--layers-x", "0", "--layers-x", "4") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["schema_version"], found["x"], found["y"], found["reference"]) == (1, "one", "two", None)
    assert found["target"] == {"name": "data", "samples": 42, "classes": 3, "hash": found["target"]["hash"]}
    assert (found["layers_x"], found["layers_y"]) == (["0", "4"], ["0", "2", "4"])
    assert list(found["measures"]) == ["linear_cka"]
    cka = found["measures"]["linear_cka"]
    want = [[debiased_cka(X, Y) for Y in features("two", found["layers_y"])] for X in features("one", ["0", "4"])]
    np.testing.assert_allclose(cka["values"], want, atol=1e-4)
    assert np.array(cka["informative"]).all()
    assert (np.array(cka["standard_error"]) > 0).all()
    assert (cka["reduce"], cka["standardize"], cka["estimator"]) == ("flatten", False, "minibatch")
    assert "Wrote 3 files to out: compare.nc, report.html, 1 picture.\n" in err


@pytest.mark.usefixtures("undrawn")
def test_the_python_function_gives_what_the_command_prints(capsys):
    options = ["--measure", "rsa", "--measure", "linear_cka", "--reduce", "mean", "--permutations", "5", "--seed", "3"]
    printed = answer(capsys, "one", "two", *options)
    comparison = ts.compare_sources(
        "one", "two", "data", "zoo.yaml", measures=["rsa", "linear_cka"], reduce="mean", permutations=5, seed=3,
        device="cpu", progress=False, trust_code=True,
    )  # fmt: skip
    assert comparison.to_dict() == printed
    assert list(comparison.results) == ["rsa", "linear_cka"]
    assert comparison.results["rsa"].dims == ("layer_x", "layer_y")
    assert (np.array(printed["measures"]["rsa"]["p_value"]) >= 1 / 6).all()


def test_files_hold_everything(capsys):
    found = answer(capsys, "one", "two", "--measure", "linear_cka", "--measure", "mutual_knn", "--standard-error")
    assert visible(Path("out")) == {
        "compare.nc", "compare_linear_cka.png", "compare_mutual_knn.png", "report.html"
    }  # fmt: skip
    with xr.open_dataset("out/compare.nc", engine="h5netcdf") as dataset:
        assert dataset["layer_x"].to_numpy().tolist() == found["layers_x"]
        assert (dataset.attrs["x"], dataset.attrs["y"], dataset.attrs["target"]) == ("one", "two", "data")
        for measure, matrices in found["measures"].items():
            np.testing.assert_allclose(dataset[measure], matrices["values"], atol=1e-6)
            assert dataset[measure].dims == ("layer_x", "layer_y")
            assert dataset[measure].attrs["n_samples"] == 42
            np.testing.assert_allclose(dataset[f"{measure}_standard_error"], matrices["standard_error"], atol=1e-6)
            assert dataset[f"{measure}_informative"].dtype == bool
    for name in ("compare_linear_cka.png", "compare_mutual_knn.png"):
        with Image.open(f"out/{name}") as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 50


@pytest.mark.usefixtures("undrawn")
def test_csv_is_long(capsys):
    options = ["--measure", "linear_cka", "--measure", "information_imbalance", "--estimator", "exact"]
    found = answer(capsys, "one", "two", *options)
    assert found["measures"]["linear_cka"]["estimator"] == "exact"
    assert compare("one", "two", *options, "--format", "csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(rows[0]) == ["measure", "layer_x", "layer_y", "value", "standard_error", "p_value", "informative"]
    want = [
        (measure, x, y, found["measures"][measure]["values"][i][j])
        for measure in found["measures"]
        for i, x in enumerate(found["layers_x"])
        for j, y in enumerate(found["layers_y"])
    ]
    assert [(row["measure"], row["layer_x"], row["layer_y"], float(row["value"])) for row in rows] == want
    assert {row["informative"] for row in rows} == {"True"}
    # Linear CKA has its standard error for nothing; for others it is asked for.
    assert {(row["measure"], row["standard_error"] != "") for row in rows} == {
        ("linear_cka", True), ("information_imbalance", False),
    }  # fmt: skip


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("measure", "best"), [("linear_cka", np.argmax), ("information_imbalance", np.argmin)])
def test_table_names_the_closest_layer(capsys, measure, best):
    found = answer(capsys, "one", "two", "--measure", measure)
    assert compare("one", "two", "--measure", measure) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for layer, row in zip(found["layers_x"], found["measures"][measure]["values"], strict=True):
        line = next(line for line in lines if line and line[0] == layer)
        assert line[1:3] == [found["layers_y"][best(row)], f"{min(row) if best is np.argmin else max(row):.3f}"]


@pytest.mark.usefixtures("undrawn")
def test_a_network_with_itself_is_loaded_once_and_shows_each_layers_closest_other(capsys):
    with open("nets.py", "a", encoding="utf-8") as file:
        file.write("\nimport os\nos.write(2, b'imported\\n')\n")
    found = answer(capsys, "two", "two")
    values = np.array(found["measures"]["linear_cka"]["values"])
    np.testing.assert_allclose(np.diag(values), 1)
    np.testing.assert_allclose(values, values.T)
    assert compare("two", "two") == 0
    out = capsys.readouterr().out
    np.fill_diagonal(values, -1)
    lines = [line.split()[:2] for line in out.splitlines()]
    for i, layer in enumerate(found["layers_x"]):
        assert [layer, found["layers_y"][values[i].argmax()]] in lines
    assert "not its own closest" in out


@pytest.mark.usefixtures("undrawn")
def test_layers_of_the_zoo_are_the_default_and_auto_asks_for_all_stages(capsys):
    assert answer(capsys, "two", "two", "--layers-x", "auto", "--layers-y", "*")["layers_y"] == list("01234")
    stages = answer(capsys, "two", "one", "--layers-x", "auto")
    assert stages["layers_x"] == stages["layers_y"] != ["0", "2", "4"]
    assert answer(capsys, "two", "one")["layers_x"] == ["0", "2", "4"]


@pytest.mark.usefixtures("undrawn")
def test_standardize_and_reduce_reach_the_engine(capsys):
    plain = answer(capsys, "two", "two", "--measure", "linear_cka", "--estimator", "exact")
    other = answer(capsys, "two", "two", "--measure", "linear_cka", "--estimator", "exact", "--standardize")
    X, Z = features("two", ["0", "4"])
    X, Z = ((A - A.mean(0)) / np.where(A.std(0) > 0, A.std(0), 1) for A in (X, Z))
    assert other["measures"]["linear_cka"]["values"][0][2] == pytest.approx(debiased_cka(X, Z), abs=1e-4)
    assert other["measures"]["linear_cka"]["standardize"] is True
    assert plain["measures"]["linear_cka"]["values"][0][2] != pytest.approx(debiased_cka(X, Z), abs=1e-3)


@pytest.mark.usefixtures("undrawn")
class TestScratch:
    def test_rank_has_trained_it_already(self, capsys, monkeypatch):
        training = ["--reference-epochs", "1"]
        with open("small.yaml", "w", encoding="utf-8") as file:
            file.write("\n".join(ZOO.splitlines()[:4]))
        places = ["--target", "data", "--sources", "small.yaml", "--trust-code", "--device", "cpu", "-o", "out"]
        assert run(["rank", *places, *training, "--format", "json"]) == 0
        reference = json.loads(capsys.readouterr().out)["reference"]
        monkeypatch.setattr(scratch, "train_from_scratch", None)
        found = answer(capsys, "one", "scratch", *training)
        assert found["reference"] == reference
        assert found["layers_y"] == ["stem.2", *(f"blocks.{i}" for i in range(6)), "pool.1"]
        turned = answer(capsys, "scratch", "one", *training)
        np.testing.assert_allclose(
            np.transpose(turned["measures"]["linear_cka"]["values"]),
            found["measures"]["linear_cka"]["values"], atol=2e-6,
        )  # fmt: skip

    def test_it_can_be_another_network(self, capsys):
        given = answer(capsys, "one", "scratch", "--reference", "two")
        assert given["reference"]["stopped"] == "given"
        assert given["measures"] == answer(capsys, "one", "two")["measures"]
        own = answer(capsys, "one", "scratch", "--reference", "own", "--reference-epochs", "1")
        assert own["layers_x"] == own["layers_y"]
        assert own["reference"]["network"] == "one's own architecture"
        assert compare("one", "scratch", "--reference", "own", "--reference-epochs", "1") == 0
        assert "trained on" in capsys.readouterr().out

    def test_with_itself_needs_an_architecture(self, capsys):
        assert compare("scratch", "scratch", "--reference", "own") == 2
        assert "name one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["one", "twoo"], 2, "did you mean 'two'"),
        (["one", "scrach"], 2, "did you mean 'scratch'"),
        (["one"], 2, "'B'"),
        (["one", "two", "--measure", "cka"], 2, "did you mean 'cca'"),
        (["one", "two", "--reduce", "sum"], 2, "'flatten'"),
        (["one", "two", "--estimator", "all"], 2, "'minibatch'"),
        (["one", "two", "--permutations", "-1"], 2, "--permutations"),
        (["one", "two", "-b", "3"], 2, "`batch_size` to be a whole number of at least 4"),
        (["one", "two", "--samples", "5"], 2, "at least 6"),
        (["one", "two", "--device", "tpu"], 2, "'auto', 'cpu', 'cuda'"),
        (["one", "two", "-o", ""], 2, "output folder"),
        (["one", "two", "--layers-y", "9"], 1, "source 'two': No layer of Wide matches '9'"),
        (["one", "two", "--layers-x", "4", "--reduce", "positions"], 1, "one with two: Expected layers"),
        (["one", "two", "--measure", "rsa", "--standard-error", "--samples", "20"], 2, "at least 40 images"),
        (["one", "scratch", "--reference", "nothing"], 2, "`reference`"),
        (["gone", "one"], 1, "source 'gone'"),
        (["one", "broken"], 1, "source 'broken': Wide, given 1×3×16×16: RuntimeError: the cable is out"),
        (["one", "late"], 1, "one with late: Wide, given 4×3×16×16: RuntimeError: the cable is out"),
        (["one", "stopped"], 130, "Interrupted"),
    ],
)
def test_what_goes_wrong_is_one_sentence(capsys, monkeypatch, arguments, code, message):
    monkeypatch.setattr(scratch, "train_from_scratch", None)  # everything here is known before
    assert compare(*arguments) == code
    out, err = capsys.readouterr()
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert not os.path.isdir("out") or visible(Path("out")) == set()


def test_factories_need_trust(capsys):
    assert run(["compare", "one", "two", "--target", "data", "--sources", "zoo.yaml"]) == 2
    assert "--trust-code" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_numbers_that_mean_nothing_are_said_to(capsys):
    options = ["--measure", "cca", "--layers-x", "0", "--layers-y", "0", "--layers-y", "4"]
    assert compare("one", "one", *options) == 0
    out, err = capsys.readouterr()
    assert "not informative" in out
    assert err.count("warning: ") == err.count("warning: mean CCA is not informative for 2 of 2") == 1
    assert compare("one", "one", "-q", *options, "--format", "csv") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert {row["informative"] for row in csv.DictReader(io.StringIO(out))} == {"False"}


def test_python_takes_one_measure_or_several_but_not_none():
    options = {"device": "cpu", "progress": False, "trust_code": True, "layers_x": "0", "layers_y": "0"}
    one = ts.compare_sources("one", "two", "data", "zoo.yaml", measures="rsa", **options)
    again = ts.compare_sources("one", "two", "data", "zoo.yaml", measures=["rsa", "rsa"], **options)
    assert list(one.results) == list(again.results) == ["rsa"]
    with pytest.raises(ts.errors.InputError, match="one measure at least"):
        ts.compare_sources("one", "two", "data", "zoo.yaml", measures=[], **options)
