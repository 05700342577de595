"""How many threads of NumPy's and SciPy's linear algebra work on small matrices."""

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

_Item = TypeVar("_Item")
_Found = TypeVar("_Found")

AT_ONCE = 2**26
"""Numbers that the square matrices have together that are worked on side by side: 512 MiB in float64."""


@contextmanager
def suited_to(n_samples: int) -> Iterator[int]:
    """Let square matrices of so many samples be worked on side by side, each by its share of the threads.

    Gives how many of them at once: one for each thread, less where they are large. With more threads a small product
    waits longer than it computes, and on a machine with other work, threads spin for each other.
    """
    threads = max((each["num_threads"] for each in _libraries().select(user_api="blas").info()), default=1)
    at_once = min(threads, max(1, AT_ONCE // n_samples**2))
    with _libraries().limit(limits=threads // at_once, user_api="blas"):
        yield at_once


def side_by_side(function: Callable[[_Item], _Found], items: Iterable[_Item], threads: int) -> Iterator[_Found]:
    """Call a function of each item, in so many threads; yield what it returns, in the order of the items.

    Items are taken as they are needed, so that no more of them are held than there are threads, and one.
    """
    if threads <= 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        at_work: deque[Future[_Found]] = deque()
        for item in items:
            at_work.append(pool.submit(function, item))
            if len(at_work) > threads:
                yield at_work.popleft().result()
        while at_work:
            yield at_work.popleft().result()


@functools.cache
def _libraries() -> Any:
    # Once: looking for the libraries that are loaded takes longer than some scores.
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
