"""The command line: one module a verb; everything heavy is imported when a verb runs."""

import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence

import click

from transferscope.cli import completion, streams, version
from transferscope.cli.messages import say
from transferscope.errors import TransferscopeError, is_interrupt
from transferscope.runtime import signals

VERBS = (
    "rank", "transfer", "predict", "compare", "score", "measure", "advise", "parameters", "validate", "layers", "demo",
    "cache", "slurm",
)  # fmt: skip

INTERRUPTED, TERMINATED = 130, 143


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        return importlib.import_module(f"transferscope.cli.{cmd_name}").command


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  transferscope demo -o demo
  transferscope rank --target demo/target --sources demo/zoo.yaml --trust-code
  transferscope rank --help

\b
Completion of verbs, options and names after TAB:
  eval "$(transferscope --completion bash)"    in ~/.bashrc
  eval "$(transferscope --completion zsh)"     in ~/.zshrc
  transferscope --completion fish | source     in ~/.config/fish/config.fish""",
)
@version.option
@completion.option
def cli(verbose: bool) -> None:
    """Which pretrained network to start from, where to cut it, how to adapt it, what to expect and what it costs."""
    if verbose:
        raise click.UsageError("Before a verb -v goes with --version alone; write it after the verb")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 known failure, 2 wrong usage, 3 some sources failed, 130 Ctrl-C.

    143 says that it was ended by SIGTERM.
    """
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    with streams.guarded() as output, signals.terminable() as terminated:
        try:
            code = _run(arguments)
        except Exception as error:
            code = INTERRUPTED if terminated or is_interrupt(error) else _failed(error)
        except KeyboardInterrupt:
            code = INTERRUPTED
        if code == INTERRUPTED:
            say(f"{'Terminated' if terminated else 'Interrupted'}; nothing half-written was left behind.")
            return TERMINATED if terminated else INTERRUPTED
        output.flush()
        if output.error is not None:
            reason = output.error.strerror
            say(f"error: Standard output could not be written ({reason}); redirect it to where there is room")
            return code or 1
        return code


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = cli.main(arguments, prog_name="transferscope", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.Abort:
        return INTERRUPTED
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1


def _failed(error: Exception) -> int:
    """Say in a sentence what went wrong and return the exit code."""
    if isinstance(error, click.ClickException):
        shown = io.StringIO()
        error.show(shown)
        say(shown.getvalue().rstrip("\n"))
        return 2
    if os.environ.get("TRANSFERSCOPE_DEBUG", "") not in ("", "0"):
        traceback.print_exception(error)
    if isinstance(error, TransferscopeError):
        say(f"error: {error}")
        return error.exit_code
    if isinstance(error, OSError):
        say(f"error: {error}; check that files and the output can be written")
        return 1
    say(
        f"error: unexpected {type(error).__name__}: {error}. This is a bug in transferscope; "
        "TRANSFERSCOPE_DEBUG=1 shows where"
    )
    return 1
