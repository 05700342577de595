"""runs.csv survives: kills, full disks, foreign files, changed settings, a second process."""

import csv
import errno
import io
import json
import logging
import math
import os
import random
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferscope.errors import InputError, TransferscopeError, TransferscopeWarning
from transferscope.verbs.measure import runs as runs_module
from transferscope.verbs.measure.phases import append_phases
from transferscope.verbs.measure.rows import COLUMNS, as_line, clean, read_rows
from transferscope.verbs.measure.runs import RunTable
from transferscope.verbs.measure.settings import Settings
from transferscope.verbs.running.run import Run

SETTINGS = Settings(
    target="birds",
    target_hash="a1",
    held_out="b2",
    device="cpu",
    options={"epochs": 30, "recipes": {"finetune": {"views": (1, 2)}}},
    sources={"net": "f0", 'ünï, "quoted"\r\nin two lines': "f1"},
    n_test=20,
)
NET, ODD = SETTINGS.sources
MEASURED = {
    "samples": 6, "accuracy": 0.1 + 0.2, "balanced_accuracy": 1 / 3, "seconds": 1e-5, "flops": 98_000_000,
    "kwh": 0.0, "kgco2e": 1e22, "peak_memory": 2**40, "trials": 3, "status": "done",
}  # fmt: skip


def run_of(seed=0, source=NET, **changes):
    return replace(Run(source, "birds", "truncate", 1, 3, "stem", 5, seed), **changes)


def row_of(run, **changes):
    return {**asdict(run), **MEASURED, **changes}


def failed(run, reason="out of memory"):
    return {**asdict(run), "samples": 6, "status": f"failed: {reason}"}


def opened(folder, settings=SETTINGS):
    return RunTable(folder, settings)


def filled(folder, rows):
    with opened(folder) as table:
        table.append(rows)
    return folder / "runs.csv"


def test_rows_come_back_as_they_were(tmp_path):
    layers = ['a,b "c"', "line\nbreak", "return\rhere", "é→模", "", " space ", "nul\0"]
    rows = [row_of(run_of(seed, ODD, layer=layer)) for seed, layer in enumerate(layers)]
    path = filled(tmp_path / "new" / "folder", rows)
    with opened(path.parent) as table:
        assert len(table) == len(rows)
        frame = table.frame()
    assert list(frame) == list(COLUMNS)
    found = {row["seed"]: row for row in frame.to_dict("records")}
    assert [found[seed] for seed in range(len(rows))] == rows
    assert (frame.dtypes[["depth", "depths", "samples_per_class", "samples", "seed"]] == "int64").all()
    assert (frame.dtypes[list(COLUMNS[9:17])] == "float64").all()
    # Other readers see the same; pandas ended a text at a zero byte, and rounded numbers, before pandas 3.
    read = pd.read_csv(path, keep_default_na=False, converters={"accuracy": float}).sort_values("seed")
    *exact, ends_in_nul = read["layer"]
    assert exact == layers[:-1]
    assert ends_in_nul in ("nul", "nul\0")
    assert read["accuracy"].tolist() == [0.1 + 0.2] * len(rows)


def test_the_file_is_plain_text_with_the_agreed_columns(tmp_path):
    path = filled(tmp_path, [row_of(run_of()), failed(run_of(1))])
    assert path.read_bytes().decode().split("\n") == [
        "source,target,protocol,depth,depths,layer,samples_per_class,samples,seed,accuracy,balanced_accuracy,seconds,"
        "flops,kwh,kgco2e,peak_memory,trials,status",
        "net,birds,truncate,1,3,stem,5,6,0,0.30000000000000004,0.3333333333333333,1e-05,98000000,0,1e+22,"
        "1099511627776,3,done",
        "net,birds,truncate,1,3,stem,5,6,1,,,,,,,,,failed: out of memory",
        "",
    ]


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.floats(allow_infinity=True), min_size=8, max_size=8),
    st.text(),
)
def test_any_row_survives_as_text(layer, numbers, reason):
    row = clean({**failed(run_of(layer=layer), reason), **dict(zip(COLUMNS[9:17], numbers, strict=True))})
    line = as_line(row)
    assert line.endswith(b"\n")
    assert len(row["status"].splitlines()) == 1
    (fields,) = csv.reader(io.StringIO(line.decode(), newline=""))
    assert fields[5] == layer
    np.testing.assert_array_equal([float(field or "nan") for field in fields[9:17]], numbers)


def test_only_what_is_missing_is_left_to_do(tmp_path):
    filled(tmp_path, [row_of(run_of(0)), failed(run_of(1))])
    with opened(tmp_path) as table:
        assert [table.done(run_of(seed)) for seed in range(3)] == [True, True, False]
        assert [table.done(run_of(seed), retry_failed=True) for seed in range(3)] == [True, False, False]
        # What is called otherwise or has more stages is the same run.
        assert table.done(run_of(target="vögel", depths=9))
        for change in ({"source": ODD}, {"protocol": "svm"}, {"depth": 2}, {"layer": "top"}, {"samples_per_class": 6}):
            assert not table.done(run_of(**change))


def test_the_last_row_of_a_run_counts(tmp_path):
    filled(tmp_path, [failed(run_of())])
    with opened(tmp_path) as table:
        table.append([row_of(run_of())])
    with opened(tmp_path) as table:
        assert table.done(run_of(), retry_failed=True)
        assert table.frame()["status"].tolist() == ["done"]


def test_the_frame_does_not_depend_on_the_order(tmp_path):
    rows = [
        row_of(run_of(seed, source, depth=depth, samples_per_class=size), accuracy=seed / 7)
        for seed in range(2) for source in (ODD, NET) for depth in (10, 9) for size in (50, 5)
    ]  # fmt: skip
    frames = []
    for number in range(3):
        random.Random(number).shuffle(rows)
        with opened(tmp_path / str(number)) as table:
            for row in rows:
                table.append([row])
            frames.append(table.frame())
        with opened(tmp_path / str(number)) as table:
            frames.append(table.frame())
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0])
    assert frames[0]["depth"].tolist() == [9, 9, 9, 9, 10, 10, 10, 10] * 2


def test_an_empty_table_has_its_columns_and_types(tmp_path):
    with opened(tmp_path) as table:
        frame = table.frame()
    assert (len(frame), list(frame)) == (0, list(COLUMNS))
    assert frame["accuracy"].dtype == "float64"


def test_a_kill_at_any_byte_costs_the_torn_row_alone(tmp_path, recwarn):
    rows = [row_of(run_of(0)), row_of(run_of(1, ODD, layer='two\r\n"lines"')), failed(run_of(2, ODD, layer="a\n\nb"))]
    with opened(tmp_path) as table:
        path = table.path
        ends = [path.stat().st_size]
        for row in rows:
            table.append([row])
            ends.append(path.stat().st_size)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        left = sum(end <= length for end in ends[1:])
        with opened(tmp_path) as table:
            assert [table.done(run_of(n, row["source"], layer=row["layer"])) for n, row in enumerate(rows)] == [
                n < left for n in range(3)
            ]
            assert path.read_bytes() == whole[: ends[left]]
            table.append(rows[left:])
        assert path.read_bytes() == whole
    assert not recwarn
    assert sorted(os.listdir(tmp_path)) == [".measure.lock", ".transferscope", "measure.json", "runs.csv"]


@pytest.mark.parametrize("layer", ["stem", "=a,b", "line\nbreak"])
def test_phases_of_a_run_that_was_killed_before_its_row_go_away(tmp_path, layer):
    phases = {"phases": {"fit": 1.0, "test": 2.0}}
    filled(tmp_path, [row_of(run_of(0, layer=layer), **phases)])
    whole = (tmp_path / "phases.csv").read_bytes()
    append_phases(tmp_path / "phases.csv", [row_of(run_of(1, layer=layer), **phases)])
    (tmp_path / ".measure.json.1.tmp").write_bytes(b"{")
    with opened(tmp_path):
        pass
    assert (tmp_path / "phases.csv").read_bytes() == whole
    assert sorted(os.listdir(tmp_path)) == [".measure.lock", ".transferscope", "measure.json", "phases.csv", "runs.csv"]


def test_a_text_that_is_a_formula_is_none_in_the_file_and_comes_back(tmp_path):
    rows = [row_of(run_of(seed, layer=layer)) for seed, layer in enumerate(["=cmd()", "-1", "'=x", "@a", "fine"])]
    path = filled(tmp_path, rows)
    frame = pd.read_csv(path)
    assert frame["layer"].tolist() == ["'=cmd()", "'-1", "''=x", "'@a", "fine"]
    with opened(tmp_path) as table:
        assert table.frame().sort_values("seed")["layer"].tolist() == ["=cmd()", "-1", "'=x", "@a", "fine"]


def test_a_torn_row_is_reported(tmp_path, caplog):
    path = filled(tmp_path, [row_of(run_of())])
    with path.open("ab") as file:
        file.write(b"net,bi")
    with caplog.at_level(logging.INFO, logger="transferscope"):
        opened(tmp_path).close()
    assert "ended in the middle of a row; these 6 bytes are cut off" in caplog.text


OTHER_ROW = b"net,cats,truncate,1,3,stem,5,6,9,1,1,1,1,1,1,1,1,done\n"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda raw: b"a,b\n1,2\n", "runs.csv has other columns"),
        (lambda raw: b"notes without a line end", "runs.csv has other columns"),
        (lambda raw: raw.replace(b"seconds", b"minutes"), "other columns"),
        (lambda raw: raw + b"net,\xff\xfe\n", "cannot be read .*utf-8"),
        (lambda raw: raw + b'net,"a"b\n', "cannot be read"),
        (lambda raw: raw + b"net,birds\n", "expected 18 fields, got 2"),
        (lambda raw: raw + OTHER_ROW, "rows are of another target, 'cats'"),
        (lambda raw: raw + OTHER_ROW.replace(b"cats", b"birds").replace(b",1,3,", b",one,3,"), "not a run .*'one'"),
        (lambda raw: raw + OTHER_ROW.replace(b"cats", b"birds").replace(b"done", b"maybe"), "status .* got 'maybe'"),
        (lambda raw: raw + OTHER_ROW.replace(b"cats", b"birds").replace(b"net", b"new"), "source of some rows, 'new'"),
    ],
)
def test_a_table_that_is_not_ours_is_set_aside(tmp_path, damage, reason):
    path = filled(tmp_path, [row_of(run_of())])
    path.write_bytes(damage(path.read_bytes()))
    found, settings = path.read_bytes(), (tmp_path / "measure.json").read_bytes()
    with pytest.warns(TransferscopeWarning, match=rf"{reason}.* Set aside as measure-1.json and runs-1.csv"):
        table = opened(tmp_path)
    with table:
        assert not table.done(run_of())
        table.append([row_of(run_of())])
    assert (tmp_path / "runs-1.csv").read_bytes() == found
    assert (tmp_path / "measure-1.json").read_bytes() == settings
    with opened(tmp_path) as table:
        assert table.done(run_of())


def test_nothing_that_was_set_aside_is_overwritten(tmp_path):
    (tmp_path / "runs-1.csv").write_text("mine")
    (tmp_path / "measure-2.json").write_text("mine too")
    (tmp_path / "runs.csv").write_text("notes\n")
    with pytest.warns(TransferscopeWarning, match=r"^runs.csv in .* Set aside as runs-3.csv; a new table is begun$"):
        opened(tmp_path).close()
    kept = {name: (tmp_path / name).read_text() for name in ("runs-1.csv", "measure-2.json", "runs-3.csv")}
    assert kept == {"runs-1.csv": "mine", "measure-2.json": "mine too", "runs-3.csv": "notes\n"}


def test_a_folder_in_the_place_of_the_table_is_set_aside(tmp_path):
    (tmp_path / "runs.csv").mkdir()
    with pytest.warns(TransferscopeWarning, match="runs.csv is a folder"):
        opened(tmp_path).close()
    assert (tmp_path / "runs-1.csv").is_dir()


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"target": "birds"}', b"\xff"])
def test_settings_that_are_not_ours_are_set_aside(tmp_path, content):
    filled(tmp_path, [row_of(run_of())])
    (tmp_path / "measure.json").write_bytes(content)
    with pytest.warns(TransferscopeWarning, match="measure.json (cannot be read|does not hold)"):
        opened(tmp_path).close()
    assert (tmp_path / "measure-1.json").read_bytes() == content
    assert (tmp_path / "runs-1.csv").exists()


def test_rows_without_settings_are_set_aside(tmp_path):
    filled(tmp_path, [row_of(run_of())])
    (tmp_path / "measure.json").unlink()
    with pytest.warns(TransferscopeWarning, match="no file with the settings .* Set aside as runs-1.csv;"):
        opened(tmp_path).close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"target_hash": "zz"}, r"target.hash was a1 and is zz"),
        ({"held_out": "zz"}, "held_out was b2 and is zz"),
        ({"device": "cuda"}, "device was cpu and is cuda"),
        ({"options": {**SETTINGS.options, "epochs": 60}}, "options.epochs was 30 and is 60"),
        (
            {"options": {"epochs": 30, "recipes": {"finetune": {"views": (1, 3)}}}},
            r"recipes.finetune.views was \[1, 2\]",
        ),
        ({"options": {**SETTINGS.options, "country": "DEU"}}, "options.country was None and is DEU"),
        ({"sources": {NET: "f9"}}, "sources.net was f0 and is f9"),
    ],
)
def test_changed_settings_set_the_table_aside(tmp_path, change, reason):
    path = filled(tmp_path, [row_of(run_of())])
    before = path.read_bytes()
    with pytest.warns(TransferscopeWarning, match=rf"the settings have changed \(.*{reason}"):
        opened(tmp_path, replace(SETTINGS, **change)).close()
    assert (tmp_path / "runs-1.csv").read_bytes() == before
    with opened(tmp_path, replace(SETTINGS, **change)) as table:
        assert len(table) == 0


def test_a_table_from_when_a_day_stood_for_no_budget_goes_on(tmp_path, recwarn):
    day, none = (replace(SETTINGS, options={"recipes": {"scratch": {"budget_s": value}}}) for value in (86400.0, None))
    with opened(tmp_path, day) as table:
        table.append([row_of(run_of())])
    with opened(tmp_path, none) as table:
        assert table.done(run_of())
    assert not recwarn


@pytest.mark.parametrize("version", ["0.0", "9.9.1"])
def test_another_version_of_the_package_sets_the_table_aside(tmp_path, version, monkeypatch):
    filled(tmp_path, [row_of(run_of())])
    monkeypatch.setattr("transferscope.verbs.measure.settings.__version__", version)
    with pytest.warns(TransferscopeWarning, match=f"transferscope was .* and is {version[:3]}"):
        opened(tmp_path).close()


def test_a_table_without_rows_takes_any_settings(tmp_path, recwarn):
    opened(tmp_path).close()
    opened(tmp_path, replace(SETTINGS, device="cuda")).close()
    assert json.loads((tmp_path / "measure.json").read_text())["device"] == "cuda"
    assert not recwarn


def test_a_grid_is_extended(tmp_path, recwarn):
    filled(tmp_path, [row_of(run_of())])
    more = replace(SETTINGS, sources={NET: "f0", "third": "f2"})
    with opened(tmp_path, more) as table:
        table.append([row_of(run_of(source="third", samples_per_class=9, protocol="fne", layer="all"))])
    with opened(tmp_path) as table:
        assert len(table) == 2
        assert sorted(json.loads((tmp_path / "measure.json").read_text())["sources"]) == sorted([NET, ODD, "third"])
    assert not recwarn


def test_a_target_that_is_called_otherwise_is_the_same(tmp_path, recwarn):
    filled(tmp_path, [row_of(run_of())])
    renamed = replace(SETTINGS, target="vögel")
    with opened(tmp_path, renamed) as table:
        table.append([row_of(run_of(1, target="vögel"))])
    with opened(tmp_path, renamed) as table:
        assert table.frame()["target"].tolist() == ["birds", "birds"]
    assert not recwarn


def test_measures_of_other_settings_stay_out(tmp_path, monkeypatch):
    other_settings = replace(SETTINGS, device="cuda")
    said = rf"another measure .*process {os.getpid()} on .*device was cpu and is cuda"
    with opened(tmp_path), pytest.raises(InputError, match=said):
        opened(tmp_path, other_settings)
    opened(tmp_path).close()
    monkeypatch.setattr("transferscope.verbs.measure.lock.PATIENCE_S", 0.05)
    code = (
        "import sys, pathlib\n"
        "from transferscope.verbs.measure.lock import lock\n"
        "lock(pathlib.Path(sys.argv[1]))\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(InputError, match=f"another measure is running in it \\(process {other.pid} on"):
            opened(tmp_path)
        other.kill()
    # The lock of a process that died does not count, although its file is there.
    opened(tmp_path).close()


def test_measures_of_the_same_settings_share_a_table(tmp_path, recwarn):
    with opened(tmp_path) as one, opened(tmp_path, replace(SETTINGS, sources={NET: "f0", "third": "f2"})) as other:
        one.append([row_of(run_of())])
        assert not other.done(run_of())
        other.append([row_of(run_of(1))])
        assert other.done(run_of())
        one.refresh()
        assert one.done(run_of(1))
        assert one.frame().equals(other.frame())
    with opened(tmp_path) as table:
        assert len(table) == 2
    assert "third" in json.loads((tmp_path / "measure.json").read_text())["sources"]
    assert not recwarn


def test_what_another_process_was_killed_in_is_cut_off_by_the_next_row(tmp_path):
    with opened(tmp_path) as table:
        table.append([row_of(run_of())])
        with (tmp_path / "runs.csv").open("ab") as file:
            file.write(b"net,birds,trunc")
        table.append([row_of(run_of(1))])
    with opened(tmp_path) as table:
        assert len(table) == 2


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch):
    def unsupported(_descriptor):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("transferscope.verbs.measure.lock.take", unsupported)
    with pytest.warns(TransferscopeWarning, match=r"cannot be locked \(No locks available\)"):
        opened(tmp_path).close()


def partly(descriptor, data, write=os.write):
    return write(descriptor, data[:40])


def partly_and_raise(descriptor, data, write=os.write):
    write(descriptor, data[:40])
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("write", [partly, partly_and_raise])
def test_a_full_disk_costs_the_rows_that_did_not_fit_alone(tmp_path, monkeypatch, write):
    path = filled(tmp_path, [row_of(run_of())])
    before = path.read_bytes()
    with opened(tmp_path) as table:
        with monkeypatch.context() as full:
            full.setattr(runs_module.os, "write", write)
            with pytest.raises(TransferscopeError, match=r"2 ended run.*No space left on device\); .* is intact"):
                table.append([row_of(run_of(1)), row_of(run_of(2))])
        assert path.read_bytes() == before
        assert not table.done(run_of(1))
        table.append([row_of(run_of(1))])
    assert path.read_bytes() == before + as_line(row_of(run_of(1)))


def test_an_interrupt_while_writing_leaves_no_half_row(tmp_path, monkeypatch):
    def interrupted(_descriptor):
        raise KeyboardInterrupt

    path = filled(tmp_path, [row_of(run_of())])
    before = path.read_bytes()
    with opened(tmp_path) as table:
        monkeypatch.setattr(runs_module.os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            table.append([row_of(run_of(1))])
    assert path.read_bytes() == before


def test_several_rows_are_one_write(tmp_path, monkeypatch):
    written = []
    with opened(tmp_path) as table:
        monkeypatch.setattr(runs_module.os, "write", lambda _descriptor, data: written.append(data) or len(data))
        table.append([row_of(run_of(1)), row_of(run_of(2))])
    assert written == [as_line(row_of(run_of(1))) + as_line(row_of(run_of(2)))]


def test_a_table_that_is_deleted_meanwhile_is_written_again(tmp_path):
    with opened(tmp_path) as table:
        table.append([row_of(run_of(0))])
        table.path.unlink()
        table.append([row_of(run_of(1))])
    rows, _ = read_rows(table.path)
    assert [row["seed"] for row in rows] == [0, 1]


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"able to read and write runs.csv and measure.json in .*file.* with -o"):
        opened(tmp_path / "file")


def test_a_failure_is_one_line_and_its_numbers_are_empty(tmp_path):
    path = filled(tmp_path, [failed(run_of(), "it broke\nat  line 3\r\n\udcff" + "x" * 9000)])
    (row,), _ = read_rows(path)
    assert row["status"].startswith("failed: it broke at line 3 \\udcffxxx")
    assert len(row["status"]) < 1100
    assert all(math.isnan(row[name]) for name in COLUMNS[9:17])
