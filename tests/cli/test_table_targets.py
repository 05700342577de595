"""Tables as targets of every verb, and that the answer is that for the folder."""

import json

import pytest
import torch
from image_folders import coloured_noise
from torch import nn

import transferscope as ts
from transferscope.cli import run
from transferscope.errors import InputError

NETS = (
    "from torch import nn\n"
    "def build():\n"
    "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))\n"
)
ZOO = (
    "version: 1\nsources:\n"
    "  - {name: net, loader: python, factory: nets.py:build, checkpoint: net.pt, transform: {size: 12}}\n"
)
TABLE = ["--target", "t.csv", "--images", "photo", "--labels", "species"]
COMMON = ["--sources", "zoo.yaml", "--trust-code", "--device", "cpu", "-q", "-o", "out", "--format", "json"]
REFERENCE = ["--reference-epochs", "1", "--reference-budget", "3"]
MEASURED = ["--epochs", "1", "--samples-per-class", "4", "--test-samples", "6"]
VERBS = (
    ["rank", *REFERENCE],
    ["advise", *REFERENCE],
    ["compare", "net", "scratch", *REFERENCE],
    ["measure", *MEASURED, "--seeds", "1", "--protocols", "truncate"],
    ["parameters", *MEASURED],
    ["transfer", "--source", "net", "--depth", "-1", "--protocol", "truncate"],
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    coloured_noise(tmp_path / "data")
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "zoo.yaml").write_text(ZOO)
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    torch.save(nn.Sequential(*layers).state_dict(), tmp_path / "net.pt")
    rows = [
        f"data/{name}/{i:02}.png;{name};{'test' if i % 4 == 0 else 'train'};7"
        for name in ("blue", "green", "red")
        for i in range(12)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["photo;species;split;id", *rows]))
    return tmp_path


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_every_verb_takes_a_table(place, undrawn, verb, capsys):
    assert run([*verb, *TABLE, *COMMON]) == 0, capsys.readouterr().err
    answer = json.loads(capsys.readouterr().out)
    if verb[0] == "rank":
        settings = answer["provenance"]["settings"]
        assert (settings["images"], settings["labels"]) == ("photo", ["species"])


def test_a_column_that_is_not_there_is_wrong_usage(place, capsys):
    assert run(["rank", *REFERENCE, *TABLE[:-1], "specie", *COMMON]) == 2
    assert "labels: table t.csv has no column 'specie' (did you mean 'species'?)" in capsys.readouterr().err
    with pytest.raises(InputError, match="leave them out"):
        ts.measure("data", "zoo.yaml", labels="species", trust_code=True, progress=False, output=place / "m")
