"""The ranking as a table for the terminal."""

from rich.console import Console
from rich.table import Table

from transferscope.report.ranking import Ranking, Reference


def ranking_table(ranking: Ranking) -> Table:
    """Return the ranking as a rich table that fits 100 columns."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("#", justify="right")
    table.add_column("source", overflow="fold")
    table.add_column("cut after", overflow="fold")
    table.add_column("depth", justify="right", no_wrap=True)
    table.add_column("accuracy", justify="right", no_wrap=True)
    table.add_column("80 % interval", justify="right", no_wrap=True)
    table.add_column("uncut", justify="right", no_wrap=True)
    table.add_column("params", justify="right", no_wrap=True)
    table.add_column("FLOPs", justify="right", no_wrap=True)
    table.add_column("CKA", justify="right", no_wrap=True)
    table.add_column("LogME", justify="right", no_wrap=True)
    for pick in ranking.recommendations:
        scratch = pick.layer is None
        table.add_row(
            str(pick.rank),
            pick.source,
            "(trained from scratch)" if scratch else pick.layer,
            "" if scratch else f"{pick.depth}/{pick.depths}",
            f"{pick.expected_accuracy:.3f}",
            f"{pick.interval[0]:.3f}-{pick.interval[1]:.3f}",
            "" if scratch else f"{ranking.accuracy_at_last_layer(pick):.3f}",
            _short(pick.params),
            _short(pick.flops),
            "" if scratch else f"{pick.scores['linear_cka_to_scratch']:.3f}",
            "" if scratch else f"{pick.scores['logme']:.3f}",
        )
    return table


def print_ranking(ranking: Ranking, console: Console) -> None:
    """Print the answer in words, then the table."""
    target, reference = ranking.target, ranking.reference
    console.print(f"[bold]{_escaped(ranking.verdict)}[/bold]\n")
    console.print(ranking_table(ranking))
    lines = [
        f"{target.samples} images, {target.classes} classes of {target.name}; accuracy: leave-one-out accuracy of a "
        "linear head on the frozen, cut network; uncut: the same at its last layer; FLOPs: per image; CKA: debiased "
        "linear CKA with the scratch network."
    ]
    if reference is not None:
        lines.append(_reference_line(reference))
    console.print("\n" + _escaped("\n".join(lines)), style="dim")


def _reference_line(reference: Reference) -> str:
    if reference.held_out_accuracy is None:
        return f"Reference: {reference.network}, handed in; not ranked, for its training images are unknown."
    return (
        f"Scratch reference: {reference.network}, trained on {reference.trained_on} images for {reference.epochs} "
        f"epochs ({reference.stopped}), accuracy {reference.held_out_accuracy:.3f} on {reference.held_out_samples} "
        "held-out images."
    )


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def _short(number: int) -> str:
    """Write a count with three significant digits and a unit: 48.1M."""
    value = float(number)
    for unit in ("", "k", "M", "G", "T"):
        if value < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}P"
