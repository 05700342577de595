"""The command line: one module a verb; everything heavy is imported when a verb runs."""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import click

from transferscope.cli import completion, version
from transferscope.errors import TransferscopeError, is_interrupt

VERBS = (
    "rank", "transfer", "predict", "compare", "score", "measure", "advise", "parameters", "validate", "layers", "demo",
)  # fmt: skip

INTERRUPTED = 130

_INTERRUPTED = "Interrupted; nothing half-written was left behind."


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
    """Run the command line and exit: 0 done, 1 known failure, 2 wrong usage, 3 some sources failed, 130 Ctrl-C."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    debug = os.environ.get("TRANSFERSCOPE_DEBUG", "") not in ("", "0")
    try:
        if sys.stdout is None:
            raise TransferscopeError("Standard output is closed, so no result could be shown; redirect it to a file")
        code = cli.main(arguments, prog_name="transferscope", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, click.Abort):
        click.echo(_INTERRUPTED, err=True)
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return 2
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if debug:
            traceback.print_exc()
        click.echo(f"error: {error}; check that files and the output can be written", err=True)
        return 1
    except SystemExit as stop:
        # rich ends so when whoever read our output has seen enough.
        return stop.code if isinstance(stop.code, int) else 1
    except Exception as error:
        if is_interrupt(error):
            click.echo(_INTERRUPTED, err=True)
            return INTERRUPTED
        if debug:
            traceback.print_exc()
        if isinstance(error, TransferscopeError):
            click.echo(f"error: {error}", err=True)
            return error.exit_code
        click.echo(
            f"error: unexpected {type(error).__name__}: {error}. This is a bug in transferscope; "
            "TRANSFERSCOPE_DEBUG=1 shows where",
            err=True,
        )
        return 1
