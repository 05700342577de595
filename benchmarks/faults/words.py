"""What odd inputs are made of: texts, values, pictures, and damage."""

import io
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import numpy as np

Try = Callable[[], Any]
"""Tries an input."""

ODD_TEXT = [
    "", " ", ".", "..", "../..", "~", "~no-such-user/x", "/dev/zero", "/dev/stdin", "/proc/self/mem", "-", "--",
    "=1+1", "a" * 300, "n" * 5001, "\0", "\x1b[2J", "ü\u202e", "'", "{}", "[]", "%s", "null", "nan", "1e999", "9" * 400,
    "-1", "0", "0x10", "!!bool x", "local-dir:/tmp", "LOCAL-DIR:/tmp", "hf-hub:a/b", "hf_hub:a/b", "file:///etc/passwd",
    "a\nb", "resnet18", "test_resnet",
]  # fmt: skip
ODD_VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1,
    3,
    8,
    10**30,
    10**400,
    0.5,
    -0.0,
    float("nan"),
    float("inf"),
    [],
    {},
    [[]],
    [1, 2],
    {"a": 1},
]


class WrongError(Exception):
    """An input was taken for what it is not."""


def mutated(rng: Random, data: bytes) -> bytes:
    """Return bytes with a few of them flipped, overwritten, removed, doubled or cut off."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(result) + 1)
        span = rng.choice((1, 2, 4, 8, 64))
        kind = rng.randrange(6)
        if kind == 0 and at < len(result):
            result[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            result[at : at + span] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * span
        elif kind == 2:
            del result[at : at + span]
        elif kind == 3:
            result[at:at] = result[at : at + span] * rng.choice((1, 2, 100))
        elif kind == 4:
            result[at:at] = rng.randbytes(span)
        else:
            del result[at:]
    return bytes(result)


@cache
def pictures() -> tuple[bytes, ...]:
    """Return a picture of every format, and what is none; the third is a PNG of 32 by 24 pixels."""
    from PIL import Image

    image = Image.fromarray(np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3))
    kinds = [
        ("RGB", "JPEG", {}), ("L", "JPEG", {"progressive": True}), ("RGB", "PNG", {}), ("P", "GIF", {}),
        ("RGB", "TIFF", {}), ("RGB", "TIFF", {"compression": "tiff_lzw"}), ("RGBA", "WEBP", {}), ("RGB", "BMP", {}),
        ("RGB", "PPM", {}), ("I;16", "PNG", {}), ("RGB", "JPEG2000", {}), ("1", "TIFF", {"compression": "group4"}),
    ]  # fmt: skip
    made = []
    for mode, kind, options in kinds:
        stream = io.BytesIO()
        (Image.new("I;16", (32, 24), 700) if mode == "I;16" else image.convert(mode)).save(stream, kind, **options)
        made.append(stream.getvalue())
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    return (*made, postscript, b"%PDF-1.4\n%%EOF", b"", b"GIF89a")


def png() -> bytes:
    """Return a PNG."""
    return pictures()[2]
