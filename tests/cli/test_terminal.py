"""What a terminal shows: tables that fit it, no cut-off number, no colours where none are wanted."""

import io
import math
import os
import pty
import re
import sys
from fcntl import ioctl
from pathlib import Path
from struct import pack
from termios import TIOCSWINSZ

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

import transferscope as ts
from transferscope.cli import options, run
from transferscope.protocols.training.recipe import Recipe
from transferscope.report.terminal.advice import print_advice
from transferscope.report.terminal.columns import fitted, print_tables, wrapped
from transferscope.report.terminal.comparison import print_comparison
from transferscope.report.terminal.measurement import print_measurement
from transferscope.report.terminal.parameters import print_parameters
from transferscope.report.terminal.ranking import print_ranking
from transferscope.results import labelled
from transferscope.results.advice import Advice, Way
from transferscope.results.comparison import Comparison
from transferscope.results.measurement import Measurement
from transferscope.results.parameters import ParameterTransfer
from transferscope.results.summary import TargetSummary

pytestmark = pytest.mark.bounds

WIDTHS = [60, 80, 120, 200]
SOURCE = "vit_base_patch16_224.augreg_in21k_ft_in1k/seed-0001/best-model"
LAYER = "encoder.layers.encoder_layer_11.self_attention.out_proj"
TARGET = TargetSummary("images", 30, 3, "0f" * 32)


@pytest.fixture(autouse=True)
def colours(monkeypatch):
    """A terminal that can show colours, and nothing in the environment that says how wide or how."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def printed(show, result, width):
    console = Console(width=width, file=io.StringIO())
    show(result, console)
    return console.file.getvalue()


def assert_fits(text, width, names, numbers):
    """Lines hold in `width` columns, numbers are whole, and names broken after their separators alone."""
    assert max(map(cell_len, text.splitlines())) <= width
    assert "…" not in text
    words = set(text.split())
    assert {number for number in numbers if not set(number.split()) <= words} == set()
    for name in names:
        assert all(piece in text for piece in re.findall(r"[^-_./]+[-_./]?", name))


# --- every verb ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranking(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rank")
    (folder / "nets.py").write_text(
        "from torch import nn\n\n"
        "def build(name):\n"
        "    block = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU())\n"
        "    for part in reversed(name.split('.')):\n"
        "        outer = nn.Sequential()\n"
        "        outer.add_module(part, block)\n"
        "        block = outer\n"
        "    block.add_module('flatten', nn.Flatten())\n"
        "    block.add_module('head', nn.Linear(36, 5))\n"
        "    return block\n"
    )
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    images = torch.from_numpy(rng.random((30, 3, 8, 8)) / 2 + labels[:, None, None, None] / 4).float()
    sources = [
        {"name": name.replace("/", "_"), "loader": "python", "factory": str(folder / "nets.py") + ":build",
         "kwargs": {"name": LAYER}, "layers": [LAYER], "transform": {"size": 8}}
        for name in (SOURCE, "plain")
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRANSFERSCOPE_HOME", str(folder))
        return ts.rank(
            (images, labels), {"version": 1, "sources": sources}, scores="all", uncertainty=2, device="cpu",
            recipe=Recipe(epochs=1), progress=False, trust_code=True,
        )  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
def test_rank_fits(ranking, width):
    picks = ranking.recommendations
    pick = next(pick for pick in picks if pick.source.startswith("vit"))
    expected = [f"{pick.expected_accuracy:.3f}", f"{pick.interval[0]:.3f}-{pick.interval[1]:.3f}"]
    scores = [f"{pick.scores[name]:.3f}" for name in ("linear_cka_to_scratch", "svcca_to_scratch")]
    for detailed in (False, True):
        more = [f"{pick.scores['logme']:.3f}±{pick.scores['logme_standard_error']:.3f}"] if detailed else []
        text = printed(lambda *of: print_ranking(*of, costs=True, detailed=detailed), ranking, width)  # noqa: B023
        assert_fits(text, width, [pick.source, pick.layer or ""], [*expected, *scores, *more])


@pytest.mark.parametrize("width", WIDTHS)
def test_advise_fits(width):
    protocols = ("truncate", "fne", "toptuning", "reinit", "finetune", "scratch")
    ways = tuple(Way(name, 11, LAYER, 0.8125, (0.7, 0.9), 12345.0, 1.23e-05, 5.67e-06, 21) for name in protocols)
    advice = Advice(TARGET, SOURCE, 12, 30, 0.02, ways, "truncate", (), (10, 90), "Estimated.", 3.0)
    numbers = ["0.812", "0.700-0.900", "12,345", "1.23e-05", "5.67e-06", "21", "11/12", "toptuning"]
    assert_fits(printed(print_advice, advice, width), width, [LAYER], numbers)


@pytest.mark.parametrize("width", WIDTHS)
def test_compare_fits(width):
    known = {"standard_error": np.full((2, 2), 0.0123), "p_value": np.full((2, 2), 0.00012)}
    array = labelled.similarity_array(
        np.array([[0.1234, 0.4321], [0.9876, 0.5]]), [LAYER, "a"], ["b", LAYER],
        {"informative": np.zeros((2, 2), bool), **known},
        measure="linear_cka", reduce="flatten", standardize=0, estimator="exact", x=SOURCE, y=SOURCE,
    )  # fmt: skip
    found = Comparison(SOURCE, f"{SOURCE}.more", TARGET, None, {"linear_cka": array})
    numbers = ["0.432", "0.988", "0.012", "0.00012", "not informative"]
    assert_fits(printed(print_comparison, found, width), width, [SOURCE, LAYER], numbers)


@pytest.mark.parametrize("width", WIDTHS)
def test_measure_fits(width):
    cell = {"depth": 11, "depths": 12, "samples_per_class": 5000, "samples": 30000}
    costs = {"seconds": 123456.0, "flops": 1e9, "kwh": 1.23e-5, "kgco2e": 1e-6, "peak_memory": 1e6, "trials": 5}
    runs = pd.DataFrame(
        {**cell, **costs, "source": source, "protocol": protocol, "layer": layer, "seed": seed, "accuracy": 0.5,
         "status": "done", "balanced_accuracy": 0.5}
        for source in (f"{SOURCE}-2", SOURCE) for protocol, layer in (("nearest_mean", LAYER), ("fne", "upper 75%"))
        for seed in (0, 1)
    )  # fmt: skip
    settings = {
        "target": "images", "target_hash": "00", "classes": 6, "n_test": 200, "chance": 0.25, "energy": "Estimated.",
        "device": "cpu", "versions": {},
    }  # fmt: skip
    numbers = ["5000", "nearest_mean", "11/12", "0.500 ±0.000", "123,456", "1.23e-05"]
    text = printed(print_measurement, Measurement(runs, settings), width)
    assert_fits(text, width, [SOURCE, LAYER] if width >= 110 else [SOURCE], numbers)


@pytest.mark.parametrize("width", WIDTHS)
def test_parameters_fits(width):
    cell = {"source": SOURCE, "target": f"{SOURCE}.images", "samples_per_class": 5000, "samples": 30000, "seed": 0}
    criteria = [{**cell, "criterion": name, "step": 123456.0} for name in ("epochs", "steps", "loss")]
    known = {"transferability": 1234.0, "spread": 0.125, "gradient_snr": 0.25}
    layers = pd.DataFrame(
        {**row, **known, "depth": depth, "layer": layer, "relative_change": 0.0625, "cka": 0.875, "reason": ""}
        for row in criteria for depth, layer in ((1, "stem"), (2, LAYER))
    )  # fmt: skip
    runs = pd.DataFrame(
        {**row, **known, "classes": 6, "loss": 0.375, "accuracy": 0.75, "frechet": math.nan, "mmd": 0.0, "within": 0.0,
         "between": 0.0}
        for row in criteria
    )  # fmt: skip
    trajectory = pd.DataFrame(columns=[*cell, "step", "epoch", "loss", "depth", "layer", "transferability"])
    settings = {
        "targets": [], "initial": {SOURCE: "redrawn"}, "epochs": 40, "optimiser": "sgd", "learning_rate": 0.01,
        "schedule": "constant", "matched_steps": 10, "matched_loss": 0.5, "redraws": 5, "groups": "auto",
        "device": "cpu", "versions": {},
    }  # fmt: skip
    found = ParameterTransfer(layers, runs, trajectory, pd.DataFrame(), pd.DataFrame(), settings)
    numbers = ["5000", "123,456", "0.375", "1,234", "±0.12", "0.750", "0.062", "0.875", "0.250"]
    assert_fits(printed(print_parameters, found, width), width, [SOURCE, LAYER], numbers)


# --- how columns find room ----------------------------------------------------------------------------------------


def tables(width):
    names = {"#": ["1", "2"], "name": [SOURCE, "b"]}
    groups = ({"first": ["10.5", "11.5"], "second": ["20.5", "21.5"]}, {"third": ["30.5", "31.5"], "kind": ["x", "y"]})
    return fitted(names, *groups, width=width, names=["name"], left=["kind"])


def headers(table):
    return [str(column.header).replace("\n", "") for column in table.columns]


def test_one_table_where_there_is_room_then_one_for_each_group_then_more():
    assert [headers(table) for table in tables(100)] == [["#", "name", "first", "second", "third", "kind"]]
    assert [headers(table) for table in tables(50)] == [
        ["#", "name", "first", "second"],
        ["#", "name", "third", "kind"],
    ]
    assert [headers(table) for table in tables(24)] == [
        ["#", "name", name] for name in ("first", "second", "third", "kind")
    ]


def test_columns_are_shared_out_evenly():
    columns = {f"c{number}": ["1234"] for number in range(6)}
    sizes = [len(table.columns) - 1 for table in fitted({"name": ["n"]}, columns, width=36, names=["name"])]
    # Five would find room in the first.
    assert sizes == [3, 3]


def test_text_is_flush_left_and_numbers_flush_right():
    console = Console(width=100, file=io.StringIO())
    print_tables(tables(100), console)
    lines = console.file.getvalue().splitlines()
    assert lines[0].index("name") == lines[2].index("b")
    assert lines[0].index("first") + 5 == lines[2].index("11.5") + 4
    assert lines[0].index("kind") == lines[2].index("y")


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z", "M"]), min_size=1), st.integers(2, 30))
def test_a_wrapped_name_fits_and_loses_nothing(name, width):
    lines = wrapped(name, width).split("\n")
    assert "".join(lines) == name
    assert max(map(cell_len, lines)) <= width


@pytest.mark.parametrize(
    ("name", "width", "expected"),
    [
        ("short", 12, "short"),
        ("encoder.layers.11.mlp", 12, "encoder.\nlayers.11.\nmlp"),
        ("vit_base_patch16", 12, "vit_base_\npatch16"),
        ("abcdefghijklmno", 12, "abcdefghijkl\nmno"),
        ("two words here", 9, "two words\nhere"),
        ("大猫大猫", 4, "大猫\n大猫"),
        ("", 5, ""),
    ],
)
def test_names_are_broken_after_their_separators(name, width, expected):
    assert wrapped(name, width) == expected


# --- a real terminal ----------------------------------------------------------------------------------------------


@pytest.fixture
def terminal(monkeypatch):
    """Return a function that runs the command line on a terminal of so many columns, and returns what that got."""

    def show(columns, *arguments):
        reading, writing = pty.openpty()
        ioctl(writing, TIOCSWINSZ, pack("HHHH", 24, columns, 0, 0))
        with open(writing, "w", encoding="utf-8") as stream, monkeypatch.context() as context:
            context.setattr(sys, "stdout", stream)
            context.setattr(sys, "__stdout__", stream)
            assert run([*arguments, "-q"]) == 0
            stream.flush()
            text = os.read(reading, 1_000_000).decode()
        os.close(reading)
        return text.replace("\r\n", "\n")

    features = np.random.default_rng(0).normal(size=(30, 4))
    np.savez("features.npz", features=features, labels=np.arange(30) % 3)
    return lambda columns: show(columns, "score", "features.npz", "--measure", "knn", "--measure", "logme")


@pytest.mark.parametrize("columns", [45, 60, 120])
def test_tables_are_as_wide_as_the_terminal(terminal, columns):
    text = re.sub(r"\x1b\[[0-9;]*m", "", terminal(columns))
    assert max(map(len, text.splitlines())) <= columns
    assert ("5 nearest neighbours, leave-one-out accuracy" in text) == (columns == 120)


def test_a_dumb_terminal_is_as_wide_as_it_is_and_gets_no_escapes(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    text = terminal(50)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 50


def test_colours_only_where_they_are_wanted(terminal, monkeypatch, capsys):
    assert "\x1b[1m" in terminal(80)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = terminal(80)
    assert "\x1b" not in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert terminal(80) == plain
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.delenv("FORCE_COLOR")
    assert run(["score", "features.npz"]) == 0
    assert "\x1b" not in "".join(capsys.readouterr())


# --- where the files went -----------------------------------------------------------------------------------------


class Result:
    def __init__(self, *names):
        self.names = names

    def save(self, folder):
        return [Path(folder) / name for name in self.names]

    def to_csv(self):
        return "csv\n"


@pytest.mark.parametrize(
    ("names", "written", "told"),
    [
        (["a.json"], (), "Wrote 1 file to my out: a.json.\n"),
        (["a.nc", "x.png", "b.csv"], ("runs.csv",), "Wrote 4 files to my out: runs.csv, a.nc, b.csv, 1 picture.\n"),
        (["report.html", "x.png", "y.png"], (),
         "Wrote 3 files to my out: report.html, 2 pictures.\nOpen my out/report.html in a browser.\n"),
    ],
)  # fmt: skip
def test_it_is_said_on_stderr_where_the_files_went(capsys, names, written, told):
    options.Sink("my out", "csv", False, False).deliver(Result(*names), None, written)
    assert capsys.readouterr() == ("csv\n", told)
    options.Sink("my out", "csv", True, False).deliver(Result(*names), None, written)
    assert capsys.readouterr() == ("csv\n", "")
