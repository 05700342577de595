"""Ctrl-C, and SIGTERM that ends a run as Ctrl-C does."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM came, which batch systems send: whoever tidies up after Ctrl-C tidies up after this."""


@contextmanager
def terminable() -> Iterator[list[int]]:
    """Make SIGTERM raise `Terminated` inside the block; yields a list that fills with the signals that came."""
    came: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # where Python knows no signals
        yield came
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


@contextmanager
def held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the end of the block; it has to be short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in _ENDING}
    for number in before:
        signal.signal(number, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in reversed(before.items()):  # Ctrl-C last, which could come here again
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for one in came:
            signal.raise_signal(one)
