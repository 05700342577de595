"""Workers of Dask: of a scheduler that runs somewhere, or started here."""

import contextlib
import warnings
from concurrent.futures import Executor
from typing import Any

from transferscope.errors import TransferscopeError
from transferscope.runtime.engines.engine import Engine, lines, missing
from transferscope.runtime.engines.naming import LOCAL

_PATIENCE_S = 10.0


class OnDask(Engine):
    """The workers of a Dask scheduler.

    Parameters
    ----------
    address : str
        Of the scheduler; "local" starts one, with `workers` processes, which end with this engine.
    workers : int
        Of a scheduler that is started here.

    Raises
    ------
    TransferscopeError
        Dask is not installed, nobody listens at the address, or no worker is there.
    """

    name = "Dask"
    retries = True  # as often as Dask's allowed-failures says
    lost = "its workers died one after the other, for lack of memory most likely: use a smaller batch"

    def __init__(self, address: str, workers: int = 1) -> None:
        try:
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise missing("dask", error) from error
        self._ends = contextlib.ExitStack()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a port for the dashboard that is taken, and the like
                given: Any = address
                if address == LOCAL:
                    # Processes, for torch's settings are those of a process; one unit at a time in each.
                    given = LocalCluster(
                        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0",
                        silence_logs=50,
                    )  # fmt: skip
                    self._ends.callback(_quietly, given.close)
                self._client = Client(given, timeout=_PATIENCE_S, set_as_default=False)
                self._ends.callback(_quietly, self._client.close)
        except (OSError, ImportError) as error:
            self.close()
            raise TransferscopeError(
                f"Expected Dask's scheduler at {address}, but nobody answers there ({lines(error)}); start one with "
                "`dask scheduler` and workers with `dask worker`, or correct the address"
            ) from error
        try:
            self._client.wait_for_workers(1, timeout=_PATIENCE_S)
        except TimeoutError as error:
            self.close()
            raise TransferscopeError(
                f"Expected workers at Dask's scheduler {address}, but it has none; start some with "
                f"`dask worker {address}`"
            ) from error
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
        """How many threads there are now."""
        return sum(self._client.nthreads().values())

    def close(self) -> None:
        """Let the workers go, and end those that were started here."""
        self._ends.close()


def _quietly(close: Any) -> None:
    """Close what may be gone already."""
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        close()
