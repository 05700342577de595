"""Targets whose images have several labels, or numbers: what is read, drawn and hashed."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import transferscope as ts
from transferscope.data.splits import draw, hold_out
from transferscope.data.target import load_target
from transferscope.errors import InputError, TransferscopeWarning

N = 60
IMAGES = np.random.default_rng(0).integers(0, 255, (N, 6, 6), dtype=np.uint8)
RARE = np.zeros((N, 3))
RARE[:, 0] = np.arange(N) < 50
RARE[::2, 1] = 1
RARE[5:12, 2] = 1  # seven images; three of them have the second, too


def lists(names=("sky", "sea", "sun")):
    return [[name for name, has in zip(names, row, strict=True) if has] for row in RARE]


@pytest.fixture
def folder(tmp_path):
    for i in range(N):
        Image.fromarray(IMAGES[i]).save(tmp_path / f"{i}.png")
    return tmp_path


def written(folder, **columns):
    frame = pd.DataFrame({"path": [f"{i}.png" for i in range(N)], **columns})
    frame.to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def test_several_labels_are_read_alike_from_columns_lists_and_texts(folder):
    names = ["sea", "sky", "sun"]
    wanted = RARE[:, [1, 0, 2]]
    columns = written(folder, **{name: RARE[:, i].astype(int) for i, name in enumerate(("sky", "sea", "sun"))})
    texts = ["|".join(labels) for labels in lists()]
    targets = [
        load_target(columns, labels=["sea", "sky", "sun"]),
        load_target(written(folder, label=texts), task="multi-label"),
        load_target(written(folder, label=[str(labels) for labels in lists()]), task="multi-label"),
        load_target(pd.DataFrame({"path": [str(folder / f"{i}.png") for i in range(N)], "label": lists()})),
        load_target((IMAGES, lists())),
        load_target((IMAGES, pd.DataFrame(wanted, columns=names).astype(bool))),
        load_target([{"image": image, "labels": labels} for image, labels in zip(IMAGES, lists(), strict=True)]),
        load_target([(image, torch.tensor(row)) for image, row in zip(IMAGES, wanted, strict=True)]),
    ]
    for target in targets:
        assert target.task == "multi-label"
        np.testing.assert_array_equal(target.values, wanted)
    assert {target.classes for target in targets[:-1]} == {tuple(names)}
    assert len({target.hash for target in targets[:4]}) == 1
    assert "60 images, 3 labels (sea, sky, sun)" in repr(targets[0])
    assert "images of no rare label" in targets[0]._repr_html_()


def test_draws_keep_rare_labels():
    target = load_target((IMAGES, RARE.astype(int)))
    rarest = [2 if row[2] else 1 if row[1] else 0 if row[0] else 3 for row in RARE]
    assert target.strata.tolist() == rarest
    pool, test = hold_out(target)
    assert set(pool).isdisjoint(test)
    for part in (pool, test, target.probe(16).indices, pool[draw(target.strata[pool], 2, 0)]):
        assert target.values[part][:, 2].sum() >= 2
    assert (target.subset(test).values == target.values[test]).all()
    assert target.subset(test).strata.tolist() == target.strata[test].tolist()


def test_a_label_of_one_image_is_trained_on_and_said():
    once = RARE.copy()
    once[:, 2] = np.arange(N) == 7
    with pytest.warns(TransferscopeWarning, match=r"these labels can never be predicted leave-one-out.*: 2$"):
        target = load_target((IMAGES, once.astype(int)))
    with pytest.warns(TransferscopeWarning, match=r"these labels have no image to test on, so they do not count: 2$"):
        pool, _ = hold_out(target)
    assert 7 in pool


def test_numbers_are_read_and_drawn_by_quantiles(folder):
    numbers = np.round(np.random.default_rng(1).normal(size=(N, 2)), 3)
    table = written(folder, age=numbers[:, 0], size=numbers[:, 1])
    pairs = [(image, float(number)) for image, number in zip(IMAGES, numbers[:, 0], strict=True)]
    for source, labels in ((table, "age"), ((IMAGES, numbers[:, 0]), None), (pairs, None)):
        target = load_target(source, labels=labels, task="regression")
        np.testing.assert_array_equal(target.values, numbers[:, :1])
        assert np.bincount(target.strata).tolist() == [10] * 6
        order = np.argsort(numbers[:, 0])
        assert target.strata[order].tolist() == sorted(target.strata)
    both = load_target(table, labels=["age", "size"], task="regression")
    np.testing.assert_array_equal(both.values, numbers)
    np.testing.assert_array_equal(load_target((IMAGES, numbers), task="regression").values, numbers)
    assert both.classes == ("age", "size")
    drawn = both.probe(20)
    np.testing.assert_array_equal(drawn.values, numbers[drawn.indices])
    other = load_target((IMAGES, numbers[::-1]), task="regression")
    assert len({both.hash, other.hash, target.hash, drawn.hash}) == 4


def test_whole_numbers_may_be_classes_or_numbers_and_ties_stay_together():
    limits = np.repeat([20, 30, 50, 120], [30, 20, 8, 2])
    classes = load_target((IMAGES, limits))
    numbers = load_target((IMAGES, limits), task="regression")
    assert classes.task == "classification"
    assert numbers.values.tolist() == limits[:, None].tolist()
    assert numbers.strata.tolist() == np.repeat([0, 1, 2, 2], [30, 20, 8, 2]).tolist()
    assert numbers.learnt.groups == ("20", "30", "50 to 120")
    assert classes.hash != numbers.hash
    with pytest.raises(InputError, match=r"one class each, but the task of 'arrays' is regression"):
        _ = numbers.labels


COLUMNS = {"a": RARE[:, 0], "b": RARE[:, 1]}
WRONG = {
    "one class": ({"labels": ["a", "b"], "task": "classification"}, COLUMNS, "but a class is named by one"),
    "fractions": ({"labels": ["a", "b"]}, {**COLUMNS, "b": 0.5}, "b must say by 0 and 1 .* is '0.5' in line 2 .and"),
    "text": ({"labels": "a", "task": "regression"}, {"a": [*"1" * 59, "old"]}, "a finite number .* 'old' in line 61"),
    "missing": ({"labels": "a", "task": "regression"}, {"a": [*range(59), None]}, "but is missing in line 61"),
    "infinite": ({"labels": "a", "task": "regression"}, {"a": [*range(59), "inf"]}, "but is 'inf' in line 61"),
    "constant": ({"labels": "a", "task": "regression"}, {"a": 3}, "a of table t.csv is 3 for all images"),
    "nothing": ({"labels": "a", "task": "regression"}, {"a": None}, "a must be .* 59 more"),
    "immense": ({"labels": "a", "task": "regression"}, {"a": [1e200, *range(59)]}, "give it in another unit"),
    "seconds": ({"labels": "a", "task": "regression"}, {"a": 1.7e9 + np.arange(N)}, "subtract 1700000000 from all"),
    "numbers": ({"labels": "a", "task": "multi-label"}, {"a": np.linspace(0.5, 0.9, N)}, "ask for --task regression"),
    "everywhere": ({"labels": ["a", "b"]}, {**COLUMNS, "b": 1}, "all its images have 'b'; leave that label out"),
    "json": ({"task": "multi-label"}, {"label": [*"a" * 59, "[b"]}, r"is no list in line 61: '\[b'"),
    "fraction": ({}, {"label": np.linspace(0, 1, N)}, "or ask for --task regression"),
    "task": ({"task": "regresion"}, COLUMNS, r"`task` to be one of .* \(did you mean 'regression'\?\)"),
}  # fmt: skip


@pytest.mark.parametrize(("asked", "columns", "said"), WRONG.values(), ids=WRONG)
def test_what_does_not_suit_the_task_is_said(folder, asked, columns, said):
    with pytest.raises(InputError, match=said):
        load_target(written(folder, **columns), **asked)


ODD = ([None], [], [{"k": 1}], [["a"], None], [[["a"]]], [float("nan"), {"x"}])


@pytest.mark.parametrize("task", [None, "classification", "multi-label", "regression"])
def test_whatever_else_cells_hold_has_its_sentence(task):
    for cells in ODD:
        column = (cells * N)[:N] if cells else [[]] * N
        with pytest.raises(InputError):
            load_target((IMAGES, column), task=task)


def test_a_folder_has_classes_and_a_target_its_task(folder):
    (folder / "a").mkdir()
    with pytest.raises(InputError, match="its sub-folders are classes; for the task regression give a table"):
        ts.load_target(folder, task="regression")
    target = load_target((IMAGES, RARE.astype(int)))
    assert load_target(target, task="multi-label") is target
    with pytest.raises(InputError, match="those of this target are of multi-label already"):
        load_target(target, task="regression")
