"""Tables that fit a terminal: names are wrapped, numbers never; what finds no room is continued in a table below."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.table import Table
from rich.text import Text

from transferscope.runtime.printable import printable_cell

Columns = Mapping[str, Sequence[str]]
"""Header to cells."""

_GAP = 2
_LEAST = 12
"""Terminal columns that a name is wrapped to at the narrowest."""
_ENOUGH = 32
"""Terminal columns of a name from which on it may be wrapped for the sake of a single table."""


def fitted(
    keys: Columns, *groups: Columns, width: int, names: Collection[str], left: Collection[str] = ()
) -> list[Table]:
    """Return rich tables of at most `width` columns: one where that holds everything, else at least one for each group.

    Parameters
    ----------
    keys : mapping of str to sequence of str
        Header to cells of the columns that each table begins with.
    *groups : mapping of str to sequence of str
        The other columns, those that belong together in one group.
    width : int
        Columns of the terminal.
    names : collection of str
        Headers of the columns of names: flush left, and wrapped where there is no room.
    left : collection of str
        Headers of other columns that are flush left.
    """
    keys, groups = _printable(keys), tuple(map(_printable, groups))
    together = {**keys, **{header: cells for group in groups for header, cells in group.items()}}
    if _needed(together, names, _ENOUGH) <= width:
        groups = (together,)
    parts = [part for group in groups for part in _parts(keys, group, width, names)]
    return [_table(part, width, names, left) for part in parts]


def _printable(columns: Columns) -> Columns:
    return {header: list(map(printable_cell, cells)) for header, cells in columns.items()}


def _parts(keys: Columns, group: Columns, width: int, names: Collection[str]) -> list[Columns]:
    """Divide the columns of a group among as few tables as hold them, as evenly as their order allows."""

    def divided(most: int) -> list[Columns]:
        parts = [dict(keys)]
        for header, cells in group.items():
            if len(parts[-1]) > len(keys) and _needed({**parts[-1], header: cells}, names, _LEAST) > most:
                parts.append(dict(keys))
            parts[-1][header] = cells
        return list(parts)

    fewest = len(divided(width))
    return next(parts for parts in map(divided, range(width + 1)) if len(parts) == fewest)


def print_tables(tables: Iterable[Table], console: Console) -> None:
    """Print tables with an empty line between them."""
    for place, table in enumerate(tables):
        if place:
            console.print()
        console.print(table)


def _table(columns: Columns, width: int, names: Collection[str], left: Collection[str]) -> Table:
    widths = {header: _width(header, cells, _LEAST if header in names else None) for header, cells in columns.items()}
    spare = max(0, width - sum(widths.values()) - _GAP * (len(widths) - 1))
    wanting = {header: _width(header, columns[header]) - widths[header] for header in columns if header in names}
    # The shortest first, so that what they leave goes to the longer ones.
    for place, header in enumerate(sorted(wanting, key=wanting.__getitem__)):
        granted = min(wanting[header], spare // (len(wanting) - place))
        widths[header] += granted
        spare -= granted
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP // 2))
    for header, room in widths.items():
        flush_left = header in names or header in left
        heading = Text(wrapped(header, room))
        table.add_column(heading, justify="left" if flush_left else "right", no_wrap=True, width=room)
    for row in zip(*columns.values(), strict=True):
        # As Text: a name may look like rich's markup.
        table.add_row(*(Text(wrapped(cell, room)) for cell, room in zip(row, widths.values(), strict=True)))
    return table


def wrapped(name: str, width: int) -> str:
    """Break a name into lines of at most `width` columns, after spaces and the likes of - . _ / where there are any."""
    lines = [""]
    for piece in re.findall(r"[^\s\-_./:]*[\s\-_./:]*", name):
        if cell_len((lines[-1] + piece).rstrip()) <= width:
            lines[-1] += piece
        else:
            first, *rest = chop_cells(piece, width)
            lines += [first, *rest]
    return "\n".join(filter(None, map(str.rstrip, lines)))


def _needed(columns: Columns, names: Collection[str], most: int) -> int:
    """Return how many columns of a terminal a table takes whose names are wrapped to `most`."""
    widths = [_width(header, cells, most if header in names else None) for header, cells in columns.items()]
    return sum(widths) + _GAP * (len(widths) - 1)


def _width(header: str, cells: Sequence[str], most: int | None = None) -> int:
    widest = max(map(cell_len, [header, *cells]))
    return widest if most is None else min(widest, most)
