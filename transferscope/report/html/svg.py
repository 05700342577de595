"""A figure as SVG inside a page: names of its own, real text, and a title on whatever carries a value."""

import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from transferscope.report.plots.drawing import hover_texts

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_WIDTHS = (75, 130)
"""Least and most pixels of the page for an inch of the figure; between them its text is as large as the page's."""
MOST_MARKS = 6000
"""More points, bars and cells in one figure than this do not tell their values: a page would grow by megabytes."""


def marks(figure: Figure) -> int:
    """Return how many points, bars and cells of a figure have a value to tell."""
    return sum(len(hover_texts(artist)) for artist in _telling(figure))


def _telling(figure: Figure) -> list[Artist]:
    return figure.findobj(lambda artist: bool(hover_texts(artist)))


def svg(figure: Figure, name: str, description: str, most: int = MOST_MARKS) -> str:
    """Return a figure as an `<svg>` element for a page of HTML.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    name : str
        Begins all ids in it, so that several pictures can stand in one page.
    description : str
        For those who cannot see it.
    most : int
        Marks that may tell their values; of a figure that has more, all that is numerous becomes a picture inside it.
    """
    telling = _telling(figure)
    numerous = _numerous(telling, most)
    texts = {}
    for number, artist in enumerate(telling):
        if artist in numerous:
            artist.set_rasterized(True)
            continue
        artist.set_gid(f"hover{number}")
        texts[f"hover{number}"] = hover_texts(artist)
    buffer = io.StringIO()
    # Text stays text, and nothing in the file depends on the time.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True, dpi=150)
    root = ElementTree.fromstring(buffer.getvalue())
    for group in root.iter(f"{_SVG}g"):
        _title(group, texts.get(group.get("id", ""), ()))
    for element in root.iter():
        _rename(element, name)
    for child in root.findall(f"{_SVG}metadata"):
        root.remove(child)
    # A box alone, so that it takes the width that the page has.
    for side in ("width", "height"):
        root.attrib.pop(side, None)
    least, most = (round(figure.get_figwidth() * pixels) for pixels in _WIDTHS)
    style = f"min-width: {least}px; max-width: {most}px"
    root.attrib |= {"role": "img", "aria-label": description, "style": style}
    ElementTree.register_namespace("", _SVG[1:-1])
    return ElementTree.tostring(root, encoding="unicode")


def _numerous(telling: Sequence[Artist], most: int) -> set[Artist]:
    """Return the artists with the most marks, without which those of all others are few enough for a page."""
    small = telling
    while sum(len(hover_texts(artist)) for artist in small) > most:
        largest = max(len(hover_texts(artist)) for artist in small)
        small = [artist for artist in small if len(hover_texts(artist)) < largest]
    return set(telling) - set(small)


def _title(group: ElementTree.Element, texts: tuple[str, ...]) -> None:
    """Give each mark of a group its title; none of them where they are not as many, for some would be wrong."""
    defined = {id(shape) for part in group.iter(f"{_SVG}defs") for shape in part.iter()}
    shapes = [shape for shape in group.iter() if id(shape) not in defined]
    uses = [shape for shape in shapes if shape.tag == f"{_SVG}use"]
    paths = [shape for shape in shapes if shape.tag == f"{_SVG}path"]
    for marks in (uses, paths):
        if len(marks) == len(texts):
            for mark, text in zip(marks, texts, strict=True):
                if text:
                    ElementTree.SubElement(mark, f"{_SVG}title").text = text
            return


def _rename(element: ElementTree.Element, name: str) -> None:
    if _HREF in element.attrib:
        # The plain attribute, which HTML knows too.
        element.set("href", element.attrib.pop(_HREF))
    for key, value in element.attrib.items():
        if key == "id":
            element.set(key, f"{name}-{value}")
        elif key == "href" and value.startswith("#"):
            element.set(key, f"#{name}-{value[1:]}")
        elif "url(#" in value:
            element.set(key, re.sub(r"url\(#", f"url(#{name}-", value))
