"""`transferscope compare`: which layers of two networks are alike."""

from typing import Any

import click

from transferscope.cli import completion, options


@click.command(
    "compare",
    cls=options.Command,
    short_help="Which layers of two networks are alike.",
    epilog="""\b
Examples:
  transferscope compare birds insects --sources zoo.yaml --target data/
  transferscope compare birds scratch --sources zoo.yaml --target data/ --measure linear_cka --measure svcca
  transferscope compare birds birds --sources zoo.yaml --target data/ --layers-x 'blocks.*' --format csv

\b
On what `transferscope demo -o demo` makes:
  transferscope compare letter-groups gratings --target demo/target --sources demo/zoo.yaml --trust-code""",
)
@click.argument("x", metavar="A", shell_complete=completion.sources("scratch"))
@click.argument("y", metavar="B", shell_complete=completion.sources("scratch"))
@options.target
@options.reading
@options.sources
@click.option(
    "--measure", "measures", multiple=True, default=["linear_cka"], show_default=True, metavar="NAME",
    shell_complete=completion.names(completion.measures),
    help="A measure of similarity; may be given several times. docs/measures.md lists them.",
)  # fmt: skip
@click.option(
    "--reduce", type=click.Choice(["flatten", "mean", "grid", "class_token", "positions"]), default="flatten",
    show_default=True, help="What to keep of positions and tokens: all values, their mean, a 2 x 2 grid of means, the "
    "class token, or every position as a sample of its own.",
)  # fmt: skip
@click.option(
    "--estimator", type=click.Choice(["minibatch", "exact"]), default="minibatch", show_default=True,
    help="Of linear CKA: over pairs of images within a batch, or over all pairs, which takes more memory or disk.",
)  # fmt: skip
@click.option("--standardize", is_flag=True, help="Z-score every feature.")
@click.option(
    "--standard-error", is_flag=True,
    help="Standard errors for measures beside linear CKA, which always has one; takes 20 times as long.",
)  # fmt: skip
@click.option(
    "--permutations", type=options.whole(0), default=0, show_default=True, metavar="N",
    help="Permutations of the images for p-values.",
)  # fmt: skip
@click.option(
    "--precision", type=click.Choice(["float32", "tf32", "bfloat16"]), default="float32", show_default=True,
    help="Of matrix products on a GPU.",
)  # fmt: skip
@click.option(
    "--layers-x", multiple=True, metavar="GLOB",
    help="Layers of A: names, globs or auto; may be given several times. Default: what the zoo says.",
)  # fmt: skip
@click.option("--layers-y", multiple=True, metavar="GLOB", help="The same for B.")
@options.samples
@options.together(options.reference, options.reference_epochs, options.reference_budget)
@options.on
@options.running
@options.output("transferscope-comparison", "Where report.html, compare.nc and the heatmaps go.")
@options.printing
def command(**asked: Any) -> None:
    """Compare the layers of two networks on a folder of images: for each layer of A the closest of B.

    A and B are sources of the zoo, or one and the same, or `scratch`: the network that `rank` compares with.
    """
    sink = options.Sink.of(asked)
    options.trained_reference(asked)
    asked |= {name: _layers(asked[name]) for name in ("layers_x", "layers_y")}
    from transferscope.report.terminal.comparison import print_comparison
    from transferscope.verbs.compare.request import CompareRequest
    from transferscope.verbs.compare.sources import answer

    sink.prepare()
    with options.stdout_for_results():
        comparison = answer(CompareRequest(**asked))
    sink.deliver(comparison, print_comparison)


def _layers(globs: tuple[str, ...]) -> str | tuple[str, ...] | None:
    return "auto" if globs == ("auto",) else globs or None
