"""Which bands of an image are shown: transparency where it is declared, else the first three, or those asked for."""

import io

import numpy as np
import pytest
from image_files import folder, png16, tiff
from PIL import Image

from transferscope.data.target import load_target
from transferscope.errors import InputError, TransferscopeWarning

pytestmark = pytest.mark.bounds

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (4, 6, 5, 13), dtype=np.uint8)
LABELS = [0, 0, 1, 1]


def target_of(root, files, suffix=".tif", **options):
    return load_target(folder(root, {f"{'ab'[i // 2]}/{i}{suffix}": data for i, data in enumerate(files)}), **options)


def pictures(target):
    return np.stack([np.asarray(target.image(i)) for i in range(len(target))])


@pytest.mark.parametrize("bands", [2, 4, 5, 8, 13])
@pytest.mark.parametrize("dtype", ["<u1", "<u2", ">u2", "<f4"])
def test_undeclared_bands_are_no_transparency(tmp_path, bands, dtype):
    values = PIXELS[..., :bands]
    stored = {"u1": values, "u2": values.astype(np.uint16) * 257, "f4": values / np.float32(255)}[dtype[1:]]
    with pytest.warns(TransferscopeWarning, match=rf"4 of 4 images have bands .*a/0\.tif with {bands}.*--bands"):
        target = target_of(tmp_path, [tiff(each.astype(dtype)) for each in stored])
    shown = values[..., :3] if bands > 2 else values[..., [0, 0, 0]]
    assert np.array_equal(pictures(target), shown)


@pytest.mark.parametrize("kinds", [(0,), (0, 0)])
def test_extra_samples_that_are_called_nothing_are_none_either(tmp_path, kinds):
    values = PIXELS[..., : 3 + len(kinds)]
    with pytest.warns(TransferscopeWarning, match="the first three are taken"):
        target = target_of(tmp_path, [tiff(each, extra=kinds) for each in values])
    assert np.array_equal(pictures(target), values[..., :3])


@pytest.mark.parametrize("dtype", ["<u1", "<u2"])
@pytest.mark.parametrize("kind", [1, 2])
def test_a_tiff_declares_its_transparency(tmp_path, dtype, kind):
    full = {"<u1": 255, "<u2": 65535}[dtype]
    # a colour at alpha 1/5 on white: associated, it was multiplied by that already
    colour = np.array([full, 0, full // 5])
    stored = colour // 5 if kind == 1 else colour
    values = np.broadcast_to(np.append(stored, full // 5), (2, 3, 4)).astype(dtype)
    target = target_of(tmp_path, [tiff(values, extra=(kind,))] * 4, value_range=None if full == 255 else (0, full))
    assert np.abs(pictures(target)[0, 0, 0].astype(int) - [255, 204, 204 + 10]).max() <= 1


def test_16_bit_png_with_transparency(tmp_path):
    grey = np.broadcast_to(np.array([20000, 13107]), (2, 3, 2))  # at alpha 1/5: 20000/257/5 + 204
    assert pictures(target_of(tmp_path / "grey", [png16(grey)] * 4, ".png"))[0, 0, 0].tolist() == [220] * 3
    colour = np.broadcast_to(np.array([65535, 0, 0, 13107]), (2, 3, 4))
    assert pictures(target_of(tmp_path / "rgb", [png16(colour)] * 4, ".png"))[0, 0, 0].tolist() == [255, 204, 204]


def test_jpeg_2000_of_four_bands_declares_transparency_by_a_box(tmp_path):
    def saved(image, channels_defined):
        content = io.BytesIO()
        image.save(content, "JPEG2000", irreversible=False)
        data = content.getvalue()
        return data if channels_defined else data.replace(b"cdef", b"free", 1)

    image = Image.fromarray(PIXELS[0, ..., :4].repeat(8, 0).repeat(8, 1).copy(), "RGBA")
    if b"cdef" not in saved(image, True):
        pytest.skip("this Pillow defines no channels")
    shown = target_of(tmp_path / "alpha", [saved(image, True)] * 4, ".jp2")
    rgb = np.asarray(image)[..., :3]
    assert not np.array_equal(pictures(shown)[0], rgb)
    with pytest.warns(TransferscopeWarning, match="with 4: the first three"):
        plain = target_of(tmp_path / "bands", [saved(image, False)] * 4, ".jp2")
    assert np.array_equal(pictures(plain)[0], rgb)


@pytest.mark.parametrize("bands", [(4, 3, 2), (13, 1, 1), (2,), (1, 2, 3, 4), tuple(range(1, 14)), (5, 6)])
def test_bands_that_are_asked_for_are_shown(tmp_path, bands):
    target = target_of(tmp_path, [tiff(each) for each in PIXELS], bands=bands)
    chosen = PIXELS[..., [band - 1 for band in bands]]
    assert np.array_equal(pictures(target), chosen if len(bands) != 1 else chosen.repeat(3, 3))
    assert isinstance(target.image(0), Image.Image) == (len(bands) in (1, 3))
    assert target.reading.bands == bands
    probe = target.probe(4)
    assert all(np.array_equal(np.asarray(probe.image(i)), pictures(target)[j]) for i, j in enumerate(probe.indices))
    assert "<img" in target._repr_html_() or len(bands) not in (1, 3)


def test_bands_are_part_of_what_an_image_is_unless_they_are_what_it_shows(tmp_path):
    buffers = [io.BytesIO() for _ in PIXELS]
    for pixels, buffer in zip(PIXELS, buffers, strict=True):
        Image.fromarray(pixels[..., :3].copy()).save(buffer, "PNG")
    files = [buffer.getvalue() for buffer in buffers]
    plain = target_of(tmp_path, files, ".png")
    assert load_target(tmp_path, bands=(1, 2, 3)).contents == plain.contents
    swapped = load_target(tmp_path, bands=(3, 2, 1))
    assert not set(swapped.contents) & set(plain.contents)
    assert np.array_equal(pictures(swapped), pictures(plain)[..., ::-1])


def test_the_range_is_that_of_the_bands_that_are_shown(tmp_path):
    values = np.stack([PIXELS[..., 0].astype("<u2") * 4, PIXELS[..., 1].astype("<u2") * 257], axis=-1)
    files = [tiff(np.concatenate([each, each[..., :1]], -1)) for each in values]
    with pytest.warns(TransferscopeWarning, match="and 1023 white"):
        target = target_of(tmp_path, files, bands=[1])
    assert np.abs(pictures(target)[..., 0].astype(float) - values[..., 0] / 1023 * 255).max() <= 0.501


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ((0,), "the first is 1"),
        ((), "the first is 1"),
        ("3,2,1", "the first is 1"),
        ((1.0, 2, 3), "the first is 1"),
        ((1, 2, 14), r"a/0\.tif: band 14 was asked for, but there are 13"),
    ],
)
def test_bands_that_are_not_there_are_refused(tmp_path, bands, message):
    with pytest.raises(InputError, match=message):
        target_of(tmp_path, [tiff(each) for each in PIXELS], bands=bands)


@pytest.mark.parametrize("first", [False, True])
def test_bands_of_arrays(first):
    images = PIXELS.transpose(0, 3, 1, 2) if first else PIXELS
    with pytest.raises(InputError, match=r"no channel axis of length 1, 3 or 4.*`bands`"):
        load_target((images, LABELS))
    square = RNG.integers(0, 256, (4, 16, 16, 13), dtype=np.uint8)
    images = square.transpose(0, 3, 1, 2) if first else square
    target = load_target((images, LABELS), bands=(4, 3, 2))
    assert np.array_equal(pictures(target), square[..., [3, 2, 1]])
    many = load_target((images.astype(np.uint16) * 257, LABELS), bands=range(1, 14))
    assert np.array_equal(pictures(many), square)
    with pytest.raises(InputError, match="image 0: band 14 was asked for, but there are 13"):
        load_target((images, LABELS), bands=14)


def test_an_array_whose_axes_could_be_either_is_refused():
    with pytest.raises(InputError, match=r"which axis .* counts its bands is not clear"):
        load_target((np.zeros((4, 8, 9, 8), np.uint8), LABELS), bands=(1, 2, 3))


def test_a_fourth_channel_of_an_array_is_transparency_and_said_where_it_hides_something():
    opaque = PIXELS[..., :4].copy()
    opaque[..., 3] = 255
    assert np.array_equal(pictures(load_target((opaque, LABELS))), opaque[..., :3])
    with pytest.warns(TransferscopeWarning, match=r"fourth channel of 4 of 4 images .*bands=\(1, 2, 3\)"):
        load_target((PIXELS[..., :4], LABELS))
    assert np.array_equal(pictures(load_target((PIXELS[..., :4], LABELS), bands=(1, 2, 3))), PIXELS[..., :3])


def test_of_several_pages_the_first_counts_and_that_is_said(tmp_path):
    content = io.BytesIO()
    pages = [Image.new("L", (4, 4), shade) for shade in (10, 200)]
    pages[0].save(content, "TIFF", save_all=True, append_images=pages[1:])
    with pytest.warns(TransferscopeWarning, match=r"4 of 4 images have several pages, such as a/0\.tif"):
        target = target_of(tmp_path, [content.getvalue()] * 4)
    assert (pictures(target) == 10).all()
