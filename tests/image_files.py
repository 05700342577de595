"""Image files written byte by byte, of kinds that Pillow cannot write: what a test expects of them is known by hand."""

import struct
import zlib

import numpy as np


def tiff(values, *, compress=False, **tags):
    """Return a TIFF of one strip of values (height, width, bands) as they are; `tags` are numbers by name below."""
    order = ">" if values.dtype.byteorder == ">" else "<"
    height, width, bands = values.shape
    raw = values.tobytes()
    data = zlib.compress(raw) if compress else raw
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    fields = {
        256: width, 257: height, 258: (values.dtype.itemsize * 8,) * bands, 259: 8 if compress else 1,
        262: 2 if bands >= 3 else 1, 273: 0, 277: bands, 278: height, 279: len(data), 339: (kind,) * bands,
    }  # fmt: skip
    fields |= {_TAGS[name]: value for name, value in tags.items()}
    start = 8 + 2 + 12 * len(fields) + 4
    fields[273] = start + sum(
        2 * len(value) for value in fields.values() if isinstance(value, tuple) and len(value) > 2
    )
    entries, beyond = b"", b""
    for tag, value in sorted(fields.items()):
        if isinstance(value, bytes):
            content = struct.pack(order + "HHI", tag, 2, len(value)) + value.ljust(4, b"\0")[:4]
        elif isinstance(value, int):
            content = struct.pack(order + "HHII", tag, 4, 1, value)
        elif len(value) <= 2:
            content = struct.pack(order + "HHI2H", tag, 3, len(value), *(*value, 0)[:2])
        else:
            content = struct.pack(order + "HHII", tag, 3, len(value), start + len(beyond))
            beyond += struct.pack(f"{order}{len(value)}H", *value)
        entries += content
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(order + "IH", 8, len(fields)) + entries + struct.pack(order + "I", 0) + beyond + data


_TAGS = {"photometric": 262, "orientation": 274, "largest": 281, "extra": 338, "nodata": 42113}


def png16(values):
    """Return a 16-bit PNG of values (height, width, bands): grey, grey and alpha, RGB, RGB and alpha."""
    height, width, bands = values.shape
    values = np.ascontiguousarray(values, ">u2")
    rows = np.concatenate([np.zeros((height, 1), np.uint8), values.view(np.uint8).reshape(height, -1)], 1)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[bands]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def folder(root, files):
    """Write files (bytes by path) below a folder."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root
