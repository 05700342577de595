"""TIFF as numbers: bands, bit depths, signs and floats that Pillow does not read, or of which it reads the high bytes.

Pillow finds the tags, and its libtiff decompresses; only where the numbers stand is worked out here.
"""

import io
import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from transferscope.data.pixel_bound import check_pixels
from transferscope.errors import InputError

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
ORIENTATION, BANDS, PLANES, EXTRA, FORMAT = 274, 277, 284, 338, 339
LARGEST, NODATA = 281, 42113
"""MaxSampleValue, and GDAL's value for pixels without data."""
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
"""Photometric interpretations whose values are intensities."""

_STRIPS, _STRIP_BYTES, _STRIP_ROWS = 273, 279, 278
_TILES, _TILE_BYTES, _TILE_WIDTH, _TILE_HEIGHT = 324, 325, 322, 323
_PREDICTOR, _FILL_ORDER = 317, 266
_NONE, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS, _LZMA, _ZSTD = 1, 5, 8, 32946, 32773, 34925, 50000
_DENSEST = {_NONE: 1, _PACKBITS: 64, _LZW: 3000, _DEFLATE: 1040, _OLD_DEFLATE: 1040}
"""Most bytes that one byte can stand for."""
_KINDS = {1: "u", 2: "i", 3: "f"}


def is_tiff(data: bytes) -> bool:
    """Whether these are the bytes of a TIFF or BigTIFF file whose tags Pillow reads."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0")


def read_tags(data: bytes) -> Mapping[int, Any]:
    """Return the tags of the first page."""
    stream = io.BytesIO(data)
    tags = ImageFileDirectory_v2(stream.read(16 if data[2:3] == b"+" else 8))
    stream.seek(tags.next)
    tags.load(stream)
    return tags


def number_type(tags: Mapping[int, Any]) -> np.dtype[Any] | None:
    """Return the type of the values, in the machine's byte order; None where they fill no whole bytes or differ."""
    bits, kinds = set(tags.get(BITS, (1,))), set(_listed(tags.get(FORMAT, 1)))
    if len(bits) != 1 or len(kinds) != 1 or not kinds <= set(_KINDS):
        return None
    (bit,), (kind,) = bits, kinds
    return np.dtype(f"{_KINDS[kind]}{bit // 8}") if bit in ((16, 32, 64) if kind == 3 else (8, 16, 32, 64)) else None


def read_values(data: bytes) -> np.ndarray:
    """Return the values of the first page as they are stored, (height, width, bands), in the machine's byte order.

    Raises
    ------
    InputError
        With the reason alone: the page is of a kind that is not read here, or has more pixels than are read.
    """
    tags = read_tags(data)
    dtype, compression, predictor = number_type(tags), tags.get(COMPRESSION, _NONE), tags.get(_PREDICTOR, 1)
    known = (_NONE, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS, _LZMA, _ZSTD)
    if (
        dtype is None
        or compression not in known
        or tags.get(PHOTOMETRIC, BLACK_IS_ZERO) not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB)
        or predictor not in ((1, 3) if dtype.kind == "f" else (1, 2))
        or tags.get(_FILL_ORDER, 1) != 1
    ):
        raise InputError(
            f"its kind of TIFF is not read (compression {compression}, predictor {predictor}, photometric "
            f"{tags.get(PHOTOMETRIC)}, bits {tags.get(BITS)}); save it without compression, or as PNG"
        )
    width, height, bands = tags[WIDTH], tags[HEIGHT], tags.get(BANDS, 1)
    check_pixels(width, height, bands, dtype.itemsize)
    # A damaged header asks for far more than any compression of so few bytes can hold.
    if width * height * bands * dtype.itemsize > len(data) * _DENSEST.get(compression, math.inf):
        raise InputError(f"its {len(data)} bytes cannot hold {width} x {height} pixels")
    tiled = _TILES in tags
    across, along = (tags[_TILE_WIDTH], tags[_TILE_HEIGHT]) if tiled else (width, tags.get(_STRIP_ROWS, height))
    rows_of_blocks, blocks_in_row = math.ceil(height / along), math.ceil(width / across)
    separate = tags.get(PLANES, 1) == 2
    depth = 1 if separate else bands
    offsets, counts = (_listed(tags[key]) for key in ((_TILES, _TILE_BYTES) if tiled else (_STRIPS, _STRIP_BYTES)))
    if len(offsets) < rows_of_blocks * blocks_in_row * (bands if separate else 1):
        raise InputError("parts of its pixels are missing")
    stored = dtype.newbyteorder("<" if data[:2] == b"II" else ">")
    values = np.empty((height, width, bands), dtype)
    for number, (offset, count) in enumerate(zip(offsets, counts, strict=False)):
        plane, place = divmod(number, rows_of_blocks * blocks_in_row)
        top, left = (place // blocks_in_row) * along, (place % blocks_in_row) * across
        shape = (along if tiled else min(along, height - top), across, depth)
        raw = _decompressed(data[offset : offset + count], compression, math.prod(shape) * dtype.itemsize)
        block = _undifferenced(raw, stored, shape, predictor)[: height - top, : width - left]
        bands_here = slice(plane, plane + 1) if separate else slice(None)
        values[top : top + along, left : left + across, bands_here] = block
    return values


def _listed(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _decompressed(raw: bytes, compression: int, size: int) -> bytes:
    """Return `size` bytes of pixels."""
    if compression == _NONE:
        whole = raw
    elif compression in (_DEFLATE, _OLD_DEFLATE):
        whole = zlib.decompress(raw)
    else:
        whole = _by_libtiff(raw, compression, size)
    if len(whole) < size:
        raise InputError(f"its pixels are truncated: {size - len(whole)} bytes of {size} are missing")
    return whole[:size]


def _by_libtiff(raw: bytes, compression: int, size: int) -> bytes:
    """Decompress by Pillow, as an image of one row: compression does not know what the bytes stand for."""
    short, long = 3, 4
    entries = [
        (WIDTH, long, size), (HEIGHT, long, 1), (BITS, short, 8), (COMPRESSION, short, compression),
        (PHOTOMETRIC, short, BLACK_IS_ZERO), (_STRIPS, long, 122), (BANDS, short, 1), (_STRIP_ROWS, long, 1),
        (_STRIP_BYTES, long, len(raw)),
    ]  # fmt: skip
    tags = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + tags + struct.pack("<I", 0)  # 122 bytes
    with Image.open(io.BytesIO(head + raw), formats=("TIFF",)) as image:
        return image.tobytes()


def _undifferenced(raw: bytes, stored: np.dtype[Any], shape: tuple[int, int, int], predictor: int) -> np.ndarray:
    """Return a block (rows, width, bands) of values, whichever way neighbours were subtracted before compression."""
    rows, width, bands = shape
    if predictor == 3:  # differences of bytes, the most significant ones of a whole row first
        parts = np.frombuffer(raw, np.uint8).reshape(rows, stored.itemsize * width, bands)
        summed = np.cumsum(parts, axis=1, dtype=np.uint8).reshape(rows, stored.itemsize, width * bands)
        big = np.ascontiguousarray(summed.transpose(0, 2, 1)).view(stored.newbyteorder(">"))
        return big.reshape(shape)
    block = np.frombuffer(raw, stored).reshape(shape)
    return np.cumsum(block, axis=1, dtype=stored.newbyteorder("=")) if predictor == 2 else block
