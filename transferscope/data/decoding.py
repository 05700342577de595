"""The bytes of an image file as numbers: what its header says of them, and all that Pillow would lose of them."""

import functools
import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from transferscope.data import tiff
from transferscope.data.images import check_runs_nothing, orientation_of
from transferscope.data.pixel_bound import check_pixels, reduction
from transferscope.data.rasters import Raster
from transferscope.data.value_range import Range
from transferscope.errors import InputError

FORMATS = {
    "JPEG": "jpg jpeg jpe jfif", "MPO": "", "PNG": "png", "BMP": "bmp", "DIB": "", "GIF": "gif", "TIFF": "tif tiff",
    "WEBP": "webp", "PPM": "ppm pgm pbm pnm", "JPEG2000": "jp2", "AVIF": "avif",
}  # fmt: skip
"""What Pillow may take a file for, with the endings of such files: pixels, of which none starts a program to read."""


@contextmanager
def opened(data: bytes) -> Iterator[ImageFile | None]:
    """Open the bytes of an image by Pillow, None for a TIFF that it does not know; raise InputError with the reason."""
    if not data:
        raise InputError("the file is empty")
    try:
        yield _by_pillow(data)
    except UnidentifiedImageError as error:  # Pillow's own message holds a memory address
        known = ", ".join(name for name, endings in FORMATS.items() if endings)
        raise InputError(f"it is no image in a format that is read: {known}") from error
    except (MemoryError, InputError):  # the first says something about the machine, not about the file
        raise
    except Exception as error:  # decoders fed with damaged bytes raise nearly anything
        raise InputError(str(error) or type(error).__name__) from error


def _by_pillow(data: bytes) -> ImageFile | None:
    is_tiff = tiff.is_tiff(data)
    if is_tiff and tiff.read_tags(data).get(tiff.BANDS, 1) > 4:
        return None  # of each such file Pillow would log an error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound is our own
            image = Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError:
        if is_tiff:
            return None
        raise
    _bounded(image)
    return image


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # older versions have no AVIF


def _bounded(image: ImageFile) -> None:
    """Have a JPEG with too many pixels decoded smaller; refuse others."""
    if image.format in ("JPEG", "MPO"):
        # The coefficients of a progressive one are all held, whatever is made of them.
        progressive = any(key in image.info for key in ("progressive", "progression"))
        if (divisor := reduction(image.width, image.height, held=progressive)) > 1:
            image.draft(None, (image.width // divisor, image.height // divisor))
    if _is_wide_png(image):
        check_pixels(image.width, image.height, _PNG_BANDS[str(image.tile[0][3])], 2)
    elif image.format == "JPEG2000":
        check_pixels(image.width, image.height, len(image.getbands()), 4)  # which its decoder holds for each value
    else:
        check_pixels(image.width, image.height)


@dataclass(frozen=True)
class Look:
    """What a file says of its image before its pixels are decoded."""

    bands: int
    """All that a pixel has, transparency too."""
    wide: bool = False
    """Whether its values are not 8 bits without a sign."""
    spare: bool = False
    """Whether there are bands of which nothing says what they show: beyond three, or the second of two."""
    misread: bool = False
    """Whether Pillow takes a spare band for transparency, or does not open the file."""
    natural: Range | None = None
    """The range of its type, where a single band and nothing else decides how it is shown."""
    paged: bool = False
    """Whether there are further pages."""


def look_at(data: bytes) -> Look:
    """Look at the header of an image file; damage behind it goes unseen: cheap enough for every file of a folder.

    Raises
    ------
    InputError
        With the reason alone: the bytes do not begin as an image that can be opened.
    """
    with opened(data) as image:
        if tiff.is_tiff(data):
            return _look_at_tiff(tiff.read_tags(data), image)
        assert image is not None
        mode = _plain_mode(image)
        bands = len(Image.new(mode, (1, 1)).getbands())
        if _is_wide_png(image):
            return Look(_PNG_BANDS[str(image.tile[0][3])], wide=True)
        if image.mode.startswith("I") or image.mode == "F":
            return Look(1, wide=True, natural=(0.0, 1.0) if image.mode == "F" else (0.0, 65535.0))
        undefined = _is_undefined(image, data)
        return Look(bands, spare=undefined, misread=undefined)


def _is_undefined(image: ImageFile, data: bytes) -> bool:
    """Whether a JPEG 2000 file has four bands, one of which Pillow takes for transparency, but defines no channels."""
    return image.format == "JPEG2000" and image.mode == "RGBA" and b"cdef" not in data.partition(b"jp2c")[0]


def _look_at_tiff(tags: Mapping[int, Any], image: Image.Image | None) -> Look:
    bands, extra = tags.get(tiff.BANDS, 1), tags.get(tiff.EXTRA, ())
    bits, dtype = max(tags.get(tiff.BITS, (1,))), tiff.number_type(tags)
    photometric = tags.get(tiff.PHOTOMETRIC, tiff.BLACK_IS_ZERO)
    if image is None and dtype is None:
        raise UnidentifiedImageError
    colours = bands - (_alpha(bands, extra) is not None)
    intensities = photometric in (tiff.WHITE_IS_ZERO, tiff.BLACK_IS_ZERO, tiff.RGB)
    spare = intensities and (colours > 3 or colours == 2)
    wide = bits > 8 or (dtype is not None and dtype != np.uint8)
    natural = None
    if image is not None and bands == 1 and photometric != tiff.WHITE_IS_ZERO and tiff.NODATA not in tags:
        natural = {"F": (0.0, 1.0)}.get(image.mode, (0.0, 65535.0))
    misread = image is None or (spare and image.mode not in ("RGB", "L"))
    # Not their number: a small file can name millions.
    paged = image is not None and bool(getattr(image, "is_animated", False))
    return Look(bands, wide, spare, misread, natural, paged)


def _alpha(bands: int, extra: tuple[int, ...]) -> int | None:
    """Return which band (from 0) a TIFF declares as transparency, if any: its tag tells of the last bands."""
    return next((bands - len(extra) + place for place, kind in enumerate(extra) if kind in _ALPHA), None)


_ALPHA = (1, 2, 999)
"""Kinds of extra samples: associated (multiplied in), unassociated, Corel's."""


def read_raster(data: bytes) -> Raster:
    """Decode the bytes of an image file to the numbers it holds; of several pages or frames the first.

    Raises
    ------
    InputError
        With the reason alone: it cannot be decoded, or has more pixels than are read.
    """
    with opened(data) as image:
        if tiff.is_tiff(data):
            return _tiff_raster(data, image)
        assert image is not None
        if _is_wide_png(image):
            return _wide_png(data, image)
        raster = image_raster(image)
        return replace(raster, alpha=None) if _is_undefined(image, data) else raster


def image_raster(image: Image.Image) -> Raster:
    """Return the numbers of a PIL image of any mode."""
    check_runs_nothing(image)
    image.load()
    orientation, key = orientation_of(image), image.info.get("transparency")
    if image.mode.startswith("I") or image.mode == "F":
        key = (key,) if isinstance(key, int) else None
        return Raster(np.asarray(image)[..., None], key=key, orientation=orientation)
    mode = _plain_mode(image)
    values = np.asarray(image.convert(mode))
    values = values if values.ndim == 3 else values[..., None]
    alpha = values.shape[2] - 1 if mode.endswith("A") else None
    return Raster(values, alpha=alpha, orientation=orientation)


def _plain_mode(image: Image.Image) -> str:
    """Return the mode of bytes, with or without transparency, that holds all of this image."""
    grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I") or image.mode == "F"
    return ("L" if grey else "RGB") + "A" * (image.has_transparency_data and not image.mode.startswith("I"))


def _is_wide_png(image: ImageFile) -> bool:
    """Whether Pillow would read the high bytes alone, as it does of 16-bit PNG with more than one band."""
    return image.format == "PNG" and bool(image.tile) and str(image.tile[0][3]) in _PNG_BANDS


_PNG_BANDS = {"LA;16B": 2, "RGB;16B": 3, "RGBA;16B": 4}
"""Of Pillow's names for 16-bit pixels with several bands."""


def _wide_png(data: bytes, image: ImageFile) -> Raster:
    kind = str(image.tile[0][3])
    # The same bytes once more, under the names of kinds that Pillow unpacks without loss.
    if kind == "LA;16B":
        halves = _unpacked(data, "RGBA").reshape(image.height, image.width, 2, 2).astype(np.uint16)
        values = halves[..., 0] << 8 | halves[..., 1]
    else:
        high, low = _unpacked(data, kind), _unpacked(data, f"{kind[:-1]}L")
        values = high.astype(np.uint16) << 8 | low
    key = image.info.get("transparency")
    return Raster(
        values,
        alpha=None if kind == "RGB;16B" else values.shape[2] - 1,
        key=key if isinstance(key, tuple) else None,
        orientation=orientation_of(image),
    )


def _unpacked(data: bytes, kind: str) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        codec, box, offset, _ = image.tile[0]
        tile: Any = (codec, box, offset, kind)
        image.tile = [type(image.tile[0])(*tile) if hasattr(image.tile[0], "_replace") else tile]
        return np.array(image)


def _tiff_raster(data: bytes, image: Image.Image | None) -> Raster:
    tags = tiff.read_tags(data)
    extra, nodata = tags.get(tiff.EXTRA, ()), tags.get(tiff.NODATA)
    bits, largest = tags.get(tiff.BITS, (1,)), tags.get(tiff.LARGEST, (0,))
    try:
        values = tiff.read_values(data)
    except InputError:
        # What Pillow reads without loss, it may read.
        if image is None or (max(bits) > 8 and len(bits) > 1):
            raise
        packed = 2.0 ** bits[0] - 1 if bits[0] not in (8, 16, 32) else 0.0
        return replace(image_raster(image), declared=packed)
    alpha = _alpha(values.shape[2], extra)
    full = float(np.iinfo(values.dtype).max) if values.dtype.kind in "ui" else 0.0
    declared = max(largest)
    return Raster(
        values,
        alpha=alpha,
        premultiplied=alpha is not None and extra[alpha - values.shape[2]] == 1,
        white_is_zero=tags.get(tiff.PHOTOMETRIC) == tiff.WHITE_IS_ZERO,
        orientation=int(tags.get(tiff.ORIENTATION, 1)),
        nodata=_number(nodata),
        declared=declared if declared < full else 0,
    )


def _number(text: Any) -> float | None:
    try:
        return float(str(text).strip("\0 "))
    except ValueError:
        return None
