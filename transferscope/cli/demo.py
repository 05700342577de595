"""`transferscope demo`: the main job from end to end on things made on the spot."""

import shlex
from pathlib import Path

import click

from transferscope.cli import options
from transferscope.cli.messages import say, set_up_messages

_SHOTS = 16


@click.command(
    "demo",
    cls=options.Command,
    short_help="All of it on things made on the spot.",
    epilog="""\b
Examples:
  transferscope demo
  transferscope demo -o demo --seed 1""",
)
@options.output("transferscope-demo", "Where images, networks and results go.")
@options.together(options.seed, options.quiet, options.verbose)
@click.pass_context
def command(ctx: click.Context, output: str, seed: int, quiet: bool, verbose: bool) -> None:
    """Make a small target and four small networks from handwritten digits, and rank them.

    Needs no files and no internet.
    """
    set_up_messages(quiet, verbose)
    from transferscope.cli import rank
    from transferscope.verbs.demo import make_demo

    folder = Path(output)
    zoo = make_demo(folder, seed=seed, progress=not quiet, say=lambda line: None if quiet else say(line))
    arguments = [
        "--target", str(folder / "target"), "--sources", str(zoo), "--trust-code", "--shots", str(_SHOTS),
        "--seed", str(seed), "-o", str(folder / "results"),
        *(["--quiet"] if quiet else []), *(["--verbose"] if verbose else []),
    ]  # fmt: skip
    if not quiet:
        say(f"\n$ transferscope rank {shlex.join(arguments)}\n")
    code = rank.command.main(arguments, prog_name="transferscope rank", standalone_mode=False)
    if not quiet:
        say(f"The images, the networks and zoo.yaml are in {folder}.")
    ctx.exit(code or 0)
