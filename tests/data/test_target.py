"""Targets: what a probe draws, what the hash follows, and that nothing can be changed."""

import logging
import os
import pickle
import shutil
import warnings

import numpy as np
import pytest
import torch
from image_folders import png, write
from PIL import Image
from torch.utils.data import TensorDataset

from transferscope.arrays.strata import allocate
from transferscope.data import target as target_module
from transferscope.data.reading import Reading
from transferscope.data.target import load_target
from transferscope.errors import InputError, TransferscopeWarning

pytestmark = pytest.mark.bounds


def target_of(*counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TransferscopeWarning)  # classes of one image
        return load_target(
            (np.arange(len(labels), dtype=np.uint8)[:, None, None] * np.ones((1, 3, 3), np.uint8), labels)
        )


@pytest.mark.parametrize(
    ("counts", "samples", "expected"),
    [
        ((10, 20, 30), 30, (5, 10, 15)),
        ((10, 20, 30), 6, (2, 2, 2)),
        ((50, 50, 5), 21, (10, 9, 2)),  # 2 for the small one; 9.5 each, the first rounds up
        ((100, 3, 1), 20, (17, 2, 1)),
        ((7, 7, 7), 20, (7, 7, 6)),
        ((40, 30, 30, 2), 51, (19, 15, 15, 2)),  # 49 over 100: 19.6, 14.7, 14.7
        ((5, 6), 11, (5, 6)),
    ],
)
def test_classes_share_in_proportion_with_two_at_least(counts, samples, expected):
    probe = target_of(*counts).probe(samples)
    assert np.bincount(probe.labels).tolist() == list(expected)


def test_shares_are_right_for_random_counts():
    random = np.random.default_rng(0)
    for _ in range(300):
        counts = random.integers(0, 60, random.integers(2, 12))
        least = np.minimum(counts, 2)
        if counts.sum() == 0:
            continue
        samples = int(random.integers(least.sum(), counts.sum() + 1))
        shares = allocate(counts, samples)
        assert shares.sum() == samples
        assert (shares >= least).all()
        assert (shares <= counts).all()
        above = (shares > least) & (counts > 0)  # those that the least does not decide: equal ratios but for rounding
        if above.any():
            ratio = shares[above].sum() / counts[above].sum()
            assert (np.abs(shares - ratio * counts)[above] < 2).all()


@pytest.mark.parametrize(("counts", "smallest"), [((9, 9, 9, 9, 9, 9), 12), ((9, 9, 1), 5)])
def test_too_few_samples_say_how_many_are_needed(counts, smallest):
    target = target_of(*counts)
    with pytest.raises(InputError, match=rf"samples = {smallest - 1} is too few .* at least {smallest}$"):
        target.probe(smallest - 1)
    assert len(target.probe(smallest)) == smallest


def test_more_samples_than_images_uses_all(caplog):
    with caplog.at_level(logging.INFO, "transferscope"):
        probe = target_of(5, 6).probe(100)
    assert sorted(probe.indices) == list(range(11))
    assert "11 images to draw from, all are used" in caplog.text


@pytest.mark.parametrize("arguments", [(0,), (2.5,), (True,), ("9",), (9, -1), (9, 0.5)])
def test_bad_samples_and_seeds_are_refused(arguments):
    with pytest.raises(InputError, match="must be a whole number of at least"):
        target_of(9, 9).probe(*arguments)


def test_a_draw_depends_on_the_seed_alone(tmp_path):
    layout = ["a*30", "b*30"]
    here, there = (load_target(write(tmp_path / place, *layout)) for place in ("here", "some/where else"))
    draws = [target.probe(20, seed) for target in (here, here, there) for seed in (0, 1)]
    indices = [tuple(draw.indices) for draw in draws]
    assert indices[0] == indices[2] == indices[4]
    assert indices[1] == indices[3] == indices[5]
    assert indices[0] != indices[1]
    assert draws[0].hash == draws[4].hash != draws[1].hash
    assert len(set(indices[0])) == 20
    assert list(draws[0].labels) != sorted(draws[0].labels)


def test_a_probe_holds_the_images_its_indices_say():
    target = target_of(20, 20)
    probe = target.probe(12, seed=3)
    assert probe.indices.tolist() != sorted(probe.indices)
    for position, index in enumerate(probe.indices):
        assert probe.image(position).getpixel((0, 0)) == (index,) * 3  # each image's grey is its index
        assert probe.labels[position] == target.labels[index]
    rest = target.subset(np.setdiff1d(np.arange(40), probe.indices))
    assert sorted([*rest.indices, *probe.indices]) == list(range(40))
    again = rest.probe(8)
    assert [again.image(i).getpixel((0, 0))[0] for i in range(8)] == rest.indices[again.indices].tolist()


def test_a_probe_decodes_each_image_once_within_its_budget(tmp_path, monkeypatch):
    write(tmp_path, "a*5", "b*5")
    reads = []
    decode = Reading.decode
    monkeypatch.setattr(Reading, "decode", lambda reading, content: reads.append(1) or decode(reading, content))
    probe = load_target(tmp_path).probe(10)
    assert len(reads) == 10
    first = [probe.image(i).tobytes() for i in range(10)]
    assert len(reads) == 10
    monkeypatch.setattr(target_module, "KEPT_BYTES", 3 * 4 * 4 * 4)  # room for three images of 4 × 4 pixels
    small = load_target(tmp_path).probe(10)
    assert [small.image(i).tobytes() for i in range(10)] == first
    assert len(reads) == 10 + 10 + 7


def truncated(path):
    """Leave the header and cut the pixels, which only decoding can notice."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    noise.save(path, "PNG")
    path.write_bytes(path.read_bytes()[:1500])


def test_images_broken_behind_the_header_are_replaced_in_the_probe(tmp_path):
    write(tmp_path, "a*30", "b*30")
    truncated(tmp_path / "a" / "007.png")
    target = load_target(tmp_path)
    assert len(target) == 60
    seed = next(s for s in range(50) if 7 in clean_draw(tmp_path, 40, s))
    with pytest.warns(
        TransferscopeWarning, match=r"1 of 41 images are broken and skipped: a/007\.png \(.*trunc"
    ) as caught:
        probe = target.probe(40, seed)
    assert caught[0].filename == __file__
    assert np.bincount(probe.labels).tolist() == [20, 20]
    assert 7 not in probe.indices
    assert len(set(probe.indices)) == 40
    assert [path for path, _ in probe.broken] == ["a/007.png"]
    assert target.broken == ()
    with pytest.raises(InputError, match=r"a/007\.png of target .* is broken: .*trunc"):
        target.image(7)
    with pytest.warns(TransferscopeWarning):  # no other left to draw: one fewer
        assert np.bincount(target.probe(60).labels).tolist() == [29, 30]


def clean_draw(root, samples, seed):
    """What the same folder gives when nothing in it is broken."""
    copy = root.parent / f"{root.name}-clean"
    if not copy.exists():
        shutil.copytree(root, copy)
        (copy / "a" / "007.png").write_bytes(png(7))
    return load_target(copy).probe(samples, seed).indices


def test_a_probe_with_over_five_percent_broken_is_an_error(tmp_path):
    write(tmp_path, "a*20", "b*20")
    for i in range(3):
        truncated(tmp_path / "b" / f"{i:03}.png")
    with pytest.raises(InputError, match="3 of 40 images are broken, over 5%: b/00"):
        load_target(tmp_path).probe(40)


def test_the_hash_follows_content_not_place(tmp_path):
    original = load_target(write(tmp_path / "one", "a*3", "b*3"))
    moved = load_target(shutil.copytree(tmp_path / "one", tmp_path / "far" / "two"), name="other")
    assert original.hash == moved.hash
    assert len(original.hash) == 64

    def changed(change):
        copy = shutil.copytree(tmp_path / "one", tmp_path / f"copy{len(list(tmp_path.iterdir()))}")
        change(copy)
        return load_target(copy).hash

    def one_byte(root):
        path = root / "a" / "001.png"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    hashes = [
        original.hash,
        changed(one_byte),
        changed(lambda root: (root / "a" / "002.png").rename(root / "b" / "!.png")),  # a label, not the order
        changed(lambda root: (root / "a").rename(root / "A")),
        changed(lambda root: (root / "b" / "002.png").unlink()),
        changed(lambda root: (root / "a" / "000.png").rename(root / "a" / "zzz.png")),  # the order
        original.subset(range(1, 6)).hash,
        original.subset([1, 0, 2, 3, 4, 5]).hash,
    ]
    assert len(set(hashes)) == len(hashes)
    assert original.subset(range(6)).hash == original.hash
    assert original.subset(range(5)).hash == changed(lambda root: (root / "b" / "002.png").unlink())


def test_the_hash_of_arrays_follows_pixels_and_labels():
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 5, 3), dtype=np.uint8)
    labels = np.array([0, 1, 0, 1, 0, 1])
    known = load_target((images, labels)).hash
    other = images.copy()
    other[3, 2, 2, 1] ^= 1
    assert load_target((other, labels)).hash != known
    assert load_target((images, labels[::-1])).hash != known
    assert load_target((images, labels + 1)).hash != known  # other class names
    same = (torch.tensor(images).permute(0, 3, 1, 2).float() / 255, torch.tensor(labels))
    assert load_target(same).hash == known
    assert load_target(TensorDataset(*same)).hash == known


def test_a_target_cannot_be_changed_from_outside():
    images = np.zeros((4, 5, 5), np.uint8)
    target = load_target((images, np.array([0, 0, 1, 1])))
    images += 9
    assert target.image(0).getpixel((0, 0)) == (0, 0, 0)
    for probe in (target, target.probe(4)):
        probe.image(1).putpixel((0, 0), (1, 2, 3))
        assert probe.image(1).getpixel((0, 0)) == (0, 0, 0)
        for array in (probe.labels, probe.indices):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1
        with pytest.raises(AttributeError):
            probe.name = "x"


def test_subsets_keep_the_class_names_and_refuse_bad_indices():
    target = target_of(3, 3)
    subset = target.subset(np.array([5, 3]))
    assert subset.classes == ("0", "1")
    assert subset.labels.tolist() == [1, 1]
    assert len(target.subset([])) == 0
    assert target.subset([]).hash != subset.hash
    for bad in ([6], [-1], [0.5], [[0]], "ab", [True, False]):
        with pytest.raises(InputError, match="indices must"):
            target.subset(bad)
    for bad in (6, -1):
        with pytest.raises(InputError, match=r"must lie in \[0, 6\)"):
            target.image(bad)


def test_targets_travel_to_other_processes(tmp_path):
    for target in (load_target(write(tmp_path, "a*3", "b*3")), target_of(3, 3)):
        probe = target.probe(4)
        copy = pickle.loads(pickle.dumps(probe))
        assert copy.hash == probe.hash
        assert [copy.image(i).tobytes() for i in range(4)] == [probe.image(i).tobytes() for i in range(4)]


def test_a_target_is_its_own_target():
    target = target_of(2, 2)
    assert load_target(target) is target
    renamed = load_target(target, name="new")
    assert (renamed.name, renamed.hash, target.name) == ("new", target.hash, "arrays")


def test_a_folder_name_that_is_not_utf_8_becomes_printable(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    write(folder, "a*2", "b*2")
    assert load_target(folder).name == "caf\N{REPLACEMENT CHARACTER}"
