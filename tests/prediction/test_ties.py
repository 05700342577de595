"""When which of two candidates is better is left open."""

import pytest

from transferscope.prediction.ties import is_tie


@pytest.mark.parametrize(("probability", "tied"), [(0.05, False), (0.1, True), (0.5, True), (0.9, True), (0.91, False)])
def test_a_tie_is_a_probability_that_leaves_it_open(probability, tied):
    assert is_tie(probability) is tied
