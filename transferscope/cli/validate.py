"""`transferscope validate`: every problem of a zoo file at once, without running a network."""

import logging

import click

from transferscope.cli import completion, options
from transferscope.cli.messages import say, set_up_messages
from transferscope.runtime.printable import printable


@click.command(
    "validate",
    cls=options.Command,
    short_help="Every problem of a zoo file, without running a network.",
    epilog="""\b
Examples:
  transferscope validate zoo.yaml

\b
On what `transferscope demo -o demo` makes:
  transferscope validate demo/zoo.yaml""",
)
@click.argument("zoo", metavar="ZOO.yaml", shell_complete=completion.files)
@options.together(options.trust_code, options.quiet, options.verbose)
@click.pass_context
def command(ctx: click.Context, zoo: str, trust_code: bool, quiet: bool, verbose: bool) -> None:
    """Check a zoo file: keys, values, model names, whether its files exist and whether checkpoints fit.

    No network is run and nothing downloaded. Whether a checkpoint fits what a factory returns is checked with
    --trust-code.
    """
    set_up_messages(quiet, verbose)
    from transferscope.networks.checking import check_sources
    from transferscope.networks.zoo import load_zoo

    entries = load_zoo(zoo)
    problems, unchecked = check_sources(entries, trust_code=trust_code)
    if unchecked:
        logging.getLogger("transferscope").info(
            "The checkpoints of %s were not checked: factories only run with --trust-code", ", ".join(unchecked)
        )
    for problem in problems:
        say(f"error: {problem}")
    if problems:
        ctx.exit(2)
    names = ", ".join(source.name for source in entries)
    click.echo(printable(f"{zoo}: {len(entries)} source{'s' if len(entries) != 1 else ''}, no problems: {names}"))
