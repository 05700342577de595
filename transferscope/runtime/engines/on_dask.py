"""Workers of Dask: of a scheduler that runs somewhere, or started here."""

import contextlib
import logging
import math
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor
from importlib import metadata
from typing import Any

from transferscope.errors import TransferscopeError
from transferscope.runtime.engines.engine import Engine, lines, missing
from transferscope.runtime.engines.gpus import VARIABLE, one_each
from transferscope.runtime.engines.naming import LOCAL
from transferscope.runtime.engines.units import own_versions

_PATIENCE_S = 10.0
_COUNTED_EVERY_S = 1.0
"""The scheduler is asked, which would otherwise be asked whenever a unit ends."""
_DESERTED_S = 120.0
"""How long a scheduler may be without any worker: some are started anew, or come with the load."""


class OnDask(Engine):
    """The workers of a Dask scheduler.

    Parameters
    ----------
    address : str
        Of the scheduler; "local" starts one, with `workers` processes, which end with this engine.
    workers : int
        Of a scheduler that is started here.
    spread : bool
        Whether each of these gets one GPU of several for its own.

    Raises
    ------
    TransferscopeError
        Dask is not installed, nobody listens at the address, no worker is there, or one has no transferscope or another
        version of it.
    """

    name = "Dask"
    retries = True  # as often as Dask's allowed-failures says
    lost = "its workers died one after the other, for lack of memory most likely: use a smaller batch"

    def __init__(self, address: str, workers: int = 1, *, spread: bool = False) -> None:
        try:
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise missing("dask", error) from error
        self._address = address
        gpus = one_each(workers) if spread and address == LOCAL else []
        self._ends = contextlib.ExitStack()
        self._ends.enter_context(_without_tracebacks())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a port for the dashboard that is taken, and the like
                given: Any = address
                if address == LOCAL:
                    # Processes, for torch's settings are those of a process; one unit at a time in each. Their memory
                    # has no limit: an equal share of the machine's may be less than torch takes, and Dask stops or ends
                    # workers near theirs.
                    given = LocalCluster(
                        n_workers=0 if gpus else workers, threads_per_worker=1, processes=True, memory_limit=None,
                        dashboard_address=":0", silence_logs=50,
                    )  # fmt: skip
                    self._ends.callback(_quietly, given.close)
                    if gpus:
                        _spread(given, gpus)
                        given.scale(workers)
                self._client = Client(given, timeout=_PATIENCE_S, set_as_default=False)
                self._ends.callback(_quietly, self._client.close)
        except (OSError, ImportError) as error:
            self.close()
            raise TransferscopeError(
                f"Expected Dask's scheduler at {address}, but nobody answers there ({lines(error)}); start one with "
                "`dask scheduler` and workers with `dask worker`, or correct the address"
            ) from error
        try:
            self._client.wait_for_workers(max(1, len(gpus)), timeout=_PATIENCE_S if not gpus else _DESERTED_S)
        except TimeoutError as error:
            self.close()
            raise TransferscopeError(
                f"Expected workers at Dask's scheduler {address}, but it has none; start some with "
                f"`dask worker {address}`"
            ) from error
        try:
            self._check_versions()
        except TransferscopeError:
            self.close()
            raise
        self._threads, self._counted = 0, -math.inf
        self._deserted = math.inf  # since when no worker has been there
        self.dashboard = self._client.dashboard_link or ""
        self._executor: Executor = self._client.get_executor(pure=False)

    @property
    def executor(self) -> Executor:
        """What units are submitted to."""
        return self._executor

    @property
    def most(self) -> int:
        """Two for each thread that there is now, for workers come and go."""
        return max(2, 2 * self.size)

    @property
    def size(self) -> int:
        """How many threads there are now, or were a second ago."""
        if time.monotonic() - self._counted > _COUNTED_EVERY_S:
            self._threads, self._counted = sum(self._client.nthreads().values()), time.monotonic()
        return self._threads

    def check(self) -> None:
        """Raise `TransferscopeError` where the scheduler is gone, or no worker has been there for long."""
        if self._client.status != "running":
            raise TransferscopeError(
                f"Dask's scheduler at {self._address} went away; what has ended is kept, and the same call goes on "
                "from there as soon as it is back"
            )
        if self.size:
            self._deserted = math.inf
            return
        self._deserted = min(self._deserted, time.monotonic())
        if time.monotonic() - self._deserted > _DESERTED_S:
            raise TransferscopeError(
                f"Dask's scheduler has had no worker for {_DESERTED_S:.0f} s; what has ended is kept, and the same "
                "call goes on from there as soon as it has some: their own output says why they ended"
            )

    def _check_versions(self) -> None:
        """Look before anything is sent: what cannot be unpickled ends a worker, and tells nobody."""
        asked = metadata.version, "transferscope"  # of the standard library, which every worker has
        wanted = dict(own_versions())["transferscope"]
        found = self._client.run(*asked, on_error="return")
        there = {f"The worker {address} of Dask": version for address, version in found.items()}
        try:
            there["Dask's scheduler"] = self._client.run_on_scheduler(*asked)
        except Exception as error:  # one may not allow it
            there["Dask's scheduler"] = error
        for who, version in there.items():
            has = "none" if isinstance(version, ImportError) else version
            if isinstance(has, str) and has != wanted:
                said = "no transferscope" if has == "none" else f"transferscope {has}"
                raise TransferscopeError(
                    f"{who} has {said}, but the process that asks has {wanted}; install {wanted} there"
                )

    def close(self) -> None:
        """Let the workers go, and end those that were started here."""
        self._ends.close()


def _spread(cluster: Any, gpus: list[str]) -> None:
    """Have each worker that a cluster is going to start see a GPU of its own."""
    specify = cluster.new_worker_spec

    def with_gpu() -> dict[Any, Any]:
        return {
            name: {**worker, "options": {**worker["options"], "env": {VARIABLE: gpus[int(name) % len(gpus)]}}}
            for name, worker in specify().items()
        }

    cluster.new_worker_spec = with_gpu


@contextlib.contextmanager
def _without_tracebacks() -> Iterator[None]:
    """Keep Dask's client from printing tracebacks of a connection that is lost: it is said in a sentence."""
    logger = logging.getLogger("distributed.client")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _quietly(close: Any) -> None:
    """Close what may be gone already."""
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        close()
