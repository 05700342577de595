"""Text from files that strangers made, as a terminal may have it: nothing in it moves, colours, hides or floods."""

import re
import unicodedata

_KEPT = "\n\t\u200c\u200d"
"""Ends of lines, and what joins and parts letters in Persian, in Indic scripts and within emoji."""

_TERMINAL = re.compile(r"(\x1b\[[0-9;]*m|\x1b\[A|\r)")
"""What styled text and progress bars consist of."""

_LONG_WORD, _LONG_LINE = 400, 4000


def printable(text: str) -> str:
    r"""Return text in which what does not print is written as an escape such as \x1b; lines stay lines."""
    if text.isprintable():
        return text
    return "".join(each if _prints(each) else each.encode("unicode_escape").decode("ascii") for each in text)


def printable_cell(text: str) -> str:
    r"""Return `printable` text in one line: ends of lines are written as \n."""
    return printable(text).replace("\n", r"\n").replace("\t", r"\t")


def printable_json(text: str) -> str:
    r"""Return the same JSON with \u escapes for what does not print, and for what no file can hold."""
    if text.isprintable():
        return text
    return "".join(each if _prints(each) else _json_escape(each) for each in text)


def styled_printable(text: str) -> str:
    """Return `printable` text in which colours and the movements of progress bars stay as they are."""
    if text.isprintable():
        return text
    return "".join(part if i % 2 else printable(part) for i, part in enumerate(_TERMINAL.split(text)))


def shortened(text: str) -> str:
    """Return text without the middle of words and lines that nobody would read to their ends."""
    if len(text) <= _LONG_WORD:
        return text
    text = re.sub(rf"\S{{{_LONG_WORD + 1},}}", lambda match: _ends(match[0], _LONG_WORD), text)
    return "\n".join(_ends(line, _LONG_LINE) for line in text.split("\n"))


def _ends(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    first, last = most // 2, most // 4
    return f"{text[:first]} … ({len(text) - first - last} characters) … {text[-last:]}"


def _prints(character: str) -> bool:
    return character.isprintable() or character in _KEPT or unicodedata.category(character) == "Zs"


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))
