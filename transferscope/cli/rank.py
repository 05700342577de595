"""`transferscope rank`: which source, cut where, at what accuracy."""

import sys

import click

from transferscope.cli import options


@click.command(
    "rank",
    epilog="""\b
Examples:
  transferscope rank --target data/ --sources zoo.yaml
  transferscope rank --target data/ --sources zoo.yaml --samples 300 --format json > ranking.json
  transferscope rank --target data/ --sources zoo.yaml --reference own -o results/""",
)
@click.option("--target", required=True, metavar="FOLDER", help="Labelled images: a sub-folder for each class.")
@options.sources
@options.samples
@click.option(
    "--reference", default="compact", show_default=True, metavar="compact|own|SOURCE|CHECKPOINT",
    help="Network trained from scratch on the target to compare with: a compact residual network, each source's own "
    "architecture, a source of the zoo, or a checkpoint of the compact network.",
)  # fmt: skip
@click.option(
    "--reference-epochs", type=click.IntRange(min=1), default=40, show_default=True,
    help="Most epochs that the reference is trained for.",
)  # fmt: skip
@click.option(
    "--reference-budget", type=click.FloatRange(min=0, min_open=True), default=600.0, show_default=True,
    metavar="SECONDS", help="Most time that the reference is trained for.",
)  # fmt: skip
@options.together(options.device, options.batch_size, options.seed, options.trust_code)
@click.option(
    "-o", "--output", default="transferscope-results", show_default=True, metavar="DIR",
    help="Where ranking.json, ranking.csv, scores.nc and the pictures go.",
)  # fmt: skip
@options.together(options.output_format, options.quiet, options.verbose)
@click.pass_context
def command(
    ctx: click.Context,
    target: str,
    sources: str,
    samples: int,
    reference: str,
    reference_epochs: int,
    reference_budget: float,
    device: str,
    batch_size: int,
    seed: int,
    trust_code: bool,
    output: str,
    output_format: str,
    quiet: bool,
    verbose: bool,
) -> None:
    """Rank pretrained networks, each with the depth to cut it at, for a folder of labelled images.

    Exit code 3: done, but some sources failed; they are listed and the others are ranked.
    """
    options.set_up_messages(quiet, verbose)
    from transferscope.pipeline import rank
    from transferscope.protocols.training import Recipe
    from transferscope.report.ranking import prepare_folder

    # Before the work starts, not after it.
    folder = prepare_folder(output)
    with options.stdout_for_results():
        ranking = rank(
            target,
            sources,
            device=device,
            samples=samples,
            batch_size=batch_size,
            seed=seed,
            progress=not quiet,
            reference=reference,
            recipe=Recipe(epochs=reference_epochs, budget_s=reference_budget),
            trust_code=trust_code,
        )
    if output_format == "json":
        sys.stdout.write(ranking.to_json())
    elif output_format == "csv":
        sys.stdout.write(ranking.to_csv())
    else:
        from rich.console import Console

        from transferscope.report.table import print_ranking

        console = Console()
        # Output that goes to a file or a pipe has no width of its own; below 80 columns numbers would be cut off.
        print_ranking(ranking, Console(width=max(console.width, 80) if console.is_terminal else 120))
    sys.stdout.flush()
    # After the answer, so that a folder that fills up or changes costs the files alone.
    written = ranking.save(folder)
    if verbose:
        for part, seconds in ranking.timings.items():
            click.echo(f"{part}: {seconds:.1f} s", err=True)
    if not quiet:
        click.echo(f"Wrote {', '.join(path.name for path in written)} to {folder}", err=True)
    if ranking.failed:
        ctx.exit(3)
