"""`transferscope measure`: really run the transfers."""

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from transferscope.cli import options
from transferscope.cli.messages import console
from transferscope.cli.parsing import parse_depths, parse_protocols, parse_rates, parse_sizes
from transferscope.runtime.printable import printable

if TYPE_CHECKING:
    from transferscope.verbs.measure.estimate import Estimate


@click.command(
    "measure",
    cls=options.Command,
    short_help="Really run the transfers, and record what they give and cost.",
    epilog="""\b
Examples:
  transferscope measure --target data/ --sources zoo.yaml --protocols truncate,toptuning,fne
  transferscope measure --target data/ --sources zoo.yaml --samples-per-class 5,20,100 --depths all --seeds 3 -o out/
  transferscope measure --target data/ --sources zoo.yaml --protocols finetune,scratch --depths -1 --dry-run

\b
On what `transferscope demo -o demo` makes:
  transferscope measure --target demo/target --sources demo/zoo.yaml --trust-code --samples-per-class 5""",
)
@options.target
@options.reading
@options.sources
@click.option(
    "--protocols", default="truncate,toptuning,fne", show_default=True, metavar="NAME[,NAME...]",
    help="truncate, svm, nearest_mean, toptuning: a head on features that are frozen at a depth; fne: full-network "
    "embedding; reinit, finetune, defrost, surgical: training from a source; scratch: training from random weights.",
)  # fmt: skip
@options.samples_per_class("1,2,5,10,20,50")
@click.option(
    "--depths", default="all", show_default=True, metavar="all|K[,K...]",
    help="Stages to keep, see `transferscope layers`; -1 is the last.",
)  # fmt: skip
@options.seeds(3)
@click.option(
    "--test-samples", type=options.whole(2), default=2000, show_default=True, metavar="N",
    help="Most images to measure on: the folder's own test split, else a quarter of each class. None is trained on.",
)  # fmt: skip
@click.option(
    "--learning-rates", metavar="RATE[,RATE...]",
    help="Learning rates to try on validation images, for each trained run; each is a trial. Default: one by protocol.",
)  # fmt: skip
@click.option(
    "--optimiser", type=click.Choice(["sgd", "adamw"]), default="adamw", show_default=True, help="Of training."
)
@click.option(
    "--epochs", type=options.whole(1), default=40, show_default=True, metavar="N", help="Most epochs of training."
)
@click.option(
    "--min-steps", type=options.whole(0), default=300, show_default=True, metavar="N",
    help="Least optimiser steps: with few images training takes more epochs to reach them.",
)  # fmt: skip
@click.option(
    "--early-stopping", is_flag=True, help="Stop by the loss on a fifth of the images, which are then not trained on."
)
@click.option("--jobs", type=options.whole(1), default=1, show_default=True, metavar="N", help="Runs side by side.")
@options.judged_by
@options.on
@options.shard
@click.option(
    "--time-budget", type=options.Finite(min=0, min_open=True), metavar="MINUTES",
    help="Start no run after this time; the same command resumes later.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would run, and about how long it would take; run nothing.")
@click.option("--retry-failed", is_flag=True, help="Run again what has failed.")
@options.country
@options.running
@options.output("transferscope-measurement", "Where runs.csv grows, and report.html, tables and pictures go.")
@options.printing
@click.pass_context
def command(ctx: click.Context, /, **asked: Any) -> None:
    """Run real transfers over sources, protocols, depths and numbers of images, and record what each gave and cost.

    Each finished run is one line of runs.csv at once. Stop it whenever you like: the same command runs what is missing.

    Exit code 3: done, but some runs failed; they are listed and their reasons are in runs.csv.
    """
    sink = options.Sink.of(asked)
    dry_run, minutes = asked.pop("dry_run"), asked["time_budget"]
    from transferscope.verbs.measure.measure import prepare
    from transferscope.verbs.measure.request import MeasureRequest

    asked |= {
        "protocols": parse_protocols(asked["protocols"]),
        "samples_per_class": parse_sizes(asked["samples_per_class"]),
        "depths": parse_depths(asked["depths"]),
        "learning_rates": parse_rates(asked["learning_rates"]),
        "time_budget": None if minutes is None else 60 * minutes,
        "output": sink.output,
    }
    if not dry_run:
        sink.prepare()
    with options.stdout_for_results():
        request = MeasureRequest(**asked)
        grid = prepare(request)
        if dry_run:
            estimate = grid.estimate()
        else:
            measurement = grid.run(request.time_budget)
    if dry_run:
        _print_estimate(estimate, sink.output_format)
        return
    from transferscope.report.terminal.measurement import print_measurement

    sink.deliver(measurement, print_measurement, written=("runs.csv",))
    if measurement.failed or len(measurement.failed_runs):
        ctx.exit(3)


def _print_estimate(estimate: "Estimate", output_format: str) -> None:
    if output_format == "json":
        record = {"seconds": estimate.seconds, "runs": estimate.table.to_dict("records")}
        sys.stdout.write(json.dumps(record, indent=1) + "\n")
        return
    if output_format == "csv":
        from transferscope.results.files import csv_text

        sys.stdout.write(printable(csv_text(estimate.table, index=False)))
        return
    from transferscope.report.terminal.columns import fitted, print_tables

    rows = estimate.table
    names = {"source": rows["source"].tolist(), "protocol": rows["protocol"].tolist()}
    cost = {"runs": rows["runs"].astype(str).tolist(), "about": [_duration(seconds) for seconds in rows["seconds"]]}
    rich_console = console()
    print_tables(fitted(names, cost, width=rich_console.width, names=["source"], left=["protocol"]), rich_console)
    rich_console.print(
        f"\n{estimate.runs} runs, about {_duration(estimate.seconds)}; training that stops early takes less."
    )


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
