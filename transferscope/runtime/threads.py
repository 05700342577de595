"""How many threads of NumPy's and SciPy's linear algebra work on small matrices."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SMALL = 1000
"""Samples up to which one thread is enough: more wait for each other longer than they compute."""


@contextmanager
def suited_to(n_samples: int) -> Iterator[None]:
    """Let matrices of so many samples be worked on by one thread where they are small, else by as many as there are.

    On a machine with other work, threads of small products spin for each other, and all of it takes three times as
    long.
    """
    if n_samples > SMALL:
        yield
        return
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@functools.cache
def _libraries() -> Any:
    # Once: looking for the libraries that are loaded takes longer than some scores.
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
