"""How the images of a target are read, as every verb is told it: the same on the command line and in Python."""

import io
import json

import numpy as np
import pytest
import torch
from image_files import folder, tiff
from image_folders import write
from PIL import Image
from torch import nn

import transferscope as ts
from transferscope.cli import run
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.verbs.bench import Bench
from transferscope.verbs.rank.request import RankRequest

RNG = np.random.default_rng(0)
ZOO = [{"name": "a", "loader": "timm", "model": "test_resnet", "transform": {"size": 32}}]


def test_settings_name_the_reading_only_where_it_is_given():
    plain = RankRequest(target="data", zoo=ZOO)
    assert not {"value_range", "bands"} & set(plain.settings())
    given = RankRequest(target="data", zoo=ZOO, value_range=[0, 4095], bands=range(1, 4))
    assert (given.settings()["value_range"], given.settings()["bands"]) == ([0, 4095], [1, 2, 3])
    json.dumps(given.settings())
    for wrong in ({"value_range": (2, 1)}, {"bands": (0,)}):
        with pytest.raises(InputError, match=f"`{next(iter(wrong))}`"):
            RankRequest(target="data", zoo=ZOO, **wrong)


def test_images_found_broken_do_not_count_as_images_to_train_on(tmp_path):
    files = {}
    for name in "ab":
        for i in range(30):
            content = io.BytesIO()
            Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(content, "JPEG")
            files[f"{name}/{i:02}.jpg"] = content.getvalue()
    for name in ("a/03.jpg", "b/05.jpg"):  # as downloads that broke off: the headers are sound
        files[name] = files[name][: len(files[name]) * 6 // 10]
    request = RankRequest(target=folder(tmp_path, files), zoo=ZOO, progress=False)
    with pytest.warns(TransferscopeWarning, match="2 of 60 images are broken and skipped"):
        bench = Bench.set_up(request)
    assert (len(bench.target), bench.n_sound, bench.probe.n_samples) == (60, 58, 58)


def test_transfers_are_trained_on_the_images_to_train_on_alone(tmp_path):
    images = write(tmp_path / "split", "train/a*6", "train/b*5", "test/a*4", "test/b*9")
    bench = Bench.set_up(RankRequest(target=images, zoo=ZOO, progress=False))
    assert (len(bench.target), bench.n_sound, bench.probe.n_samples) == (24, 11, 11)


@pytest.fixture
def wide(tmp_path, monkeypatch):
    """A folder of images with five bands of 12 bits, and a network for four of them."""
    monkeypatch.chdir(tmp_path)
    values = RNG.integers(0, 4096, (16, 8, 9, 5)).astype("<u2")
    values[:8, ..., 3] //= 2
    folder(tmp_path / "data", {f"{'ab'[i // 8]}/{i:02}.tif": tiff(each) for i, each in enumerate(values)})
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def build(channels):\n"
        "    conv = nn.Conv2d(channels, 4, 3)\n"
        "    return nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))\n"
    )
    (tmp_path / "zoo.yaml").write_text(
        "version: 1\nsources:\n"
        "  - {name: four, loader: python, factory: nets.py:build, kwargs: {channels: 4},\n"
        "     checkpoint: four.pt, transform: {size: [8, 12], mean: [0.5], std: [0.25]}}\n"
    )
    layers = (nn.Conv2d(4, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    torch.save(nn.Sequential(*layers).state_dict(), tmp_path / "four.pt")
    return tmp_path


COMMON = ["--sources", "zoo.yaml", "--trust-code", "--device", "cpu", "-q", "-o", "out", "--format", "json"]
REFERENCE = ["--reference-epochs", "1", "--reference-budget", "3"]
MEASURED = ["--epochs", "1", "--samples-per-class", "4", "--test-samples", "4"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "verb",
    [
        ["rank", *REFERENCE],
        ["rank", *REFERENCE, "--reference", "own"],
        ["compare", "four", "scratch", *REFERENCE],
        ["measure", *MEASURED, "--seeds", "1", "--min-steps", "1", "--protocols", "truncate,finetune"],
        ["parameters", *MEASURED],
    ],
    ids=lambda verb: verb[0],
)
def test_networks_of_four_channels_and_two_sides_in_every_verb(wide, verb, capsys):
    reading = ["--value-range", "0,4095", "--bands", "4,3,2,1"]
    assert run([*verb, "--target", "data", *reading, *COMMON]) == 0, capsys.readouterr().err
    capsys.readouterr()


def test_a_network_for_other_channels_says_what_to_choose(wide, capsys):
    assert run(["rank", "--target", "data", "--value-range", "0,4095", "--bands", "3,2,1", *REFERENCE, *COMMON]) == 1
    assert "four: the network takes images of 4 channels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--value-range", "4095"], "expected numbers with commas like 0,4095, but got '4095'"),
        (["--value-range", "a,b"], "expected numbers with commas like 0,4095"),
        (["--value-range", "5,-5"], "`value_range` to be two numbers"),
        (["--bands", "4,x"], "expected numbers with commas like 3,2,1, but got '4,x'"),
        (["--bands", "0,1,2"], "`bands` to be the numbers of the bands"),
        (["--bands", "6,1,2"], "band 6 was asked for, but there are 5"),
    ],
)
def test_wrong_values_are_wrong_usage(wide, options, message, capsys):
    assert run(["rank", "--target", "data", *options, *REFERENCE, *COMMON]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("bare_page")
def test_negative_numbers_are_typed_like_others_and_the_page_shows_them(wide, capsys):
    reading = ["--value-range", "-1000,4000.5", "--bands", "4,3,2,1"]
    assert run(["rank", "--target", "data", *reading, *REFERENCE, *COMMON]) == 0
    assert "--value-range -1000,4000.5 --bands 4,3,2,1" in (wide / "out" / "report.html").read_text(encoding="utf-8")
    capsys.readouterr()


@pytest.mark.parametrize("missing", [-1, -100])
def test_scores_ask_about_labels_that_stand_for_none(missing):
    X = RNG.normal(size=(30, 5))
    labels = np.repeat([0, 1, missing], 10)
    for given in (labels, labels.tolist()):
        with pytest.raises(InputError, match=rf"10 of 30 are {missing}, which in .* leave these samples out"):
            ts.score(X, given, "ridge")
    with pytest.raises(InputError, match="layer 'b': labels: 10 of 30"):
        ts.score({"b": X}, labels, "ridge")
    named, numbered = (ts.score(X, classes, "ridge") for classes in (labels.astype(str), np.repeat([0, 1, 2], 10)))
    assert named.loc["features", "ridge"] == numbered.loc["features", "ridge"]
