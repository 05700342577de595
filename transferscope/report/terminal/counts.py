"""Counts for people."""

import math


def short_count(number: float) -> str:
    """Write a count with three significant digits and a unit: 48.1M; NaN as "unknown"."""
    value = float(number)
    if math.isnan(value):
        return "unknown"
    for unit in ("", "k", "M", "G", "T"):
        # From here on three digits round to 1000, which is 1 of the next unit.
        if value < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}P"
