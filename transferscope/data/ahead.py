"""One batch ahead: a thread makes the next one while this one is being worked on."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")
_END = object()


def ahead(items: Iterable[_T]) -> Iterator[_T]:
    """Yield what `items` gives, in order, each made by a thread while the one before is in use.

    An error in `items` comes out where its item would. What is not asked for any more is not made, but for one.
    """
    waiting = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="transferscope-ahead") as thread:
        made = thread.submit(next, waiting, _END)
        try:
            while (item := made.result()) is not _END:
                made = thread.submit(next, waiting, _END)
                yield item  # type: ignore[misc]  # which is not the end
        finally:
            made.cancel()
