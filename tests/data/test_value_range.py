"""One range of values for all images of a target: the same scene in any depth of bits becomes the same picture."""

import io
import logging
import re

import numpy as np
import pytest
from image_files import folder, png16, tiff
from image_folders import png
from PIL import Image

from transferscope.data.target import load_target
from transferscope.data.value_range import Spread, to_8_bit
from transferscope.errors import InputError, TransferscopeWarning

pytestmark = pytest.mark.bounds

RNG = np.random.default_rng(0)
SCENES = [0.3 + 0.4 * RNG.random((6, 5, 3)) for _ in range(4)]
"""Intensities far from black and white, so that no picture tells by itself how many bits it has."""


def bits_of(scene, bits, dtype="<u2"):
    return np.round(scene * (2**bits - 1)).astype(dtype)


def target_of(root, files, **options):
    names = [f"{'ab'[i // 2]}/{i}" for i in range(len(files))]
    endings = [".tif" if data[:2] in (b"II", b"MM") else ".png" for data in files]
    return load_target(folder(root, dict(zip(map(str.__add__, names, endings), files, strict=True))), **options)


def pictures(target):
    return np.stack([np.asarray(target.image(i)) for i in range(len(target))]).astype(int)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize(
    "write",
    [
        png16,
        lambda values: png16(values[..., :1]),
        lambda values: tiff(values[..., :1]),
        tiff,
        lambda values: tiff(values.astype(">u2"), compress=True),
        lambda values: tiff(values.astype("<i2")),
        lambda values: tiff(values.astype("<u4")),
        lambda values: tiff(values.astype("<f4")),
    ],
    ids=["png-rgb", "png-grey", "tiff-grey", "tiff-rgb", "big-endian", "int16", "uint32", "whole-floats"],
)
def test_fewer_bits_than_16_are_told_by_the_images_together_and_said(tmp_path, bits, write):
    files = [write(bits_of(scene, bits)) for scene in SCENES]
    with pytest.warns(TransferscopeWarning, match=rf"4 of 4 .* black and {2**bits - 1} white.*--value"):
        target = target_of(tmp_path, files)
    assert target.reading.value_range == (0, 2**bits - 1)
    expected = [scene if pictures(target)[0].std(2).any() else scene[..., :1] for scene in SCENES]
    assert np.abs(pictures(target) - np.stack(expected) * 255).max() <= 0.5 + 255 / 2**bits


def test_16_bits_are_taken_as_they_are_without_a_warning_and_keep_their_hash(tmp_path, caplog):
    values = [bits_of(scene, 16)[..., :1] for scene in SCENES]
    with caplog.at_level(logging.INFO, "transferscope"):
        target = target_of(tmp_path, [png16(each) for each in values])
    assert "4 of 4 images have more than 8 bits a value: 0 becomes black and 65535 white" in caplog.text
    assert np.abs(pictures(target)[..., 0] - np.stack(values)[..., 0] / 257).max() <= 0.5
    given = load_target(tmp_path, value_range=(0, 65535))
    assert given.contents == target.contents


def test_the_range_is_part_of_what_an_image_is(tmp_path):
    files = [*(png16(bits_of(scene, 12)) for scene in SCENES[:3]), png(7)]
    one = target_of(tmp_path, files, value_range=(0, 4095))
    other = target_of(tmp_path, files, value_range=[100, 4095])
    assert [a == b for a, b in zip(one.contents, other.contents, strict=True)] == [False] * 3 + [True]
    with pytest.warns(TransferscopeWarning, match="12 bits"):
        assert load_target(tmp_path).contents == one.contents  # told by the images or given


def test_values_outside_of_a_given_range_are_clipped_and_8_bit_images_stay(tmp_path):
    values = np.array([[[0], [1000], [2000], [3000], [4095]]] * 2, "<u2")
    grey = io.BytesIO()
    Image.fromarray(np.uint8([[0, 9, 99, 199, 255]] * 2)).save(grey, "PNG")
    target = target_of(tmp_path, [png16(values)] * 3 + [grey.getvalue()], value_range=(1000, 3000))
    assert pictures(target)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]  # 127.5 to the even number
    assert pictures(target)[3, 0, :, 0].tolist() == [0, 9, 99, 199, 255]


def test_one_image_with_more_bits_widens_the_range_of_all_and_that_is_said(tmp_path):
    files = [png16(bits_of(scene, 10)) for scene in SCENES[:3]]
    more = bits_of(SCENES[3], 10)
    more[0, 0, 0] = 2000
    with pytest.warns(TransferscopeWarning, match="12 bits are the fewest"):
        assert target_of(tmp_path, [*files, png16(more)]).reading.value_range == (0, 4095)


@pytest.mark.parametrize(
    ("usual", "rare", "high", "why"),
    [
        (
            900,
            4095,
            4095,
            "12 bits are the fewest .*, 4095, but all except 0.1 % of them would fit into 10 bits: 0,1023",
        ),
        (9000, 65535, 65535, "16 bits are the fewest .*, but all except 0.1 % of them would fit into 14 bits: 0,16383"),
        (3000, 65535, 4095, "12 bits hold all except 0.1 % of them, and 16 bits would .*, 65535, too: 0,65535"),
        (900, 16383, 1023, "10 bits hold all except 0.1 % of them, and 14 bits would .*, 16383, too: 0,16383"),
    ],
)
def test_hot_pixels_do_not_make_all_others_black(usual, rare, high, why):
    values = np.full(10**5, usual, np.uint16)
    values[:3] = rare
    spread = Spread()
    spread.add(values)
    value_range, said = spread.choose()
    assert value_range == (0, high)
    assert re.match(why, said)


def test_a_file_that_says_how_high_its_values_go_is_believed_about_rare_ones():
    spread = Spread()
    values = np.full(10**5, 900, np.uint16)
    values[:3] = 16383
    spread.add(values, declared=16383)
    assert spread.choose()[0] == (0, 16383)


def test_a_file_that_says_how_high_its_values_go_is_believed(tmp_path):
    dark = [bits_of(scene / 8, 12)[..., :1] for scene in SCENES]
    with pytest.warns(TransferscopeWarning, match="and 4095 white"):
        target_of(tmp_path / "said", [tiff(each, largest=(4095,)) for each in dark])
    with pytest.warns(TransferscopeWarning, match="and 1023 white"):  # what the type holds says nothing
        target_of(tmp_path / "unsaid", [tiff(each, largest=(65535,)) for each in dark])


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<i4", "<f4", "<f8"])
def test_signed_and_floating_point_values_get_a_window_of_the_data(tmp_path, dtype):
    scenes = [np.round(-1000 + 2000 * scene).astype(dtype)[..., :1] for scene in SCENES]
    with pytest.warns(TransferscopeWarning, match="they go from -?[0-9.]+ to [0-9.]+, with 0.1 % beyond"):
        target = target_of(tmp_path, [tiff(each) for each in scenes])
    low, high = target.reading.value_range
    everything = np.stack(scenes).astype(float)
    assert everything.min() <= low < everything.min() + 20
    assert everything.max() - 20 < high <= everything.max() + 1
    expected = np.clip((everything[..., 0] - low) / (high - low), 0, 1) * 255
    assert np.abs(pictures(target)[..., 0] - expected).max() <= 0.501
    window = target_of(tmp_path, [tiff(each) for each in scenes], value_range=(-200, 200))
    assert np.abs(pictures(window)[..., 0] - np.clip((everything[..., 0] + 200) / 400, 0, 1) * 255).max() <= 0.501


def test_floats_in_the_unit_interval_need_no_word_and_those_of_bytes_are_bytes(tmp_path):
    unit = target_of(tmp_path / "unit", [tiff(scene.astype("<f4")) for scene in SCENES])
    assert unit.reading.value_range == (0, 1)
    assert np.abs(pictures(unit) - np.stack(SCENES) * 255).max() <= 0.501
    with pytest.warns(TransferscopeWarning, match="0 becomes black and 255 white"):
        target = target_of(tmp_path / "bytes", [tiff((scene * 255).astype("<f4")) for scene in SCENES])
    assert np.abs(pictures(target) - np.stack(SCENES) * 255).max() <= 0.501


def test_pixels_without_a_value_are_black_and_tell_nothing_of_the_range(tmp_path):
    scenes = [np.round(-500 + 1000 * scene).astype("<i2")[..., :1] for scene in SCENES]
    for scene in scenes:
        scene[:3] = -32768
    marked = [np.where(each == -32768, -999, each).astype("<i2") for each in scenes]
    with pytest.warns(TransferscopeWarning, match="they go from -1[0-9]{2} to"):
        target = target_of(tmp_path / "tag", [tiff(each, nodata=b"-999") for each in marked])
    assert (pictures(target)[:, :3] == 0).all()
    floats = [np.where(each == -32768, np.nan, each).astype("<f4") for each in scenes]
    with pytest.warns(TransferscopeWarning, match="they go from -1[0-9]{2} to"):
        target = target_of(tmp_path / "nan", [tiff(each) for each in floats])
    assert (pictures(target)[:, :3] == 0).all()


def test_low_values_are_bright_where_the_file_says_so(tmp_path):
    files = [tiff(bits_of(1 - scene, 16)[..., :1], photometric=0) for scene in SCENES]
    assert np.abs(pictures(target_of(tmp_path, files))[..., 0] - np.stack(SCENES)[..., 0] * 255).max() <= 0.501


@pytest.mark.parametrize("orientation", range(1, 9))
def test_values_of_many_bits_are_turned_upright_like_bytes(tmp_path, orientation):
    values = np.arange(0, 60000, 2000, dtype="<u2").reshape(6, 5, 1)
    wide = target_of(tmp_path / "wide", [tiff(values, orientation=(orientation,))] * 4)
    exif = Image.Exif()
    exif[274] = orientation
    narrow = io.BytesIO()
    Image.fromarray(to_8_bit(values[..., 0], (0, 65535))).save(narrow, "TIFF", exif=exif)
    assert np.array_equal(pictures(wide)[0], pictures(target_of(tmp_path / "narrow", [narrow.getvalue()] * 4))[0])


def test_a_range_that_says_nothing_or_clips_nearly_all_is_said(tmp_path):
    with pytest.warns(TransferscopeWarning, match="value_range changes nothing here: all images have 8 bits"):
        target_of(tmp_path / "bytes", [png(i) for i in range(4)], value_range=(0, 4095))
    with pytest.warns(TransferscopeWarning, match=r"from 0 to 1 clips 100% of the values.*between 0 and 4095"):
        target_of(tmp_path / "wide", [png16(bits_of(scene, 12)) for scene in SCENES], value_range=(0, 1))


@pytest.mark.parametrize("value", [5, (1,), (1, 2, 3), "0,1", (2, 1), (1, 1), (0, np.nan), (0, np.inf), ("a", "b")])
def test_what_is_no_range_is_refused(value):
    with pytest.raises(InputError, match="`value_range` to be two numbers"):
        load_target((np.zeros((4, 5, 6), np.uint8), [0, 0, 1, 1]), value_range=value)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.int64, np.uint32])
def test_arrays_of_whole_numbers_have_one_range(dtype):
    images = np.stack([bits_of(scene, 12, dtype) for scene in SCENES])
    with pytest.warns(TransferscopeWarning, match="0 becomes black and 4095 white"):
        target = load_target((images, [0, 0, 1, 1]))
    assert np.abs(pictures(target) - np.stack(SCENES) * 255).max() <= 0.6
    full = load_target(((images.astype(np.int64) * 16).astype(np.uint16), [0, 0, 1, 1]))
    assert full.reading.value_range == (0, 65535)


def test_arrays_of_floats_need_a_range_beyond_the_unit_interval():
    images = np.stack(SCENES) * 255
    for wrong in (images, images / 127.5 - 1):
        with pytest.raises(InputError, match=r"before normalisation.*`value_range`"):
            load_target((wrong, [0, 0, 1, 1]))
    target = load_target((images, [0, 0, 1, 1]), value_range=(0, 255))
    assert np.abs(pictures(target) - images).max() <= 0.501
    normalised = load_target((images / 127.5 - 1, [0, 0, 1, 1]), value_range=(-1, 1))
    assert np.array_equal(pictures(normalised), pictures(target))
    assert normalised.contents == target.contents  # the same pictures


class Items:
    """Images of a dataset, one by one."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], index % 2


@pytest.mark.parametrize("make", [lambda a: a, lambda a: Image.fromarray(a[..., 0])], ids=["array", "pil"])
def test_items_of_a_dataset_have_one_range(make):
    dataset = Items([make(bits_of(scene, 12)) for scene in SCENES])
    with pytest.warns(TransferscopeWarning, match="0 becomes black and 4095 white"):
        target = load_target(dataset)
    assert np.abs(pictures(target)[..., 0] - np.stack(SCENES)[..., 0] * 255).max() <= 0.6
    assert load_target(dataset, value_range=(0, 4095)).contents == target.contents
    assert load_target(dataset, value_range=(0, 5000)).contents != target.contents


def test_a_loaded_target_keeps_its_range(tmp_path):
    target = target_of(tmp_path, [png16(bits_of(scene, 16)) for scene in SCENES])
    assert load_target(target, value_range=(0, 65535)) is target
    with pytest.raises(InputError, match="were read already; give them to the load_target that made it"):
        load_target(target, value_range=(0, 4095))


def test_values_that_are_all_alike_have_a_range():
    spread = Spread()
    spread.add(np.full((4, 4), -3.0))
    assert spread.choose()[0] == (-3, -2)
    empty = Spread()
    empty.add(np.full((4, 4), np.nan))
    assert empty.choose()[0] == (0, 1)
    without_pixels = Spread()
    without_pixels.add(np.empty((0, 4), np.uint16))
    assert without_pixels.choose() == ((0, 1), "")
    sky = Spread()
    stars = np.full(10**5, -5.5)
    stars[:3] = 900
    sky.add(stars)
    assert sky.choose()[0] == (-5.5, 900)
