"""Any image, file or array becomes an 8-bit RGB image; a transform turns that into a network's input."""

import base64
import io
import logging
import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image

from transferscope.data.pixel_bound import max_bytes
from transferscope.errors import InputError, is_whole
from transferscope.runtime.regular import read_regular

log = logging.getLogger(__name__)

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

# EXIF tag 274 says how the camera was held; these turns undo it.
_ORIENTATION = 274
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Room for the rounding of float32 pixels; anything further outside [0, 1] is another scale.
FLOAT_SLACK = 1e-5


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return a file's content; one that cannot be read or is too large is an `InputError` that names it."""
    try:
        return read_regular(path, max_bytes())
    except OSError as error:
        raise InputError(f"{os.fspath(path)} cannot be read: {error.strerror or error}") from error


def image_rgb(image: Image.Image) -> Image.Image:
    """Convert a PIL image of any mode to 8-bit RGB.

    - An EXIF orientation is applied.
    - Transparency (an alpha channel or a transparent colour) is composited on white. Dropping it instead
      would show whatever colour lies hidden under transparent pixels, often black or noise.
    - 16-bit greys (``I;16`` and ``I``) are divided by 257, which maps 65535 to 255. Pillow's own conversion
      clips at 255 and turns nearly all of such an image white.
    - Floats (``F``) in [0, 1] are multiplied by 255; others in [0, 255] are rounded, as Pillow writes them.
    - CMYK becomes RGB by (1 − ink)(1 − black), without colour management. Pillow decodes CMYK JPEGs in
      Adobe's inverted convention, as browsers do.

    Parameters
    ----------
    image
        A PIL image; it is left as it was.

    Returns
    -------
    PIL.Image.Image
        A new image, mode ``RGB``, without metadata.

    Raises
    ------
    InputError
        Greys lie outside the ranges above, the mode cannot be converted, or a program would have to be run.
    """
    check_runs_nothing(image)
    image.load()
    orientation = orientation_of(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _wide_grey(image)
    try:
        if image.has_transparency_data:
            coloured = image if image.mode == "RGBA" else image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)
            del coloured  # of a large image each copy counts
        rgb = image.convert("RGB")
    except ValueError as error:
        raise InputError(f"mode {image.mode!r} cannot be converted to RGB; save it as an RGB image") from error
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    rgb.info = {}  # a second conversion must not turn the image a second time
    return rgb


def check_runs_nothing(image: Image.Image) -> None:
    """Raise InputError for an image of PostScript, which Pillow would have Ghostscript run."""
    if image.format == "EPS":
        raise InputError("it is a program in PostScript, which is not run; save it as PNG")


def orientation_of(image: Image.Image) -> int:
    """Return how the camera was held, as EXIF counts it: 1 for upright, also where nothing readable says so."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception as error:  # the EXIF parser raises nearly anything on damaged blocks; the pixels are sound
        log.info("unreadable EXIF block ignored: %s", error)
        return 1


def _wide_grey(image: Image.Image) -> Image.Image:
    """Bring a grey image of more than 8 bits to mode ``L``; its transparent value becomes white."""
    values = np.asarray(image)
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if image.mode == "F":
        if not (low >= -FLOAT_SLACK and high <= 255):  # NaN fails too
            raise InputError(f"floating-point greys must lie in [0, 1] or [0, 255], but go from {low} to {high}")
        grey = np.rint(np.clip(values, 0, None) * (255.0 if high <= 1 + FLOAT_SLACK else 1.0)).clip(max=255)
    else:
        if low < 0 or high > 65535:
            raise InputError(f"greys must lie in the 16-bit range [0, 65535], but go from {low} to {high}")
        grey = from_16_bit(values)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey.astype(np.uint8))


def from_16_bit(values: np.ndarray) -> np.ndarray:
    """Bring 0 to 65535 to 0 to 255, rounded."""
    # 65535 = 257 · 255; 128 rounds to the nearest
    return (values.astype(np.int64) + 128) // 257


def thumbnail(image: Image.Image, side: int = 64) -> str:
    """Return the address of a small JPEG of an RGB image, of at most `side` pixels, for a page of HTML."""
    small, content = image.copy(), io.BytesIO()
    small.thumbnail((side, side))
    small.save(content, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def thumbnails(image: Callable[[int], Any], strata: np.ndarray, groups: Sequence[str]) -> dict[str, str]:
    """Return the first image of each of these groups that is not broken, small, by its name."""
    pictures = {}
    for group, name in enumerate(groups):
        for index in np.flatnonzero(strata == group)[:1]:
            with suppress(InputError):  # broken
                picture = image(index)
                if isinstance(picture, Image.Image):
                    pictures[name] = thumbnail(picture)
    return pictures


Size = int | tuple[int, int]
"""The side of a square, or height and width, in pixels."""


@dataclass(frozen=True)
class Transform:
    """From an image to a network's input: resize until it covers a box, crop the centre, normalise.

    The aspect ratio is kept. With square sizes this is equal to ``Resize(resize)``, ``CenterCrop(size)``,
    ``ToTensor()``, ``Normalize(mean, std)`` of torchvision on PIL images (antialiased), with others to timm's
    evaluation transform, which has ``ResizeKeepRatio(resize)`` in place of the first.

    Parameters
    ----------
    size
        Side of the result, or its (height, width), in pixels.
    mean, std
        A number for each channel (red, green, blue), in units of [0, 1] intensities. As many channels there are: for
        one the image becomes grey (ITU-R 601), for others than one or three it has to have as many bands.
    interpolation
        Of the resize.
    resize
        The box that the resized image just covers before the central crop, in no direction smaller than `size`: its
        side (then the length of the image's shorter side), or its (height, width); None means `size` itself.

    Raises
    ------
    InputError
        A value is not of the kind described.
    """

    size: Size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bilinear"
    resize: Size | None = None

    def __post_init__(self) -> None:
        # As Python's own, for transforms are part of what names a result in the cache.
        object.__setattr__(self, "size", _size("size", self.size))
        if self.resize is not None:
            object.__setattr__(self, "resize", _size("resize", self.resize))
            if min(resized - cropped for resized, cropped in zip(_box(self.resize), _box(self.size), strict=True)) < 0:
                raise InputError(
                    f"transform resize must be None or at least size = {self.size}, "
                    f"as the crop is taken from the resized image, but got {self.resize!r}"
                )
        for name in ("mean", "std"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        if len(self.mean) != len(self.std):
            raise InputError(
                "transform mean and std must be equally many numbers, one for each channel, but are "
                f"{self.mean} and {self.std}"
            )
        if min(self.std) <= 0:
            raise InputError(f"transform std must be above 0 in every channel, but got {self.std}")
        if self.interpolation not in get_args(Interpolation):
            choices = ", ".join(get_args(Interpolation))
            raise InputError(f"transform interpolation must be one of {choices}, but got {self.interpolation!r}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what this gives."""
        return len(self.mean), *_box(self.size)

    def blank(self, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return a batch of one image, all zero, of the shape that this gives: what a network can be looked at with."""
        return torch.zeros(1, *self.shape, device=device, dtype=dtype)

    def __call__(self, image: Image.Image | np.ndarray) -> torch.Tensor:
        """Return the image as a tensor (channels, height, width), float32, normalised."""
        return self.normalize(self.pixels(image))

    def pixels(self, image: Image.Image | np.ndarray) -> torch.Tensor:
        """Return the resized and cropped image as a tensor (channels, height, width), uint8.

        Raises
        ------
        InputError
            An array (height, width, bands) has other bands than there are channels, or an RGB image has too few.
        """
        layers = [self._cropped(layer) for layer in self._layers(image)]
        stacked = np.concatenate([np.atleast_3d(np.asarray(layer)) for layer in layers], axis=2)
        return torch.from_numpy(stacked).permute(2, 0, 1).contiguous()

    def _layers(self, image: Image.Image | np.ndarray) -> list[Image.Image]:
        """Return an RGB or grey image, or one for each band."""
        channels = len(self.mean)
        if isinstance(image, np.ndarray):
            if image.shape[2] != channels:
                raise InputError(
                    f"the network takes images of {channels} channel{'s' * (channels > 1)}, but these have "
                    f"{image.shape[2]} bands; choose as many with --bands (in Python bands=)"
                )
            return [Image.fromarray(np.ascontiguousarray(image[..., band])) for band in range(channels)]
        if channels not in (1, 3):
            raise InputError(
                f"the network takes images of {channels} channels, but these are shown in red, green and blue; choose "
                "as many bands with --bands (in Python bands=)"
            )
        if image.mode != "RGB":
            image = image_rgb(image)
        return [image if channels == 3 else image.convert("L")]

    def _cropped(self, image: Image.Image) -> Image.Image:
        height, width = _box(self.size)
        resized = image.resize(self._resized(*image.size), Image.Resampling[self.interpolation.upper()])
        left, top = round((resized.width - width) / 2), round((resized.height - height) / 2)
        return resized.crop((left, top, left + width, top + height))

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of the resized image."""
        high, wide = _box(self.resize or self.size)
        if high == wide:
            # the longer side is cut to whole pixels as torchvision does
            return (
                high if width <= height else int(high * width / height),
                high if height <= width else int(high * height / width),
            )
        ratio = min(height / high, width / wide)  # and rounded as timm does
        return round(width / ratio), round(height / ratio)

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn uint8 pixels (..., channels, height, width) into a network's input, float32, on the same device."""
        mean, std = (torch.tensor(values, device=pixels.device).view(-1, 1, 1) for values in (self.mean, self.std))
        return pixels.float().div_(255).sub_(mean).div_(std)


def _box(size: Size) -> tuple[int, int]:
    """Return height and width."""
    return size if isinstance(size, tuple) else (size, size)


def _size(name: str, value: object) -> Size:
    """Return a side as an int, two different ones as a tuple of ints."""
    if is_whole(value, 1):
        return int(value)
    sides = tuple(value) if isinstance(value, tuple | list) else ()
    if len(sides) != 2 or not all(is_whole(side, 1) for side in sides):
        raise InputError(
            f"transform {name} must be a whole number of pixels above 0, or two, [height, width], but got {value!r}"
        )
    height, width = (int(side) for side in sides)
    return height if height == width else (height, width)


def _numbers(name: str, values: object) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or isinstance(values, str):
        raise InputError(
            f"transform {name} must be a list of numbers, one for each channel (red, green, blue), but got {values!r}"
        )
    if not all(math.isfinite(value) for value in numbers):
        raise InputError(f"transform {name} must be finite, but got {values!r}")
    return numbers
