"""A comparison on a terminal."""

from rich.console import Console
from rich.text import Text

from transferscope.report.terminal.columns import fitted, print_tables
from transferscope.results.comparison import Comparison
from transferscope.similarity import MEASURES


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the closest layer of y for each layer of x, a table for each measure."""
    x, y = comparison.x, comparison.y
    for measure, rows in comparison.closest.groupby("measure", sort=False):
        names = {f"layer of {x}": rows["layer_x"].tolist(), f"closest of {y}": rows["layer_y"].tolist()}
        columns = {"value": [f"{value:.3f}" for value in rows["value"]]}
        if rows["standard_error"].notna().any():
            columns["±"] = [f"{error:.3f}" for error in rows["standard_error"]]
        if rows["p_value"].notna().any():
            columns["p"] = [f"{p:.2g}" for p in rows["p_value"]]
        if not rows["informative"].all():
            columns[""] = ["" if good else "not informative" for good in rows["informative"]]
        console.print(Text(f"{MEASURES[str(measure)].title} ({MEASURES[str(measure)].range})", style="bold"))
        print_tables(fitted(names, columns, width=console.width, names=names), console)
        console.print()
    console.print(Text("\n".join(how_to_read(comparison)), style="dim"))


def how_to_read(comparison: Comparison) -> list[str]:
    """Say which images were looked at, what the columns mean, and what the scratch network is."""
    lines = [f"{comparison.target.samples} images of {comparison.target.name}."]
    if comparison.x == comparison.y:
        lines[0] += " In a network compared with itself a layer is not its own closest."
    errors, permuted = comparison.table[["standard_error", "p_value"]].notna().any()
    if errors:
        lines[0] += " ±: standard error over images."
    if permuted:
        lines[0] += " p: share of permutations of the images that are at least as similar."
    if (made := comparison.reference) is not None:
        trained = (
            ", handed in."
            if made.held_out_accuracy is None
            else f", trained on {made.trained_on} of them for {made.training}, accuracy "
            f"{made.held_out_accuracy:.3f} on {made.held_out_samples} held-out images."
        )
        lines.append(f"scratch: {made.network}{trained}")
    return lines
