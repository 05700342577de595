"""Leases: one at work at a time, whoever dies is made up for."""

import os
import subprocess
import sys
import threading
import time

import pytest

from transferscope.errors import InputError
from transferscope.runtime import leases
from transferscope.runtime.leases import lease
from transferscope.runtime.sharing import Shard, shard_of, turn


@pytest.fixture
def path(tmp_path):
    return tmp_path / "leases" / "scores-k"


def test_one_is_at_work_at_a_time_and_those_who_waited_are_told(path):
    at_work, most, told = 0, 0, []

    def work():
        nonlocal at_work, most
        with lease(path, "scores") as waited:
            at_work += 1
            most = max(most, at_work)
            told.append(waited)
            time.sleep(0.02)
            at_work -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert sorted(told) == [False, True, True, True]
    assert not path.exists()


def test_who_does_not_wait_is_told_whether_it_is_free(path):
    with lease(path, "scores", wait=False) as free, lease(path, "scores", wait=False) as other:
        assert (free, other) == (True, False)
    with lease(path, "scores", wait=False) as free:
        assert free


def test_a_process_of_this_machine_that_was_killed_is_known_to_be_dead_at_once(path):
    code = (
        "import os, pathlib, sys\nfrom transferscope.runtime.leases import lease\n"
        f"with lease(pathlib.Path({str(path)!r}), 'scores'):\n    os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert path.exists()
    started = time.monotonic()
    with lease(path, "scores") as waited:
        assert waited
    assert time.monotonic() - started < 5


def test_a_holder_elsewhere_is_waited_for_while_its_heart_beats(path, monkeypatch):
    monkeypatch.setattr(leases, "PATIENCE_S", 0.15)
    path.parent.mkdir()
    path.write_text("another-machine 1")
    alive = time.monotonic() + 0.4
    took = []

    def beat():
        while time.monotonic() < alive and path.exists():
            os.utime(path)
            time.sleep(0.03)

    thread = threading.Thread(target=beat)
    thread.start()
    with lease(path, "scores"):
        took.append(time.monotonic())
    thread.join()
    assert took[0] > alive
    assert not list(path.parent.iterdir())


def test_the_heart_beats(path, monkeypatch):
    monkeypatch.setattr(leases, "BEAT_S", 0.01)
    monkeypatch.setattr(leases, "_beating", None)
    with lease(path, "scores"):
        before = path.stat().st_mtime_ns
        end = time.monotonic() + 10
        while path.stat().st_mtime_ns == before and time.monotonic() < end:
            time.sleep(0.01)
        assert path.stat().st_mtime_ns > before


def test_a_lease_that_was_lost_is_not_taken_from_who_has_it_now(path):
    with lease(path, "scores"):
        path.unlink()
        path.write_text("another-machine 1")
    assert path.read_text() == "another-machine 1"


@pytest.mark.parametrize("what", ["pipe", "link to nothing", "folder"])
def test_what_lies_in_the_place_of_a_lease_is_taken_away_in_the_end(path, monkeypatch, what):
    monkeypatch.setattr(leases, "PATIENCE_S", 0.05)
    path.parent.mkdir()
    {"pipe": os.mkfifo, "link to nothing": lambda path: path.symlink_to("nowhere"), "folder": os.mkdir}[what](path)
    with lease(path, "scores"):
        assert path.is_file()
    assert not path.exists()


def test_a_lease_that_may_not_be_taken_away_is_done_without(path, monkeypatch):
    def forbidden(*_):
        raise PermissionError

    monkeypatch.setattr(leases, "PATIENCE_S", 0.05)
    monkeypatch.setattr("transferscope.runtime.leases.os.rename", forbidden)
    path.parent.mkdir()
    path.write_text("another-machine 1")
    with lease(path, "scores") as waited:
        assert waited
    assert path.read_text() == "another-machine 1"


def test_a_folder_that_cannot_be_written_costs_no_work(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with lease(tmp_path / "file" / "scores", "scores") as waited:
        assert not waited
    with lease(tmp_path / "file" / "scores", "scores", wait=False) as free:
        assert free


def test_a_shard_begins_where_no_other_does():
    assert [turn("abcdef", Shard(index, 3)) for index in range(3)] == [
        list("abcdef"), list("cdefab"), list("efabcd"),
    ]  # fmt: skip
    assert turn("abc", None) == list("abc")
    assert sorted(turn("ab", Shard(5, 7))) == ["a", "b"]


def test_a_batch_system_says_which_shard_it_is(monkeypatch):
    for name in ("SLURM_ARRAY_TASK_ID", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert shard_of(None) is None
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert shard_of(None) == Shard(2, 4)
    for name, value in (("ID", "12"), ("MIN", "10"), ("COUNT", "3")):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert shard_of(None) == Shard(2, 3)
    assert shard_of("1/2") == Shard(0, 2)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "one/two", "", 1])
def test_what_is_no_shard_is_said_to_be(text):
    with pytest.raises(InputError, match="Expected `shard` to be i/n"):
        shard_of(text)
