"""Numbers as a reader has them."""

import math


def short_number(value: float) -> str:
    """Write a number of at least 0 for a reader: three significant digits, or all before the point; NaN is empty."""
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
