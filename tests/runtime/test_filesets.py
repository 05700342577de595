"""Files that change together, at every step at which a run can be killed, interrupted or out of room."""

import errno
import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pytest
from kills import killed

from transferscope.runtime import filesets, marker
from transferscope.runtime.filesets import complete, write_set

OLD = {"a.json": b"old a", "code/b.py": b"old b", "gone.png": b"old gone"}
NEW = {"a.json": b"new a", "code/b.py": b"new b", "c.csv": b"new c"}
MINE = {"thesis.tex": b"precious"}

unix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "out"
    place.mkdir()
    for name, content in MINE.items():
        (place / name).write_bytes(content)
    write_set(place, OLD)
    return place


def write_new(folder):
    write_set(folder, NEW, outdated=["gone.png", "never.png"])


def seen(folder):
    """What is in the folder for people, without the mark."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(".")}


def of_two(files):
    """Whether there are files of two runs."""
    return len({content[:3] for name, content in files.items() if name not in MINE}) > 1


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".") and path.name != marker.NAME)


def test_new_files_take_the_place_of_all_old_ones(folder):
    write_new(folder)
    assert seen(folder) == NEW | MINE
    assert (hidden(folder), marker.is_marked(folder)) == ([], True)


def test_a_function_writes_its_file_itself(tmp_path):
    write_set(tmp_path, {"x.nc": lambda path: path.write_text("written")})
    assert (tmp_path / "x.nc").read_text() == "written"


def test_files_below_the_folder_change_with_the_others(tmp_path):
    write_set(tmp_path, {"model.json": b"old", "code/net.py": b"old", "code/gone.py": b"old"})
    (tmp_path / "code" / "mine.py").write_text("precious")
    write_set(tmp_path, {"model.json": b"new", "code/net.py": b"new", "code/deep/x.py": b"new"}, ["code/gone.py"])
    found = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    del found[marker.NAME]
    assert found == {"model.json": "new", "code/net.py": "new", "code/deep/x.py": "new", "code/mine.py": "precious"}


@pytest.mark.parametrize("name", ["../x", "/x", "a/../x", "a//x", "./x", "a/", "", "."])
def test_a_name_that_leads_out_of_the_folder_is_refused(folder, name):
    with pytest.raises((ValueError, OSError)):
        write_set(folder, {name: b"new"})
    assert seen(folder) == OLD | MINE
    assert hidden(folder) == []


@unix
def test_nothing_is_written_behind_a_link_inside(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotADirectoryError, match="link"):
        write_set(folder, {"a.json": b"new", "linked/net.py": b"new"})
    assert seen(folder) == OLD | MINE
    assert list((tmp_path / "elsewhere").iterdir()) == []


@unix
def test_a_kill_at_any_step_leaves_one_run_and_the_next_start_all_of_it(tmp_path):
    outcomes = []
    for step in range(200):
        folder = tmp_path / str(step)
        folder.mkdir()
        for name, content in MINE.items():
            (folder / name).write_bytes(content)
        write_set(folder, OLD)
        ended_early = killed(lambda folder=folder: write_new(folder), folder, step)
        assert not of_two(seen(folder)), step
        complete(folder)
        after = seen(folder)
        assert after in (OLD | MINE, NEW | MINE), step
        outcomes.append(after == NEW | MINE)
        # Whatever was left goes with the next run.
        write_set(folder, {"a.json": b"next"}, outdated=[*OLD, *NEW])
        assert seen(folder) == {"a.json": b"next"} | MINE, step
        assert hidden(folder) == [], step
        if not ended_early:
            break
    assert len(outcomes) > 20
    assert outcomes == sorted(outcomes), "from one step on the new files are the valid ones"


@unix
def test_a_kill_in_what_finishes_a_killed_run_is_finished_too(folder):
    steps = range(100)
    switching = next(step for step in steps if killed(lambda: write_new(folder), folder, step) and hidden(folder)
                     and os.path.isdir(folder / ".transferscope-switch"))  # fmt: skip
    assert switching > 5
    for step in steps:
        if not killed(lambda: complete(folder), folder, step):
            break
        assert not of_two(seen(folder))
    complete(folder)
    assert seen(folder) == NEW | MINE
    assert hidden(folder) == []


@pytest.mark.parametrize("failing", range(5))
def test_a_move_that_fails_puts_the_old_files_back(folder, monkeypatch, failing):
    replace, calls = os.replace, []

    def stubborn(source, place):
        calls.append(source)
        if len(calls) == failing + 1:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        replace(source, place)

    monkeypatch.setattr(filesets.os, "replace", stubborn)
    with pytest.raises(PermissionError):
        write_new(folder)
    assert seen(folder) == OLD | MINE
    assert hidden(folder) == []


def test_a_folder_in_the_way_costs_nothing(folder):
    (folder / "c.csv").mkdir()
    with pytest.raises(IsADirectoryError, match=r"c\.csv is a folder"):
        write_new(folder)
    assert seen(folder) == OLD | MINE
    assert hidden(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_two_moves_waits_for_the_last(folder, monkeypatch, number):
    replace, handler = os.replace, signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(filesets.os, "replace", lambda *paths: (replace(*paths), signal.raise_signal(number)))
    came = []
    before = signal.signal(number, lambda *_: came.append(seen(folder)))
    try:
        write_new(folder)
    finally:
        signal.signal(number, before)
    assert came == [NEW | MINE] * 6, "three moves out and three in"
    assert signal.getsignal(signal.SIGTERM) == handler


@pytest.mark.parametrize("plan", [
    {"new": ["../mine"], "outdated": []}, {"new": [], "outdated": ["../mine"]}, {"new": [], "outdated": [".."]}, [], {},
])  # fmt: skip
def test_a_plan_from_elsewhere_moves_nothing_outside(tmp_path, plan):
    (tmp_path / "mine").write_text("precious")
    switch = tmp_path / "out" / ".transferscope-switch"
    for name in ("new", "old"):
        (switch / name).mkdir(parents=True)
    (switch / "plan.json").write_text(json.dumps(plan))
    marker.mark(tmp_path / "out")
    complete(tmp_path / "out")
    assert (tmp_path / "mine").read_text() == "precious"
    assert hidden(tmp_path / "out") == []


def _writer(folder, number):
    for _ in range(5):
        write_set(Path(folder), {name: f"{number}".encode() for name in ("a", "b", "c", "d")})


def test_writers_of_one_folder_wait_for_each_other(tmp_path):
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    writers = [context.Process(target=_writer, args=(str(tmp_path), number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert len({path.read_bytes() for path in tmp_path.iterdir() if path.name in "abcd"}) == 1
    assert hidden(tmp_path) == []


def test_a_folder_that_others_keep_is_refused_in_the_end(folder, monkeypatch):
    monkeypatch.setattr(filesets, "_PATIENCE_S", 0.05)
    with filesets._alone(folder), pytest.raises(OSError, match="another process has been writing there"):
        write_new(folder)
    assert seen(folder) == OLD | MINE
