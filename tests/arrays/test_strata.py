"""Images are shared out to classes by one method, whatever they are drawn for."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from transferscope.arrays.strata import apportion

COUNTS = st.lists(st.integers(0, 60), min_size=1, max_size=12).map(np.array)


@given(COUNTS, st.integers(0, 400), st.integers(0, 3), st.booleans())
def test_one_mark_parts_what_is_taken_from_what_is_left(counts, total, least, one_stays):
    """Webster's criterion: no class could give its last image for another's next one and be nearer its share."""
    most = np.maximum(counts - one_stays, 0)
    wanted = apportion(counts, total=total, least=least, most=most)
    lowest = np.minimum(least, most)
    assert (lowest <= wanted).all()
    assert (wanted <= most).all()
    assert wanted.sum() == np.clip(total, lowest.sum(), most.sum())
    given_up, next_up = wanted > lowest, wanted < most
    if given_up.any() and next_up.any():
        last = ((wanted - 0.5) / np.maximum(counts, 1))[given_up].max()
        assert last <= ((wanted + 0.5) / np.maximum(counts, 1))[next_up].min() + 1e-12


@given(COUNTS, st.integers(0, 400))
def test_more_in_all_is_no_less_of_any_class(counts, total):
    assert (apportion(counts, total=total) <= apportion(counts, total=total + 1)).all()


@given(COUNTS, st.floats(0.05, 0.95))
def test_a_share_is_that_of_each_class_by_itself(counts, share):
    wanted = apportion(counts, share=share, most=np.maximum(counts - 1, 0))
    expected = [min(max(n - 1, 0), max(1, round(share * n))) for n in counts.tolist()]
    assert wanted.tolist() == expected
    alone = [int(apportion(np.array([n]), share=share, most=np.array([max(n - 1, 0)]))[0]) for n in counts.tolist()]
    assert alone == expected


def test_random_offsets_round_at_random():
    counts, random = np.array([7, 5, 3]), np.random.default_rng(0)
    drawn = np.array([apportion(counts, total=6, least=0, offset=random.random(3)) for _ in range(4000)])
    shares = 6 / 15 * counts
    assert (np.abs(drawn - shares) < 2).all()
    np.testing.assert_allclose(drawn.mean(axis=0), shares, atol=0.1)
