"""A transfer, and what its model predicts, on a terminal."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from transferscope.report.terminal.columns import fitted, print_tables
from transferscope.results.predictions import Predictions
from transferscope.results.transfer import Transfer
from transferscope.runtime.metrics import CLASSIFICATION, KIND, MULTI_LABEL
from transferscope.runtime.numbers import short_number

_MOST_CLASSES = 30
_MOST_ROWS = 20
_MOST_UNREADABLE = 5
_MOST_NUMBERS = 5


def print_transfer(transfer: Transfer, console: Console) -> None:
    """Print what was delivered, how good it is, class by class, and what it cost."""
    start = "From scratch" if transfer.protocol == "scratch" else transfer.source
    console.print(Text(f"{start}: {transfer.how}.\n{transfer.verdict}\n", style="bold"))
    table, what = worst(transfer, _MOST_CLASSES)
    left_out = f"The {what}; card.json has all {len(transfer.classes)}. " if what else ""
    first, *others = (str(name) for name in table.columns)
    columns = {headed(name): [shown(value) for value in table[name]] for name in others}
    names = {first: table[first].tolist()}
    print_tables(fitted(names, columns, width=console.width, names=[first, "mistaken most for"]), console)
    seconds, kwh = short_number(sum(transfer.seconds.values())), short_number(transfer.kwh)
    lines = [
        f"{left_out}Measured on: {transfer.held_out}. Square brackets: 80 % intervals. Trained on "
        f"{transfer.trained_on} images in {seconds} s{f' with {kwh} kWh' if kwh else ''}.",
        transfer.energy,
    ]
    console.print(Text("\n" + "\n".join(lines), style="dim"))


def print_predictions(predictions: Predictions, console: Console, written: Path | None = None) -> None:
    """Print the first predictions, how many of each class there are, and which file all were written to."""
    first = predictions.table.head(_MOST_ROWS)
    names = {"path": first["path"].tolist()}
    if predictions.task == CLASSIFICATION:
        columns = {"label": first["label"].tolist(), "probability": [f"{value:.3f}" for value in first["probability"]]}
    elif predictions.task == MULTI_LABEL:
        columns = {"labels": first["label"].tolist()}
    else:
        columns = {
            str(name): [f"{value:.6g}" for value in first[name]] for name in first.columns[1 : 1 + _MOST_NUMBERS]
        }
    print_tables(fitted(names, columns, width=console.width, names=["path", "label"]), console)
    lines = []
    if (more := len(predictions) - len(first)) > 0:
        where = "-o FILE.csv or --format csv gives all" if written is None else f"all are in {written}"
        lines.append(f"… and {more} more; {where}.")
    labels = predictions.labels
    counts = sorted(
        ((labels.count(name), name or "none") for name in set(labels)), key=lambda pair: (-pair[0], pair[1])
    )
    listed = ", ".join(f"{name} {count}" for count, name in counts[:_MOST_ROWS]) + ", …" * (len(counts) > _MOST_ROWS)
    lines.append(f"{len(predictions)} image{'s' * (len(predictions) != 1)}{f': {listed}' if listed else ''}.")
    console.print(Text("\n" + "\n".join(lines), style="dim"))


def unreadable_lines(predictions: Predictions) -> list[str]:
    """Name the images that could not be read, a few of them, and count them."""
    found = predictions.unreadable
    total = len(predictions) + len(found)
    lines = [f"{len(found)} of {total} images cannot be read:"] if found else []
    lines += [f"  {each.source}: {each.error}" for each in found[:_MOST_UNREADABLE]]
    if len(found) > _MOST_UNREADABLE:
        lines.append(f"  … and {len(found) - _MOST_UNREADABLE} more")
    return lines


def worst(transfer: Transfer, most: int) -> tuple[pd.DataFrame, str]:
    """Return `Transfer.by_class`, of many classes the `most` that it does worst, and which these are in words."""
    table = transfer.by_class
    if len(table) <= most:
        return table, ""
    figure = str(table.columns[2])
    lowest = table.sort_values(figure, kind="stable").head(most)
    return lowest, f"{most} {KIND[transfer.task]} with the lowest {headed(figure)}"


def headed(column: str) -> str:
    """Return the heading of a column of `Transfer.by_class`."""
    return {"taken_for": "mistaken most for", "r2": "R²"}.get(column, column.replace("_", " "))


def shown(value: Any) -> str:
    """Return a value of that table as it is read; nothing for NaN."""
    if not isinstance(value, float):
        return str(value)
    return "" if math.isnan(value) else f"{value:.3f}"
