"""What pictures share: fonts and sizes of a context, styles of lines, legends, texts to hover over."""

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from typing import Any, Literal
from weakref import WeakKeyDictionary

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import font_manager, rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.transforms import ScaledTranslation, blended_transform_factory

from transferscope.errors import InputError, near
from transferscope.report.plots.naming import LONGEST_NAME

Context = Literal["paper", "notebook", "talk"]
"""Seaborn's: how large fonts and lines are, and how wide a figure of its own is. "paper" is a column, 3.4 inches."""

MARKERS = "osD^vP*X<>"
NARROW = 4.0
"""Inches; a narrower figure is a column of a paper."""
GRID: Mapping[str, Any] = {"color": "0.9", "linewidth": 0.6}

# Inches of a figure of its own, what seaborn's fonts are scaled by (meant for wider figures than a column of a paper),
# and the letters that a name on an axis may have.
_SIZES: Mapping[str, tuple[float, float, int]] = {
    "paper": (3.4, 0.8, 24),
    "notebook": (8.0, 0.9, LONGEST_NAME),
    "talk": (11.0, 0.9, LONGEST_NAME),
}

_MOST_MARKED = 20
_make: ContextVar[Callable[..., Figure] | None] = ContextVar("make", default=None)
_OTHER_SCRIPTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Microsoft YaHei", "Hiragino Sans", "Arial Unicode MS")
_hovers: WeakKeyDictionary[Artist, tuple[str, ...]] = WeakKeyDictionary()


def hover(artist: Artist, texts: Iterable[str]) -> None:
    """Say what is read when the pointer rests on each point, bar or cell of what was drawn, in a page that can."""
    _hovers[artist] = tuple(texts)


def hover_texts(artist: Artist) -> tuple[str, ...]:
    """Return what `hover` was given."""
    return _hovers.get(artist, ())


@contextmanager
def styled(context: Context) -> Iterator[float]:
    """Set fonts and line widths of a context while something is drawn; yield the width of its figures in inches.

    Raises
    ------
    InputError
        When there is no such context.
    """
    width, scale, _ = _known(context)
    look = sns.plotting_context(context, font_scale=scale)
    ticks: dict[str, Any] = {
        f"{side}tick.major.{what}": 0.6 * look[f"{side}tick.major.{what}"]
        for side in "xy"
        for what in ("size", "width")
    }
    thin = dict.fromkeys(("axes.linewidth", "hatch.linewidth"), 0.7 * look["axes.linewidth"])
    family = [*rcParams["font.family"], *_other_scripts()]
    settings: dict[Any, Any] = {**look, **ticks, **thin, "font.family": family}
    # Not rc_context: it would also take back what a backend sets that the first figure brings in ("interactive").
    before = {name: rcParams[name] for name in settings}
    rcParams.update(settings)
    try:
        with warnings.catch_warnings():
            # A name in letters that no font has shows as boxes.
            warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
            yield width
    finally:
        rcParams.update(before)


@cache
def _other_scripts() -> list[str]:
    """Return the fonts for names that the font of all pictures has no letters for, as far as they are installed."""
    return [name for name in _OTHER_SCRIPTS if name in font_manager.get_font_names()]


def longest(context: Context) -> int:
    """Return the letters that there is room for in a name on an axis.

    Raises
    ------
    InputError
        When there is no such context.
    """
    return _known(context)[2]


def _known(context: Context) -> tuple[float, float, int]:
    if context not in _SIZES:
        raise InputError(
            f"Expected `context` to be one of {', '.join(_SIZES)}, but got {context!r}{near(context, _SIZES)}"
        )
    return _SIZES[context]


@contextmanager
def canvas(
    ax: Axes | None, context: Context, size: Callable[[float], tuple[float, float]] = lambda width: (width, 0.6 * width)
) -> Iterator[Axes]:
    """Yield the axes to draw into, in the style of a context; where there are none, those of a new figure of pyplot's.

    Parameters
    ----------
    ax : matplotlib.axes.Axes or None
        Its figure keeps its size.
    context : {"paper", "notebook", "talk"}
    size : callable
        Returns the inches of a new figure from the width of the context.

    Raises
    ------
    InputError
        When `ax` is something else, or there is no such context.
    """
    if not isinstance(ax, Axes | None):
        raise InputError(
            f"Expected `ax` to be the axes to draw into, or None, but got {type(ax).__name__}; "
            "`matplotlib.pyplot.subplots` returns a figure and its axes"
        )
    with styled(context) as width:
        drawn = (
            (_make.get() or plt.figure)(figsize=size(width), layout="constrained").add_subplot() if ax is None else ax
        )
        # Those of x and of y are alike in every context.
        length, thickness = rcParams["xtick.major.size"], rcParams["xtick.major.width"]
        drawn.tick_params(labelsize=rcParams["xtick.labelsize"], length=length, width=thickness)
        for spine in drawn.spines.values():
            spine.set_linewidth(rcParams["axes.linewidth"])
        yield drawn
        if ax is None:
            _make_room(drawn)


@contextmanager
def outside_pyplot() -> Iterator[None]:
    """Make new figures outside pyplot: they need no display and leave the session's figures alone."""
    before = _make.set(Figure)
    try:
        yield
    finally:
        _make.reset(before)


def figure_of(ax: Axes) -> Figure:
    """Return the whole figure that axes are in."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


def _make_room(ax: Axes) -> None:
    """Make the figure of one picture higher by the legend below its axes."""
    legend, figure = ax.get_legend(), figure_of(ax)
    if legend is not None and legend.get_window_extent().y1 < ax.get_window_extent().y0:
        figure.set_figheight(figure.get_figheight() + legend.get_window_extent().height / figure.dpi)


def label(ax: Axes, *, x: str | None = None, y: str | None = None, title: str | None = None) -> None:
    """Name the axes; axes that were given may have had labels of another size."""
    if x is not None:
        ax.set_xlabel(x, fontsize=rcParams["axes.labelsize"])
    if y is not None:
        ax.set_ylabel(y, fontsize=rcParams["axes.labelsize"])
    if title is not None:
        ax.set_title(title, fontsize=rcParams["axes.titlesize"])


def explain(owner: Axes | Figure, handles: Sequence[Artist], title: str | None = None, *, below: bool = False) -> None:
    """Explain lines outside of the axes, to the right of them or below, where nothing is covered; call it last.

    Handles without line and marker are headings. They are handed over one by one: matplotlib does not collect labels
    that begin with an underscore.
    """
    names = [handle for handle in handles if not _is_heading(handle)]
    make = partial(owner.legend, handles=handles, title=title, frameon=False, alignment="left")
    if not isinstance(owner, Axes):
        made = make(loc="outside right upper")
    elif not below:
        made = make(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    else:
        # In two columns at most where there are headings, which would stand anywhere.
        for columns in range(min(len(handles), 4 if len(names) == len(handles) else 2), 0, -1):
            made = make(loc="upper center", ncols=columns, columnspacing=1.0, handlelength=1.7, **_under(owner))
            if made.get_window_extent().width <= 0.98 * owner.figure.get_window_extent().width:
                break
    made.get_title().set_fontsize(rcParams["legend.fontsize"])
    for handle, text in zip(handles, made.get_texts(), strict=True):
        if _is_heading(handle):
            text.set_fontweight("bold")


def _is_heading(handle: Artist) -> bool:
    return isinstance(handle, Line2D) and handle.get_linestyle() == handle.get_marker() == "None"


def _under(ax: Axes) -> dict[str, Any]:
    """Return where a legend is below the names of the x axis; in the middle of a figure that has no other axes."""
    extent, figure = ax.xaxis.get_tightbbox(), figure_of(ax)
    inches = 0.0 if extent is None else (ax.get_window_extent().y0 - extent.y0) / figure.dpi
    across = figure.transFigure if len(figure.axes) == 1 else ax.transAxes
    place = blended_transform_factory(across, ax.transAxes)
    return {
        "bbox_to_anchor": (0.5, 0.0),
        "bbox_transform": place + ScaledTranslation(0, -inches, figure.dpi_scale_trans),
    }


def hatch_cells(ax: Axes, cells: Iterable[tuple[int, int]]) -> PatchCollection:
    """Hatch cells (row, column) of a heatmap."""
    squares = [Rectangle((column, row), 1, 1) for row, column in cells]
    # Paler below the hatching, which would not be seen on the dark colours.
    hatched = PatchCollection(squares, facecolor=(1, 1, 1, 0.45), edgecolor="0.25", hatch="////", linewidth=0)
    ax.add_collection(hatched)
    return hatched


def selected(table: pd.DataFrame, **chosen: Any) -> pd.DataFrame:
    """Return the rows where each of these columns has this value.

    Raises
    ------
    InputError
        When there is none; the message names what there is.
    """
    for column, value in chosen.items():
        choices = table[column].unique()
        if value not in choices:
            raise InputError(
                f"Expected `{column}` to be one of {', '.join(map(str, choices)) or 'none'}, but got {value!r}"
            )
        table = table[table[column] == value]
    return table


def line_styles(count: int) -> list[dict[str, Any]]:
    """Return lines that differ in colour, and without it in marker and dashes."""
    looks = itertools.product(("-", "--", ":"), zip(sns.color_palette("colorblind"), MARKERS, strict=True))
    size = 0.7 * rcParams["lines.markersize"]
    return [
        {"color": colour, "marker": marker, "linestyle": dashes, "markersize": size}
        for dashes, (colour, marker) in itertools.islice(itertools.cycle(looks), count)
    ]


def size_styles(table: pd.DataFrame) -> dict[int, dict[str, Any]]:
    """Return the line of each number of images (`samples_per_class`), from light for few to dark for many."""
    sizes = sorted(table["samples_per_class"].unique())
    # Without the lightest yellow, which paper swallows.
    colours = map(matplotlib.colormaps["viridis"], np.linspace(0.85, 0.0, len(sizes)))
    marked = 0.7 * rcParams["lines.markersize"]
    looks = zip(sizes, colours, itertools.cycle(MARKERS), strict=False)
    return {size: {"color": colour, "marker": marker, "markersize": marked} for size, colour, marker in looks}


def draw_line(ax: Axes, x: Sequence[float], y: Sequence[float], texts: list[str], style: Mapping[str, Any]) -> Line2D:
    """Draw a line with texts to hover over; of many points only some have its marker, the others a dot."""
    every = -(-len(texts) // _MOST_MARKED) or 1
    (line,) = ax.plot(x, y, markevery=every, **style)
    hover(line, texts[::every])
    if every > 1:
        dot = {"linestyle": "none", "marker": ".", "markersize": 0.4 * rcParams["lines.markersize"]}
        (dots,) = ax.plot(x, y, color=style["color"], zorder=line.get_zorder(), **dot)
        hover(dots, texts)
    return line
