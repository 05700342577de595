"""Cells of CSV files that a spreadsheet would take for a formula."""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# With the wide forms, which some spreadsheets read alike.
_FORMULA = re.compile("'*[=+\\-@\t\r\n＝＋－＠]")


def quoted(text: str) -> str:
    """Return the text of a cell, with an apostrophe before what a spreadsheet would compute; `unquoted` takes it off.

    For texts alone: a number may begin with a sign.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def unquoted(cell: str) -> str:
    """Return the text that `quoted` made this cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def quoted_table(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return a table with `quoted` texts in its columns, its index and its header."""
    texts = table.select_dtypes(exclude=["number", "bool"]).columns
    table = table.assign(**{str(name): table[name].map(_cell) for name in texts if isinstance(name, str)})
    return table.rename(index=_cell, columns=_cell)


def _cell(value: Any) -> Any:
    return quoted(value) if isinstance(value, str) else value
