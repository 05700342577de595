"""Images resized once for several networks, and one batch ahead."""

import threading

import numpy as np
import pytest
import torch

import transferscope as ts
from transferscope.data.ahead import ahead
from transferscope.data.batches import batches
from transferscope.data.images import Transform
from transferscope.data.shared import SharedPixels
from transferscope.data.target import Target

HALF = Transform(size=6, mean=(0.5,) * 3, std=(0.25,) * 3)
OTHER = Transform(size=6, mean=(0.1, 0.2, 0.3), std=(0.5, 0.4, 0.3))
LARGE = Transform(size=8, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture
def target():
    pixels = np.random.default_rng(0).integers(0, 255, (10, 9, 9, 3), dtype=np.uint8)
    return ts.load_target((pixels, [0, 1] * 5))


@pytest.fixture
def read(monkeypatch):
    """The indices of images that were read, in order."""
    indices, plain = [], Target.image
    monkeypatch.setattr(Target, "image", lambda self, index: indices.append(index) or plain(self, index))
    return indices


def test_two_networks_of_one_size_read_an_image_once_and_get_their_own(target, read):
    shared, wanted = SharedPixels(target), np.array([7, 2, 5])
    told = []
    found = torch.cat(list(shared.batches(wanted, HALF, 2, lambda *progress: told.append(progress))))
    other = torch.cat(list(shared.batches(np.arange(10), OTHER, 4)))
    assert sorted(read) == list(range(10))
    assert told == [(2, 3), (3, 3)]
    np.testing.assert_array_equal(found, torch.cat(list(batches(target.subset(wanted), HALF, 8))))
    np.testing.assert_array_equal(other, torch.cat(list(batches(target, OTHER, 8))))
    list(shared.batches(wanted, LARGE, 2))
    assert len(read) > 10


@pytest.mark.parametrize("limit", [0, 10 * 3 * 6 * 6, 10 * 3 * 8 * 8])
def test_within_a_limit_whatever_fits_is_kept(target, read, limit):
    shared, everyone = SharedPixels(target, limit), np.arange(10)
    for transform in (HALF, LARGE, HALF):
        found = torch.cat(list(shared.batches(everyone, transform, 4)))
        np.testing.assert_array_equal(found, torch.cat(list(batches(target, transform, 4))))
    read.clear()
    list(shared.batches(everyone, HALF, 4))
    assert len(read) == (0 if limit else 10)


def test_the_next_one_is_made_by_another_thread_while_one_is_in_use():
    made = []

    def numbers():
        for number in range(4):
            made.append((number, threading.current_thread() is threading.main_thread()))
            yield number

    items = ahead(numbers())
    assert next(items) == 0
    assert list(items) == [1, 2, 3]
    assert made == [(number, False) for number in range(4)]


def test_an_error_comes_out_in_its_place():
    def broken():
        yield 1
        raise ValueError("the second")

    items = ahead(broken())
    assert next(items) == 1
    with pytest.raises(ValueError, match="the second"):
        next(items)


def test_what_is_not_asked_for_is_not_made():
    made = []
    items = ahead(made.append(number) or number for number in range(100))
    next(items)
    items.close()
    assert len(made) <= 2
    assert list(ahead([])) == []


def test_images_of_a_foreign_dataset_are_read_by_the_thread_that_asks(read, monkeypatch):
    class Foreign(torch.utils.data.Dataset):
        classes = ("a", "b")

        def __len__(self):
            return 6

        def __getitem__(self, index):
            assert threading.current_thread() is threading.main_thread()
            return torch.full((3, 7, 7), index, dtype=torch.uint8), index % 2

    target = ts.load_target(Foreign())
    assert not target.any_thread
    assert len(torch.cat(list(SharedPixels(target).batches(np.arange(6), HALF, 4)))) == 6
