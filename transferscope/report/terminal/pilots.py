"""Pilots on a terminal, below whichever answer they made surer."""

from collections.abc import Sequence

from rich.table import Table

from transferscope.report.terminal.columns import fitted
from transferscope.results.pilots import Pilot
from transferscope.runtime.numbers import short_number

ABOUT_PILOTS = (
    "Pilots: transfers that were really run, measured on images that they were not trained on, with the standard error "
    "of so many images."
)


def pilot_tables(pilots: Sequence[Pilot], width: int) -> list[Table]:
    """Return the pilots, in the order in which they were run; nothing where there are none."""
    if not pilots:
        return []
    return fitted(
        {"pilot": [pilot.source for pilot in pilots]},
        {
            "protocol": [pilot.protocol for pilot in pilots],
            "depth": [str(pilot.depth) for pilot in pilots],
            "images": [str(pilot.samples) for pilot in pilots],
            "measured": [f"{pilot.accuracy:.3f}±{pilot.standard_error:.3f}" for pilot in pilots],
            "seconds": [short_number(pilot.seconds) for pilot in pilots],
        },
        width=width,
        names=["pilot"],
        left=["protocol"],
    )
