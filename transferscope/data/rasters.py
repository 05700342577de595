"""An image as the numbers that its file holds, before they become 8 bits: what it has and how it is shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from transferscope.data.value_range import Range, to_8_bit
from transferscope.errors import InputError

Picture = Image.Image | np.ndarray
"""8-bit RGB; of bands that are neither one nor three, an array (height, width, bands) uint8."""

_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}


@dataclass(frozen=True, eq=False)
class Raster:
    """The numbers of one image.

    Attributes
    ----------
    values : numpy.ndarray
        (height, width, bands) as they are stored, in the machine's byte order.
    alpha : int, optional
        The band (from 0) that says how opaque a pixel is.
    premultiplied : bool
        Whether the others were multiplied by it.
    key : tuple of int, optional
        The pixel that stands for transparency.
    white_is_zero : bool
        Whether low values are bright.
    orientation : int
        As EXIF counts it: how the camera was held.
    nodata : float, optional
        The value of pixels that hold none.
    declared : float
        The highest value that the file says there can be, where it says more than the type does.
    """

    values: np.ndarray
    alpha: int | None = None
    premultiplied: bool = False
    key: tuple[int, ...] | None = None
    white_is_zero: bool = False
    orientation: int = 1
    nodata: float | None = None
    declared: float = 0

    @property
    def wide(self) -> bool:
        """Whether 8 bits do not hold the values, so that a range has to say how they are spread."""
        return self.values.dtype != np.uint8

    def shown(self, bands: Sequence[int] | None) -> np.ndarray:
        """Return the values of these bands (from 1), or else of the first three; of fewer than three, of the first."""
        if bands is not None:
            check_bands(bands, self.values.shape[2])
            return self.values[..., [band - 1 for band in bands]]
        colours = [band for band in range(self.values.shape[2]) if band != self.alpha]
        return self.values[..., colours[: 3 if len(colours) >= 3 else 1]]

    def told(self, bands: Sequence[int] | None) -> np.ndarray:
        """Return those of the shown values that say something of the range."""
        shown = self.shown(bands)
        return shown if self.nodata is None else shown[shown != self.nodata]

    def picture(self, bands: Sequence[int] | None, value_range: Range | None) -> Picture:
        """Return the image in 8 bits, upright; transparency becomes white unless bands are chosen.

        Raises
        ------
        InputError
            There is no such band.
        """
        pixels = self.shown(bands)
        if self.wide:
            assert value_range is not None
            empty = None if self.nodata is None else pixels == self.nodata
            pixels = to_8_bit(pixels, value_range)
            if empty is not None:
                pixels[empty] = 0
        if self.white_is_zero:
            pixels = 255 - pixels
        if bands is None:
            pixels = self._on_white(pixels, value_range)
        if self.orientation in _UPRIGHT:
            pixels = _UPRIGHT[self.orientation](pixels)
        return as_picture(pixels)

    def _on_white(self, pixels: np.ndarray, value_range: Range | None) -> np.ndarray:
        if self.key is not None and len(self.key) <= self.values.shape[2]:
            hidden = (self.values[..., : len(self.key)] == self.key).all(axis=2)
            pixels = np.where(hidden[..., None], np.uint8(255), pixels)
        if self.alpha is not None:
            # Files of 12 bits write opaque as 4095 or as 65535.
            fits = value_range is not None and self.values[..., self.alpha].max(initial=0) <= value_range[1]
            opaque = 1.0 if self.values.dtype.kind == "f" else float(np.iinfo(self.values.dtype).max)
            opaque = value_range[1] if fits and value_range is not None else opaque
            blended = np.empty_like(pixels)
            for row, (colours, opacities) in enumerate(zip(pixels, self.values[..., [self.alpha]], strict=True)):
                opacity = opacities.astype(np.float64) / opaque
                colour = colours if self.premultiplied else colours * opacity
                blended[row] = np.rint(colour + 255 * (1 - opacity)).clip(0, 255)
            pixels = blended
        return pixels


def as_picture(pixels: np.ndarray) -> Picture:
    """Return 8-bit pixels (height, width, bands) as an RGB image; as they are where there are two, or over three."""
    pixels = np.ascontiguousarray(pixels)
    if pixels.shape[2] == 1:
        return Image.fromarray(pixels[..., 0]).convert("RGB")
    return Image.fromarray(pixels) if pixels.shape[2] == 3 else pixels


def check_bands(bands: Sequence[int], there: int) -> None:
    """Raise InputError when a band (from 1) is not there."""
    if max(bands) > there:
        raise InputError(
            f"band {max(bands)} was asked for, but there {'is' if there == 1 else 'are'} {there}; `bands` counts from 1"
        )
