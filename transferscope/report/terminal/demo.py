"""What the demo expected beside what it measured, on a terminal."""

from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from transferscope.report.terminal.columns import fitted, print_tables


def print_check(table: pd.DataFrame, trained_on: int, tested_on: int, console: Console) -> None:
    """Print the rows of `verbs.demo.check.check_answer`, and in words what they say."""
    rows = table.to_dict("records")
    columns = {
        "source": [row["source"] for row in rows],
        "protocol": [row["protocol"] for row in rows],
        "depth": [f"{row['depth']}/{row['depths']}" for row in rows],
        "expected": [f"{row['expected']:.3f}" for row in rows],
        "80 % interval": [f"{row['lower']:.3f}-{row['upper']:.3f}" for row in rows],
        "measured": [f"{row['measured']:.3f}±{row['standard_error']:.3f}" for row in rows],
    }
    names = ["really run", "source"]
    console.print()
    print_tables(
        fitted({"really run": [row["role"] for row in rows]}, columns, width=console.width, names=names,
               left=["protocol"]), console,
    )  # fmt: skip
    inside = sum(row["lower"] <= row["measured"] <= row["upper"] for row in rows)
    console.print(Text(f"\n{_in_words({row['role']: row for row in rows})}\n", style="bold"))
    console.print(
        Text(
            f"{inside} of {len(rows)} measured accuracies lie within their 80 % interval. Trained on the {trained_on} "
            f"images that rank looked at, tested on {tested_on} others; ±: standard error of so many test images.",
            style="dim",
        )
    )


def _in_words(rows: dict[str, dict[str, Any]]) -> str:
    words = {
        "first, uncut": "itself uncut",
        "first, frozen": "a linear head on its frozen features",
        "last": "the last of the ranking",
    }
    compared = [f"{_better(rows['first'], rows[role])} {what}" for role, what in words.items() if role in rows]
    text = f"The first of the ranking is {' and '.join(filter(None, [', '.join(compared[:-1]), compared[-1]]))}."
    if "first, frozen, uncut" in rows:
        better = _better(rows["first, frozen"], rows["first, frozen, uncut"])
        text += f" Frozen, it is {better} uncut when cut after depth {rows['first, frozen']['depth']}."
    return text


def _better(first: dict[str, Any], other: dict[str, Any]) -> str:
    gain = 100 * (first["measured"] - other["measured"])
    if round(gain, 1) == 0:
        return "as good as"
    return f"{abs(gain):.1f} points {'better' if gain > 0 else 'worse'} than"
