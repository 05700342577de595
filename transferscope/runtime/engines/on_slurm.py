"""Jobs of SLURM, through submitit: units that are submitted together become one array job."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Executor, Future
from pathlib import Path
from typing import Any

from transferscope.errors import InputError, TransferscopeError
from transferscope.runtime.engines.engine import Engine, lines, missing
from transferscope.runtime.store import home

_GATHERED_S = 0.2
"""How long units are gathered for an array job."""
_ASKED_EVERY_S = 2.0
_NAMES = {
    "partition": "slurm_partition", "account": "slurm_account", "qos": "slurm_qos", "constraint": "slurm_constraint",
    "gpus": "gpus_per_node", "cpus": "cpus_per_task", "mem": "slurm_mem", "time": "timeout_min",
    "jobs": "slurm_array_parallelism",
}  # fmt: skip
"""What submitit calls the options of `naming.SLURM_OPTIONS`."""
_LOCAL = ("gpus", "cpus", "time")


class OnSlurm(Engine):
    """Jobs of SLURM, each of which carries out one unit.

    Parameters
    ----------
    options : mapping
        Those of `naming.SLURM_OPTIONS`. ``folder`` is where submitit keeps its files, which every machine has to see;
        by default in the cache. With ``cluster=local`` jobs are processes of this machine, to try it out.

    Raises
    ------
    TransferscopeError
        submitit is not installed, or there is no SLURM here.
    InputError
        It refuses the options.
    """

    name = "SLURM"
    lost = (
        "its job ended without a result, for lack of memory, time or disk most likely: ask for more with mem= or time="
    )

    def __init__(self, options: Mapping[str, str | int]) -> None:
        try:
            import submitit
        except ImportError as error:
            raise missing("slurm", error) from error
        # Without SLURM's accounting it says so whenever it asks, and asks in another way.
        logging.getLogger("submitit").setLevel(logging.ERROR)
        cluster = str(options.get("cluster", "slurm"))
        folder = Path(str(options.get("folder", home() / "slurm"))).absolute()
        try:
            auto = submitit.AutoExecutor(folder=folder, cluster=cluster)
            known = _NAMES if cluster == "slurm" else {name: _NAMES[name] for name in _LOCAL}
            given = {known[name]: value for name, value in options.items() if name in known}
            auto.update_parameters(**{"timeout_min": 60, "name": "transferscope", **given})
        except RuntimeError as error:
            raise TransferscopeError(
                f"Expected SLURM on this machine for `on`, but there is none ({lines(error)}); run it where `sbatch` "
                "is, or try it out with slurm:cluster=local"
            ) from error
        except (TypeError, ValueError, AssertionError) as error:
            raise InputError(f"Expected options that SLURM knows after 'slurm:' in `on`, but {lines(error)}") from error
        self._executor = _Batches(auto, folder, 0.05 if cluster != "slurm" else _ASKED_EVERY_S)
        self._most = 10**6 if cluster == "slurm" else os.cpu_count() or 1
        self.dashboard = f"squeue --me, and logs in {folder}"

    @property
    def executor(self) -> Executor:
        """What units are submitted to."""
        return self._executor

    @property
    def most(self) -> int:
        """Everything at once, for SLURM has the queue; processes of this machine have none."""
        return self._most

    def close(self) -> None:
        """Cancel the jobs."""
        self._executor.shutdown(cancel_futures=True)


class _Batches(Executor):
    """submitit's jobs as futures: gathered for an instant, submitted as an array, asked for until they end."""

    def __init__(self, jobs: Any, folder: Path, asked_every: float) -> None:
        self._jobs = jobs
        self._folder = folder
        self._asked_every = asked_every
        self._lock = threading.Lock()
        self._waiting: list[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = []
        self._running: dict[Future[Any], Any] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call with the next array job."""
        future: Future[Any] = Future()
        with self._lock:
            self._waiting.append((future, fn, args))
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, daemon=True)
                self._thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; cancel the jobs of those that have not ended."""
        with self._lock:
            self._closed = True
            running = list(self._running.items())
            for future, *_ in self._waiting:
                future.cancel()
            self._waiting.clear()
        if cancel_futures:
            for _, job in running:
                with contextlib.suppress(Exception):  # it ends as it likes
                    job.cancel(check=False)
        if self._thread is not None and wait:
            self._thread.join(5)

    def _serve(self) -> None:
        while not self._closed:
            time.sleep(min(_GATHERED_S, self._asked_every))
            with self._lock:
                gathered, self._waiting = self._waiting, []
            if gathered:
                self._begin([each for each in gathered if each[0].set_running_or_notify_cancel()])
            for future, job in list(self._running.items()):
                self._settle(future, job)
            if self._running and not self._waiting:
                time.sleep(self._asked_every)

    def _begin(self, gathered: list[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]]) -> None:
        try:
            with self._jobs.batch():
                jobs = [self._jobs.submit(fn, *args) for _, fn, args in gathered]
        except Exception as error:  # sbatch's own words, or a disk that is full
            said = (
                f"SLURM does not take the jobs, with their files in {self._folder} ({lines(error)}); what has ended is "
                "kept, and the same call goes on from there"
            )
            for future, *_ in gathered:
                future.set_exception(TransferscopeError(said))
            return
        with self._lock:
            self._running.update({future: job for (future, *_), job in zip(gathered, jobs, strict=True)})

    def _settle(self, future: Future[Any], job: Any) -> None:
        """Hand on what a job returned, if it has ended."""
        try:
            if not job.done():
                return
            found, error = job.result(), None
        except Exception as raised:  # what the job raised, or that it left nothing
            found, error = None, raised
        with self._lock:
            self._running.pop(future, None)
        if self._closed:
            future.set_exception(CancelledError())
        elif error is None:
            future.set_result(found)
        else:
            future.set_exception(error)
