"""Small pictures of three classes, made on the spot: stripes across, stripes down, discs."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("across", "disc", "down")
SIDE = 40


def pattern(kind: str, rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """Return one picture as floats in [0, 1], (side, side)."""
    y, x = np.mgrid[:side, :side]
    phase, period = rng.uniform(0, 6), rng.uniform(5, 9)
    if kind == "disc":
        centre, radius = rng.uniform(0.3 * side, 0.7 * side, 2), rng.uniform(0.15, 0.28) * side
        picture = np.where((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2, 0.8, 0.2)
    else:
        picture = 0.5 + 0.3 * np.sin((y if kind == "across" else x) / period * 2 * np.pi + phase)
    return np.clip(picture + rng.normal(0, 0.1, picture.shape), 0, 1)


def coloured(kind: str, rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """Return one picture in a tint of its own, 8 bits, (side, side, 3)."""
    return np.round(255 * pattern(kind, rng, side)[..., None] * rng.uniform(0.6, 1, 3)).astype(np.uint8)


def write_folder(folder: Path, per_class: int = 18, side: int = SIDE) -> Path:
    """Write an image folder with as many pictures of each class; the same ones each time."""
    rng = np.random.default_rng(0)
    for kind in CLASSES:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            Image.fromarray(coloured(kind, rng, side)).save(folder / kind / f"{number:02}.png")
    return folder
