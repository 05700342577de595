"""A plain TIFF of any kind of number and of any number of bands, as cameras, scanners and GIS tools write them."""

import struct
from pathlib import Path

import numpy as np

SHORT, LONG = 3, 4
_FORMATS = {"u": 1, "i": 2, "f": 3}


def write_tiff(path: Path, values: np.ndarray, extra: int | None = None) -> None:
    """Write (height, width) or (height, width, bands) uncompressed, little-endian, in one strip.

    `extra` says what the bands beyond the first three are: 0 anything, 2 transparency, None is left out of the file.
    """
    values = values if values.ndim == 3 else values[..., None]
    height, width, bands = values.shape
    bits, kind = 8 * values.itemsize, _FORMATS[values.dtype.kind]
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    at = 8 + len(data)
    tags = [
        (256, SHORT, 1, width),
        (257, SHORT, 1, height),
        (258, SHORT, bands, bits if bands == 1 else at),
        (259, SHORT, 1, 1),
        (262, SHORT, 1, 2 if bands >= 3 else 1),
        (273, LONG, 1, 8),
        (277, SHORT, 1, bands),
        (278, SHORT, 1, height),
        (279, LONG, 1, len(data)),
        (284, SHORT, 1, 1),
        *([] if extra is None else [(338, SHORT, 1, extra)]),
        (339, SHORT, bands, kind if bands == 1 else at + 2 * bands),
    ]
    lists = b"" if bands == 1 else struct.pack(f"<{2 * bands}H", *[bits] * bands, *[kind] * bands)
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", at + len(lists)) + data + lists + directory)
