"""Image folders made on the spot, for the tests of everything that reads them."""

import io

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


def names_of(target):
    """Return the class name of every image."""
    return [target.classes[label] for label in target.labels]
