"""A comparison on the terminal: what is known and no more, and names as they are."""

import pytest
from comparisons import comparison, printed, similarity

from transferscope.results.summary import Reference

pytestmark = pytest.mark.bounds


def test_the_table_shows_what_is_known_and_no_more():
    plain = printed(comparison(similarity([[0.25, 0.5]], "rsa")))
    assert "RSA" in plain
    assert ["a", "w", "0.500"] in [line.split() for line in plain.splitlines()]
    for absent in ("±", " p ", "not informative", "nan", "permutations"):
        assert absent not in plain
    reference = Reference("compact residual network", 0.5, 200, 80, 31, "early")
    full = printed(
        comparison(
            similarity(
                [[0.25, 0.5]], informative=[[False, False]], standard_error=[[0.125, 0.0625]], p_value=[[1, 0.04]]
            ),
            reference=reference,
        )
    )
    assert ["a", "w", "0.500", "0.062", "0.04", "not", "informative"] in [line.split() for line in full.splitlines()]
    assert "90 images of shells" in full
    assert "compact residual network, trained on 80 of them for 31 epochs (early), accuracy 0.500 on 200" in " ".join(
        full.split()
    )


def test_names_that_look_like_markup_are_printed_as_they_are():
    array = similarity([[0.5]], names_x=["[red]a[/red]"], names_y=["[b]"])
    assert ["[red]a[/red]", "[b]", "0.500"] in [line.split() for line in printed(comparison(array)).splitlines()]
