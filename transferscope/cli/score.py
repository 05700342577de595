"""`transferscope score`: transferability scores of feature arrays of one's own."""

import json
import math
import sys

import click

from transferscope.cli import completion, options
from transferscope.cli.messages import console, set_up_messages
from transferscope.runtime.printable import printable


@click.command(
    "score",
    cls=options.Command,
    short_help="Transferability scores of feature arrays of your own.",
    epilog="""\b
Examples:
  transferscope score features.npz
  transferscope score features.npy labels.npy --measure logme --measure ridge
  transferscope score features.nc --format json
  transferscope score features.npz --task regression""",
)
@click.argument("features", metavar="FILE", shell_complete=completion.files)
@click.argument("labels", required=False, metavar="[LABELS.npy]", shell_complete=completion.files)
@click.option(
    "--measure", "measures", multiple=True, metavar="NAME", shell_complete=completion.names(completion.scores),
    help="A score, as named in the first column of the output; may be given several times. Default: all.",
)  # fmt: skip
@click.option(
    "--task", type=click.Choice(options.TASKS), default=options.TASKS[0], show_default=True,
    help="multi-label: labels are columns of 0 and 1; regression: numbers, in one column or several. The scores are "
    "those that mean something for them.",
)  # fmt: skip
@options.printing
def command(
    features: str,
    labels: str | None,
    measures: tuple[str, ...],
    task: str,
    output_format: str,
    quiet: bool,
    verbose: bool,
) -> None:
    """Score features by how well they suit a labelled task; all scores are better the higher.

    FILE is an .npz file or a NetCDF file (.nc) that holds features (sample, feature) and labels (sample), and
    source_probabilities (sample, source_class) for LEEP and NCE if there are any; or an .npy file with the features,
    followed by one with the labels.
    """
    set_up_messages(quiet, verbose)
    from transferscope.transferability.tasks import scores_of
    from transferscope.verbs.score import read_features, score

    data = read_features(features, labels)
    table = score(
        data.features,
        data.labels,
        measures or None,
        source_probabilities=data.source_probabilities if task == options.TASKS[0] else None,
        task=task,
    ).T.rename(columns={"features": "value"})
    about = scores_of(task)
    table["range"] = [about[name].range for name in table.index]
    table["title"] = [about[name].title for name in table.index]
    from transferscope.results.files import csv_text

    if output_format == "json":
        rows = table.reset_index().to_dict("records")
        for row in rows:
            # JSON has neither NaN nor infinity; stderr says which of them it was, and why.
            row["value"] = row["value"] if math.isfinite(row["value"]) else None
        n_samples, n_features = data.features.shape
        answer = {"schema_version": 1, "samples": n_samples, "features": n_features, "task": task, "scores": rows}
        sys.stdout.write(json.dumps(answer, indent=1) + "\n")
    elif output_format == "csv":
        sys.stdout.write(printable(csv_text(table)))
    else:
        from transferscope.report.terminal.columns import fitted, print_tables

        names = {"score": table.index.tolist()}
        columns = {
            "value": [f"{value:.4f}" for value in table["value"]],
            "range": table["range"].tolist(),
            "title": table["title"].tolist(),
        }
        rich_console = console()
        tables = fitted(names, columns, width=rich_console.width, names=["title"], left=["score", "range"])
        print_tables(tables, rich_console)
