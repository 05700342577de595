"""Any image, file or array becomes an 8-bit RGB image; a transform turns that into a network's input."""

import base64
import io
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from transferscope.errors import InputError, is_whole

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
_FLOAT_SLACK = 1e-5


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return a file's content; an unreadable file is an `InputError` that names it."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{os.fspath(path)} cannot be read: {error.strerror or error}") from error


def check_header(data: bytes) -> None:
    """Raise `InputError` (the reason alone) unless the bytes begin as an image that Pillow can open.

    Pixels are not decoded, so damage behind the header goes unseen: cheap enough for every file of a folder.
    """
    with _decoding(data), Image.open(io.BytesIO(data)):
        pass


def decode_rgb(data: bytes) -> Image.Image:
    """Decode the bytes of an image file of any common kind, as :func:`image_rgb` converts it, without metadata.

    Of an animation the first frame counts.

    Raises
    ------
    InputError
        With the reason alone: it cannot be decoded, or is larger than Pillow's limit against decompression bombs.
    """
    with _decoding(data):
        image = Image.open(io.BytesIO(data))
        image.load()
    return image_rgb(image)


@contextmanager
def _decoding(data: bytes) -> Iterator[None]:
    """Turn whatever a decoder raises into an `InputError` with a readable reason."""
    if not data:
        raise InputError("the file is empty")
    try:
        yield
    except UnidentifiedImageError as error:  # Pillow's own message holds a memory address
        raise InputError("it is no image in a format that Pillow knows") from error
    except MemoryError:  # says something about the machine, not about the file
        raise
    except Exception as error:  # decoders fed with damaged bytes raise nearly anything
        raise InputError(str(error) or type(error).__name__) from error


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
        Greys lie outside the ranges above, or the mode cannot be converted.
    """
    image.load()
    orientation = _orientation(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _wide_grey(image)
    try:
        if image.has_transparency_data:
            coloured = image.convert("RGBA")
            white = Image.new("RGBA", coloured.size, "white")
            rgb = Image.alpha_composite(white, coloured).convert("RGB")
        else:
            rgb = image.convert("RGB")
    except ValueError as error:
        raise InputError(f"mode {image.mode!r} cannot be converted to RGB; save it as an RGB image") from error
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    rgb.info = {}  # a second conversion must not turn the image a second time
    return rgb


def _orientation(image: Image.Image) -> int:
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
        if not (low >= -_FLOAT_SLACK and high <= 255):  # NaN fails too
            raise InputError(f"floating-point greys must lie in [0, 1] or [0, 255], but go from {low} to {high}")
        grey = np.rint(np.clip(values, 0, None) * (255.0 if high <= 1 + _FLOAT_SLACK else 1.0)).clip(max=255)
    else:
        if low < 0 or high > 65535:
            raise InputError(f"greys must lie in the 16-bit range [0, 65535], but go from {low} to {high}")
        grey = _from_16_bit(values)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey.astype(np.uint8))


def _from_16_bit(values: np.ndarray) -> np.ndarray:
    # 65535 = 257 · 255; 128 rounds to the nearest
    return (values.astype(np.int64) + 128) // 257


def thumbnail(image: Image.Image, side: int = 64) -> str:
    """Return the address of a small JPEG of an RGB image, of at most `side` pixels, for a page of HTML."""
    small, content = image.copy(), io.BytesIO()
    small.thumbnail((side, side))
    small.save(content, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def array_rgb(array: np.ndarray | torch.Tensor) -> Image.Image:
    """Convert one image given as an array to 8-bit RGB.

    Parameters
    ----------
    array
        Shape (H, W), (H, W, C) or (C, H, W) with C in 1 (grey), 3 (RGB), 4 (RGB and alpha); dtype uint8,
        uint16 (divided by 257), bool (black and white) or floating point in [0, 1].

    Returns
    -------
    PIL.Image.Image
        Mode ``RGB``; alpha is composited on white.

    Raises
    ------
    InputError
        The shape is none of these or could be two of them, the dtype is another one, or floats leave [0, 1].
    """
    pixels = _pixels(_channels_last(as_numpy(array)))
    if pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return image_rgb(Image.fromarray(np.ascontiguousarray(pixels)))


def as_numpy(array: np.ndarray | torch.Tensor) -> np.ndarray:
    """Return a NumPy array or a tensor (of any device) as a NumPy array; float types stay floats."""
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu()
        # NumPy has no bfloat16
        return (array.float() if array.dtype == torch.bfloat16 else array).numpy()
    if isinstance(array, np.ndarray):
        return array
    raise InputError(f"expected a NumPy array or a torch tensor, but got {type(array).__name__}")


def _channels_last(array: np.ndarray) -> np.ndarray:
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise InputError(
            f"one image must have shape (H, W), (H, W, C) or (C, H, W), none of them 0, but got {array.shape}"
        )
    if array.ndim == 2:
        return array[:, :, None]
    first, last = (array.shape[axis] in (1, 3, 4) for axis in (0, 2))
    if first and last:
        raise InputError(
            f"an image of shape {array.shape} could be (C, H, W) or (H, W, C); crop or pad it to more pixels"
        )
    if not first and not last:
        raise InputError(f"an image of shape {array.shape} has no channel axis of length 1, 3 or 4, first or last")
    return array.transpose(1, 2, 0) if first else array


def _pixels(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return _from_16_bit(array).astype(np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(
            f"pixels must be uint8, uint16, bool or floats in [0, 1], but are {array.dtype}; "
            "if they lie in [0, 255], convert them to uint8"
        )
    low, high = array.min(), array.max()
    if not (low >= -_FLOAT_SLACK and high <= 1 + _FLOAT_SLACK):  # NaN fails too
        raise InputError(
            f"floating-point pixels must lie in [0, 1], but go from {low:.4g} to {high:.4g}; "
            "pass images before normalisation (each network normalises them itself), or as uint8"
        )
    return np.rint(array.clip(0, 1).astype(np.float64) * 255).astype(np.uint8)


@dataclass(frozen=True)
class Transform:
    """From an image to a network's input: resize the shorter side, crop the centre, normalise.

    Equal to ``Resize(resize)``, ``CenterCrop(size)``, ``ToTensor()``, ``Normalize(mean, std)`` of torchvision
    on PIL images (antialiased), without needing torchvision.

    Parameters
    ----------
    size
        Height and width of the result, in pixels.
    mean, std
        Per channel (red, green, blue), in units of [0, 1] intensities.
    interpolation
        Of the resize.
    resize
        Length of the shorter side before the central crop, at least `size`; None means `size` itself.

    Raises
    ------
    InputError
        A value is not of the kind described.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bilinear"
    resize: int | None = None

    def __post_init__(self) -> None:
        if not _is_length(self.size):
            raise InputError(f"transform size must be a whole number of pixels above 0, but got {self.size!r}")
        if self.resize is not None and not (_is_length(self.resize) and self.resize >= self.size):
            raise InputError(
                f"transform resize must be None or a whole number of at least size = {self.size}, "
                f"as the crop is taken from the resized image, but got {self.resize!r}"
            )
        for name in ("size", "resize"):
            # As Python's own, for transforms are part of what names a result in the cache.
            object.__setattr__(self, name, None if getattr(self, name) is None else int(getattr(self, name)))
        for name in ("mean", "std"):
            object.__setattr__(self, name, _three_numbers(name, getattr(self, name)))
        if min(self.std) <= 0:
            raise InputError(f"transform std must be above 0 in every channel, but got {self.std}")
        if self.interpolation not in get_args(Interpolation):
            choices = ", ".join(get_args(Interpolation))
            raise InputError(f"transform interpolation must be one of {choices}, but got {self.interpolation!r}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what this gives."""
        return 3, self.size, self.size

    def blank(self, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return a batch of one image, all zero, of the shape that this gives: what a network can be looked at with."""
        return torch.zeros(1, *self.shape, device=device, dtype=dtype)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return the image as a tensor (3, size, size), float32, normalised."""
        return self.normalize(self.pixels(image))

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """Return the resized and cropped image as a tensor (3, size, size), uint8."""
        if image.mode != "RGB":
            image = image_rgb(image)
        width, height = image.size
        shorter = self.resize or self.size
        # the longer side is cut to whole pixels as torchvision does
        wide = shorter if width <= height else int(shorter * width / height)
        high = shorter if height <= width else int(shorter * height / width)
        resized = image.resize((wide, high), Image.Resampling[self.interpolation.upper()])
        left, top = round((wide - self.size) / 2), round((high - self.size) / 2)
        cropped = resized.crop((left, top, left + self.size, top + self.size))
        return torch.from_numpy(np.array(cropped)).permute(2, 0, 1).contiguous()

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn uint8 pixels (..., 3, size, size) into a network's input, float32, on the same device."""
        mean, std = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (self.mean, self.std))
        return pixels.float().div_(255).sub_(mean).div_(std)


def _is_length(value: object) -> bool:
    return is_whole(value, 1)


def _three_numbers(name: str, values: object) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(value) for value in values)  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise InputError(f"transform {name} must be three numbers (red, green, blue), but got {values!r}") from error
    if not all(math.isfinite(value) for value in (red, green, blue)):
        raise InputError(f"transform {name} must be finite, but got {values!r}")
    return red, green, blue
