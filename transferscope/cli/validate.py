"""`transferscope validate`: every problem of a zoo file at once, without running a network."""

import click

from transferscope.cli import completion, options


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
@options.together(options.quiet, options.verbose)
@click.pass_context
def command(ctx: click.Context, zoo: str, quiet: bool, verbose: bool) -> None:
    """Check a zoo file: keys, values, model names, and whether its files exist. Nothing is run."""
    options.set_up_messages(quiet, verbose)
    from transferscope.networks.zoo import check_files, load_zoo

    entries = load_zoo(zoo)
    problems = check_files(entries)
    for problem in problems:
        click.echo(f"error: {problem}", err=True)
    if problems:
        ctx.exit(2)
    names = ", ".join(source.name for source in entries)
    click.echo(f"{zoo}: {len(entries)} source{'s' if len(entries) != 1 else ''}, no problems: {names}")
