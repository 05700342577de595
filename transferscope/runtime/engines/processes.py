"""Processes of this machine, of the standard library: each with its share of the cores and a GPU of its own."""

import logging
import multiprocessing
import os
import signal
import threading
import warnings
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from transferscope.errors import TransferscopeError
from transferscope.runtime.engines.engine import Engine
from transferscope.runtime.engines.gpus import VARIABLE, one_each


class Processes(Engine):
    """`workers` processes; they end with this one, however it ends.

    Parameters
    ----------
    workers : int
        How many.
    threads : int, optional
        Of torch and NumPy in each; by default its share of those of this process.
    spread : bool
        Whether each gets one GPU of several for its own.
    """

    name = "a process"
    lost = "its process died, for lack of memory most likely: use fewer jobs or a smaller batch"

    def __init__(self, workers: int, *, threads: int | None = None, spread: bool = False) -> None:
        self.workers = workers
        self._threads = max(1, torch.get_num_threads() // workers) if threads is None else threads
        self._spread = spread
        self._before = set(multiprocessing.active_children())
        self._pool, self._started = self._start(workers)
        self._running = workers

    @property
    def executor(self) -> Executor:
        """What units are submitted to."""
        return self._pool

    @property
    def most(self) -> int:
        """As many as there are: of a pool that breaks, none is under suspicion that has not begun."""
        return self._running

    @property
    def size(self) -> int:
        """How many processes were asked for."""
        return self.workers

    def renew(self, *, alone: bool) -> None:
        """Start again after a process died, which breaks the pool.

        Raises
        ------
        TransferscopeError
            None of the processes has ever started.
        """
        if self._started.exception() is not None:
            raise TransferscopeError(
                f"The {self.workers} processes for `jobs` cannot be started; a script that asks for several has to be "
                "a file and needs `if __name__ == '__main__':` around its calls. Or use jobs=1"
            ) from self._started.exception()
        self.close()
        self._running = 1 if alone else self.workers
        self._pool, self._started = self._start(self._running)

    def close(self) -> None:
        """End all processes: nobody waits for a unit whose result nobody will read."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - self._before:
            process.terminate()
            process.join()

    def _start(self, workers: int) -> tuple[ProcessPoolExecutor, "Future[int]"]:
        # A forked process cannot use CUDA, nor torch's threads safely.
        context = multiprocessing.get_context("spawn")
        devices: Any = None
        if self._spread and (gpus := one_each(workers)):
            devices = context.SimpleQueue()
            for gpu in gpus:
                devices.put(gpu)
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(self._threads, devices))
        return pool, pool.submit(os.getpid)


def _begin(threads: int, devices: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one decides
    warnings.simplefilter("ignore")  # likewise, what is said and how
    logging.getLogger("transferscope").addHandler(logging.NullHandler())
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if devices is not None:  # before CUDA is first asked for anything
        os.environ[VARIABLE] = devices.get()
    torch.set_num_threads(threads)
    threadpool_limits(threads)  # NumPy's and SciPy's threads are others than torch's


def _end_with(parent: Any) -> None:
    """Leave no process behind when the first one was killed."""
    parent.join()
    os._exit(1)
