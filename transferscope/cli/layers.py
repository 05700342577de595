"""`transferscope layers`: where a source can be captured and cut."""

import json
import math
import sys
from typing import Any

import click

from transferscope.cli import completion, options
from transferscope.cli.messages import console, set_up_messages
from transferscope.runtime.printable import printable


@click.command(
    "layers",
    cls=options.Command,
    short_help="Where a source can be captured and cut.",
    epilog="""\b
Examples:
  transferscope layers mobilenetv2 --sources zoo.yaml
  transferscope layers mobilenetv2 --sources zoo.yaml --all

\b
On what `transferscope demo -o demo` makes:
  transferscope layers letter-groups --sources demo/zoo.yaml --trust-code""",
)
@click.argument("source", shell_complete=completion.sources())
@options.sources
@click.option("--all", "everything", is_flag=True, help="Every module that fires, not only the stages.")
@options.trust_code
@options.printing
def command(
    source: str,
    zoo: str,
    everything: bool,
    trust_code: bool,
    output_format: str,
    quiet: bool,
    verbose: bool,
) -> None:
    """List the layers of a source: the stages that `rank` scores, with what a network cut there costs."""
    set_up_messages(quiet, verbose)
    from transferscope.verbs.layers import list_layers

    with options.stdout_for_results():
        table = list_layers(source, zoo, everything=everything, trust_code=trust_code)
    from transferscope.results.files import csv_text

    if output_format == "json":
        records = table.reset_index().to_dict("records")
        rows = [{name: _known(value) for name, value in record.items()} for record in records]
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    elif output_format == "csv":
        sys.stdout.write(printable(csv_text(table)))
    else:
        from transferscope.report.terminal.columns import fitted, print_tables

        columns = {str(name): [_text(value) for value in table[name].tolist()] for name in table}
        rich_console = console()
        names = {"layer": table.index.tolist()}
        print_tables(fitted(names, columns, width=rich_console.width, names=names), rich_console)


def _known(value: Any) -> Any:
    """Return a value of the table for JSON: what is unknown is NaN, and integers beside it floats."""
    if isinstance(value, float):
        return None if math.isnan(value) else int(value)
    return value


def _text(value: Any) -> str:
    cell = _known(value)
    return "unknown" if cell is None else str(cell)
