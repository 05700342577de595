"""Parameter transferability for the terminal: the answer in words, tables, and how to read them."""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from transferscope.report.terminal.columns import Columns, fitted, print_tables
from transferscope.results.parameters import ParameterTransfer, over_seeds

_MOST_LINES = 10

NOTHING = "No source was fine-tuned on any target."
"""The answer where there is none."""


def print_parameters(result: ParameterTransfer, console: Console) -> None:
    """Print the answer for each source in words, its tables, what failed, and how to read them."""
    table, layers = result.table, over_seeds(result.layers)
    if table.empty:
        console.print(Text(NOTHING, style="bold"))
    for source, rows in table.groupby("source", sort=False):
        of_source = layers[layers["source"] == source]
        console.print(Text(answer_of(str(source), rows, of_source, result.settings["epochs"]), style="bold"))
        alone = len(rows[["target", "samples_per_class"]].drop_duplicates()) == 1
        layer_tables = _layer_tables(of_source, console.width) if alone else []
        print_tables([*_cell_tables(rows, console.width), *layer_tables], console)
        console.print()
    for lines, style in (
        (association_lines(result), ""), (failure_lines(result, layers), "bold"), (how_to_read(result), "dim"),
    ):  # fmt: skip
        if lines:
            console.print(Text("\n".join(lines), style=style))


def answer_of(source: str, rows: pd.DataFrame, layers: pd.DataFrame, epochs: int) -> str:
    """Say in a line what T of a source is as published, over all its targets and numbers of images."""
    ratios = rows[rows["criterion"] == "epochs"]["transferability"].dropna()
    text = f"{source}: mean T {ratio(ratios.mean())} after {epochs} epochs"
    if len(ratios) > 1:
        text += f" ({ratio(ratios.min())} to {ratio(ratios.max())} over targets and images)"
    means = layers[layers["criterion"] == "epochs"].groupby("layer", sort=False)["transferability"].mean()
    means = means[np.isfinite(means)]
    if len(means):
        most, least = means.idxmax(), means.idxmin()
        text += f"; most transferable {most} ({ratio(means[most])}), least {least} ({ratio(means[least])})"
    return text + "."


def _cell_tables(rows: pd.DataFrame, width: int) -> list[Table]:
    cells = rows[["target", "samples_per_class"]]
    other = rows["target"].ne(rows["target"].shift())
    fresh = cells.ne(cells.shift()).any(axis=1)
    errors = ["" if math.isnan(error) else f" ±{ratio(error)}" for error in rows["standard_error"]]
    longest = max(map(len, errors))
    keys = {
        "target": rows["target"].where(other, "").tolist(),
        "images": rows["samples_per_class"].astype(str).where(fresh, "").tolist(),
        "at": rows["criterion"].tolist(),
    }
    columns = {
        "step": [step_text(step) for step in rows["step"]],
        "loss": ["" if math.isnan(loss) else f"{loss:.3f}" for loss in rows["loss"]],
        "mean T": [
            ratio(value) + error.ljust(longest) for value, error in zip(rows["transferability"], errors, strict=True)
        ],
        "redraws": ["" if math.isnan(spread) else f"±{ratio(spread)}" for spread in rows["spread"]],
        # It is that at the end of training, whatever T is matched at.
        "accuracy": [f"{share:.3f}" if new else "" for share, new in zip(rows["accuracy"], fresh, strict=True)],
    }
    return _tables(keys, columns, width)


def _layer_tables(layers: pd.DataFrame, width: int) -> list[Table]:
    """Show the layers of one transfer, first layers at the top, as the network is read."""
    at = {name: rows.set_index("depth") for name, rows in layers.groupby("criterion", sort=False)}
    names = layers.drop_duplicates("depth").set_index("depth")["layer"]
    columns = {
        f"T {name}": [ratio(value) for value in rows["transferability"].reindex(names.index)]
        for name, rows in at.items()
    }
    last = at["epochs"].reindex(names.index)
    for header, name in (("change", "relative_change"), ("CKA", "cka"), ("SNR", "gradient_snr")):
        columns[header] = ["" if math.isnan(value) else f"{value:.3f}" for value in last[name]]
    return _tables({"layer": names.tolist()}, columns, width)


def _tables(keys: Columns, columns: Columns, width: int) -> list[Table]:
    """Return tables without the columns that are empty throughout."""
    columns = {header: cells for header, cells in columns.items() if any(cells)}
    return fitted(keys, columns, width=width, names=["target", "layer"], left=["at"])


def failure_lines(result: ParameterTransfer, layers: pd.DataFrame) -> list[str]:
    """Say what failed, and which layers have a T that is infinite or unknown."""
    lines = [f"{failure.source} failed: {failure.error}" for failure in result.failed]
    for (source, reason), rows in layers[layers["reason"] != ""].groupby(["source", "reason"], sort=False):
        everywhere = rows["layer"].nunique() == layers.loc[layers["source"] == source, "layer"].nunique()
        which = "every layer" if everywhere else _few(rows["layer"])
        lines.append(f"{source} on {_few(rows['target'])}: T of {which} is infinite or unknown: {reason}")
    more = len(lines) - _MOST_LINES
    return [*lines[:_MOST_LINES], *([f"… and {more} more; all are in parameters.json."] if more > 0 else [])]


def how_to_read(result: ParameterTransfer) -> list[str]:
    """Say what T is, how it was trained, and where initial weights come from."""
    settings, table = result.settings, result.table
    lines = []
    if len(table):
        lines += [
            "T: mean distance of a layer's weights from the initial ones over that from the source's; the larger, the "
            "more of the source was kept. It falls with every optimiser step, so that after all epochs it follows the "
            f"number of images: compare targets and sizes at matched steps ({settings['matched_steps']:,}) or matched "
            f"training loss ({settings['matched_loss']:.3f} of that of guessing).",
            f"{settings['optimiser']}, learning rate {settings['learning_rate']:g}, {settings['schedule']}. images: of "
            "each class. Accuracy: on the test images, at the end of training."
            + " ± beside T: standard error over seeds." * bool(table["standard_error"].notna().any())
            + " redraws: standard deviation over redrawn initial weights." * bool(table["spread"].notna().any()),
        ]
    for what in dict.fromkeys(settings["initial"].values()):
        sources = [source for source, description in settings["initial"].items() if description == what]
        lines.append(f"Initial weights of {_few(sources)}: {what}.")
    unnamed = result.runs["source"][result.runs["frechet"].isna()].unique()
    if len(unnamed):
        lines.append(
            f"The distance of the target's images from those of {_few(unnamed)} is unknown: no `images` in the zoo."
        )
    if reason := result.regression.attrs.get("reason"):
        lines.append(f"No regression of T for {reason}.")
    return lines


def association_lines(result: ParameterTransfer) -> list[str]:
    """Say what T at matched steps goes with, of what is known before a transfer."""
    lines = []
    if len(result.regression):
        fits = result.regression[result.regression["criterion"] == "steps"]
        for source, rows in fits.groupby("source", sort=False):
            coefficients = _intervals(rows["predictor"], rows["coefficient"], rows)
            first = rows.iloc[0]
            lines.append(
                f"{source}, at matched steps: change of ln T for one standard deviation of {coefficients}; "
                f"R² {first['r_squared']:.2f} over {first['n_targets']} targets."
            )
    if len(result.correlations):
        ranked = result.correlations.dropna(subset="spearman")
        ranked = ranked[ranked["before_transfer"] & (ranked["criterion"] == "steps")]
        for (source, level), rows in ranked.groupby(["source", "level"], sort=False):
            correlations = _intervals(rows["companion"], rows["spearman"], rows)
            lines.append(f"{source}, at matched steps: rank correlation of T over {level} with {correlations}.")
    return [*lines, "Intervals are 95 %; the rest is in regression.csv and correlations.csv."] if lines else []


def _intervals(names: Iterable[str], values: Iterable[float], rows: pd.DataFrame) -> str:
    """Name numbers with their intervals, where these are known."""
    texts = []
    for name, value, lower, upper in zip(names, values, rows["lower"], rows["upper"], strict=True):
        texts.append(f"{name} {value:+.2f}" + ("" if math.isnan(lower) else f" ({lower:+.2f} to {upper:+.2f})"))
    return ", ".join(texts)


def _few(names: Iterable[str]) -> str:
    """Name three at most, and say how many more there are."""
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:3]) + f" and {len(unique) - 3} more" * (len(unique) > 3)


def ratio(value: float) -> str:
    """Write T with two decimals, or as many digits as it has before the point."""
    if math.isnan(value):
        return ""
    return "∞" if math.isinf(value) else f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def step_text(step: float) -> str:
    """Write a step, or a mean of some; an unknown one is empty."""
    return "" if math.isnan(step) else f"{step:,.0f}" if step == int(step) else f"{step:,.1f}"
