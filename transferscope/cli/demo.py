"""`transferscope demo`: the main job from end to end on things made on the spot."""

import shlex
from pathlib import Path

import click

from transferscope.cli import options
from transferscope.cli.messages import console, say, set_up_messages


@click.command(
    "demo",
    cls=options.Command,
    short_help="All of it in two minutes, without data of your own.",
    epilog="""\b
Examples:
  transferscope demo
  transferscope demo -o demo --seed 1""",
)
@options.output("transferscope-demo", "Where images, networks and results go.")
@options.together(options.seed, options.quiet, options.verbose)
@click.pass_context
def command(ctx: click.Context, output: str, seed: int, quiet: bool, verbose: bool) -> None:
    """Draw a small target, train three small networks, rank them, and check the answer.

    Needs no files and no internet, and takes about two minutes. At the end the first and the last of the ranking are
    really run, and what was expected stands beside what was measured.
    """
    set_up_messages(quiet, verbose)
    from transferscope.cli import rank
    from transferscope.report.terminal.demo import print_check
    from transferscope.results.files import csv, write_file
    from transferscope.results.ranking import load_ranking
    from transferscope.verbs.demo.check import check_answer
    from transferscope.verbs.demo.make import SHOTS, make_demo

    def tell(line: str) -> None:
        if not quiet:
            say(line)

    folder = Path(output)
    zoo = make_demo(folder, seed=seed, progress=not quiet, say=tell)
    target, results = folder / "target", folder / "results"
    arguments = [
        "--target", str(target), "--sources", str(zoo), "--trust-code", "--shots", str(SHOTS), "--seed", str(seed),
        "-o", str(results), *(["--quiet"] if quiet else []), *(["--verbose"] if verbose else []),
    ]  # fmt: skip
    tell(f"\n$ transferscope rank {shlex.join(arguments)}\n")
    code = rank.command.main(arguments, prog_name="transferscope rank", standalone_mode=False)
    tell("\nIs that so? Some of these transfers are now really run.\n")
    ranking = load_ranking(results)
    table = check_answer(ranking, target, zoo, shots=SHOTS, seed=seed, progress=not quiet)
    write_file(folder / "checked.csv", csv(table).encode())
    print_check(table, ranking.target.samples, table.attrs["tested_on"], console())
    tell(f"\nThe images, the networks, zoo.yaml and checked.csv are in {folder}. The model itself:")
    model = ["--target", str(target), "--sources", str(zoo), "--trust-code", "--ranking", str(results),
             "-o", str(folder / "model")]  # fmt: skip
    tell(f"$ transferscope transfer {shlex.join(model)}")
    ctx.exit(code or 0)
