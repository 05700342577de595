"""Rows by content: parts add up, nothing is rewritten, and the same question has the same answer."""

import os

import numpy as np
import pytest

from transferscope.runtime.rows import read_rows, write_rows
from transferscope.runtime.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def contents(letters):
    return [letter.encode() * 32 for letter in letters]


def write(store, letters, value, **record):
    arrays = {"layer": np.full((len(letters), 2), value), "codes": np.array([ord(letter) for letter in letters])}
    write_rows(store, "features", "net", contents(letters), arrays, record)


def read(store, letters, key="net"):
    return {
        letters[place]: (int(part.arrays["layer"][row, 0]), chr(part.arrays["codes"][row]), part.record)
        for part in read_rows(store, "features", key, contents(letters))
        for row, place in enumerate(part.places)
    }


def values(store, letters):
    return {letter: value for letter, (value, *_) in read(store, letters).items()}


def test_rows_come_from_every_part_that_has_them(store):
    write(store, "abc", 1, of="first")
    write(store, "de", 2, of="second")
    assert read(store, "xdab") == {
        "d": (2, "d", {"of": "second"}),
        "a": (1, "a", {"of": "first"}),
        "b": (1, "b", {"of": "first"}),
    }
    assert read(store, "x") == read(store, "a", key="other") == {}


def test_adding_leaves_what_is_there_as_it_is(store, tmp_path):
    write(store, "abc", 1)
    (old,) = tmp_path.rglob("*.safetensors")
    before = old.stat()
    write(store, "de", 2)
    assert (old.stat().st_mtime_ns, old.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    assert not list(tmp_path.rglob("*.tmp"))


def test_of_rows_that_were_computed_at_the_same_time_the_same_ones_are_taken_again(store, tmp_path):
    """Two processes that missed the same image: each finds its own row again, others that of the first."""
    write(store, "bc", 2)
    (path,) = tmp_path.rglob("*.safetensors")
    os.utime(path, (1, 1))
    write(store, "ab", 1)
    assert values(store, "ab") == {"a": 1, "b": 1}
    assert values(store, "bc") == {"b": 2, "c": 2}
    assert values(store, "cba") == {"c": 2, "b": 2, "a": 1}


def test_a_damaged_part_is_passed_over(store, tmp_path):
    write(store, "abc", 1)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:40])
    write(store, "c", 2)
    assert values(store, "abc") == {"c": 2}
