"""Progress: what a terminal shows and keeps, the time left, and silence where nobody looks."""

import io
import sys
import warnings
from contextlib import redirect_stderr

import click
import pytest

from transferscope.runtime.progress import Reporter


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """The time that bars go by, to be set."""
    now = [100.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    return Terminal()


def left(terminal):
    """The lines that are to be seen in the end: what is written after a carriage return covers what was there."""
    lines = []
    for line in terminal.getvalue().split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


def test_a_bar_says_what_how_much_and_how_long_and_goes_away(terminal, clock):
    with redirect_stderr(terminal), Reporter().bar("owl (1 of 3)") as report:
        assert left(terminal)[0].startswith("owl (1 of 3)")
        report(100, 1000)
        clock[0] += 5
        report(200, 1000)
        shown = left(terminal)[0]
        assert shown.startswith("owl (1 of 3)  20% |")
        assert shown.endswith("| 200/1000 [00:05, 00:40 left]")
        clock[0] += 5
        report(600, 1000)
    assert left(terminal) == [""]
    assert "\x1b" not in terminal.getvalue()  # no colour, so that NO_COLOR holds, and no hidden cursor


def test_what_an_earlier_run_has_done_makes_nobody_hope(terminal, clock):
    with redirect_stderr(terminal), Reporter().bar("runs") as report:
        report(500, 600)
        clock[0] += 60
        report(501, 600)
        assert left(terminal)[0].endswith("| 501/600 [01:00, 1:39:00 left]")


def test_the_next_part_of_the_work_starts_anew(terminal, clock):
    with redirect_stderr(terminal), Reporter().bar("scratch reference") as report:
        for total in (30, 500, 500):
            for done in (10, 20, total):
                clock[0] += 1
                report(done, total)
                assert f"| {done}/{total} [" in left(terminal)[0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_terminal_is_left_clean(terminal, error):
    def work():
        with Reporter().bar("runs") as report:
            report(1, 9)
            raise error

    with redirect_stderr(terminal):
        with pytest.raises(error):
            work()
        assert sys.stderr is terminal
    assert left(terminal) == [""]


def test_messages_stay_whole_above_the_bar(terminal, clock):
    with warnings.catch_warnings(), redirect_stderr(terminal), Reporter().bar("runs") as report:
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_rest, **_more: print(f"warning: {message}", file=sys.stderr)
        report(1, 9)
        click.echo("a note", err=True)
        warnings.warn("take care", stacklevel=1)
        assert left(terminal)[:2] == ["a note", "warning: take care"]
        assert left(terminal)[2].startswith("runs  11% |")
    assert left(terminal) == ["a note", "warning: take care", ""]


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal(), None])
def test_nothing_is_drawn_where_nobody_looks_or_wants_it(stream):
    wanted = not isinstance(stream, Terminal)
    with redirect_stderr(stream), Reporter(wanted).bar("runs") as report:
        report(1, 9)
    assert stream is None or stream.getvalue() == ""
