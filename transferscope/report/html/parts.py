"""What the pages of all results are put together from: tables that can be sorted, pictures, and what stands around."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from matplotlib.figure import Figure

from transferscope.report.html.svg import marks, svg
from transferscope.report.terminal.counts import short_count
from transferscope.runtime.numbers import short_number
from transferscope.runtime.templates import render

MOST_ROWS = 500
"""Rows of one table, and entries of one list; of more the first are shown."""
_MOST_MARKS = 5000
"""Points, bars and cells of all pictures of a page that tell their values: each takes half a kilobyte."""


@dataclass(frozen=True)
class Column:
    """A column of a table that can be sorted."""

    header: str
    cells: Sequence[str]
    keys: Sequence[float | str]
    """What the rows are sorted by."""
    meaning: str = ""

    @property
    def numeric(self) -> bool:
        """Whether it holds numbers."""
        return not any(isinstance(key, str) for key in self.keys)

    def key(self, row: int) -> float | str:
        """Return what a row is sorted by, as JavaScript reads it."""
        key = self.keys[row]
        return key if isinstance(key, str) or not math.isinf(key) else "Infinity" if key > 0 else "-Infinity"


@dataclass(frozen=True)
class Table:
    """Columns of equal length, of which a page shows the first rows."""

    caption: str
    columns: Sequence[Column]
    file: str = ""
    """Which file beside the page has all rows."""
    marked: Collection[int] = ()
    """Rows that stand out."""

    @property
    def length(self) -> int:
        """Rows, shown or not."""
        return len(self.columns[0].cells) if self.columns else 0

    @property
    def shown(self) -> int:
        """Rows that are shown."""
        return min(self.length, MOST_ROWS)

    @property
    def rest(self) -> str:
        """Where the others are, in words; empty where there are none."""
        if self.shown == self.length:
            return ""
        text = f"The first {self.shown:,} of {self.length:,} rows"
        return f"{text}; all are in {self.file}, beside this page." if self.file else f"{text}."


@dataclass(frozen=True)
class Picture:
    """A picture of a page, as SVG for a window and, where it is another one, for a phone."""

    name: str
    title: str
    text: str
    wide: str
    narrow: str = ""


@dataclass(frozen=True)
class Section:
    """What stands below one heading: a sentence or two, a table, a command, pictures, lines of text, in this order."""

    name: str
    title: str
    hint: str = ""
    table: Table | None = None
    code: str = ""
    pictures: Sequence[Picture] = ()
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Made:
    """One line of how a result was made: text, and what looks like code behind it."""

    name: str
    text: str
    code: str = ""


@dataclass(frozen=True)
class Page:
    """The page of a result: the answer in words, what went wrong, sections, how it was made."""

    verb: str
    subject: str
    """What it is about, beside the verb and in the title of the window."""
    answer: str
    more: Sequence[str]
    """Paragraphs below the answer, the first of them larger."""
    notes: Sequence[tuple[str, str]]
    """What was left out or failed: what it is, in a few words, and the sentence."""
    sections: Sequence[Section]
    made: Sequence[Made]

    def render(self) -> bytes:
        """Return it as the content of a file."""
        return encoded(render("result.html", page=self, most=MOST_ROWS))


def encoded(text: str) -> bytes:
    """Return a page as the content of a file; a name may hold bytes that are no letters."""
    return text.encode("utf-8", "xmlcharrefreplace")


def pictures(
    captions: Mapping[str, tuple[str, str]], wide: Mapping[str, Figure], narrow: Mapping[str, Figure] | None = None
) -> list[Picture]:
    """Return the pictures of a page that there are, in the order of their captions.

    Parameters
    ----------
    captions : mapping of str to (str, str)
        Name to title and text.
    wide, narrow : mapping of str to matplotlib.figure.Figure
        Name to the picture for a window, and for a phone where that is another one.
    """
    shown = [name for name in captions if name in wide]
    left, allowed = _MOST_MARKS, {}
    # Those with little to tell first: one with a great many of marks must not silence the others.
    for name in sorted(shown, key=lambda name: marks(wide[name])):
        allowed[name] = left
        needed = marks(wide[name])
        left -= needed if needed <= left else 0
    return [_picture(name, *captions[name], wide[name], (narrow or {}).get(name), allowed[name]) for name in shown]


def _picture(name: str, title: str, text: str, wide: Figure, narrow: Figure | None, most: int) -> Picture:
    described = f"{title}. {text}"
    return Picture(
        name, title, text,
        svg(wide, f"{name}-wide", described, most),
        "" if narrow is None else svg(narrow, f"{name}-narrow", described, most),
    )  # fmt: skip


def few(entries: Iterable[tuple[str, str]], more: str) -> list[tuple[str, str]]:
    """Return the first notes of many, and say where the others are."""
    notes = list(islice(entries, MOST_ROWS + 1))
    return notes if len(notes) <= MOST_ROWS else [*notes[:MOST_ROWS], ("And more", more)]


def versions_line(versions: Mapping[str, str]) -> Made:
    """Return the line that says which versions of what it was made with."""
    return Made("Versions", ", ".join(f"{name} {version}" for name, version in versions.items()))


def texts(header: str, cells: Sequence[str], meaning: str = "") -> Column:
    """Return a column of words."""
    return Column(header, cells, cells, meaning)


def numbers(header: str, values: Sequence[float], meaning: str = "") -> Column:
    """Return a column of numbers with three decimals; an unknown one is left empty."""
    return Column(header, [number(value) for value in values], values, meaning)


def with_errors(header: str, values: Sequence[float], errors: Sequence[float], meaning: str = "") -> Column:
    """Return a column of numbers with their standard errors, as far as these are known."""
    cells = [
        number(value) + ("" if math.isnan(error) else f" ± {error:.3f}")
        for value, error in zip(values, errors, strict=True)
    ]
    return Column(header, cells, values, meaning)


def intervals(header: str, ends: Sequence[tuple[float, float]]) -> Column:
    """Return a column of intervals."""
    cells = [f"{low:.3f}–{high:.3f}" for low, high in ends]
    return Column(header, cells, [high - low for low, high in ends], "Sorted by its width.")


def counts(header: str, values: Sequence[float], meaning: str = "") -> Column:
    """Return a column of large numbers, which are left empty where there is none."""
    return Column(header, [short_count(value) if value == value else "" for value in values], values, meaning)


def sizes(header: str, values: Sequence[float], meaning: str = "") -> Column:
    """Return a column of large numbers of which one may be unknown; elsewhere an empty cell says that there is none."""
    return Column(header, [short_count(value) for value in values], values, meaning)


def whole(header: str, values: Sequence[int], meaning: str = "") -> Column:
    """Return a column of whole numbers."""
    return Column(header, [str(value) for value in values], values, meaning)


def costs(header: str, values: Sequence[float], meaning: str = "") -> Column:
    """Return a column of seconds or kWh."""
    return Column(header, [short_number(value) for value in values], values, meaning)


def number(value: float) -> str:
    """Write a number with three decimals; an unknown one is empty."""
    return f"{value:.3f}" if value == value else ""
