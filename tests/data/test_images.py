"""Every kind of image becomes the right RGB; expected colours are worked out by hand."""

import io
import time
import warnings

import numpy as np
import pytest
import torch
from image_files import png16, tiff
from PIL import Image

from transferscope.data.arrays import array_rgb
from transferscope.data.decoding import look_at
from transferscope.data.images import Transform, image_rgb, read_bytes
from transferscope.data.reading import Reading
from transferscope.errors import InputError

pytestmark = pytest.mark.bounds

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

FULL = (0, 65535)
"""The range of 16 bits, which a single image of few values does not tell."""
decode_rgb = Reading().decode


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colours(image):
    """All pixels, row by row, as a list of (red, green, blue)."""
    assert image.mode == "RGB"
    return [tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()]


def row(mode, *pixels):
    image = Image.new(mode, (len(pixels), 1))
    for x, pixel in enumerate(pixels):
        image.putpixel((x, 0), pixel)
    return image


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (saved(row("RGB", (1, 2, 3), (250, 0, 9)), "PNG"), [(1, 2, 3), (250, 0, 9)]),
        (saved(row("L", 0, 77, 255), "PNG"), [(0, 0, 0), (77, 77, 77), (255, 255, 255)]),
        (saved(row("1", 0, 255), "PNG"), [(0, 0, 0), (255, 255, 255)]),
        # grey 100 at alpha 51 = 1/5: 100/5 + 255·4/5 = 224
        (saved(row("LA", (100, 255), (100, 0), (100, 51)), "PNG"), [(100,) * 3, (255,) * 3, (224,) * 3]),
        # red at alpha 51 over white: green and blue 255·4/5 = 204; what hides under alpha 0 never shows
        (
            saved(row("RGBA", (9, 8, 7, 255), (0, 0, 0, 0), (255, 0, 0, 51)), "PNG"),
            [(9, 8, 7), (255, 255, 255), (255, 204, 204)],
        ),
        # the colour (1, 2, 3) is declared transparent; so is grey 7, and 16-bit grey 257
        (
            saved(row("RGB", (1, 2, 3), (3, 2, 1)), "PNG", transparency=(1, 2, 3)),
            [(255, 255, 255), (3, 2, 1)],
        ),
        (saved(row("L", 7, 9), "PNG", transparency=7), [(255,) * 3, (9,) * 3]),
        (saved(row("I;16", 257, 514), "PNG", transparency=257), [(255,) * 3, (2,) * 3]),
        # 1 − cyan = 0 red; black halves (255 − 51)/255 = 4/5: 255·4/5 = 204
        (
            saved(row("CMYK", (255, 0, 0, 0), (0, 0, 0, 255), (0, 255, 0, 51)), "TIFF"),
            [(0, 255, 255), (0, 0, 0), (204, 0, 204)],
        ),
    ],
    ids=["rgb", "l", "1", "la", "rgba", "rgb-key", "l-key", "i16-key", "cmyk"],
)
def test_modes_become_rgb(data, expected):
    assert colours(Reading(FULL).decode(data)) == expected


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_is_looked_up_and_its_transparent_entry_is_white(kind):
    image = row("P", 0, 1, 2)
    image.putpalette([200, 10, 20, 30, 210, 40, 50, 60, 220] + [0] * 759)
    assert colours(decode_rgb(saved(image, kind))) == [(200, 10, 20), (30, 210, 40), (50, 60, 220)]
    assert colours(decode_rgb(saved(image, kind, transparency=1)))[1] == (255, 255, 255)


def test_palette_with_an_alpha_for_each_entry():
    image = row("P", 0, 1)
    image.putpalette([255, 0, 0, 0, 0, 0] + [0] * 762)
    assert colours(decode_rgb(saved(image, "PNG", transparency=bytes([51, 0])))) == [
        (255, 204, 204),
        (255, 255, 255),
    ]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_greys_are_scaled_not_clipped(kind):
    values = np.array([[0, 257, 514, 257 * 128 + 128, 257 * 128 + 129, 65535]], dtype=np.uint16)
    expected = [0, 1, 2, 128, 129, 255]
    assert [red for red, _, _ in colours(decode_rgb(saved(Image.fromarray(values), kind)))] == expected


def test_32_bit_integers_count_as_16_bit_and_floats_by_their_range():
    greys = np.array([[0, 25700, 65535]])
    assert colours(decode_rgb(saved(Image.fromarray(greys.astype(np.int32)), "TIFF")))[1] == (100, 100, 100)
    unit = Image.fromarray(np.array([[0, 0.2, 1]], dtype=np.float32))
    assert colours(decode_rgb(saved(unit, "TIFF"))) == [(0,) * 3, (51,) * 3, (255,) * 3]
    bytes_like = Image.fromarray(np.array([[0, 51.4, 255]], dtype=np.float32))
    assert colours(image_rgb(bytes_like)) == [(0,) * 3, (51,) * 3, (255,) * 3]


@pytest.mark.parametrize(
    "values",
    [np.array([[-1, 3]], np.int32), np.array([[0, 70000]], np.int32), np.array([[0, 256.5]], np.float32),
     np.array([[0, np.nan]], np.float32)],
)  # fmt: skip
def test_greys_without_a_known_range_are_refused(values):
    with pytest.raises(InputError, match="must lie in"):
        image_rgb(Image.fromarray(values))


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
def test_cmyk_jpeg_in_adobe_polarity_agrees_with_another_decoder():
    other_io = pytest.importorskip("torchvision.io")
    if not hasattr(other_io, "decode_image"):
        pytest.skip("this torchvision decodes no images")
    ink = np.zeros((32, 32, 4), dtype=np.uint8)
    ink[:, 16:] = (0, 200, 100, 50)
    ink[:, :16] = (255, 0, 0, 0)
    data = saved(Image.fromarray(ink, "CMYK"), "JPEG", quality=100)
    assert b"Adobe" in data[:200]
    got = np.asarray(decode_rgb(data)).astype(int)
    raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    other = other_io.decode_image(raw, mode=other_io.ImageReadMode.RGB).permute(1, 2, 0).numpy()
    assert np.abs(got - other).max() <= 2
    assert np.abs(got[8, 8] - (0, 255, 255)).max() <= 3  # cyan, not its negative


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(kind, orientation):
    upright = np.full((48, 64), 128, dtype=np.uint8)
    upright[:16, :16], upright[-16:, -16:] = 255, 0  # white top left, black bottom right
    # how the sensor must have stored it: the inverse of what the EXIF standard says a viewer does
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    image = decode_rgb(saved(Image.fromarray(np.ascontiguousarray(stored)).convert("RGB"), kind, exif=exif))
    for result in (image, image_rgb(image)):
        assert np.abs(np.asarray(result)[:, :, 0].astype(int) - upright).max() <= 3


def test_a_damaged_exif_block_does_not_cost_the_image():
    data = saved(Image.new("RGB", (8, 8), (10, 20, 30)), "PNG", exif=b"Exif\x00\x00nonsense")
    assert colours(decode_rgb(data))[0] == (10, 20, 30)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert colours(decode_rgb(data))[0] == (250, 0, 0)


def test_paths_are_read_and_the_result_holds_no_file(tmp_path):
    path = tmp_path / "naïve cat.png"
    image = row("RGB", (1, 2, 3))
    image.save(path)
    results = [decode_rgb(read_bytes(path)), decode_rgb(read_bytes(str(path)))]
    assert {type(result) for result in results} == {Image.Image}
    assert [colours(result) for result in results] == [[(1, 2, 3)]] * 2


def test_the_given_image_is_left_as_it_was():
    image = row("RGBA", (1, 2, 3, 0))
    image_rgb(image)
    assert image.mode == "RGBA"
    assert image.getpixel((0, 0)) == (1, 2, 3, 0)


JPEG = saved(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")
PNG = saved(Image.effect_noise((64, 64), 50).convert("RGB"), "PNG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty"), (b"this is text", "no image in a format"), (JPEG[: len(JPEG) // 2], "truncated"),
     (PNG[: len(PNG) // 2], "truncated"), (PNG[:20], "Truncated")],
    ids=["empty", "text", "half-jpeg", "half-png", "header"],
)  # fmt: skip
def test_what_cannot_be_decoded_has_a_reason(data, reason):
    with pytest.raises(InputError, match=reason):
        decode_rgb(data)


def test_damaged_bytes_never_raise_anything_else():
    random = np.random.default_rng(0)
    failures = 0
    for original in (
        JPEG,
        PNG,
        saved(Image.new("RGB", (32, 32)), "TIFF"),
        saved(Image.new("P", (32, 32)), "GIF"),
        tiff(np.full((16, 16, 5), 7, "<u2"), compress=True),
        png16(np.full((16, 16, 3), 7)),
    ):
        for _ in range(60):
            damaged = bytearray(original)
            for at in random.integers(0, len(damaged), 8):
                damaged[at] = random.integers(256)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's own remarks about such files
                try:
                    assert decode_rgb(bytes(damaged)).mode == "RGB"
                except InputError:
                    failures += 1
    assert failures > 20


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.png cannot be read: No such file"):
        read_bytes(tmp_path / "none.png")


def test_images_of_too_many_pixels_are_refused(monkeypatch):
    data = saved(Image.new("L", (64, 64)), "PNG")
    monkeypatch.setenv("TRANSFERSCOPE_MAX_MEGAPIXELS", "0.001")
    for read in (decode_rgb, look_at):
        with pytest.raises(InputError, match=r"more than the 0\.001 megapixels"):
            read(data)


def test_a_look_sees_the_beginning_only():
    look_at(JPEG[: len(JPEG) // 2])
    with pytest.raises(InputError, match="no image"):
        look_at(b"hello")


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[0, 5], [9, 255]], np.uint8), [(0,) * 3, (5,) * 3, (9,) * 3, (255,) * 3]),
        (np.array([[[5, 6], [9, 8]]], np.uint8), [(5,) * 3, (6,) * 3, (9,) * 3, (8,) * 3]),
        (np.arange(8, dtype=np.uint8).reshape(2, 4)[:, ::-2], [(3,) * 3, (1,) * 3, (7,) * 3, (5,) * 3]),
        (np.array([[False, True]]), [(0,) * 3, (255,) * 3]),
        (np.array([[0, 257, 65535]], np.uint16), [(0,) * 3, (1,) * 3, (255,) * 3]),
        (np.array([[0, 0.2, 1]], np.float32), [(0,) * 3, (51,) * 3, (255,) * 3]),
        (np.array([[0, 0.2, 1]], np.float16), [(0,) * 3, (51,) * 3, (255,) * 3]),
        (np.array([[[1, 2, 3], [4, 5, 6]]] * 2, np.uint8), [(1, 2, 3), (4, 5, 6)] * 2),
        (np.array([[[1, 2, 3], [4, 5, 6]]] * 2, np.uint8).transpose(2, 0, 1), [(1, 2, 3), (4, 5, 6)] * 2),
        (np.array([[[255, 0, 0, 51], [0, 0, 0, 0]]] * 2, np.uint8), [(255, 204, 204), (255,) * 3] * 2),
        (np.array([[[1.0, 0, 0, 0.2], [0, 0, 0, 0]]] * 2), [(255, 204, 204), (255,) * 3] * 2),
    ],
    ids=[
        "grey",
        "chw1",
        "strided",
        "bool",
        "uint16",
        "float",
        "half",
        "hwc",
        "chw",
        "rgba",
        "float-rgba",
    ],
)
def test_arrays_become_rgb(array, expected, as_tensor):
    assert colours(array_rgb(torch.tensor(array.copy()) if as_tensor else array)) == expected


def test_bfloat16_tensors():
    assert colours(array_rgb(torch.tensor([[0, 1.0]], dtype=torch.bfloat16))) == [(0,) * 3, (255,) * 3]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 8, 3), np.uint8), "could be"),
        (np.zeros((8, 8, 2), np.uint8), "no channel axis"),
        (np.zeros((2, 8, 8, 3), np.uint8), "must have shape"),
        (np.zeros((0, 8), np.uint8), "none of them 0"),
        (np.zeros((8, 8), np.int64), "int64.*convert them to uint8"),
        (np.full((8, 8), 1.5), "before normalisation"),
        (np.full((8, 8), -0.5), "before normalisation"),
        (np.full((8, 8), np.nan), "before normalisation"),
        ([[1, 2]], "NumPy array or a torch tensor"),
    ],
)
def test_arrays_that_cannot_be_images(array, message):
    with pytest.raises(InputError, match=message):
        array_rgb(array)


def noise(width, height):
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    ("width", "height", "size", "resize"),
    [
        (128, 128, 96, None),
        (101, 77, 32, 40),
        (77, 101, 33, 40),
        (64, 300, 48, 57),
        (31, 17, 40, None),
        (32, 32, 32, 32),
    ],
)
def test_transform_equals_torchvision(width, height, size, resize, interpolation):
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    reference = Compose(
        [
            Resize(resize or size, InterpolationMode(interpolation)),
            CenterCrop(size),
            ToTensor(),
            Normalize(mean, std),
        ]
    )
    image = noise(width, height)
    result = Transform(size, mean, std, interpolation, resize)(image)
    assert result.shape == (3, size, size)
    assert result.dtype == torch.float32
    assert result.is_contiguous()
    torch.testing.assert_close(result, reference(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("width", "height", "size", "resize"),
    [
        (128, 128, (32, 128), None),
        (300, 40, (32, 128), None),
        (101, 77, (64, 32), (71, 35)),
        (31, 17, (32, 40), (36, 45)),
        (77, 101, (48, 96), (96, 96)),
    ],
)
def test_transform_of_another_shape_equals_that_of_timm(width, height, size, resize):
    from timm.data.transforms import ResizeKeepRatio
    from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

    # as timm.data.create_transform puts them together; equal sides of the box are torchvision's shorter side
    box = resize or size
    first = Resize(box[0]) if box[0] == box[1] else ResizeKeepRatio(box, interpolation="bilinear")
    reference = Compose([first, CenterCrop(size), ToTensor(), Normalize(*HALF)])
    image = noise(width, height)
    result = Transform(size, *HALF, resize=resize)(image)
    assert result.shape == (3, *size)
    torch.testing.assert_close(result, reference(image), rtol=0, atol=1e-6)


def test_transform_of_a_square_is_the_same_however_it_is_written():
    assert Transform([32, 32], *HALF, resize=(40, 40)) == Transform(32, *HALF, resize=40)
    assert Transform([32, 64], *HALF).size == (32, 64)
    assert Transform([32, 64], *HALF).shape == (3, 32, 64)
    assert Transform(32, (0.5,), (0.5,)).blank().shape == (1, 1, 32, 32)


def test_transform_of_one_channel_is_grey_by_the_weights_of_itu_r_601():
    red, green, blue = 200, 100, 50
    result = Transform(2, (0.0,), (1.0,))(Image.new("RGB", (4, 4), (red, green, blue)))
    assert result.shape == (1, 2, 2)
    assert result[0, 0, 0].item() * 255 == pytest.approx(0.299 * red + 0.587 * green + 0.114 * blue, abs=0.51)


def test_transform_of_many_channels_takes_each_band_as_it_would_a_grey_image():
    bands = np.random.default_rng(0).integers(0, 256, (20, 30, 5), dtype=np.uint8)
    result = Transform((8, 12), (0.1, 0.2, 0.3, 0.4, 0.5), (0.5,) * 5)(bands)
    assert result.shape == (5, 8, 12)
    for band in range(5):
        grey = Transform((8, 12), ((band + 1) / 10,), (0.5,))(Image.fromarray(bands[..., band].copy()))
        torch.testing.assert_close(result[band], grey[0])
    for channels, image in ((4, bands), (3, bands), (4, Image.new("RGB", (9, 9)))):
        with pytest.raises(InputError, match=rf"takes images of {channels} channels.*--bands"):
            Transform(8, (0.5,) * channels, (0.5,) * channels)(image)


def test_transform_by_hand_and_of_other_modes():
    result = Transform(2, (0.5, 0.25, 0.0), (0.5, 0.25, 2.0))(Image.new("RGB", (4, 4), (255, 0, 51)))
    assert result[:, 0, 0].tolist() == pytest.approx([1.0, -1.0, 0.1])
    grey = Transform(2, *HALF)(Image.new("L", (4, 4), 255))
    torch.testing.assert_close(grey, torch.ones(3, 2, 2))


def test_transform_is_a_value():
    as_lists = Transform(32, [0.5, 0.5, 0.5], [1, 1, 1])
    assert as_lists == Transform(32, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
    assert len({as_lists, Transform(32, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0))}) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, "size must be"),
        ({"size": 32.0}, "size must be"),
        ({"size": True}, "size must be"),
        ({"resize": 31}, "at least size = 32"),
        ({"size": (32, 64, 3)}, "size must be .* two, .height, width., but got"),
        ({"size": (32, 0)}, "size must be"),
        ({"size": (32, 64), "resize": 63}, r"at least size = \(32, 64\)"),
        ({"size": (32, 64), "resize": (64, 32)}, r"at least size = \(32, 64\)"),
        ({"mean": (0.5, 0.5)}, "mean and std must be equally many numbers"),
        ({"mean": 0.5}, "mean must be a list of numbers"),
        ({"mean": "abc"}, "mean must be a list of numbers"),
        ({"mean": ()}, "mean must be a list of numbers"),
        ({"std": (0.5, 0.0, 0.5)}, "std must be above 0"),
        ({"std": (0.5, float("nan"), 0.5)}, "std must be finite"),
        ({"interpolation": "cubic"}, "one of nearest, bilinear, bicubic, lanczos"),
    ],
)
def test_transform_refuses_bad_values(changes, message):
    with pytest.raises(InputError, match=message):
        Transform(**({"size": 32, "mean": HALF[0], "std": HALF[1]} | changes))


def test_transform_is_fast():
    image, transform = noise(128, 128), Transform(96, *HALF)
    transform(image)
    start = time.process_time()
    for _ in range(200):
        transform(image)
    assert time.process_time() - start < 0.5 * 2  # 600 in 1.5 s; twice that for a busy machine
