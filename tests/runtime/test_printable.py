"""Text from anybody, on terminals, in JSON and in the cells of a spreadsheet."""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferscope.results.files import csv_text, json_text
from transferscope.runtime.printable import printable, printable_cell, shortened, styled_printable
from transferscope.runtime.spreadsheets import quoted, unquoted

TEXT = st.text(st.characters(), max_size=20)
"""Of any characters, halves of pairs too."""


@pytest.mark.parametrize(("text", "shown"), [
    ("größe 数据 👩\u200d🔬 می\u200cخواهم", "größe 数据 👩\u200d🔬 می\u200cخواهم"), ("a\u00a0b", "a\u00a0b"),
    ("\x1b[2J", r"\x1b[2J"), ("\x9b2J", r"\x9b2J"), ("a\rb\bc", r"a\rb\x08c"), ("\u202etxt\u2069", r"\u202etxt\u2069"),
    ("bytes \udcff", r"bytes \udcff"), ("two\nlines\t.", "two\nlines\t."),
])  # fmt: skip
def test_what_does_not_print_is_spelt_out(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown


def test_a_cell_is_one_line():
    assert printable_cell("a\nb\tc") == r"a\nb\tc"


def test_colours_and_bars_stay_and_nothing_else():
    text = "\x1b[1;31mred\x1b[0m \x1b[A\r\x1b[2J\x1b]0;title\x07"
    assert styled_printable(text) == "\x1b[1;31mred\x1b[0m \x1b[A\r\\x1b[2J\\x1b]0;title\\x07"


def test_long_words_and_lines_lose_their_middle():
    assert shortened("a" * 400) == "a" * 400
    word = shortened(f"got {'k' * 5_000_000} here")
    assert word == f"got {'k' * 200} … (4999700 characters) … {'k' * 100} here"
    assert len(shortened("ab " * 100_000 + "\nend")) < 3200
    assert shortened("ab " * 100_000 + "\nend").endswith("\nend")


@given(TEXT)
def test_json_says_the_same_and_prints(text):
    written = json_text({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert printable(written) == written
    written.encode()


@given(st.one_of(TEXT, st.builds(str.__add__, st.text("'=+-@\t\r\n", max_size=4), TEXT)))
def test_what_was_quoted_comes_back(text):
    cell = quoted(text)
    assert unquoted(cell) == text
    assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r")
    assert cell in (text, f"'{text}")


def test_numbers_keep_their_signs_and_texts_lose_theirs():
    table = pd.DataFrame({"source": ["=cmd()", "fine"], "value": [-1.5, 2.0], "count": [-1, 3], "mixed": ["@x", None]})
    assert csv_text(table, index=False) == "source,value,count,mixed\n'=cmd(),-1.5,-1,'@x\nfine,2.0,3,\n"
    assert csv_text(table.set_index("source")[["value"]]) == "source,value\n'=cmd(),-1.5\nfine,2.0\n"
