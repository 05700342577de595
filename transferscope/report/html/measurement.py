"""The page of a measurement: what was best, what each transfer gave and cost, and the pictures."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from transferscope.report.html.parts import (
    Column,
    Made,
    Page,
    Section,
    Table,
    costs,
    few,
    pictures,
    sizes,
    texts,
    versions_line,
    whole,
    with_errors,
)
from transferscope.report.terminal.measurement import best_by_protocol, failure_lines, how_to_read, no_answer
from transferscope.results.measurement import Measurement, judged_by, variant
from transferscope.runtime.metrics import ACCURACY, CLASSIFICATION, OF_EACH, Metric, outputs
from transferscope.runtime.numbers import short_number

_CAPTIONS = {
    "accuracy-by-samples": (
        "{} and images",
        "Each protocol at its best depth, over the training images of {}.",
    ),
    "accuracy-by-depth": ("{} and depth", "Each source and protocol over the depth of the cut."),
    "accuracy-by-seconds": ("{} and seconds", "A point for each protocol, depth and number of images."),
    "accuracy-by-energy": ("{} and energy", "The same over the electricity that the transfer used."),
}
_BANDS = " Bands are one standard error over seeds to either side."


def page(measurement: Measurement, wide: Mapping[str, Figure]) -> Page:
    """Return the page of a measurement; `wide` has its pictures by the name of the file without its end."""
    table, best, settings = measurement.table, best_by_protocol(measurement), measurement.settings
    banded = bool(table["standard_error"].notna().any())
    metric, of_each = measurement.metric, OF_EACH[measurement.metric.task]
    over = ("accuracy-by-samples", "accuracy-by-depth")
    captions = {
        name: (title.format(metric.heading), text.format(of_each) + _BANDS * (banded and name in over))
        for name, (title, text) in _CAPTIONS.items()
    }
    plain = metric.task == CLASSIFICATION
    sections = []
    if len(best):
        sections = [
            Section(
                "best", "The best of each protocol", "Click a heading to sort.",
                Table("The best of each protocol", _columns(best), "measurement.csv", _top(best)),
                lines=[line for line in how_to_read(measurement, best) if line != settings["energy"]],
            ),
            Section(
                "pictures", "Pictures", "Rest the pointer on a point, or touch it, to read its value.",
                pictures=pictures(captions, wide),
            ),
            Section(
                "all", "Everything that was measured", f"The {_best(metric)} first; means over seeds.",
                Table("Everything that was measured", _columns(_ordered(table)), "measurement.csv"),
            ),
        ]  # fmt: skip
    if len(measurement.networks):
        sections.append(_networks(measurement.networks))
    return Page(
        verb="measure",
        subject=settings["target"],
        answer=_answer(best) or no_answer(measurement),
        more=[
            f"{len(measurement.runs):,} transfers were run; {'accuracies' if plain else 'figures'} are those on "
            f"{settings['n_test']:,} test images of {outputs(metric.task, settings['classes'])}, which nothing was "
            "trained or chosen on."
        ],
        notes=few((("", line) for line in failure_lines(measurement)), "all are in runs.csv."),
        sections=sections,
        made=[
            Made("Target", f"{settings['target']}, SHA-256", settings["target_hash"]),
            Made("Device", settings["device"]),
            Made("Energy", settings["energy"]),
            versions_line(settings["versions"]),
        ],
    )


def _answer(best: pd.DataFrame) -> str:
    if best.empty:
        return ""
    metric = judged_by(best)
    top = best.loc[best[metric.column].idxmax()]
    error = "" if top["standard_error"] != top["standard_error"] else f" ± {top['standard_error']:.3f}"
    where = "" if top["protocol"] in ("fne", "scratch") or not top["layer"] else f" after {top['layer']}"
    protocol = variant(best.loc[[top.name]]).iloc[0]
    return (
        f"The {_best(metric)} transfer: {top['source']} by {protocol}{where}, with {top['samples_per_class']} images "
        f"of {OF_EACH[metric.task]}: {metric.title} {top[metric.column]:.3f}{error} in "
        f"{short_number(top['seconds'])} s."
    )


def _best(metric: Metric) -> str:
    return "most accurate" if metric is ACCURACY else "best"


def _top(best: pd.DataFrame) -> set[int]:
    """Return the place of the most accurate row."""
    return {int(best[judged_by(best).column].to_numpy().argmax())}


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    judged = judged_by(table).column
    return table.dropna(subset=judged).sort_values(judged, ascending=False, kind="stable")


def _columns(rows: pd.DataFrame) -> list[Column]:
    metric = judged_by(rows)
    depths = [f"{depth}/{depths}" for depth, depths in zip(rows["depth"], rows["depths"], strict=True)]
    columns = [
        whole("images", rows["samples_per_class"].tolist(), f"Of {OF_EACH[metric.task]}, to train on."),
        texts("protocol", variant(rows).tolist()),
        texts("source", rows["source"].tolist()),
        texts("cut after", rows["layer"].where(rows["protocol"] != "fne", "").tolist()),
        Column("depth", depths, (rows["depth"] / rows["depths"]).tolist(), "Stages that are kept or frozen."),
        with_errors(metric.title, rows[metric.column].tolist(), rows["standard_error"].tolist(),
                    "Mean over seeds ± standard error over them."),
        whole("seeds", rows["n_seeds"].tolist()),
        costs("seconds", rows["seconds"].tolist(), "Of one transfer."),
    ]  # fmt: skip
    if rows["kwh"].notna().any():
        columns += [costs("kWh", rows["kwh"].tolist()), costs("kg CO2e", rows["kgco2e"].tolist())]
    return columns


def _networks(rows: pd.DataFrame) -> Section:
    columns = [
        texts("source", rows["source"].tolist()),
        whole("depth", rows["depth"].tolist()),
        texts("cut after", rows["layer"].fillna("").tolist()),
        sizes("params", rows["params"].tolist()),
        sizes("FLOPs", rows["flops"].tolist(), "For one image."),
    ]
    if "latency" in rows:
        milliseconds = (1000 * rows["latency"]).tolist()
        columns.append(costs("milliseconds", milliseconds, "One image through the network, measured here."))
    title = "The networks, cut at each depth"
    return Section("networks", title, table=Table(title, columns, "networks.csv"))
