"""How many threads of NumPy's and SciPy's linear algebra work on small matrices."""

import contextvars
import functools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

_Item = TypeVar("_Item")
_Found = TypeVar("_Found")

AT_ONCE = 2**26
"""Numbers that the square matrices have together that are worked on side by side: 512 MiB in float64."""


_limiting = threading.Lock()


@contextmanager
def suited_to(n_samples: int, count: int | None = None) -> Iterator[int]:
    """Let square matrices of so many samples be worked on side by side, each by its share of the threads.

    Gives how many of them at once: one for each thread, less where they are large or, all in all, `count`. With more
    threads a small product waits longer than it computes, and on a machine with other work, threads spin for each
    other. How many threads there are is a setting of the process: while one caller has it, others get 1.
    """
    if not _limiting.acquire(blocking=False):
        yield 1
        return
    try:
        threads = max((each["num_threads"] for each in _libraries().select(user_api="blas").info()), default=1)
        at_once = min(threads, max(1, AT_ONCE // n_samples**2), count or threads)
        with _libraries().limit(limits=threads // at_once, user_api="blas"):
            yield at_once
    finally:
        _limiting.release()


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
            # What is set for this thread alone, as by `numpy.errstate`, is set there too.
            at_work.append(pool.submit(contextvars.copy_context().run, function, item))
            if len(at_work) > threads:
                yield at_work.popleft().result()
        while at_work:
            yield at_work.popleft().result()


@functools.cache
def _libraries() -> Any:
    # Once: looking for the libraries that are loaded takes longer than some scores.
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
