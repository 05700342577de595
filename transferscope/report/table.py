"""The ranking as a table for the terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from transferscope.report.ranking import Ranking, Reference

_WIDE = 100
"""Terminal columns from which on the whole table is shown."""


def ranking_table(ranking: Ranking, width: int = _WIDE) -> Table:
    """Return the ranking as a rich table; below 100 columns parameters, CKA and LogME are left out."""
    whole = width >= _WIDE
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("#", justify="right")
    table.add_column("source", overflow="fold")
    table.add_column("cut after", overflow="fold")
    table.add_column("depth", justify="right", no_wrap=True)
    table.add_column("accuracy", justify="right", no_wrap=True)
    table.add_column("80 % interval", justify="right", no_wrap=True)
    table.add_column("uncut", justify="right", no_wrap=True)
    table.add_column("FLOPs", justify="right", no_wrap=True)
    for header in ("params", "CKA", "LogME") if whole else ():
        table.add_column(header, justify="right", no_wrap=True)
    for pick in ranking.recommendations:
        scratch = pick.layer is None
        cells = [
            str(pick.rank),
            pick.source,
            "" if pick.layer is None else pick.layer,
            "" if scratch else f"{pick.depth}/{pick.depths}",
            f"{pick.expected_accuracy:.3f}",
            f"{pick.interval[0]:.3f}-{pick.interval[1]:.3f}",
            "" if scratch else f"{ranking.accuracy_at_last_layer(pick):.3f}",
            _short(pick.flops),
        ]
        if whole:
            cells += [
                _short(pick.params),
                "" if scratch else f"{pick.scores['linear_cka_to_scratch']:.3f}",
                "" if scratch else f"{pick.scores['logme']:.3f}",
            ]
        # As Text: a name may look like rich's markup.
        table.add_row(*map(Text, cells))
    return table


def print_ranking(ranking: Ranking, console: Console) -> None:
    """Print the answer in words, then the table."""
    target, reference = ranking.target, ranking.reference
    console.print(Text(ranking.verdict + "\n", style="bold"))
    console.print(ranking_table(ranking, console.width))
    lines = [
        f"{target.samples} images, {target.classes} classes of {target.name}; accuracy: leave-one-out accuracy of a "
        "linear head on the frozen, cut network; uncut: the same at its last layer; FLOPs: per image; CKA: debiased "
        "linear CKA with the scratch network."
    ]
    if reference is not None:
        lines.append(_reference_line(reference))
    console.print(Text("\n" + "\n".join(lines), style="dim"))


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
