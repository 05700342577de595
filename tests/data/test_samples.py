"""Targets from arrays and map datasets: labels, layouts, names, and what is refused."""

import numpy as np
import pytest
import torch
from image_folders import names_of, write
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset

from transferscope.data.target import load_target
from transferscope.errors import InputError, TransferscopeWarning

pytestmark = pytest.mark.bounds


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        (np.array([10, 9, 9, 10]), ("9", "10"), [1, 0, 0, 1]),  # by value, not by spelling
        (torch.tensor([3, -2, 3, -2]), ("-2", "3"), [1, 0, 1, 0]),
        ([True, False, True, True], ("False", "True"), [1, 0, 1, 1]),
        (["b", "a", "ab", "b"], ("a", "ab", "b"), [2, 0, 1, 2]),
        (np.array(["b", "a", "b", "a"], dtype=object), ("a", "b"), [1, 0, 1, 0]),
        (np.array([0, 1, 0, 1], dtype=np.uint8), ("0", "1"), [0, 1, 0, 1]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*single image:transferscope.errors.TransferscopeWarning")
def test_labels_of_arrays(labels, classes, numbers):
    target = load_target((np.zeros((4, 5, 6), np.uint8), labels))
    assert target.classes == classes
    assert target.labels.tolist() == numbers


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 1), (4, 1, 5, 6), (4, 5, 6, 3), (4, 3, 5, 6), (4, 5, 6, 4)])
def test_layouts_of_arrays(shape):
    images = np.full(shape, 255, np.uint8)
    target = load_target((images, [0, 0, 1, 1]))
    assert target.image(3).size == (6, 5)  # PIL says width first
    assert target.image(3).getpixel((5, 4)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((4, 3, 8, 3), np.uint8), [0, 0, 1, 1], "could be"),
        (np.zeros((4, 8, 8, 2), np.uint8), [0, 0, 1, 1], "no channel axis"),
        (np.zeros((4, 8), np.uint8), [0, 0, 1, 1], r"images must have shape .* got \(4, 8\)"),
        (np.zeros((0, 8, 8), np.uint8), [], "images must have shape"),
        (np.linspace(-2, 2, 256).reshape(4, 8, 8), [0, 0, 1, 1], "pass images before normalisation"),
        (np.zeros((4, 8, 8), np.complex64), [0, 0, 1, 1], "are complex64"),
        (np.zeros((4, 8, 8), np.uint8), [0, 0, 1], "4 images and 3 labels"),
        (np.zeros((4, 8, 8), np.uint8), [0.0, 0.0, 1.0, 1.0], "labels must be .* got float64"),
        (np.zeros((4, 8, 8), np.uint8), np.eye(4) / 2, r"0 must say by 0 and 1 .* is '0.5' in row 0"),
        (np.zeros((4, 8, 8), np.uint8), [0, 0, 0, 0], "one class only, 0"),
        ("images", [0], "NumPy array or a torch tensor"),
    ],
)
def test_arrays_of_no_use_are_refused(images, labels, message):
    with pytest.raises(InputError, match=message):
        load_target((images, labels))


def test_the_image_with_bad_pixels_is_named():
    images = np.zeros((4, 8, 8))
    images[2, 0, 0] = 3
    with pytest.raises(InputError, match=r"image 2: .*before normalisation"):
        load_target((images, [0, 0, 1, 1]))


class Shades(Dataset):
    """Grey images of their own index; labels i % 3; made to order by its arguments."""

    def __init__(self, n=12, make=lambda i: Image.new("L", (5, 4), i), label=lambda i: i % 3, **attributes):
        self.n, self.make, self.label = n, make, label
        self.__dict__.update(attributes)

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return self.make(index), self.label(index)


@pytest.mark.parametrize(
    "make",
    [
        lambda i: Image.new("L", (5, 6), i),
        lambda i: np.full((6, 5, 3), i, np.uint8),
        lambda i: torch.full((3, 6, 5), i / 255),
    ],
    ids=["pil", "array", "tensor"],
)
@pytest.mark.parametrize(
    "label",
    [lambda i: i % 3, lambda i: torch.tensor(i % 3), lambda i: np.int64(i % 3)],
    ids=["int", "tensor", "numpy"],
)
def test_map_datasets(make, label):
    target = load_target(Shades(make=make, label=label))
    assert (target.name, target.classes, len(target)) == ("Shades", ("0", "1", "2"), 12)
    assert target.labels.tolist() == [i % 3 for i in range(12)]
    probe = target.probe(6)
    assert [probe.image(i).getpixel((4, 3)) for i in range(6)] == [(i,) * 3 for i in probe.indices]


def test_class_names_of_datasets_sorted_and_behind_a_subset():
    dataset = Shades(classes=["zebra", "ant", ("cat", "tabby")])
    for source in (dataset, Subset(dataset, range(9))):
        target = load_target(source)
        assert target.classes == ("ant", "cat, tabby", "zebra")
        assert names_of(target)[:3] == ["zebra", "ant", "cat, tabby"]
    with pytest.warns(TransferscopeWarning, match="dropped: d$"):
        assert load_target(Shades(classes=["a", "b", "c", "d"])).classes == ("a", "b", "c")
    assert load_target(Shades(classes=["a", "b", "a"])).classes == ("a (0)", "a (2)", "b")


def test_fake_data_of_torchvision():
    from torchvision.datasets import FakeData

    dataset = FakeData(20, (3, 8, 8), num_classes=2, random_offset=1)
    target = load_target(dataset, name="fake")
    assert len(target) == 20
    assert np.array_equal(np.asarray(target.image(7)), np.asarray(dataset[7][0]))
    assert target.labels.tolist() == [int(dataset[i][1]) for i in range(20)]


def test_image_folder_is_read_from_its_files_without_its_transforms(tmp_path):
    from torchvision.datasets import ImageFolder

    write(tmp_path, "b*30", "a*30")

    def never(_):
        raise AssertionError("the files were to be read")

    plain = load_target(tmp_path, name="x")
    target = load_target(ImageFolder(tmp_path, transform=never), name="x")
    assert (target.hash, target.classes) == (plain.hash, ("a", "b"))
    assert target.image(3).tobytes() == plain.image(3).tobytes()
    swapped = ImageFolder(tmp_path, target_transform=lambda label: 1 - label)
    assert names_of(load_target(swapped)) == ["b"] * 30 + ["a"] * 30
    (tmp_path / "a" / "002.png").write_bytes(b"text")
    with pytest.warns(TransferscopeWarning, match=r"skipped: a/002\.png"):
        assert len(load_target(ImageFolder(tmp_path))) == 59


def test_broken_items_of_a_dataset_are_skipped():
    def make(i):
        if i == 7:
            raise OSError("image file is truncated")
        return Image.new("L", (5, 4), i)

    with pytest.warns(TransferscopeWarning, match=r"1 of 30 .* item 7 \(image file is truncated\)"):
        target = load_target(Shades(30, make))
    assert target.broken == (("item 7", "image file is truncated"),)
    assert [target.image(i).getpixel((0, 0))[0] for i in (6, 7, 28)] == [6, 8, 29]


def test_datasets_of_no_use_are_refused():
    random = np.random.default_rng(0)
    refused = {
        "a different image each time": Shades(make=lambda i: random.integers(0, 256, (4, 5), dtype=np.uint8)),
        "must be a pair": [Image.new("L", (4, 4))] * 4,
        r"dataset\[0\]: .*before normalisation": Shades(make=lambda i: torch.full((3, 4, 5), -2.0)),
        r"dataset\[0\]: expected a NumPy array": Shades(make=lambda i: "cat.png"),
        "must list texts or whole numbers .* in item 0": Shades(label=lambda i: torch.full((3,), 0.5)),
        "labels must be .*float64": Shades(label=lambda i: 0.5),
        "labels go from 0 to 2, but it names 2": Shades(classes=["a", "b"]),
        "has no images": Shades(0),
        "one class only, 5": Shades(label=lambda i: 5),
        "pass its dataset": DataLoader(Shades()),
        "or a Target, but is a dict": {"a": 1},
        "or a Target, but is a int": 5,
        "pair .*, but got 3 values": (1, 2, 3),
    }
    for message, source in refused.items():
        with pytest.raises(InputError, match=message):
            load_target(source)
