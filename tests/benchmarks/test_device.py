"""The command for a GPU, the CPU standing in: every row runs, is kept as soon as it is measured, and makes the page."""

import json
import queue
import time

import numpy as np
import pytest
import torch
from device import arrays, page, roundtrips, rows, run
from device.machine import SMALL, Machine


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """What one run at small sizes wrote; `rank` end to end has tests of its own."""
    folder = tmp_path_factory.mktemp("gpu")
    (folder / "gpu.json").write_text(json.dumps({"rank": {"note": "left out", "took": 0.0}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "run_rows", lambda device, sizes, path, until: rows.main(device, sizes, path))
        patch.setattr(run, "run_tests", lambda on_gpu, limit: {"summary": "2 passed", "failed": [], "took": 1.0})
        run.main(["--device", "cpu", "--small", "--output", str(folder)])
    return folder


def test_every_row_gives_numbers_on_the_cpu(record):
    content = rows.read(record / "gpu.json")
    assert set(content) >= {"machine", "tests", *(row.name for row in rows.rows(SMALL))}
    assert {name: row["failure"] for name, row in content.items() if "failure" in row} == {}
    errors = [row["error against float64"] for name, row in content.items() if name.startswith("CKA")]
    assert len(errors) == 9
    assert max(errors) < 1e-5


def test_the_page_names_every_row_and_says_that_it_is_no_gpu(record):
    text = (record / "gpu.md").read_text()
    assert text.startswith("# A CPU in place of a GPU: no measurement\n")
    assert "`pytest -m gpu`: 2 passed" in text
    for row in rows.rows(SMALL):
        assert row.name.split(": ", 1)[-1].lower() in text.lower()


def test_what_is_measured_is_not_measured_again(record, monkeypatch):
    monkeypatch.setattr(rows, "measure", lambda *_: pytest.fail("measured again"))
    rows.main("cpu", "small", record / "gpu.json")


def test_a_row_that_fails_is_a_result():
    def broken(_machine, _record):
        raise ValueError("no such kernel")

    found = rows.measure(Machine("cpu", SMALL), rows.Row("broken", 1, broken), {})
    assert found["failure"] == "ValueError: no such kernel"
    assert "no such kernel" in page.page({"broken": found})


@pytest.mark.parametrize("shape", [(12, 40), (40, 12)])
def test_the_plain_formula_is_that_of_song(shape):
    torch.manual_seed(0)
    layers = [torch.randn(shape) for _ in range(3)]
    n = shape[0]

    def hsic(X, Y):
        K, L = ((Z @ Z.T).double().numpy() * (1 - np.eye(n)) for Z in (X, Y))
        middle = K.sum() * L.sum() / ((n - 1) * (n - 2))
        return np.trace(K @ L) + middle - 2 / (n - 2) * (K @ L).sum()

    expected = [[hsic(X, Y) / np.sqrt(hsic(X, X) * hsic(Y, Y)) for Y in layers] for X in layers]
    np.testing.assert_allclose(arrays.cka_exactly(layers), expected, atol=1e-5)


# --- the process that measures, and the one that watches it -------------------------------------------------------


def said(*lines):
    waiting = queue.Queue()
    for line in lines:
        waiting.put(line)
    return waiting


def test_a_row_that_outlives_its_budget_is_given_up():
    late = time.monotonic() + 60
    assert run._follow(said("one", "two"), {"one": 5, "two": 0.1}, late) == ("two", "given up after 0 s")
    assert run._follow(said("one", None), {"one": 5}, late) == ("one", "its process ended")
    assert run._follow(said("one"), {"one": 5}, time.monotonic()) == ("one", "")


def test_a_round_trip_is_counted_for_each_further_batch():
    each = roundtrips.in_each_batch(roundtrips.Trips(5, 7), roundtrips.Trips(13, 7), 4)
    assert each == (2.0, 0.0)


def test_the_tests_that_want_a_gpu_are_found():
    files = run.test_files()
    assert {"tests/arrays/test_backend.py", "tests/verbs/test_gpu.py", "tests/similarity/test_measures.py"} <= set(
        files
    )
    assert "tests/test_docs.py" not in files
    assert "-m gpu" in " ".join(run.pytest_command(on_gpu=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--device", "cpu"], "--output FOLDER"), (["--device", "cuda"], "torch sees no GPU: install")],
)
def test_without_a_gpu_the_command_says_what_to_do(arguments, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=message):
        run.main(arguments)


def test_a_record_of_another_machine_is_left_alone(tmp_path):
    (tmp_path / "gpu.json").write_text(json.dumps({"machine": {"device": "NVIDIA H200"}}))
    with pytest.raises(SystemExit, match="of another machine"):
        run.main(["--device", "cpu", "--small", "--output", str(tmp_path), "--skip-tests"])


def test_what_failed_is_forgotten_when_it_is_to_be_tried_again(tmp_path):
    record = tmp_path / "gpu.json"
    kept = {"machine": {"device": "a GPU"}, "tests": {"summary": "3 passed", "failed": []}, "good": {"seconds": 1}}
    rows.write(record, {**kept, "bad": {"failure": "no memory"}, "late": {"note": "given up"}})
    run.forget_failures(record)
    assert rows.read(record) == kept
    rows.write(record, {**kept, "tests": {"summary": "1 failed", "failed": ["FAILED x"]}})
    run.forget_failures(record)
    assert "tests" not in rows.read(record)
