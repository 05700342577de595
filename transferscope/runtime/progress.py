"""Progress on stderr, and only where someone is looking."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr

from rich.console import Console

with warnings.catch_warnings():
    # In a notebook without ipywidgets it asks for them; its bars of text do as well.
    warnings.filterwarnings("ignore", message="IProgress not found")
    from tqdm.auto import tqdm
from tqdm.contrib import DummyTqdmFile

Report = Callable[[int, int], None]
"""Called as `report(done, total)`."""

_LOOK = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left]"


def silent(_done: int, _total: int) -> None:
    """Report to nobody."""


class Reporter:
    """Hands out one progress bar per piece of work; silent unless stderr is a terminal or a notebook.

    A bar shows how much is done, the time since that began and the time left, and goes away with the work. In a
    notebook it is a widget, or text where ipywidgets is not installed.

    Parameters
    ----------
    enabled : bool
        False never draws a bar.
    """

    def __init__(self, enabled: bool = True) -> None:
        self._notebook = Console().is_jupyter
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self._enabled = enabled and (self._notebook or terminal)

    @contextmanager
    def bar(self, description: str) -> Iterator[Report]:
        """Show a bar for the duration of the `with` block; yields the function that moves it."""
        if not self._enabled:
            yield silent
            return
        # A notebook shows what is written to stderr as an error.
        stream = sys.stdout if self._notebook else sys.stderr
        bar = tqdm(desc=description, bar_format=_LOOK, file=stream, leave=False, miniters=1, dynamic_ncols=True)

        def report(done: int, total: int) -> None:
            if total != bar.total or done < bar.n:
                # Another part of the work. What was there before it says nothing of the time it takes.
                bar.reset(total)
                bar.initial = bar.n = bar.last_print_n = done
                bar.refresh()
            else:
                bar.update(done - bar.n)

        with bar, nullcontext() if self._notebook else redirect_stderr(_Above(sys.stderr)):
            yield report
            bar.total = bar.n  # a widget that stops short of its total would stay, in red


class _Above(DummyTqdmFile):
    """Puts whole lines above the bar."""

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"expected text, got {type(text).__name__}")  # by which click knows a stream of text
        super().write(text)
        return len(text)
