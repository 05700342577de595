"""Image folders made on the spot, for the tests of everything that reads them."""

import io

import numpy as np
from PIL import Image


def png(shade, size=4):
    """Return the bytes of a PNG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (shade % 256, shade // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def write(root, *names):
    """Write an image of its own colour at each path; `name*5` stands for five files in that folder."""
    shade = 0
    for name in names:
        folder, _, count = name.partition("*")
        paths = [root / folder / f"{i:03}.png" for i in range(int(count))] if count else [root / folder]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(shade))
            shade += 1
    return root


def coloured_noise(root, per_class=12, size=12):
    """Write images of noise in three classes; each class brightens the channel that it is called after."""
    rng = np.random.default_rng(0)
    for channel, name in enumerate(["red", "green", "blue"]):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = rng.integers(0, 120, (size, size, 3), dtype=np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(root / name / f"{i:02}.png")
    return root


def names_of(target):
    """Return the class name of every image."""
    return [target.classes[label] for label in target.labels]
