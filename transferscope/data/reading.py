"""How the images of a target become 8-bit pictures, alike for all of them: told by the caller or by the images."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transferscope.data.decoding import Look, look_at, opened, read_raster
from transferscope.data.images import image_rgb
from transferscope.data.rasters import Picture, Raster, check_bands
from transferscope.data.value_range import SETTING, Range, Spread, check_range
from transferscope.errors import InputError, is_whole

log = logging.getLogger(__name__)

_NEARLY_ALL = 0.95
"""A range that clips more is a mistake; windows of CT clip the air around."""

_LOOKED_AT = 32
"""Images in which a range that was asked for is tried."""


@dataclass(frozen=True)
class Reading:
    """Which values are black and white, and which bands are shown.

    Parameters
    ----------
    value_range : (float, float), optional
        The values that become black and white, in images of more than 8 bits a value, signed or floating-point ones.
        Images of 8 bits are left as they are.
    bands : sequence of int, optional
        The bands that are shown, counted from 1: three for red, green and blue, one for grey, any other number for
        networks that take as many channels. By default the colours, with transparency on white.

    Raises
    ------
    InputError
        A value is not of the kind described.
    """

    value_range: Range | None = None
    bands: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.value_range is not None:
            object.__setattr__(self, "value_range", check_range(self.value_range))
        if self.bands is not None:
            object.__setattr__(self, "bands", _band_numbers(self.bands))

    def contradicts(self, other: "Reading") -> bool:
        """Whether this asks for something that is otherwise in another."""
        pairs = ((self.value_range, other.value_range), (self.bands, other.bands))
        return any(asked is not None and asked != done for asked, done in pairs)

    def decode(self, data: bytes) -> Picture:
        """Decode the bytes of an image file of any common kind, upright, without metadata; of several pages the first.

        Raises
        ------
        InputError
            With the reason alone: it cannot be decoded, lacks a band, or has more pixels than are read.
        """
        look = look_at(data)
        if self.bands is not None or look.wide or look.misread:
            return self.picture(read_raster(data))
        with opened(data) as image:
            assert image is not None
            image.load()
            return image_rgb(image)

    def picture(self, raster: Raster) -> Picture:
        """Show the numbers of an image; without a range those of more than 8 bits tell it by themselves."""
        value_range = self.value_range
        if raster.wide and value_range is None:
            spread = Spread()
            spread.add(raster.told(self.bands), raster.declared)
            value_range, _ = spread.choose()
        return raster.picture(self.bands, value_range)

    def tag(self, look: Look) -> bytes:
        """Return what makes the picture of a file another one than its bytes alone did; nothing where nothing does."""
        bands = self.bands or ((1, 2, 3) if look.misread else None)
        as_stored = bands is None or (bands == tuple(range(1, look.bands + 1)) and len(bands) in (1, 3))
        if not look.wide:
            return b"" if as_stored else repr(bands).encode()
        if as_stored and self.value_range == look.natural:
            return b""
        return repr((bands, self.value_range)).encode()


def _band_numbers(bands: Any) -> tuple[int, ...]:
    """Return the argument `bands`, checked."""
    if isinstance(bands, str) or not hasattr(bands, "__iter__"):
        bands = (bands,)
    numbers = tuple(bands)
    if not numbers or not all(is_whole(number, 1) for number in numbers):
        raise InputError(
            "Expected `bands` to be the numbers of the bands to show, the first is 1, three for red, green and blue, "
            f"but got {bands!r}"
        )
    return tuple(int(number) for number in numbers)


@dataclass
class Survey:
    """What the images of a target tell of how they are to be read, gathered image by image.

    Parameters
    ----------
    asked : Reading
        What the caller says of it.
    """

    asked: Reading
    _spread: Spread = field(default_factory=Spread)
    _images: int = 0
    _wide: int = 0
    _spare: list[tuple[str, int]] = field(default_factory=list)
    _paged: list[str] = field(default_factory=list)
    _hiding: int = 0
    _lacking: str = ""

    def file(self, name: str, data: bytes) -> Look:
        """Look at a file; InputError with the reason alone where it is broken."""
        look = look_at(data)
        self._see(name, look)
        if look.wide and not self._lacking and self._asks():
            self._add(read_raster(data))
        return look

    def item(self, name: str, image: Any, hides: bool = False) -> None:
        """Look at an image of an array or a dataset, in RGB already or a raster.

        `hides` tells whether a fourth channel of it was taken for transparency and hides something.
        """
        self._hiding += hides
        if not isinstance(image, Raster):
            self._images += 1
            return
        self._see(name, Look(image.values.shape[2], image.wide))
        if image.wide and not self._lacking and self._asks():
            self._add(image)

    def _see(self, name: str, look: Look) -> None:
        self._images += 1
        self._wide += look.wide
        if look.spare:
            self._spare.append((name, look.bands))
        if look.paged:
            self._paged.append(name)
        if self.asked.bands is not None and not self._lacking:
            try:
                check_bands(self.asked.bands, look.bands)
            except InputError as error:
                self._lacking = f"{name}: {error}"

    def _asks(self) -> bool:
        """Whether one more image is looked at for its values."""
        return self.asked.value_range is None or self._spread.images < _LOOKED_AT

    def _add(self, raster: Raster) -> None:
        self._spread.add(raster.told(self.asked.bands), raster.declared)

    def settled(self) -> tuple[Reading, list[str]]:
        """Return how all images are read, and what to warn of.

        Raises
        ------
        InputError
            An image lacks a band that was asked for.
        """
        if self._lacking:
            raise InputError(self._lacking)
        notes = [*self._pages_note(), *self._bands_note(), *self._alpha_note()]
        if self.asked.value_range is not None:
            return self.asked, notes + self._asked_note(self.asked.value_range)
        if not self._wide:
            return self.asked, notes
        (low, high), why = self._spread.choose()
        text = (
            f"{self._wide} of {self._images} images have more than 8 bits a value: {low:g} becomes black and {high:g} "
            f"white in all of them{f', for {why}' if why else ''}"
        )
        if why:
            notes.append(f"{text}; {SETTING}")
        else:
            log.info("%s", text)
        return replace(self.asked, value_range=(low, high)), notes

    def _asked_note(self, value_range: Range) -> list[str]:
        if not self._wide:
            return ["value_range changes nothing here: all images have 8 bits a value, and these stay as they are"]
        clipped = self._spread.outside(value_range)
        if clipped <= _NEARLY_ALL:
            return []
        (low, high), _ = self._spread.choose()
        return [
            f"value_range from {value_range[0]:g} to {value_range[1]:g} clips {clipped:.0%} of the values; they would "
            f"fit between {low:g} and {high:g}"
        ]

    def _bands_note(self) -> list[str]:
        if not self._spare or self.asked.bands is not None:
            return []
        name, bands = self._spare[0]
        taken = "the first three are taken for red, green and blue" if bands > 2 else "the first is taken for grey"
        return [
            f"{len(self._spare)} of {self._images} images have bands of which nothing says what they show, such as "
            f"{name} with {bands}: {taken}; choose others with --bands N,N,N (in Python bands=), counted from 1"
        ]

    def _pages_note(self) -> list[str]:
        if not self._paged:
            return []
        return [
            f"{len(self._paged)} of {self._images} images have several pages, such as {self._paged[0]}: the first one "
            "counts; save others as files of their own to use them"
        ]

    def _alpha_note(self) -> list[str]:
        if not self._hiding:
            return []
        return [
            f"the fourth channel of {self._hiding} of {self._images} images is taken for transparency, shown on white; "
            "if it is another band, leave it out with bands=(1, 2, 3)"
        ]
