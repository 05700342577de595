"""What says whether networks and images are read right: the page of cases, verdicts, and the truth that timm gives."""

import re

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from reading.architectures import kinds, overall, row
from reading.cases import axes, checkpoints, targets
from reading.cases.case import Case, Found
from reading.cases.page import KINDS, PAGE, page
from reading.cases.tiff import write_tiff
from reading.families import ARCHITECTURES
from reading.one import CELLS, COLUMNS
from reading.truth import Truths
from reading.verbs import FAILED, OK, REFUSED, verdict

from transferscope.errors import InputError
from transferscope.networks.loading import load_network
from transferscope.networks.zoo import load_zoo

CELL = re.compile(r"(?<!\\)\|")


def written_rows():
    """What the page has, as it would be printed: kind, what a user has, what is right."""
    rows, kind = [], ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            kind = line.removeprefix("## ")
        elif line.startswith("| ") and not line.startswith("| what you have"):
            _, has, wanted, *_ = (re.sub(r"\\(.)", r"\1", cell.strip()) for cell in CELL.split(line))
            rows.append((kind, has, wanted))
    return rows


def test_the_page_has_the_cases_of_the_script():
    cases = [(kind, case.has, case.wanted) for kind, members in KINDS.items() for case in members]
    assert written_rows() == cases, "python benchmarks/cases.py"
    assert len(set(cases)) == len(cases)


@pytest.mark.parametrize(
    ("module", "has"),
    [
        (axes, "Maps wider than high (24, 8, 16)"),
        (axes, "A vision transformer with a class token"),
        (checkpoints, "A classifier of another width than `num_classes`"),
        (targets, "Folders train and test, classes in them"),
        (targets, "Shards of WebDataset, `.tar`"),
    ],
)
def test_cases_that_are_right(module, has):
    [case] = [case for case in module.CASES if case.has == has]
    found = case.run()
    assert found.right, found.now


def raising(error):
    def look(folder):
        raise error

    return Case("something", "nothing", look).run()


def test_an_error_is_what_happens():
    assert raising(InputError("no such thing")) == Found("error: no such thing", False)
    assert raising(KeyError("x")).now.startswith("KeyError: 'x' (test_reading.py")


def test_the_page_says_what_happened_and_keeps_its_columns():
    case = Case("a|b", "c", lambda folder: Found(f"in {folder}/d\n|", True))
    text = page({"Kind": [(case, case.run())]})
    assert "1 of 1 are right." in text
    assert r"| a\|b | c | in d \| | right |" in text


def test_what_came_through_is_told_from_what_was_said():
    assert verdict("RuntimeError: shapes do not fit; check that …") == FAILED
    assert verdict("Expected X to end in a linear classifier; use 'truncate'") == REFUSED


def test_architectures_are_of_timm_one_of_each_family():
    models, families = ([getattr(each, name) for each in ARCHITECTURES] for name in ("model", "family"))
    assert set(models) <= set(timm.list_models())
    assert len(ARCHITECTURES) >= 60
    assert len(set(families)) == len(families)


def test_a_row_has_every_verdict_and_each_message_once():
    results = dict.fromkeys(COLUMNS, (OK, "")) | dict.fromkeys(CELLS[:2], (FAILED, "RuntimeError: 3 of [1, 2]"))
    known = {"architecture": "net", "family": "Nets", "parameters": 1, "image size": 64, "stages": 2}
    record = known | {"results": results}
    assert overall(record) == FAILED
    line = row(record)
    assert line["message"] == f"{CELLS[0]}, {CELLS[1]}: RuntimeError: 3 of [1, 2]"
    assert {line[column] for column in COLUMNS} == {OK, FAILED}
    assert kinds([record]) == {(FAILED, "RuntimeError: … of …"): [("net", CELLS[0]), ("net", CELLS[1])]}


@pytest.mark.parametrize("model", ["test_vit", "test_convnext"])
def test_truths_hold_of_networks_that_are_read_right(tmp_path, model):
    kwargs = {"num_classes": 5} | ({"img_size": 32} if model == "test_vit" else {})
    checks = truths(tmp_path, model, kwargs).checks()
    assert {name: check() for name, check in checks.items()} == dict.fromkeys(checks, "")


def truths(folder, model, kwargs):
    torch.manual_seed(0)
    torch.save(timm.create_model(model, **kwargs).state_dict(), folder / "net.pt")
    entry = {"name": "net", "loader": "timm", "model": model, "checkpoint": str(folder / "net.pt"), "kwargs": kwargs}
    zoo = load_zoo({"version": 1, "sources": [entry | {"transform": {"size": 32}}]})
    found = Truths(load_network(zoo["net"]))
    assert found.maps
    return found


def test_truths_find_a_mean_over_the_wrong_axes(tmp_path, monkeypatch):
    found = truths(tmp_path, "test_convnext", {"num_classes": 5})
    monkeypatch.setattr(
        "transferscope.activations.capture.reducer", lambda reduce: lambda maps: maps.flatten(2).mean(1)
    )
    assert "timm reads" in found.layout()


def test_a_plain_tiff_holds_what_was_written(tmp_path):
    values = np.arange(12, dtype=np.uint16).reshape(3, 4) * 300
    write_tiff(tmp_path / "grey.tif", values)
    bands = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    write_tiff(tmp_path / "bands.tif", bands)
    with Image.open(tmp_path / "grey.tif") as grey, Image.open(tmp_path / "bands.tif") as colours:
        np.testing.assert_array_equal(np.asarray(grey), values)
        np.testing.assert_array_equal(np.asarray(colours), bands)
