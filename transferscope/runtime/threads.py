"""How many threads of NumPy's and SciPy's linear algebra work on small matrices."""

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

_Item = TypeVar("_Item")
_Found = TypeVar("_Found")

SMALL = 1000
"""Samples up to which one thread is enough: more wait for each other longer than they compute."""


@contextmanager
def suited_to(n_samples: int) -> Iterator[int]:
    """Let matrices of so many samples be worked on by one thread where they are small, else by as many as there are.

    Gives how many such matrices can be worked on side by side, see `side_by_side`. On a machine with other work,
    threads of small products spin for each other, and all of it takes three times as long.
    """
    if n_samples > SMALL:
        yield 1
        return
    with _libraries().limit(limits=1, user_api="blas") as before:
        yield max(before.get_original_num_threads()["blas"] or 1, 1)


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
