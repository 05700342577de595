"""Items and batches as other libraries hand them out: tuples of any length, and dicts with well-known keys."""

import numpy as np
import pytest
import torch
from image_folders import names_of
from PIL import Image
from torch.utils.data import DataLoader

from transferscope.data.batches import image_pairs
from transferscope.data.images import Transform
from transferscope.data.target import load_target
from transferscope.errors import InputError

pytestmark = pytest.mark.bounds

PICTURES = [Image.new("L", (5, 4), shade) for shade in range(0, 120, 10)]
PLAIN = [(picture, i % 3) for i, picture in enumerate(PICTURES)]


class Made:
    """A dataset whose items are made of image and label."""

    def __init__(self, make, **attributes):
        self.make = make
        self.__dict__.update(attributes)

    def __len__(self):
        return len(PLAIN)

    def __getitem__(self, index):
        return self.make(*PLAIN[index])


@pytest.mark.parametrize(
    "make",
    [
        lambda image, label: (image, label, "path"),
        lambda image, label: [image, label, 1, 2],
        lambda image, label: {"image": image, "label": label},
        lambda image, label: {"img": image, "labels": label, "id": 7},
        lambda image, label: {"pixel_values": np.asarray(image), "target": torch.tensor(label)},
        lambda image, label: {"image": image, "class": label},
    ],
    ids=["triple", "four", "image-label", "img-labels", "pixel_values-target", "class"],
)
def test_items_of_any_known_form_are_the_same_target(make):
    assert load_target(Made(make), name="x").hash == load_target(PLAIN, name="x").hash


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda image, label: {"image": image, "fine": label, "coarse": 0},
            "'image', 'fine', 'coarse': none .*'label'",
        ),
        (lambda image, label: {"photo": image, "label": label}, "'photo', 'label': none of them names an image"),
        (
            lambda image, label: {"image": image, "pixel_values": image, "label": label},
            "'image' and 'pixel_values' could each be an image; leave one out",
        ),
        (
            lambda image, label: {"image": image, "label": label, "labels": 0},
            "'label' and 'labels' could each be a label",
        ),
        (lambda image, _label: (image,), "must be a pair .* but is a tuple"),
        (lambda image, _label: image, "must be a pair .* but is a Image"),
    ],
)
def test_what_could_be_something_else_is_refused_by_its_keys(make, message):
    with pytest.raises(InputError, match=message):
        load_target(Made(make))


def test_names_of_the_classes_of_hugging_face_datasets():
    class ClassLabel:
        names = ("zebra", "ant", "cat")

    target = load_target(
        Made(lambda image, label: {"image": image, "label": label}, features={"image": None, "label": ClassLabel()})
    )
    assert target.classes == ("ant", "cat", "zebra")
    assert names_of(target)[:3] == ["zebra", "ant", "cat"]
    plain = load_target(Made(lambda image, label: {"image": image, "label": label}, features={"label": object()}))
    assert plain.classes == ("0", "1", "2")


@pytest.mark.parametrize("missing", [-1, -100])
def test_a_label_that_stands_for_none_is_asked_about(missing):
    images = np.zeros((4, 5, 6), np.uint8)
    for labels in ([0, 0, 1, missing], torch.tensor([0, 0, 1, missing])):
        with pytest.raises(InputError, match=rf"1 of 4 are {missing}, .* stands for no label; leave these images out"):
            load_target((images, labels))
    with pytest.raises(InputError, match=rf"4 of 12 are {missing}, "):
        load_target(Made(lambda image, label: (image, label or missing)))
    with pytest.raises(InputError, match=rf"4 of 12 are {missing}, "):
        load_target(Made(lambda image, label: (image, label or missing), classes=["a", "b", "c"]))
    assert load_target((images, np.array([0, 0, missing, missing]).astype(str))).classes == (str(missing), "0")


TRANSFORMS = (Transform(8, (0.5,) * 3, (0.5,) * 3),) * 2
BATCH = torch.arange(6 * 3 * 4 * 4, dtype=torch.float32).reshape(6, 3, 4, 4)


@pytest.mark.parametrize(
    "make",
    [
        lambda image: (image, 0, "path"),
        lambda image: {"image": image, "label": 0},
        lambda image: {"pixel_values": image},
    ],
)
@pytest.mark.parametrize("loader", [False, True])
def test_batches_and_items_of_any_known_form_give_their_images(make, loader):
    dataset = [make(image) for image in BATCH]
    images = DataLoader(dataset, batch_size=6) if loader else dataset
    ((one, _),) = image_pairs(images, 6, TRANSFORMS)
    assert torch.equal(one, BATCH)


def test_a_batch_without_a_known_key_is_refused():
    with pytest.raises(InputError, match="an item of `images` is a dict with 'x': none of them names an image"):
        list(image_pairs(DataLoader([{"x": image} for image in BATCH]), 4, TRANSFORMS))
    with pytest.raises(InputError, match="tensors, alone, first in a tuple or in a dict, but got list"):
        list(image_pairs([{"image": [1]}] * 4, 4, TRANSFORMS))


class Rows:
    """A stand-in for a data set of Hugging Face."""

    def __init__(self, rows, names=None, key="label"):
        self._rows = rows
        feature = type("ClassLabel", (), {"names": names})()
        self.features = {key: feature} if names else {}

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, index):
        return self._rows[index]


def rows(first=0, **keys):
    return [{keys.get("image", "image"): picture(first + i), keys.get("label", "label"): i % 2} for i in range(4)]


def picture(shade):
    return np.full((6, 6, 3), shade, np.uint8)


def test_a_dict_of_datasets_has_splits_for_keys():
    target = load_target({"train": Rows(rows(), ["cat", "dog"]), "validation": Rows(rows(9), ["cat", "dog"])})
    assert (len(target), target.classes) == (8, ("cat", "dog"))
    assert target.split == ("train",) * 4 + ("val",) * 4
    with pytest.raises(InputError, match=r"names must be splits, .*, but one is 'trian' \(did you mean 'train'"):
        load_target({"trian": Rows(rows())})


def test_keys_of_items_can_be_named():
    target = load_target(Rows(rows(image="photo", label="fine"), ["a", "b"], "fine"), images="photo", labels="fine")
    assert target.classes == ("a", "b")
    triples = [(picture(i), {"species": i % 2, "id": i}, "more") for i in range(4)]
    assert load_target(triples, labels="species").labels.tolist() == [0, 1, 0, 1]
    assert load_target([(image, {"label": each["id"] % 2}, 0) for image, each, _ in triples]).classes == ("0", "1")
    with pytest.raises(InputError, match=r"dataset\[0\] has no 'specie' \(did you mean 'species'\?\)"):
        load_target([{"image": image, **each} for image, each, _ in triples], labels="specie")
    with pytest.raises(InputError, match=r"the second of dataset.0. is a dict with 'species', 'id': none"):
        load_target(triples)
    with pytest.raises(InputError, match=r"id must say by 0 and 1 .*, but is '2' in item 2"):
        load_target(triples, labels=["species", "id"])
    with pytest.raises(InputError, match=r"but dataset\[0\] has none; leave such items out"):
        load_target([(image, None) for image, _, _ in triples])


def test_a_stream_has_its_sentence():
    streamed = type("IterableDataset", (), {"features": {}, "__iter__": lambda self: iter(())})()
    with pytest.raises(InputError, match="IterableDataset, which is read as it comes"):
        load_target(streamed)
