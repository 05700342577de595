"""`transferscope predict`: labels and probabilities of images."""

import click

from transferscope.cli import completion, options
from transferscope.cli.messages import say, set_up_messages


@click.command(
    "predict",
    cls=options.Command,
    short_help="Labels and probabilities of images, by a model of `transfer`.",
    epilog="""\b
Examples:
  transferscope predict model/ images/ -o predictions.csv
  transferscope predict model/ one.jpg two.jpg
  transferscope predict model/ images/ --format csv | head

\b
On what `transferscope demo -o demo` makes, after the example of `transferscope transfer --help`:
  transferscope predict model demo/target/beta --trust-code""",
)
@click.argument("model", metavar="MODEL", shell_complete=completion.folders)
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True, shell_complete=completion.files)
@click.option(
    "-o", "--output", metavar="FILE.csv", shell_complete=completion.files,
    help="A row for each image: path, label, its probability, and the probability of each class.",
)  # fmt: skip
@click.option("--trust-code", is_flag=True, help="Run the code in the folder of the model, if it has any. Look first.")
@options.together(options.device, options.batch_size, options.printing)
@click.pass_context
def command(
    ctx: click.Context,
    model: str,
    images: tuple[str, ...],
    output: str | None,
    trust_code: bool,
    device: str,
    batch_size: int,
    output_format: str,
    quiet: bool,
    verbose: bool,
) -> None:
    """Predict the classes of images: files, and folders in which they may lie at any depth.

    MODEL is the folder that `transferscope transfer -o` has written.

    Exit code 3: done, but some images cannot be read; they are listed and the others are predicted.
    """
    set_up_messages(quiet, verbose)
    sink = options.Sink(output or "", output_format, quiet, verbose)
    from transferscope.report.terminal.transfer import print_predictions, unreadable_lines
    from transferscope.verbs.transfer.model import load_transfer

    with options.stdout_for_results():
        loaded = load_transfer(model, device=device, trust_code=trust_code)
        predictions = loaded.predict(list(images), batch_size=batch_size, progress=not quiet)
        written = None if output is None else predictions.save(output)
    sink.show(predictions, lambda result, console: print_predictions(result, console, written))
    if written is not None and not quiet:
        say("\n" * (output_format == "table") + f"Wrote {len(predictions)} predictions to {written}.")
    for line in unreadable_lines(predictions):
        say(line)
    if predictions.unreadable:
        ctx.exit(3)
