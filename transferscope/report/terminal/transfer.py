"""A transfer, and what its model predicts, on a terminal."""

import math
from pathlib import Path

from rich.console import Console
from rich.text import Text

from transferscope.report.terminal.columns import fitted, print_tables
from transferscope.results.files import short_cost
from transferscope.results.predictions import Predictions
from transferscope.results.transfer import Transfer

_MOST_CLASSES = 30
_MOST_ROWS = 20
_MOST_UNREADABLE = 5


def print_transfer(transfer: Transfer, console: Console) -> None:
    """Print what was delivered, how good it is, class by class, and what it cost."""
    start = "From scratch" if transfer.protocol == "scratch" else transfer.source
    console.print(Text(f"{start}: {transfer.how}.\n{transfer.verdict}\n", style="bold"))
    table = transfer.by_class
    left_out = ""
    if len(table) > _MOST_CLASSES:
        table = table.sort_values("recall", kind="stable").head(_MOST_CLASSES)
        left_out = f"The {_MOST_CLASSES} classes with the lowest recall; card.json has all {len(transfer.classes)}. "
    names = {"class": table["class"].tolist()}
    columns = {
        "images": table["images"].astype(str).tolist(),
        "recall": [_share(value) for value in table["recall"]],
        "precision": [_share(value) for value in table["precision"]],
        "mistaken most for": table["taken_for"].tolist(),
    }
    print_tables(fitted(names, columns, width=console.width, names=["class", "mistaken most for"]), console)
    seconds, kwh = short_cost(sum(transfer.seconds.values())), short_cost(transfer.kwh)
    lines = [
        f"{left_out}Measured on: {transfer.held_out}. Square brackets: 80 % intervals. Trained on "
        f"{transfer.trained_on} images in {seconds} s{f' with {kwh} kWh' if kwh else ''}.",
        transfer.energy,
    ]
    console.print(Text("\n" + "\n".join(lines), style="dim"))


def print_predictions(predictions: Predictions, console: Console, written: Path | None = None) -> None:
    """Print the first predictions, how many of each class there are, and which file all were written to."""
    shown = predictions.table.head(_MOST_ROWS)
    names = {"path": shown["path"].tolist()}
    columns = {"label": shown["label"].tolist(), "probability": [f"{value:.3f}" for value in shown["probability"]]}
    print_tables(fitted(names, columns, width=console.width, names=["path", "label"]), console)
    lines = []
    if (more := len(predictions) - len(shown)) > 0:
        where = "-o FILE.csv or --format csv gives all" if written is None else f"all are in {written}"
        lines.append(f"… and {more} more; {where}.")
    labels = predictions.labels
    counts = sorted(((labels.count(name), name) for name in set(labels)), key=lambda pair: (-pair[0], pair[1]))
    listed = ", ".join(f"{name} {count}" for count, name in counts[:_MOST_ROWS]) + ", …" * (len(counts) > _MOST_ROWS)
    lines.append(f"{len(predictions)} image{'s' * (len(predictions) != 1)}: {listed}.")
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


def _share(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"
