"""Pilots on a page, below whichever answer they made surer."""

from collections.abc import Sequence

from transferscope.report.html.parts import Section, Table, costs, texts, whole, with_errors
from transferscope.results.pilots import Pilot
from transferscope.runtime.metrics import Metric


def pilot_sections(pilots: Sequence[Pilot], metric: Metric) -> list[Section]:
    """Return a section with all pilots, in the order in which they were run; nothing where there are none."""
    if not pilots:
        return []
    errors = [pilot.standard_error for pilot in pilots]
    columns = [
        texts("source", [pilot.source for pilot in pilots]),
        texts("protocol", [pilot.protocol for pilot in pilots]),
        whole("depth", [pilot.depth for pilot in pilots]),
        whole("images", [pilot.samples for pilot in pilots], "Trained on."),
        with_errors(metric.title, [pilot.accuracy for pilot in pilots], errors,
                    "On images that it was not trained on, with the standard error of so many images."),
        costs("seconds", [pilot.seconds for pilot in pilots], "When it was run; later runs have it from the cache."),
    ]  # fmt: skip
    hint = (
        "Real transfers that were run to make the answer surer. What they measured is part of all that is expected on "
        "this page."
    )
    return [Section("pilots", "Pilots", hint, Table("Pilots", columns))]
