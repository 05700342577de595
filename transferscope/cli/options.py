"""Options that verbs share, and how warnings and notes reach the terminal."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

import click

from transferscope.errors import TransferscopeWarning

if TYPE_CHECKING:
    from rich.console import Console

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

device = click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda|cuda:N", help="Where networks run."
)
batch_size = click.option(
    "-b", "--batch-size", type=click.IntRange(min=1), default=64, show_default=True,
    help="Images in one forward pass.",
)  # fmt: skip
samples = click.option(
    "--samples", type=click.IntRange(min=1), default=1000, show_default=True,
    help="Images of the target to look at, drawn class by class.",
)  # fmt: skip
seed = click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Same seed, same answer."
)
output_format = click.option(
    "--format", "output_format", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True,
    help="What goes to stdout.",
)  # fmt: skip
trust_code = click.option(
    "--trust-code", is_flag=True, help="Run the Python factories that the zoo names. Look at them first."
)
sources = click.option("--sources", required=True, metavar="ZOO.yaml", help="The candidate networks.")
reference = click.option(
    "--reference", default="compact", show_default=True, metavar="compact|own|SOURCE|CHECKPOINT",
    help="Network trained from scratch on the target to compare with: a compact residual network, each source's own "
    "architecture, a source of the zoo, or a checkpoint of the compact network.",
)  # fmt: skip
reference_epochs = click.option(
    "--reference-epochs", type=click.IntRange(min=1), default=40, show_default=True,
    help="Epochs that the reference is trained for; with few images as many as make 300 optimiser steps.",
)  # fmt: skip
reference_budget = click.option(
    "--reference-budget", type=click.FloatRange(min=0, min_open=True), default=600.0, show_default=True,
    metavar="SECONDS", help="Most time that the reference is trained for.",
)  # fmt: skip
quiet = click.option("-q", "--quiet", is_flag=True, help="No progress, notes or warnings on stderr.")
verbose = click.option("-v", "--verbose", is_flag=True, help="Debug notes and timings on stderr, more of the result.")


def together(*decorators: Decorator) -> Decorator:
    """Apply several option decorators, the first one outermost."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


@contextmanager
def stdout_for_results() -> Iterator[None]:
    """Send to stderr whatever is written to stdout inside: downloads and factories print, and results must not mix."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def console() -> "Console":
    """Return a console on stdout, wide enough that numbers are not cut off."""
    from rich.console import Console

    found = Console()
    # Output that goes to a file or a pipe has no width of its own.
    return Console(width=max(found.width, 80) if found.is_terminal else 120)


def deliver(
    result: Any,
    show: Callable[[Any, "Console"], None],
    output_format: str,
    folder: str | os.PathLike[str],
    quiet: bool,
    written: tuple[str, ...] = (),
) -> None:
    """Put a result on stdout as it was asked for, then its files into `folder`, and say which (`written` are there)."""
    if output_format == "json":
        sys.stdout.write(result.to_json())
    elif output_format == "csv":
        sys.stdout.write(result.to_csv())
    else:
        show(result, console())
    sys.stdout.flush()
    # After the answer, so that a folder that fills up or changes costs the files alone.
    names = [*written, *(path.name for path in result.save(folder))]
    if not quiet:
        click.echo(f"Wrote {', '.join(names)} to {folder}", err=True)


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
        click.echo(f"{label}{record.getMessage()}", err=True)


def _show_warning(message: Warning | str, category: type[Warning], *_rest: Any, **_more: Any) -> None:
    name = "" if issubclass(category, TransferscopeWarning) else f"{category.__name__}: "
    click.echo(f"warning: {name}{message}", err=True)
