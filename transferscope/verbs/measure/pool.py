"""Runs of a grid one after the other in this process, or side by side in several, each result as it comes."""

import multiprocessing
import os
import pickle
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from transferscope.errors import InputError, TransferscopeError, TransferscopeWarning
from transferscope.verbs.running.executor import Executor, Setup
from transferscope.verbs.running.run import PROTOCOLS, Run

Row = dict[str, Any]
Unit = tuple[Run, ...]


def carry_out(
    executor: Executor, groups: Sequence[Sequence[Run]], *, out_of_time: Callable[[], bool]
) -> Generator[list[Row]]:
    """Carry out the runs of all groups in this process, in order, until they are done or time is up.

    Yields the rows of each run, or of runs that were trained together, as soon as they have ended.
    """
    for unit in (unit for group in groups for unit in units(group)):
        if out_of_time():
            return
        yield executor.execute(unit)


def carry_out_side_by_side(
    setup: Setup, groups: Sequence[Sequence[Run]], *, out_of_time: Callable[[], bool]
) -> Generator[list[Row]]:
    """Carry out the runs of all groups in `setup.jobs` processes; rows come in the order in which they are ready.

    The first of a group goes ahead, because it leaves in the cache what the others of its group need. What was at work
    when a process died is tried once more, with nothing beside it, and counts as failed when that dies too.

    Raises
    ------
    InputError
        What the runs share cannot be sent to a process.
    TransferscopeError
        The processes do not start.
    """
    ready = deque((first, others) for first, *others in map(units, groups))
    suspects: deque[tuple[Unit, list[Unit]]] = deque()
    while (ready or suspects) and not out_of_time():
        alone = bool(suspects)
        queue, most = (suspects, 1) if alone else (ready, setup.jobs)
        with _workers(setup) as pool:
            started = pool.submit(os.getpid)
            under_way: dict[Future[tuple[list[Row], list[str]]], tuple[Unit, list[Unit]]] = {}
            try:
                while under_way or (queue and not out_of_time()):
                    while queue and len(under_way) < most and not out_of_time():
                        under_way[pool.submit(_execute, queue[0][0])] = queue[0]
                        queue.popleft()
                    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                        rows, notes = future.result()
                        _, others = under_way.pop(future)
                        for note in notes:
                            warnings.warn(note, TransferscopeWarning, stacklevel=2)
                        ready.extendleft((other, []) for other in reversed(others))
                        yield rows
            except BrokenProcessPool as error:
                if started.exception() is not None:
                    raise TransferscopeError(
                        f"The {setup.jobs} processes for `jobs` cannot be started; a script that asks for several has "
                        "to be a file and needs `if __name__ == '__main__':` around its calls. Or use jobs=1"
                    ) from error
                if not alone or not under_way:  # which of the processes died is not known
                    suspects.extend(under_way.values())
                    continue
                ((unit, others),) = under_way.values()
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
    # By a file: a process that dies before it has read so much from its pipe would leave this one writing for good.
    path = setup.states / "setup.pickle"
    try:
        data = pickle.dumps(setup)
    except Exception as error:  # whatever a dataset of the caller's holds
        raise InputError(
            f"Expected a target that can be sent to other processes, for `jobs`, but it cannot ({error}); use jobs=1"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    # A forked process cannot use CUDA, nor torch's threads safely.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(setup.jobs, mp_context=context, initializer=_start, initargs=(path,))
    before = set(multiprocessing.active_children())
    try:
        yield pool
    finally:
        # Nobody waits for a run whose result nobody will read.
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
            process.join()
        path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()  # unless states of interrupted runs are there


_executor: Executor | None = None


def _start(path: Path) -> None:
    global _executor
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one decides
    warnings.simplefilter("ignore")  # likewise, what is said and how
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    setup: Setup = pickle.loads(path.read_bytes())
    if setup.threads is not None:
        torch.set_num_threads(setup.threads)
        threadpool_limits(setup.threads)  # NumPy's and SciPy's threads are others than torch's
    _executor = Executor(setup)


def _end_with(parent: Any) -> None:
    """Leave no process behind when the first one was killed."""
    parent.join()
    os._exit(1)


def _execute(unit: Unit) -> tuple[list[Row], list[str]]:
    """Return the rows, and what the first process is to warn of."""
    assert _executor is not None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TransferscopeWarning)
        rows = _executor.execute(unit)
    return rows, [str(each.message) for each in caught]


def deadline(seconds: float | None) -> Callable[[], bool]:
    """Return a function that says whether so many seconds have passed since now; never, for None."""
    end = None if seconds is None else time.monotonic() + seconds
    return lambda: end is not None and time.monotonic() >= end
