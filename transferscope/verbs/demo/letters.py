"""Pictures of letters and of gratings, drawn on the spot with the fonts that matplotlib brings along."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 32
"""Pixels of a picture."""
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Italic", "DejaVuSerif-Bold",
    "DejaVuSansMono", "DejaVuSansMono-Oblique", "STIXGeneral", "STIXGeneralItalic", "STIXGeneralBol",
    "STIXGeneralBolIta",
)  # fmt: skip
GRATINGS = 24
"""Kinds of gratings: six directions at four widths."""

_DRAWN = 96
"""Pixels that a letter is drawn at before it is made smaller."""


def letters(alphabet: Sequence[str], per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw letters in fonts, sizes, slants and places of their own, light or dark on clouds, with noise.

    Parameters
    ----------
    alphabet : sequence of str
        The classes.
    per_class : int
        Pictures of each.
    seed : int
        Same seed, same pictures.

    Returns
    -------
    tuple of numpy.ndarray
        (n, 32, 32) uint8 grey pictures, and their (n,) int64 classes, class by class.
    """
    draw = np.random.default_rng(seed)
    classes = np.repeat(np.arange(len(alphabet)), per_class)
    return np.stack([_letter(alphabet[int(each)], draw) for each in classes]), classes


def gratings(per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw stripes whose classes are their direction and width; as `letters` otherwise."""
    draw = np.random.default_rng(seed)
    classes = np.repeat(np.arange(GRATINGS), per_class)
    return np.stack([_grating(int(each), draw) for each in classes]), classes


def _letter(letter: str, draw: np.random.Generator) -> np.ndarray:
    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{FONTS[draw.integers(len(FONTS))]}.ttf"
    font = ImageFont.truetype(str(path), int(draw.integers(44, 66)))
    large = Image.new("L", (_DRAWN, _DRAWN), 0)
    place = _DRAWN / 2 + draw.normal(0, 3, 2)
    ImageDraw.Draw(large).text((float(place[0]), float(place[1])), letter, font=font, fill=255, anchor="mm")
    large = large.transform(large.size, Image.Transform.AFFINE, _slant(draw), Image.Resampling.BILINEAR)
    ink = np.asarray(large.resize((SIDE, SIDE), Image.Resampling.BOX), float) / 255
    paper = 0.15 + 0.3 * _clouds(draw)
    light = draw.uniform(0.7, 1.0)
    picture = paper * (1 - ink) + light * ink
    if draw.random() < 0.5:
        picture = 1 - picture
    return _pixels(picture + draw.normal(0, 0.036, ink.shape))


def _slant(draw: np.random.Generator) -> tuple[float, ...]:
    """Return where each pixel comes from, as PIL wants it, for a turn, a slant and a stretch about the middle."""
    angle, slant, (wide, high) = np.deg2rad(draw.normal(0, 9)), draw.normal(0, 0.12), np.exp(draw.normal(0, 0.09, 2))
    there = np.array(
        [[np.cos(angle) * wide, slant - np.sin(angle) * high], [np.sin(angle) * wide, np.cos(angle) * high]]
    )
    back, middle = np.linalg.inv(there), np.full(2, _DRAWN / 2)
    offset = middle - back @ middle
    return tuple(map(float, (*back[0], offset[0], *back[1], offset[1])))


def _clouds(draw: np.random.Generator) -> np.ndarray:
    coarse = Image.fromarray(draw.integers(0, 256, (5, 5), dtype=np.uint8))
    return np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), float) / 255


def _grating(kind: int, draw: np.random.Generator) -> np.ndarray:
    down, right = np.mgrid[:SIDE, :SIDE]
    angle = np.pi * (kind % 6) / 6 + draw.normal(0, 0.08)
    frequency = (0.075, 0.15, 0.25, 0.4)[kind // 6] * np.exp(draw.normal(0, 0.08))
    across = right * np.cos(angle) + down * np.sin(angle)
    waves = np.sin(2 * np.pi * (frequency * across + draw.random()))
    return _pixels(0.5 + 0.35 * draw.uniform(0.4, 1.0) * waves + draw.normal(0, 0.1, waves.shape))


def _pixels(picture: np.ndarray) -> np.ndarray:
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)
