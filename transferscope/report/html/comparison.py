"""The page of a comparison: for each layer of one network the closest of the other, and the heatmaps."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from transferscope.report.html.parts import (
    Column,
    Made,
    Page,
    Section,
    Table,
    number,
    numbers,
    pictures,
    texts,
    versions_line,
)
from transferscope.report.terminal.comparison import how_to_read
from transferscope.results.comparison import Comparison
from transferscope.runtime.provenance import versions
from transferscope.similarity import MEASURES


def page(comparison: Comparison, wide: Mapping[str, Figure], narrow: Mapping[str, Figure]) -> Page:
    """Return the page of a comparison, with the heatmap of each measure for a window and for a phone."""
    x, y, closest = comparison.x, comparison.y, comparison.closest
    captions = {
        measure: (title_of(measure), f"Layers of {x} from bottom to top, those of {y} from left to right.")
        for measure in comparison.results
    }
    drawn = {picture.name: picture for picture in pictures(captions, wide, narrow)}
    by_measure = {str(measure): rows for measure, rows in closest.groupby("measure", sort=False)}
    answers = [_answer(comparison, measure, rows) for measure, rows in by_measure.items()]
    return Page(
        verb="compare",
        subject=f"{x} and {y}",
        answer=answers[0],
        more=[*answers[1:], *how_to_read(comparison)],
        notes=[],
        sections=[
            Section(
                measure, title_of(measure),
                f"Range: {MEASURES[measure].range}. For each layer of {x} the closest of {y}; click a heading to sort.",
                Table(title_of(measure), _columns(comparison, rows), "compare.nc"),
                pictures=[drawn[measure]] if measure in drawn else [],
            )
            for measure, rows in by_measure.items()
        ],
        made=_made(comparison),
    )  # fmt: skip


def title_of(measure: str) -> str:
    """Return what a measure is called, as a heading."""
    title = MEASURES[measure].title
    return title[:1].upper() + title[1:]


def _answer(comparison: Comparison, measure: str, rows: pd.DataFrame) -> str:
    """Say which layers are most and least alike, of those whose number means something."""
    x, y, title = comparison.x, comparison.y, title_of(measure)
    told = rows[rows["informative"].astype(bool) & rows["value"].notna()]
    if told.empty:
        return f"{title} is not informative for {x} and {y}."
    order = told["value"] * (-1 if measure.endswith("_imbalance") else 1)
    most, least = told.loc[order.idxmax()], told.loc[order.idxmin()]
    text = f"{title}: of the layers of {x}, {most['layer_x']} is most like one of {y} ({_closest(most)})"
    return f"{text}." if len(told) == 1 else f"{text}, {least['layer_x']} least ({_closest(least)})."


def _closest(row: pd.Series) -> str:
    return f"{row['layer_y']}, {row['value']:.3f}"


def _columns(comparison: Comparison, rows: pd.DataFrame) -> list[Column]:
    layers = rows["layer_x"].tolist()
    columns = [
        Column(f"layer of {comparison.x}", layers, [str(place) for place in range(len(rows))], "Sorted by its depth."),
        texts(f"closest of {comparison.y}", rows["layer_y"].tolist()),
        numbers("value", rows["value"].tolist()),
    ]
    if rows["standard_error"].notna().any():
        columns.append(numbers("±", rows["standard_error"].tolist(), "Standard error over images."))
    if rows["p_value"].notna().any():
        cells = ["" if p != p else f"{p:.2g}" for p in rows["p_value"]]
        meaning = "Share of permutations of the images that are at least as similar."
        columns.append(Column("p", cells, rows["p_value"].tolist(), meaning))
    if not rows["informative"].all():
        columns.append(texts("note", ["" if good else "not informative" for good in rows["informative"]]))
    return columns


def _made(comparison: Comparison) -> list[Made]:
    some = next(iter(comparison.results.values()))
    target = comparison.target
    made = [
        Made("Target", f"{target.name}, SHA-256", target.hash),
        Made("Images", f"{target.samples}, of {target.classes} classes"),
        Made("Layers", f"{some.sizes['layer_x']} of {comparison.x}, {some.sizes['layer_y']} of {comparison.y}"),
    ]
    for measure, array in comparison.results.items():
        settings = {name: array.attrs.get(name) for name in ("reduce", "estimator")}
        told = [f"{name} {value}" for name, value in settings.items() if value]
        told += ["standardized"] * bool(array.attrs.get("standardize"))
        made.append(Made(title_of(measure), ", ".join(told)))
    if (reference := comparison.reference) is not None and reference.held_out_accuracy is not None:
        made.append(Made("Scratch network", f"accuracy {number(reference.held_out_accuracy)} on held-out images"))
    return [*made, versions_line(versions())]
