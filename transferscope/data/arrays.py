"""One image given as an array: which axis holds its channels, and what its numbers are."""

import numpy as np
import torch
from PIL import Image

from transferscope.data.images import FLOAT_SLACK, from_16_bit, image_rgb
from transferscope.data.rasters import Raster
from transferscope.data.reading import Reading
from transferscope.errors import InputError


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
    return _rgb(_pixels(_channels_last(as_numpy(array))))


def read_array(array: np.ndarray | torch.Tensor, reading: Reading) -> Image.Image | Raster:
    """Return one image given as an array in 8-bit RGB, or its numbers where a range or bands decide how it is shown.

    Parameters
    ----------
    array
        As in `array_rgb`, but whole numbers of any type, floats of any range with a `value_range`, and with `bands`
        any number of channels.
    reading
        What is asked.

    Raises
    ------
    InputError
        As `array_rgb`.
    """
    values = _channels_last(as_numpy(array), any_bands=reading.bands is not None)
    floats = np.issubdtype(values.dtype, np.floating)
    wide = reading.value_range is not None if floats else values.dtype not in (np.uint8, np.bool_)
    if not wide or values.dtype.kind not in "uif":
        values = _pixels(values)
        if reading.bands is None:
            return _rgb(values)
    elif values.dtype == np.float16:
        values = values.astype(np.float32)
    return Raster(values, alpha=3 if reading.bands is None and values.shape[2] == 4 else None)


def has_hidden_pixels(array: np.ndarray | torch.Tensor) -> bool:
    """Whether one image given as an array has a fourth channel that, taken for transparency, hides something."""
    values = as_numpy(array)
    if 4 not in values.shape or values.ndim != 3:
        return False
    values = _channels_last(values)
    if values.shape[2] != 4:
        return False
    opaque = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else 1
    return bool((values[..., 3] < opaque).any())


def _rgb(pixels: np.ndarray) -> Image.Image:
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


def _channels_last(array: np.ndarray, *, any_bands: bool = False) -> np.ndarray:
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise InputError(
            f"one image must have shape (H, W), (H, W, C) or (C, H, W), none of them 0, but got {array.shape}"
        )
    if array.ndim == 2:
        return array[:, :, None]
    first, last = (array.shape[axis] in (1, 3, 4) for axis in (0, 2))
    if any_bands and not (first or last):
        first, last = _shorter_axis(array.shape)
        if not first and not last:
            raise InputError(
                f"which axis of an image of shape {array.shape} counts its bands is not clear: none is at most half as "
                "long as the others; crop or pad it to more pixels"
            )
    if first and last:
        raise InputError(
            f"an image of shape {array.shape} could be (C, H, W) or (H, W, C); crop or pad it to more pixels"
        )
    if not first and not last:
        raise InputError(
            f"an image of shape {array.shape} has no channel axis of length 1, 3 or 4, first or last; if it has other "
            "bands, choose some by `bands`"
        )
    return array.transpose(1, 2, 0) if first else array


def _shorter_axis(shape: tuple[int, ...]) -> tuple[bool, bool]:
    """Tell whether the first or the last axis counts bands: the one beside a square, else the one clearly shorter."""
    one, middle, other = shape
    if (middle == other) != (one == middle):
        return middle == other, one == middle
    return 2 * one <= min(middle, other), 2 * other <= min(one, middle)


def _pixels(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return from_16_bit(array).astype(np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(
            f"pixels must be uint8, uint16, bool or floats in [0, 1], but are {array.dtype}; "
            "if they lie in [0, 255], convert them to uint8"
        )
    low, high = array.min(), array.max()
    if not (low >= -FLOAT_SLACK and high <= 1 + FLOAT_SLACK):  # NaN fails too
        raise InputError(
            f"floating-point pixels must lie in [0, 1], but go from {low:.4g} to {high:.4g}; "
            "pass images before normalisation (each network normalises them itself), or as uint8, or say by "
            "`value_range` which values are black and white"
        )
    return np.rint(array.clip(0, 1).astype(np.float64) * 255).astype(np.uint8)
