"""The page of a study of parameter transferability: T of each source, its layers, and the pictures."""

import math
from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from transferscope.report.html.parts import (
    Column,
    Made,
    Page,
    Section,
    Table,
    few,
    numbers,
    pictures,
    texts,
    versions_line,
    whole,
)
from transferscope.report.terminal.parameters import (
    NOTHING,
    answer_of,
    association_lines,
    failure_lines,
    how_to_read,
    ratio,
    step_text,
)
from transferscope.results.parameters import CRITERIA, PAPER, ParameterTransfer, over_seeds

MOST_DRAWN = 4
"""Sources whose pictures a page has; those of the others lie beside it."""
_MOST_ANSWERS = 6
_KINDS = {
    "heatmap": (
        "layers by targets",
        "T of each layer on each target; the brighter, the more of the source was kept.",
    ),
    "depth": ("T over depth", "A line for each target and number of images; bands as the legend says."),
    "steps": ("T over steps", "The mean T of all layers as training goes on, for each target."),
}


def page(result: ParameterTransfer, wide: Mapping[str, Figure]) -> Page:
    """Return the page of a study; `wide` has its pictures by the name of the file without its end."""
    table, layers = result.table, over_seeds(result.layers)
    epochs = result.settings["epochs"]
    answers = [
        answer_of(str(source), rows, layers[layers["source"] == source], epochs)
        for source, rows in table.groupby("source", sort=False)
    ]
    more = answers[1:_MOST_ANSWERS]
    if len(answers) > _MOST_ANSWERS:
        more.append(f"And {len(answers) - _MOST_ANSWERS} more sources, in the table.")
    return Page(
        verb="parameters",
        subject=_few([target["name"] for target in result.settings["targets"]]),
        answer=answers[0] if answers else NOTHING,
        more=more,
        notes=few((("", line) for line in failure_lines(result, layers)), "all are in parameters.json."),
        sections=_sections(result, table, layers, wide) if len(table) else [],
        made=_made(result),
    )


def _sections(
    result: ParameterTransfer, table: pd.DataFrame, layers: pd.DataFrame, wide: Mapping[str, Figure]
) -> list[Section]:
    sources = sorted(layers["source"].unique())
    captions, drawn = {}, {}
    for number, source in enumerate(sources[:MOST_DRAWN]):
        for kind, (title, text) in _KINDS.items():
            # A source may be called whatever it likes, what refers to parts of a picture may not.
            captions[f"{kind}-{number}"] = (f"{source}, {title}", text)
            if (figure := wide.get(f"transferability-{source}-{kind}")) is not None:
                drawn[f"{kind}-{number}"] = figure
    rest = len(sources) - MOST_DRAWN
    hint = "Rest the pointer on a point or a cell, or touch it, to read its value."
    if rest > 0:
        hint += f" The pictures of {rest} more source{'s' * (rest > 1)} lie beside this page."
    sections = [
        Section(
            "transfers", "Transfers", "Means over seeds; click a heading to sort.",
            Table("Transfers", _cell_columns(table), "parameters-runs.csv"), lines=how_to_read(result),
        ),
        Section("pictures", "Pictures", hint, pictures=pictures(captions, drawn)),
        Section(
            "layers", "Layers", "Of each transfer, the first layers first; means over seeds.",
            Table("Layers", _layer_columns(layers), "parameters.csv"),
        ),
    ]  # fmt: skip
    if lines := association_lines(result):
        sections.append(Section("associations", "What T goes with", lines=lines))
    return sections


def _cell_columns(table: pd.DataFrame) -> list[Column]:
    return [
        *_keys(table),
        Column("step", [step_text(step) for step in table["step"]], table["step"].tolist(), "Of the optimiser."),
        numbers("loss", table["loss"].tolist(), "Of training, over that of guessing."),
        _ratios("mean T", table["transferability"], table["standard_error"], "Over layers; ± over seeds."),
        _ratios("redraws", table["spread"], meaning="Standard deviation over redrawn initial weights."),
        numbers("accuracy", table["accuracy"].tolist(), "On test images, at the end of training."),
        texts("most transferable", table["most_transferable"].tolist()),
        texts("least", table["least_transferable"].tolist()),
    ]


def _layer_columns(layers: pd.DataFrame) -> list[Column]:
    return [
        *_keys(layers),
        whole("depth", layers["depth"].tolist(), "1 for the first layer."),
        texts("layer", layers["layer"].tolist()),
        _ratios("T", layers["transferability"], layers["standard_error"], "± over seeds."),
        numbers("change", layers["relative_change"].tolist(), "Norm of the change over that of the source's weights."),
        numbers("CKA", layers["cka"].tolist(), "Of the layer's output before and after."),
        numbers("SNR", layers["gradient_snr"].tolist(), "Signal-to-noise ratio of the gradient before the transfer."),
    ]


def _keys(rows: pd.DataFrame) -> list[Column]:
    meaning = "; ".join(f"{name}: {text}" for name, text in CRITERIA.items())
    return [
        texts("source", rows["source"].tolist()),
        texts("target", rows["target"].tolist()),
        whole("images", rows["samples_per_class"].tolist(), "Of each class."),
        texts("at", rows["criterion"].tolist(), f"{meaning}."),
    ]


def _ratios(header: str, values: pd.Series, errors: pd.Series | None = None, meaning: str = "") -> Column:
    known = [math.nan] * len(values) if errors is None else errors
    cells = [
        ratio(value) + ("" if math.isnan(error) else f" ± {ratio(error)}")
        for value, error in zip(values, known, strict=True)
    ]
    return Column(header, cells, values.tolist(), meaning)


def _made(result: ParameterTransfer) -> list[Made]:
    settings = result.settings
    made = [
        Made(
            "Target", f"{target['name']}, {target['classes']} classes, {target['n_test']} test images, SHA-256",
            target["hash"],
        )
        for target in settings["targets"]
    ]  # fmt: skip
    return [
        *made,
        Made("Paper", PAPER),
        Made("Device", settings["device"]),
        Made("Weights of a layer", settings["groups"]),
        versions_line(settings["versions"]),
    ]


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)
