"""A measurement on a terminal."""

import math

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from transferscope.report.terminal.columns import fitted, print_tables
from transferscope.results.measurement import Measurement, best_of, judged_by, variant
from transferscope.runtime.metrics import OF_EACH, guess, outputs
from transferscope.runtime.numbers import short_number

_WIDE = 110
"""Terminal columns from which on the name of the layer has room."""
_MOST_FAILURES = 10


def print_measurement(measurement: Measurement, console: Console) -> None:
    """Print the best cut for each number of images and protocol, what failed, and how to read it."""
    table, best = measurement.table, best_by_protocol(measurement)
    if best.empty:
        console.print(Text(no_answer(measurement), style="bold"))
    else:
        print_tables(_best_tables(best, sources=len(table["source"].unique()), width=console.width), console)
        console.print()
    paragraphs = [(failure_lines(measurement), "bold"), (how_to_read(measurement, best), "dim")]
    console.print(Text("\n\n").join(Text("\n".join(lines), style=style) for lines, style in paragraphs if lines))


def no_answer(measurement: Measurement) -> str:
    """Say that there is no answer, where no run has come to an end without failing."""
    return "Every run failed." if len(measurement.runs) else "No run has ended yet."


def best_by_protocol(measurement: Measurement) -> pd.DataFrame:
    """Return the row with the highest accuracy for each number of images and protocol, in hindsight."""
    table = measurement.table
    return best_of(table[table["best"]], ["samples_per_class", "protocol"])


def _best_tables(best: pd.DataFrame, *, sources: int, width: int) -> list[Table]:
    errors = ["" if math.isnan(error) else f" ±{error:.3f}" for error in best["standard_error"]]
    sizes, metric = best["samples_per_class"], judged_by(best)
    keys = {
        "images": sizes.astype(str).where(sizes != sizes.shift(), "").tolist(),
        "protocol": variant(best).tolist(),
    }
    if sources > 1:
        keys["source"] = best["source"].tolist()
    columns = {
        "cut after": best["layer"].where(best["protocol"] != "fne", "").tolist(),
        "depth": [f"{row.depth}/{row.depths}" for row in best.itertuples()],
        metric.title: [f"{value:.3f}{error:7}" for value, error in zip(best[metric.column], errors, strict=True)],
        "seconds": [short_number(value) for value in best["seconds"]],
    }
    if width < _WIDE:
        del columns["cut after"]
    if best["kwh"].notna().any():
        columns["kWh"] = [short_number(value) for value in best["kwh"]]
    return fitted(keys, columns, width=width, names=["source", "cut after"], left=["protocol"])


def failure_lines(measurement: Measurement) -> list[str]:
    """Say which sources and runs failed, those of one reason together."""
    lines = [f"{failure.source} failed: {failure.error}" for failure in measurement.failed]
    for (source, error), runs in measurement.failed_runs.groupby(["source", "error"], sort=False):
        protocols = ", ".join(runs["protocol"].unique())
        lines.append(f"{source}: {len(runs)} run{'s' * (len(runs) > 1)} failed ({protocols}): {error}")
    more = len(lines) - _MOST_FAILURES
    return [*lines[:_MOST_FAILURES], *([f"… and {more} more; all are in runs.csv."] if more > 0 else [])]


def how_to_read(measurement: Measurement, best: pd.DataFrame) -> list[str]:
    """Say what the columns mean, what the choice of `best` is worth, and where energy comes from."""
    settings, metric, lines = measurement.settings, measurement.metric, []
    if len(best):
        seeds = sorted(set(best["n_seeds"]))
        over = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        what = "depth" if len(measurement.table["source"].unique()) == 1 else "source and depth"
        lines.append(
            f"images: of {OF_EACH[metric.task]}, to train on. For each protocol the {what} with the highest "
            f"{metric.title} is shown. "
            "That choice was made on the test images, in hindsight: one made beforehand cannot expect as much."
        )
        lines.append(
            f"{metric.heading}: on {settings['n_test']} test images of "
            f"{settings['target']} ({outputs(metric.task, settings['classes'])}; {guess(metric)} gives "
            f"{settings['chance']:.3f}), mean over {over} seed{'s' * (seeds != [1])}."
            + " ±: its standard error over seeds."
            * bool(best["standard_error"].notna().any())
        )
    lines.append(settings["energy"])
    if len(best) and measurement.runs["kwh"].isna().all():
        lines.append("No run's electricity is known, so there is no accuracy-by-energy.png.")
    return lines
