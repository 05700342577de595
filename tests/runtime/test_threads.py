import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from transferscope.runtime.threads import SMALL, side_by_side, suited_to


def blas_threads():
    np.eye(2) @ np.eye(2)
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}


@pytest.mark.parametrize(("n_samples", "limited"), [(10, True), (SMALL, True), (SMALL + 1, False)])
def test_small_matrices_have_one_thread_and_then_everything_is_as_before(n_samples, limited):
    before = blas_threads()
    with suited_to(n_samples) as free:
        assert blas_threads() == ({1} if limited else before)
        assert free == (max(before) if limited else 1)
    assert blas_threads() == before


def test_items_are_worked_on_side_by_side_and_come_in_their_order():
    both, taken = threading.Barrier(2, timeout=10), []

    def items():
        for number in range(6):
            taken.append(number)
            yield number

    def meet(number):
        both.wait()  # passes with two threads at work alone
        return number

    found = []
    for number in side_by_side(meet, items(), 2):
        found.append(number)
        assert len(taken) <= len(found) + 2  # no more are held than are worked on, and one
    assert found == list(range(6))
    assert list(side_by_side(str, [1, 2], 1)) == ["1", "2"]
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(lambda number: 1 / number, [1, 0, 1], 2))
