"""What pictures of a ranking draw: its cuts, source by source, and what each of them says."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.colors import to_rgb

from transferscope.errors import InputError
from transferscope.results.pilots import Pilot
from transferscope.results.ranking import Ranking
from transferscope.results.recommendation import Recommendation

MOST_CURVES = 10
"""Sources that have a colour: as many as can be told apart."""
OTHERS: Mapping[str, Any] = {"color": "0.8", "linewidth": 0.5}
"""How the rest are drawn."""


def check(ranking: object) -> None:
    """Say what was expected where something is no ranking."""
    if not isinstance(ranking, Ranking):
        raise InputError(
            f"Expected `ranking` to be what `rank` or `load_ranking` returns, but got {type(ranking).__name__}"
        )


def cuts_of(ranking: Ranking) -> pd.DataFrame:
    """Return every cut with its expected accuracy."""
    check(ranking)
    return ranking.cuts


def protocols_of(ranking: Ranking) -> dict[str, str]:
    """Return every source that is recommended, best first, with its protocol."""
    return {pick.source: pick.protocol for pick in ranking.recommendations if pick.layer is not None}


def curves_of(cuts: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Return the cuts of each source by each protocol, from the first layer to the last."""
    # At once: with hundreds of sources, looking for each of them among all cuts takes longer than drawing.
    return {(str(s), str(p)): rows for (s, p), rows in cuts.sort_values("depth").groupby(["source", "protocol"])}


def says(cuts: pd.DataFrame) -> list[str]:
    """Say what each cut is and promises."""
    return [
        _text(row.source, row.protocol, row.layer, row.depth, row.depths, row.expected_accuracy, row.lower, row.upper)
        for row in cuts.itertuples()
    ]


def says_pick(pick: Recommendation) -> str:
    """Say what a recommendation is and promises."""
    return _text(
        pick.source, pick.protocol, pick.layer or "", pick.depth, pick.depths, pick.expected_accuracy, *pick.interval
    )


def says_pilot(pilot: Pilot) -> str:
    """Say what a pilot is and measured."""
    return (
        f"{pilot.source} · {pilot.protocol} · depth {pilot.depth}, measured with {pilot.samples} images: "
        f"{pilot.accuracy:.3f} ± {pilot.standard_error:.3f}"
    )


def _text(
    source: str, protocol: str, layer: str, depth: int, depths: int, accuracy: float, lower: float, upper: float
) -> str:
    where = source if protocol == "scratch" else f"{source} · {protocol} · {layer} ({depth}/{depths})"
    return f"{where}: {accuracy:.3f} [{lower:.3f}, {upper:.3f}]"


def whitened(colour: Any, white: float) -> tuple[float, float, float]:
    """Mix a colour with a share of white."""
    red, green, blue = ((1 - white) * part + white for part in to_rgb(colour))
    return red, green, blue
