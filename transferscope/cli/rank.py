"""`transferscope rank`: which source, cut where, at what accuracy."""

from dataclasses import replace
from typing import Any

import click

from transferscope.cli import completion, options
from transferscope.cli.messages import say

# Written out: what they come from would import torch.
PROTOCOLS = ("truncate", "reinit", "finetune", "defrost", "any")
OBJECTIVES = ("accuracy", "accuracy-per-joule", "latency")
MODES = ("default", "quick")


@click.command(
    "rank",
    cls=options.Command,
    short_help="Which source to start from, cut where, adapted how.",
    epilog="""\b
Examples:
  transferscope rank --target data/ --sources zoo.yaml
  transferscope rank --target data/ --sources zoo.yaml --samples 300 --format json > ranking.json
  transferscope rank --target data/ --sources zoo.yaml --protocol truncate --objective latency
  transferscope rank --target data/ --sources zoo.yaml --shots 20 --reference own -o results/
  transferscope rank --target data/ --sources zoo.yaml --scores default,leep,parc --uncertainty 20
  transferscope rank --target data/ --sources zoo.yaml --pilots auto --pilot-budget 600
  transferscope rank --target data/ --sources zoo.yaml --evidence measured/runs.csv

\b
On what `transferscope demo -o demo` makes:
  transferscope rank --target demo/target --sources demo/zoo.yaml --trust-code --shots 16""",
)
@options.target
@options.reading
@options.sources
@options.samples
@click.option(
    "--protocol", type=click.Choice(PROTOCOLS), default="any", show_default=True,
    help="How the source is adapted: a linear head on frozen features of the cut network (truncate), what follows the "
    "cut re-initialised and trained (reinit), all of it trained (finetune), the whole network with its first stages "
    "frozen (defrost), or the best of these for each source.",
)  # fmt: skip
@click.option(
    "--shots", type=options.whole(1), metavar="N",
    help="Expect accuracies for N training images of each class, not for all that the folder holds.",
)  # fmt: skip
@click.option(
    "--objective", type=click.Choice(OBJECTIVES), default="accuracy", show_default=True,
    help="Rank by expected accuracy, by accuracy for the energy of a prediction, or take the fewest FLOPs of all that "
    "are tied for best.",
)  # fmt: skip
@click.option(
    "--mode", type=click.Choice(MODES), default="default", show_default=True,
    help="quick: similarities, and only the scores that the prediction needs.",
)  # fmt: skip
@click.option(
    "--scores", multiple=True, metavar="NAME[,NAME...]|default|all",
    shell_complete=completion.names(lambda: ["default", "all", *completion.scores()]),
    help="Transferability scores to compute, at every depth: logme, hscore, transrate, nleep, gbc, parc, sfda, knn, "
    "nearest_mean, ridge, kernel_ridge, alignment, effective_rank; and of the source's own predictions: leep, nce. May "
    "be given several times. By default those that take next to no time.",
)  # fmt: skip
@options.expecting
@click.option(
    "--uncertainty", type=options.whole(2), metavar="DRAWS",
    help="Standard errors of all scores, from this many draws of the images; 20 are enough. Each draw takes as long as "
    "the scores themselves.",
)  # fmt: skip
@options.together(options.reference, options.reference_epochs, options.reference_budget)
@options.on
@options.shard
@options.running
@options.output("transferscope-results", "Where report.html, ranking.json, ranking.csv, scores.nc and the pictures go.")
@options.printing
@click.pass_context
def command(ctx: click.Context, /, **asked: Any) -> None:
    """Rank pretrained networks, each with its best cut and protocol, for a folder of labelled images.

    With -v, --scores or --uncertainty the table shows every score beside the baselines; with -v, or an objective other
    than accuracy, also which cuts are worth their FLOPs.

    Pilots are stopped by Ctrl-C without being lost: the same command goes on where they were.

    Exit code 3: done, but some sources failed; they are listed and the others are ranked.
    """
    sink = options.Sink.of(asked)
    options.trained_reference(asked)
    asked["scores"] = [name.strip() for part in asked["scores"] for name in part.split(",")] or "default"
    asked["uncertainty"] = asked["uncertainty"] or 0
    from transferscope.report.terminal.ranking import print_ranking
    from transferscope.verbs.rank.rank import answer
    from transferscope.verbs.rank.request import RankRequest

    sink.prepare()
    with options.stdout_for_results():
        request = RankRequest(**asked)
        ranking = answer(request)
    if ranking.provenance is not None:
        ranking = replace(ranking, provenance=replace(ranking.provenance, command=options.command_line(ctx)))
    costs = request.objective != "accuracy"
    sink.deliver(ranking, lambda result, console: print_ranking(result, console, costs=costs, detailed=sink.verbose))
    if sink.verbose:
        for part, seconds in ranking.timings.items():
            say(f"{part}: {seconds:.1f} s")
    if ranking.failed:
        ctx.exit(3)
