"""What pictures of parameter transferability draw: the rows of one source, and a scale for T."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import LogLocator, NullFormatter

from transferscope.errors import InputError
from transferscope.report.plots.drawing import selected
from transferscope.report.plots.naming import short, short_layers
from transferscope.results.parameters import ParameterTransfer, over_seeds

T = "transferability T"


def layers_of(transferability: object, source: str | None) -> tuple[str, pd.DataFrame]:
    """Return the source, where none was named the only one, and the table of layers."""
    layers = table_of(transferability, "layers")
    sources = layers["source"].unique()
    if source is None and len(sources) != 1:
        raise InputError(f"Expected `source` to be one of {', '.join(map(str, sources)) or 'none'}, but got None")
    return str(sources[0]) if source is None else source, layers


def table_of(transferability: object, name: str) -> pd.DataFrame:
    """Return a table of a result, or the table that was given."""
    table = getattr(transferability, name) if isinstance(transferability, ParameterTransfer) else transferability
    if not isinstance(table, pd.DataFrame) or "transferability" not in table:
        raise InputError(
            f"Expected `transferability` to be what `ts.parameters.measure` returns, or its `{name}`, but got "
            f"{'a table with other columns' if isinstance(table, pd.DataFrame) else type(table).__name__}"
        )
    return table


def chosen(
    layers: pd.DataFrame, source: str, criterion: str, samples_per_class: int | None
) -> tuple[pd.DataFrame, dict[str, str], str]:
    """Return rows over seeds at one number of images for each target, the targets' labels, and a line for titles."""
    rows = selected(layers, source=source)
    sizes = {target: set(group["samples_per_class"]) for target, group in rows.groupby("target")}
    common = set.intersection(*sizes.values())
    rows = over_seeds(selected(rows, criterion=criterion))
    if samples_per_class is None and not common:
        most = {target: max(counts) for target, counts in sizes.items()}
        rows = rows[rows["samples_per_class"] == rows["target"].map(most)]
        return rows, {target: f"{short(target)} ({size})" for target, size in most.items()}, "(images of each class)"
    size = max(common) if samples_per_class is None else samples_per_class
    rows = selected(rows, samples_per_class=size)
    return rows, {target: short(target) for target in rows["target"].unique()}, f"{size} images of each class"


def layer_names(rows: pd.DataFrame, most: int) -> pd.Series:
    """Return depth to name of the layer, with `most` letters."""
    names = rows.drop_duplicates("depth").set_index("depth")["layer"].sort_index()
    return pd.Series(short_layers(names, most), names.index)


def scale(values: np.ndarray) -> Normalize:
    """Return colours for what is finite, logarithmic over more than a decade."""
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    return LogNorm(low, high) if low > 0 and high > 10 * low else Normalize(low, high)


def logarithmic(ax: Axes) -> None:
    """Make T logarithmic, with ticks that are plain numbers."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
