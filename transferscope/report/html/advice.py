"""The page of advice: which way to take, what each gives and costs, and accuracy against seconds."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from transferscope.report.html.parts import (
    Column,
    Made,
    Page,
    Section,
    Table,
    costs,
    few,
    intervals,
    numbers,
    pictures,
    texts,
    versions_line,
    whole,
)
from transferscope.report.html.pilots import pilot_sections
from transferscope.report.terminal.advice import how_to_read
from transferscope.results.advice import NAMES, Advice
from transferscope.runtime.metrics import metric_of
from transferscope.runtime.provenance import versions

_CAPTIONS = {
    "advice": (
        "Accuracy and seconds",
        "What is expected of each way, with its 80 % interval, over the seconds that it takes on this machine. Above "
        "the dashed line a way comes within the tolerance of the most accurate.",
    )
}


def page(advice: Advice, wide: Mapping[str, Figure], narrow: Mapping[str, Figure]) -> Page:
    """Return the page of advice, with its pictures for a window and for a phone."""
    notes = [("Left out", f"{NAMES.get(each.source, each.source)}: {each.error}") for each in advice.left_out]
    notes += [(f"{failure.source} failed", failure.error) for failure in advice.failed]
    best = {place for place, way in enumerate(advice.ways) if way.protocol == advice.advised}
    reading, energy = how_to_read(advice)
    hint = "Rest the pointer on a point, or touch it, to read its value."
    return Page(
        verb="advise",
        subject=advice.target.name,
        answer=advice.verdict,
        more=[advice.turning, *([advice.hint] if advice.hint else [])],
        notes=few(notes, "all are in advice.json."),
        sections=[
            Section("ways", "Ways to transfer it", table=Table("Ways to transfer it", _columns(advice), marked=best),
                    lines=[reading]),
            Section("pictures", "Accuracy and cost", hint, pictures=pictures(_CAPTIONS, wide, narrow)),
            *pilot_sections(advice.pilots, metric_of(advice.metric)),
        ],
        made=[
            Made("Target", f"{advice.target.name}, SHA-256", advice.target.hash),
            Made("Source", f"{advice.source}, {advice.depths} stages"),
            Made("Images", f"{advice.target.samples} looked at, of {advice.target.classes} classes; accuracies and "
                 f"costs are for {advice.samples} to train on"),
            Made("Energy", energy),
            versions_line(versions()),
        ],
    )  # fmt: skip


def _columns(advice: Advice) -> list[Column]:
    ways = advice.ways
    depths = [f"{way.depth}/{advice.depths}" if way.depth else "" for way in ways]
    names = [f"{way.name}{' *' * (way.protocol == advice.advised)}" for way in ways]
    return [
        texts("way", names, "*: advised."),
        texts("protocol", [way.protocol for way in ways], "As measure and transfer call it."),
        texts("cut after", ["" if way.protocol == "fne" else way.layer for way in ways],
              "The last layer that is kept, or frozen."),
        Column("depth", depths, [way.depth for way in ways], "Stages that are kept or frozen, of all stages."),
        numbers("accuracy", [way.expected_accuracy for way in ways], "Expected on new images."),
        intervals("80 % interval", [way.interval for way in ways]),
        costs("seconds", [way.seconds for way in ways], "Of the whole transfer on this machine."),
        costs("kWh", [way.kwh for way in ways]),
        costs("kg CO2e", [way.kgco2e for way in ways]),
        whole("trials", [way.trials for way in ways], "Fits or trainings to choose settings by, included."),
    ]  # fmt: skip
