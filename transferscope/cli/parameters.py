"""`transferscope parameters`: how much of each layer's parameters survives the move to a target."""

from typing import Any

import click

from transferscope.cli import completion, options
from transferscope.cli.parsing import parse_sizes


@click.command(
    "parameters",
    cls=options.Command,
    short_help="How much of each layer's parameters a transfer keeps.",
    epilog="""\b
Examples:
  transferscope parameters --target data/ --sources zoo.yaml
  transferscope parameters --target birds/ --target signs/ --sources zoo.yaml --samples-per-class 10,40,160 --seeds 2
  transferscope parameters --target data/ --sources zoo.yaml --steps 500 --loss 0.2 --groups tensor --format csv

\b
On what `transferscope demo -o demo` makes:
  transferscope parameters --target demo/target --sources demo/zoo.yaml --trust-code --samples-per-class 10""",
)
@click.option(
    "--target", "targets", required=True, multiple=True, metavar="FOLDER|TABLE",
    shell_complete=completion.files,
    help="Labelled images, as a folder of classes, a table or shards; may be given several times.",
)  # fmt: skip
@options.reading
@options.sources
@options.samples_per_class("all")
@options.seeds(1)
@click.option("--epochs", type=options.whole(1), default=40, show_default=True, metavar="N", help="Of fine-tuning.")
@click.option(
    "--optimiser", type=click.Choice(["sgd", "adamw"]), default="sgd", show_default=True,
    help="AdamW makes steps of much the same size for every weight, whatever its gradient.",
)  # fmt: skip
@click.option(
    "--learning-rate", type=options.Finite(min=0, min_open=True), metavar="RATE",
    help="Constant. Default: by optimiser.",
)  # fmt: skip
@click.option(
    "--steps", type=options.whole(1), metavar="N",
    help="Optimiser steps that runs are matched at. Default: the fewest that any run took.",
)  # fmt: skip
@click.option(
    "--loss", type=options.Finite(0, 1, min_open=True, max_open=True), metavar="SHARE",
    help="Training loss that runs are matched at, as a share of that of guessing. Default: one that every run reached.",
)  # fmt: skip
@click.option(
    "--redraws", type=options.whole(1), default=5, show_default=True, metavar="N",
    help="Draws of the initial weights of sources for which the zoo names none.",
)  # fmt: skip
@click.option(
    "--groups", type=click.Choice(["auto", "tensor"]), default="auto", show_default=True,
    help="A value for each block, as published, or for each weight tensor.",
)  # fmt: skip
@click.option(
    "--test-samples", type=options.whole(2), default=500, show_default=True, metavar="N",
    help="Most images of each target to measure the accuracy on. None is trained on.",
)  # fmt: skip
@options.running
@options.output("transferscope-parameters", "Where report.html, the tables and the pictures go.")
@options.printing
@click.pass_context
def command(ctx: click.Context, /, **asked: Any) -> None:
    """Fine-tune pretrained networks on targets and measure how well the parameters of each layer serve there.

    The transferability T of a layer (Chen et al. 2022) is its distance from the initial weights over its distance from
    the source, both of the fine-tuned weights: as published, after equally many steps, and at equal training loss.

    Finished fine-tunings are kept in the cache: stop it whenever you like, the same command goes on.

    Exit code 3: done, but some fine-tunings failed; they are listed.
    """
    sink = options.Sink.of(asked)
    from transferscope.report.terminal.parameters import print_parameters
    from transferscope.verbs.parameters.request import ParametersRequest
    from transferscope.verbs.parameters.study import answer

    asked |= {"samples_per_class": parse_sizes(asked["samples_per_class"]), "targets": list(asked["targets"])}
    sink.prepare()
    with options.stdout_for_results():
        result = answer(ParametersRequest(**asked))
    sink.deliver(result, print_parameters)
    if result.failed:
        ctx.exit(3)
