"""Which values are black and white, for all images of a target alike, where 8 bits do not say so themselves."""

import math
from typing import Any

import numpy as np

from transferscope.errors import InputError

Range = tuple[float, float]
"""The values that become black and white; those between are spread evenly over 8 bits, those outside are clipped."""

SETTING = "set another with --value-range LOW,HIGH (in Python value_range=(low, high))"

_DEPTHS = (8, 10, 12, 14, 16)
"""Bits that cameras and scanners give a value, and that files of 16 bits hold."""

_LEFT_OUT = 0.1
"""Percent of the values at each end that a range of signed or floating-point values leaves out: padding, hot pixels."""

_DARK = 4
"""Bits too many at which rare values are left out of unsigned ones too: all others would have 16 grey levels."""

_SAMPLE = 1024
"""Values of each image that are looked at for these."""

_BLOCK = 2**20
"""Values that become 8 bits together."""

_SLACK = 1e-5
"""Room for the rounding of float32 pixels about 0 and 1."""


def check_range(value: Any) -> Range:
    """Return the argument `value_range` as two floats; raise InputError when it is no range."""
    try:
        low, high = (float(each) for each in value)
    except (TypeError, ValueError):
        low = high = math.nan
    if isinstance(value, str) or not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(
            "Expected `value_range` to be two numbers, those that become black and white, the lower first, but got "
            f"{value!r}"
        )
    return low, high


def to_8_bit(values: np.ndarray, value_range: Range) -> np.ndarray:
    """Spread `values` over 0 to 255 (uint8), rounded; what is outside of the range is clipped, NaN becomes black."""
    low, high = value_range
    result = np.empty(values.shape, np.uint8)
    # Some rows at a time: 8 bytes for every value of a large image would be several times as much as it holds.
    step = max(1, _BLOCK // max(1, values[:1].size))
    for start in range(0, len(values), step):
        rows = values[start : start + step]
        shares = np.nan_to_num((rows.astype(np.float64) - low) / (high - low), nan=0.0)
        result[start : start + step] = np.rint(shares.clip(0, 1) * 255)
    return result


class Spread:
    """What values the images of a target hold, gathered image by image, and the range that this tells."""

    def __init__(self) -> None:
        self.images = 0
        self._low, self._high = math.inf, -math.inf
        self._declared = 0.0
        self._whole = self._integers = True
        self._samples: list[np.ndarray] = []

    def add(self, values: np.ndarray, declared: float = 0) -> None:
        """Add the values of an image, of any shape; those that are not finite do not count.

        `declared` is the highest value that its file says there can be, where it says more than the type does.
        """
        self.images += 1
        values = values.ravel()
        if values.dtype.kind == "f":
            self._integers = False
            values = values[np.isfinite(values)]
            self._whole = self._whole and bool((values == np.rint(values)).all())
        self._declared = max(self._declared, declared)
        if not values.size:
            return
        self._low, self._high = min(self._low, float(values.min())), max(self._high, float(values.max()))
        # Spread over the image by a stride that shares no factor with its width.
        places = np.arange(min(_SAMPLE, values.size)) * 2654435761 % values.size
        self._samples.append(values[places].astype(np.float32))

    def outside(self, value_range: Range) -> float:
        """Return the share of the values that a range clips."""
        values = np.concatenate([*self._samples, np.empty(0, np.float32)])
        return float(np.mean((values < value_range[0]) | (values > value_range[1]))) if values.size else 0.0

    def choose(self) -> tuple[Range, str]:
        """Return the range that the values tell, and why in words; no words where it is that of their type.

        - Floats in [0, 1]: that. Floats in [0, 255] that reach its upper half: that, as Pillow writes them.
        - Whole numbers from 0 to 65535: from 0 to the largest of 8, 10, 12, 14 or 16 bits, the fewest that hold them;
          or that hold all but 0.1 %, where the rest would leave these 16 grey levels or fewer.
        - All else: what leaves out 0.1 % at each end.
        """
        if not self._samples:  # no pixels, or none that is a number
            return (0.0, 1.0), ""
        low, high = self._low, self._high
        if not self._integers and low >= -_SLACK and high <= 1 + _SLACK:
            return (0.0, 1.0), ""
        if self._whole and low >= 0 and high <= 65535:
            return self._by_bits(high)
        if not self._integers and low >= 0 and 128 <= high <= 255:
            return (0.0, 255.0), f"their maximum is {high:g}"
        return self._window(low, high)

    def _by_bits(self, high: float) -> tuple[Range, str]:
        """Return the range of the fewest bits that hold the values, or all but rare ones such as hot pixels."""
        bits = next(bits for bits in _DEPTHS if max(high, min(self._declared, 65535)) < 2**bits)
        why = f"{bits} bits are the fewest that hold their maximum, {high:g}" if bits < 16 else ""
        most = float(np.percentile(np.concatenate(self._samples), 100 - _LEFT_OUT))
        fewer = next(bits for bits in _DEPTHS if max(most, min(self._declared, 65535)) < 2**bits)
        if bits - fewer >= _DARK:
            rest = f"{bits} bits would hold their maximum, {high:g}, too: 0,{2**bits - 1}"
            return (0.0, 2.0**fewer - 1), f"{fewer} bits hold all except {_LEFT_OUT} % of them, and {rest}"
        if fewer < bits:
            why = f"{why or '16 bits are the fewest that hold their maximum'}, but all except {_LEFT_OUT} % of them"
            why += f" would fit into {fewer} bits: 0,{2**fewer - 1}"
        return (0.0, 2.0**bits - 1), why

    def _window(self, low: float, high: float) -> tuple[Range, str]:
        ends = np.percentile(np.concatenate(self._samples).astype(np.float64), [_LEFT_OUT, 100 - _LEFT_OUT])
        # Of whole numbers, such as Hounsfield units, whole ones.
        inner = (math.floor(ends[0]), math.ceil(ends[1])) if self._whole else (float(ends[0]), float(ends[1]))
        why = f"they go from {low:g} to {high:g}, with {_LEFT_OUT} % beyond this at each end"
        if inner[0] < inner[1]:
            return inner, why
        # Nearly all are one value: an empty sky.
        return (low, high if high > low else low + 1), f"they go from {low:g} to {high:g}"
