"""Numbers as a reader has them."""

import math

import pytest

from transferscope.runtime.numbers import short_number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.00012345, "0.000123"), (1.5, "1.5"), (99.96, "100"), (123.456, "123"), (999.6, "1,000"),
        (1234567.8, "1,234,568"), (math.nan, ""), (math.inf, "inf"),
    ],
)  # fmt: skip
def test_no_digit_before_the_point_is_lost_and_none_behind_three(value: float, text: str) -> None:
    assert short_number(value) == text
