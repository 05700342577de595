import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from transferscope.runtime.threads import side_by_side, suited_to


def blas_threads():
    np.eye(2) @ np.eye(2)
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}


@pytest.mark.parametrize(
    ("n_samples", "at_once", "each"), [(10, 6, 1), (2**12, 4, 1), (4500, 3, 2), (2**13, 1, 6), (10**6, 1, 6)]
)
def test_matrices_share_the_threads_and_then_everything_is_as_before(n_samples, at_once, each):
    with threadpool_limits(6, user_api="blas"):
        with suited_to(n_samples) as free:
            assert blas_threads() == {each}
            assert free == at_once
        assert blas_threads() == {6}


def test_fewer_matrices_than_threads_have_more_threads_each():
    with threadpool_limits(6, user_api="blas"), suited_to(10, 2) as free:
        assert (free, blas_threads()) == (2, {3})


def test_who_comes_second_works_alone_and_in_the_end_everything_is_as_before():
    with threadpool_limits(6, user_api="blas"):
        first, second = suited_to(10), suited_to(10)
        assert (first.__enter__(), second.__enter__()) == (6, 1)
        first.__exit__(None, None, None)
        second.__exit__(None, None, None)
        assert blas_threads() == {6}


def test_threads_have_the_settings_of_who_starts_them():
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        list(side_by_side(lambda x: x * np.float32(1e30), [np.full(2, 1e30, np.float32)] * 2, 2))


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
