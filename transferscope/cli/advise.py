"""`transferscope advise`: which way to transfer the best source, at what accuracy and cost."""

from typing import Any

import click

from transferscope.cli import completion, options


@click.command(
    "advise",
    cls=options.Command,
    short_help="Which way to transfer a source, at what accuracy and cost.",
    epilog="""\b
Examples:
  transferscope advise --target data/ --sources zoo.yaml
  transferscope advise --target data/ --sources zoo.yaml --source resnet50 --tolerance 0.01 --country DEU
  transferscope advise --target data/ --sources zoo.yaml --shots 20 --format json > advice.json
  transferscope advise --target data/ --sources zoo.yaml --source resnet50 --pilots auto

\b
On what `transferscope demo -o demo` makes:
  transferscope advise --target demo/target --sources demo/zoo.yaml --trust-code --shots 16""",
)
@options.target
@options.reading
@options.sources
@click.option(
    "--source", metavar="NAME", shell_complete=completion.sources(),
    help="Source to transfer.  [default: the one that ranks first]",
)  # fmt: skip
@click.option(
    "--shots", type=options.whole(1), metavar="N",
    help="Images of each class to train on.  [default: those of the folder]",
)  # fmt: skip
@click.option(
    "--tolerance", type=options.Finite(0, 1, max_open=True), default=0.02, show_default=True, metavar="SHARE",
    help="Accuracy that may be lost for the sake of cost.",
)  # fmt: skip
@options.expecting
@options.country
@options.together(options.samples, options.reference_epochs, options.reference_budget)
@options.running
@options.output("transferscope-advice", "Where report.html, advice.json, advice.csv and the picture go.")
@options.printing
@click.pass_context
def command(ctx: click.Context, /, **asked: Any) -> None:
    """Say which way to transfer a source to a folder of labelled images, with expected accuracy and cost of each way.

    Linear head, full-network embedding and top-tuning on frozen features, partial and full fine-tuning, fine-tuning
    with the first stages frozen, and training from scratch. Costs come from a few steps of each that are run on this
    machine.

    Exit code 3: done, but some sources failed, or some ways do not work with this source; they are listed.
    """
    sink = options.Sink.of(asked)
    options.trained_reference(asked)
    from transferscope.report.terminal.advice import print_advice
    from transferscope.verbs.advise.advise import answer
    from transferscope.verbs.advise.request import AdviseRequest

    sink.prepare()
    with options.stdout_for_results():
        advice = answer(AdviseRequest(**asked))
    sink.deliver(advice, print_advice)
    if advice.failed or advice.left_out:
        ctx.exit(3)
