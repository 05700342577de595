"""Progress on stderr, and only where someone is looking."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Report = Callable[[int, int], None]
"""Called as `report(done, total)`."""


def silent(_done: int, _total: int) -> None:
    """Report to nobody."""


class Reporter:
    """Hands out one progress bar per piece of work; silent unless stderr is a terminal or a notebook.

    Parameters
    ----------
    enabled : bool
        False never draws a bar.
    """

    def __init__(self, enabled: bool = True) -> None:
        console = Console(file=sys.stderr)
        self._progress = (
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            if enabled and (console.is_terminal or console.is_jupyter)
            else None
        )

    @contextmanager
    def bar(self, description: str) -> Iterator[Report]:
        """Show a bar for the duration of the `with` block; yields the function that moves it."""
        if self._progress is None:
            yield silent
            return
        progress = self._progress
        task = progress.add_task(description, total=None)

        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        progress.start()
        try:
            yield report
        finally:
            progress.stop()
            progress.remove_task(task)
