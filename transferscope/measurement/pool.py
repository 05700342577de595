"""Runs of a grid one after the other in this process, or side by side in several, each result as it comes."""

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import torch

from transferscope.measurement.executor import Executor, Setup
from transferscope.measurement.plan import PROTOCOLS, Run

Row = dict[str, Any]
Unit = tuple[Run, ...]

_ATTEMPTS = 2


def carry_out(
    executor: Executor, groups: Sequence[Sequence[Run]], *, out_of_time: Callable[[], bool]
) -> Iterator[list[Row]]:
    """Carry out the runs of all groups in this process, in order, until they are done or time is up.

    Yields the rows of each run, or of runs that were trained together, as soon as they have ended.
    """
    for unit in (unit for group in groups for unit in units(group)):
        if out_of_time():
            return
        yield executor.execute(unit)


def carry_out_side_by_side(
    setup: Setup, groups: Sequence[Sequence[Run]], *, out_of_time: Callable[[], bool]
) -> Iterator[list[Row]]:
    """Carry out the runs of all groups in `setup.jobs` processes; rows come in the order in which they are ready.

    The first of a group goes ahead, because it leaves in the cache what the others of its group need. What was at work
    when a process died is tried once more, then it counts as failed.
    """
    ready = deque((first, others) for first, *others in map(units, groups))
    attempts: Counter[Unit] = Counter()
    while ready and not out_of_time():
        with _workers(setup) as pool:
            under_way: dict[Future[list[Row]], tuple[Unit, list[Unit]]] = {}
            try:
                while under_way or (ready and not out_of_time()):
                    while ready and len(under_way) < setup.jobs and not out_of_time():
                        unit, others = ready.popleft()
                        under_way[pool.submit(_execute, unit)] = unit, others
                    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                        rows = future.result()
                        _, others = under_way.pop(future)
                        ready.extendleft((other, []) for other in reversed(others))
                        yield rows
            except BrokenProcessPool:
                # Which of the processes died is not known: all that were at work start again.
                for unit, others in under_way.values():
                    attempts[unit] += 1
                    if attempts[unit] < _ATTEMPTS:
                        ready.appendleft((unit, others))
                        continue
                    ready.extendleft((other, []) for other in reversed(others))
                    reason = "its process died, for lack of memory most likely: use fewer jobs or a smaller batch"
                    yield [setup.row(run) | {"status": f"failed: {reason}"} for run in unit]


def units(group: Sequence[Run]) -> list[Unit]:
    """Divide a group into what is carried out at once: single runs, or all that are trained together."""
    if PROTOCOLS[group[0].protocol].kind == "trained":
        return [tuple(group)]
    return [(run,) for run in group]


@contextmanager
def _workers(setup: Setup) -> Iterator[ProcessPoolExecutor]:
    # A forked process cannot use CUDA, nor torch's threads safely.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(setup.jobs, mp_context=context, initializer=_start, initargs=(setup,))
    before = set(multiprocessing.active_children())
    try:
        yield pool
    finally:
        # Nobody waits for a run whose result nobody will read.
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
            process.join()


_executor: Executor | None = None


def _start(setup: Setup) -> None:
    global _executor
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one decides
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if setup.threads is not None:
        torch.set_num_threads(setup.threads)
    _executor = Executor(setup)


def _end_with(parent: Any) -> None:
    """Leave no process behind when the first one was killed."""
    parent.join()
    os._exit(1)


def _execute(unit: Unit) -> list[Row]:
    assert _executor is not None
    return _executor.execute(unit)


def deadline(seconds: float | None) -> Callable[[], bool]:
    """Return a function that says whether so many seconds have passed since now; never, for None."""
    end = None if seconds is None else time.monotonic() + seconds
    return lambda: end is not None and time.monotonic() >= end
