"""What a run says: one place where sentences, notes and warnings reach stderr, and the console for tables."""

import logging
import os
import warnings
from typing import TYPE_CHECKING, Any

import click

from transferscope.errors import TransferscopeWarning
from transferscope.runtime.printable import printable, shortened

if TYPE_CHECKING:
    from rich.console import Console


def say(text: str) -> None:
    """Put lines on stderr; names of files, classes and layers in them may come from anybody."""
    click.echo(printable(shortened(text)), err=True)


def set_up_messages(quiet: bool, verbose: bool) -> None:
    """Send notes and warnings to stderr as single lines."""
    logger = logging.getLogger("transferscope")
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    logger.handlers = [_StderrHandler()]
    logger.propagate = False

    warnings.simplefilter("default" if verbose else "ignore")
    warnings.simplefilter("ignore" if quiet else "always", TransferscopeWarning)
    warnings.showwarning = _show_warning


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        label = {logging.WARNING: "warning: ", logging.ERROR: "error: "}.get(record.levelno, "")
        say(f"{label}{record.getMessage()}")


def _show_warning(message: Warning | str, category: type[Warning], *_rest: Any, **_more: Any) -> None:
    name = "" if issubclass(category, TransferscopeWarning) else f"{category.__name__}: "
    say(f"warning: {name}{message}")


def console() -> "Console":
    """Return a console on stdout, as wide as the terminal, that shows the names of strangers as letters alone."""
    from shutil import get_terminal_size

    from rich.console import Console, ConsoleDimensions
    from rich.segment import Segment

    class _Printable(Console):
        def render(self, *arguments: Any, **options: Any) -> Any:
            for segment in super().render(*arguments, **options):
                plain = segment.control or segment.text.isprintable()
                yield segment if plain else Segment(printable(segment.text), segment.style)

    # With NO_COLOR rich would still write bold and dim.
    rich_console = _Printable(color_system=None if os.environ.get("NO_COLOR") else "auto")
    # A file or a pipe has no width of its own, and of a dumb terminal rich would not ask for it.
    width, height = get_terminal_size() if rich_console.is_terminal else (120, 25)
    rich_console.size = ConsoleDimensions(max(width, 40), height)
    return rich_console
