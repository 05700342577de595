"""Which images are tested on, trained on and stopped by: disjoint, stratified, nested."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from transferscope.data.splits import draw, hold_out, sizes_within, validation_part
from transferscope.data.target import load_target
from transferscope.errors import InputError, TransferscopeWarning


def target_of(counts, split=None):
    """Return a target with these numbers of images, all different, of classes 0, 1, … and with this split."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.zeros((len(labels), 2, 2, 3), dtype=np.uint8)
    images[:, 0, 0] = np.stack([np.arange(len(labels)) // 256**k % 256 for k in range(3)], axis=1)
    target = load_target((images, labels), name="birds")
    return target if split is None else replace(target, split=tuple(split))


COUNTS = st.lists(st.integers(2, 40), min_size=2, max_size=8)
LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=80).map(np.array)
SEEDS = st.integers(0, 2**63 - 1)


@given(COUNTS, st.floats(0.01, 0.99), st.integers(1, 100), SEEDS)
@example([2, 40, 3], 0.99, 100, 0)
@example([2, 40, 3], 0.01, 1, 0)
def test_every_image_is_held_out_or_not_and_each_class_has_both(counts, share, most, seed):
    target = target_of(counts)
    pool, test = hold_out(target, share, most, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([pool, test])), np.arange(len(target)))
    tested = np.bincount(target.labels[test], minlength=len(counts))
    assert (tested >= 1).all()
    assert (tested < counts).all()
    # What is asked for, as far as one image of each class may be held out and one not.
    asked = min(round(share * sum(counts)), most)
    assert len(test) == min(max(asked, len(counts)), sum(counts) - len(counts))


@given(COUNTS, SEEDS)
def test_a_share_is_taken_of_each_class(counts, seed):
    target = target_of(counts)
    _, test = hold_out(target, 0.5, seed=seed)
    tested = np.bincount(target.labels[test])
    # Webster's method moves a class by at most one image where no bound is met, as here.
    assert np.abs(tested - np.array(counts) / 2).max() <= 1


def test_the_seed_decides_and_every_image_may_be_held_out():
    target = target_of([8, 12])
    parts = [hold_out(target, seed=seed)[1] for seed in range(200)]
    np.testing.assert_array_equal(parts[3], hold_out(target, seed=3)[1])
    share = np.bincount(np.concatenate(parts), minlength=20) / 200
    # A quarter with a standard error of 0.031.
    assert np.abs(share - 0.25).max() < 5 * 0.031


@pytest.mark.parametrize(
    ("split", "pool", "test"),
    [
        (["train"] * 4 + ["test"] * 2 + ["train"] * 4 + ["test"] * 2, [0, 1, 2, 3, 6, 7, 8, 9], [4, 5, 10, 11]),
        ((["train"] * 3 + ["val"] + ["test"] * 2) * 2, [0, 1, 2, 6, 7, 8], [4, 5, 10, 11]),
        ((["train"] * 3 + ["val"] * 3) * 2, [0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11]),
        (([None] * 4 + ["test"] * 2) * 2, [0, 1, 2, 3, 6, 7, 8, 9], [4, 5, 10, 11]),
        (([None] * 2 + ["val"] * 2 + ["test"] * 2) * 2, [0, 1, 2, 3, 6, 7, 8, 9], [4, 5, 10, 11]),
    ],
)
def test_the_targets_own_split_is_used(split, pool, test):
    found = hold_out(target_of([6, 6], split))
    assert [part.tolist() for part in found] == [pool, test]


@pytest.mark.parametrize("split", [["test"] * 16, ["train"] * 16, (["train"] * 7 + [None]) * 2])
def test_without_two_parts_a_quarter_is_held_out(split):
    pool, test = hold_out(target_of([8, 8], split))
    assert (len(pool), len(test)) == (12, 4)


def test_a_large_test_split_is_capped_in_proportion():
    split = ["train"] * 2 + ["test"] * 10 + ["train"] * 2 + ["test"] * 30 + ["train"] * 2 + ["test"]
    target = target_of([12, 32, 3], split)
    pool, test = hold_out(target, most=21)
    assert np.bincount(target.labels[test]).tolist() == [5, 15, 1]
    assert {target.split[index] for index in test} == {"test"}
    assert len(pool) == 6


def test_copies_of_test_images_are_not_trained_on():
    images = np.random.default_rng(0).integers(0, 256, (12, 5, 5, 3), dtype=np.uint8)
    images[1] = images[10]  # in another class, too
    images[7] = images[10]
    target = replace(
        load_target((images, np.repeat([0, 1], 6)), name="birds"), split=tuple((["train"] * 4 + ["test"] * 2) * 2)
    )
    with pytest.warns(TransferscopeWarning, match="'birds': 2 of the 8 images to train on have the same content"):
        pool, test = hold_out(target)
    assert pool.tolist() == [0, 2, 3, 6, 8, 9]
    assert test.tolist() == [4, 5, 10, 11]


def test_a_class_that_loses_all_its_images_as_copies_is_named():
    images = np.zeros((6, 5, 5, 3), dtype=np.uint8)
    images[:4, 0, 0, 0] = range(4)
    images[4:] = 9
    with (
        pytest.warns(TransferscopeWarning, match="1 of the"),
        pytest.raises(InputError, match=r"these classes have no image to train on: .*: bee$"),
    ):
        hold_out(load_target((images, np.array(["ant"] * 4 + ["bee"] * 2))))


def test_a_class_with_one_image_is_named():
    with (
        pytest.warns(TransferscopeWarning, match="single image"),
        pytest.raises(InputError, match=r"'birds': these classes have one image only, .* add images: 1$"),
    ):
        hold_out(target_of([3, 1]))


def test_a_class_without_an_image_on_one_side_is_named():
    target = target_of([3, 3], ["train", "test", "test", "test", "test", "test"])
    with pytest.raises(InputError, match=r"these classes have no image to train on: .*: 1$"):
        hold_out(target)
    target = target_of([3, 3], ["train", "test", "test", "train", "train", "train"])
    with pytest.warns(TransferscopeWarning, match="no test image, .*: 1; move some of their images to the test folder"):
        pool, test = hold_out(target)
    assert (pool.tolist(), test.tolist()) == ([0, 3, 4, 5], [1, 2])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"share": 0.0}, "`share`"), ({"share": 1.0}, "`share`"), ({"most": 0}, "`most`"), ({"seed": -1}, "`seed`")],
)
def test_arguments_out_of_range_are_named(options, message):
    with pytest.raises(InputError, match=message):
        hold_out(target_of([4, 4]), **options)


@given(LABELS, SEEDS, st.integers(1, 30), st.integers(1, 30))
@example(np.array([0, 0, 0, 1, 1, 4]), 0, 1, 2)
def test_a_small_draw_begins_a_larger_one(labels, seed, one, other):
    small, large = (draw(labels, size, seed) for size in sorted((one, other)))
    np.testing.assert_array_equal(small, large[: len(small)])
    assert len(np.unique(large)) == len(large)
    expected = [min(np.count_nonzero(labels == label), max(one, other)) for label in range(5)]
    assert np.bincount(labels[large], minlength=5).tolist() == expected


@given(LABELS, SEEDS)
def test_the_largest_draw_is_everything(labels, seed):
    (size,) = sizes_within(["all"], labels)
    assert size == max(labels.tolist().count(label) for label in labels)
    assert np.sort(draw(labels, size, seed)).tolist() == list(range(len(labels)))


def test_a_class_is_drawn_the_same_whatever_the_others_are():
    labels = np.array([0, 1, 0, 1, 0, 1, 0])
    alone = np.flatnonzero(labels == 1)
    with_others = [index for index in draw(labels, 2, seed=5) if labels[index] == 1]
    np.testing.assert_array_equal(alone[draw(labels[alone], 2, seed=5)], with_others)


def test_seeds_draw_different_images_each_as_often():
    labels = np.zeros(10, dtype=np.int64)
    drawn = np.concatenate([draw(labels, 3, seed) for seed in range(1000)])
    # 0.3 with a standard error of 0.0145.
    assert np.abs(np.bincount(drawn, minlength=10) / 1000 - 0.3).max() < 5 * 0.0145


def test_classes_and_purposes_have_random_orders_of_their_own():
    labels = np.repeat([0, 1], 10)
    drawn = [draw(labels, 2, seed) for seed in range(50)]
    # Two of ten are the same two by chance once in 45.
    assert sum(set(part[part < 10]) == set(part[part >= 10] - 10) for part in drawn) < 10
    parts = [validation_part(labels[:10], seed) for seed in range(50)]
    assert sum(set(part) == set(one[one < 10]) for part, one in zip(parts, drawn, strict=True)) < 10
    assert len({tuple(part) for part in parts}) > 10


def test_a_draw_of_nothing_is_refused():
    with pytest.raises(InputError, match="`per_class`"):
        draw(np.zeros(3, dtype=np.int64), 0, seed=0)


def test_sizes_above_the_largest_class_are_all_of_it():
    labels = np.repeat([0, 1], [3, 12])
    assert sizes_within([5, "all", 1, 5, 12], labels) == (1, 5, 12)
    with pytest.warns(TransferscopeWarning, match=r"more than 12 images to train on: 20, 50 of each .* as 12$"):
        assert sizes_within([50, 1, 20], labels) == (1, 12)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), SEEDS)
def test_a_fifth_of_each_class_is_for_validation(counts, seed):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)) * 2, counts))
    part = validation_part(labels, seed)
    if min(counts) < 5:
        assert part is None
        return
    expected = [round(count / 5) for count in counts]
    assert np.bincount(labels[part])[::2].tolist() == expected
    assert np.unique(part).tolist() == part.tolist()
    np.testing.assert_array_equal(part, validation_part(labels, seed))


def test_what_was_seen_is_tested_on_only_where_there_are_too_few_others():
    target = target_of([40, 60])
    seen = np.r_[0:20, 40:70]
    pool, test = hold_out(target, seen=seen)
    assert len(test) == 25
    assert not set(test) & set(seen)
    np.testing.assert_array_equal(np.sort(np.concatenate([pool, test])), np.arange(100))
    # Webster's method shares 25 out between 20 and 30 others.
    assert np.bincount(target.labels[test]).tolist() == [10, 15]
    _, some = hold_out(target, 0.9, seen=seen)
    assert set(some) == set(range(100)) - set(seen), "no more than the others"
    nine_left = np.r_[0:31, 40:70]
    np.testing.assert_array_equal(hold_out(target, seen=nine_left)[1], hold_out(target)[1])
    np.testing.assert_array_equal(hold_out(target, seen=np.arange(100))[1], hold_out(target)[1])


def test_a_class_that_nothing_was_made_from_keeps_an_image_to_train_on():
    pool, test = hold_out(target_of([10, 40]), 0.99, seen=np.arange(10, 40))
    assert np.count_nonzero(pool < 10) == 1
    assert len(test) == 9 + 10


def test_the_targets_own_split_comes_before_what_was_seen():
    split = (["train"] * 30 + ["test"] * 10) * 2
    target = target_of([40, 40], split)
    found = hold_out(target, seen=np.flatnonzero(np.array(split) == "test"))
    for part, same in zip(found, hold_out(target), strict=True):
        np.testing.assert_array_equal(part, same)
