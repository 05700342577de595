"""The ranking as a table for the terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from transferscope.report.ranking import Ranking, Reference

_WIDE = 120
"""Terminal columns from which on answer and scores share one table."""

_SCORES = {"CKA": "linear_cka_to_scratch", "SVCCA": "svcca_to_scratch", "LogME": "logme", "H-score": "hscore"}


def ranking_tables(ranking: Ranking, width: int = _WIDE) -> list[Table]:
    """Return the ranking as rich tables: one where `width` columns hold it, else the answer and the scores."""
    picks = ranking.recommendations
    names = {"#": [str(pick.rank) for pick in picks], "source": [pick.source for pick in picks]}
    answer = {
        "cut after": [pick.layer or "" for pick in picks],
        "depth": ["" if pick.layer is None else f"{pick.depth}/{pick.depths}" for pick in picks],
        "accuracy": [f"{pick.expected_accuracy:.3f}" for pick in picks],
        "80 % interval": [f"{pick.interval[0]:.3f}-{pick.interval[1]:.3f}" for pick in picks],
        "uncut": ["" if pick.layer is None else f"{ranking.accuracy_at_last_layer(pick):.3f}" for pick in picks],
        "FLOPs": [_short(pick.flops) for pick in picks],
        "params": [_short(pick.params) for pick in picks],
    }
    scores = {
        header: [f"{pick.scores[name]:.3f}" if name in pick.scores else "" for pick in picks]
        for header, name in _SCORES.items()
    }
    if width >= _WIDE:
        return [_table({**names, **answer, **scores})]
    return [_table({**names, **answer}), _table({**names, **scores})]


def _table(columns: dict[str, list[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for header in columns:
        text = header in ("source", "cut after")
        table.add_column(header, justify="left" if text else "right", no_wrap=not text, overflow="fold")
    for row in zip(*columns.values(), strict=True):
        # As Text: a name may look like rich's markup.
        table.add_row(*map(Text, row))
    return table


def print_ranking(ranking: Ranking, console: Console) -> None:
    """Print the answer in words, then the tables."""
    target, reference = ranking.target, ranking.reference
    console.print(Text(ranking.verdict + "\n", style="bold"))
    for table in ranking_tables(ranking, console.width):
        console.print(table)
        console.print()
    lines = [
        f"{target.samples} images, {target.classes} classes of {target.name}; accuracy: leave-one-out accuracy of a "
        "linear head on the frozen, cut network; uncut: the same at its last layer; FLOPs: per image; CKA, SVCCA: "
        "similarity to the scratch network."
    ]
    if reference is not None:
        lines.append(_reference_line(reference))
    console.print(Text("\n".join(lines), style="dim"))


def _reference_line(reference: Reference) -> str:
    if reference.held_out_accuracy is None:
        return f"Reference: {reference.network}, handed in; not ranked, for its training images are unknown."
    return (
        f"Scratch reference: {reference.network}, trained on {reference.trained_on} images for {reference.epochs} "
        f"epochs ({reference.stopped}), accuracy {reference.held_out_accuracy:.3f} on {reference.held_out_samples} "
        "held-out images."
    )


def _short(number: int) -> str:
    """Write a count with three significant digits and a unit: 48.1M."""
    value = float(number)
    for unit in ("", "k", "M", "G", "T"):
        # From here on three digits round to 1000, which is 1 of the next unit.
        if value < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}P"
