"""What every engine offers: an executor, how many units it takes at once, and an end."""

from abc import ABC, abstractmethod
from concurrent.futures import BrokenExecutor, CancelledError, Executor
from types import TracebackType
from typing import Any, Self

from transferscope.errors import TransferscopeError

_LOST = {
    "KilledWorker", "TerminatedWorkerError", "FailedJobError", "UncompletedJobError", "WorkerCrashedError",
    "NodeDiedError", "CommClosedError", "FutureCancelledError",
}  # fmt: skip
"""Errors of engines, by name, that say that a worker went away with its unit."""


class Engine(ABC):
    """Workers that units are handed to; a context manager that leaves none behind.

    Attributes
    ----------
    name
        What people call it.
    lost
        What a worker that went away most likely died of, and what to do, for a message.
    dashboard
        An address to look at, or nothing.
    retries
        Whether the engine itself hands the unit of a lost worker to another one, a few times.
    """

    name = "engine"
    lost = "its worker was lost"
    dashboard = ""
    retries = False

    @property
    @abstractmethod
    def executor(self) -> Executor:
        """What units are submitted to."""

    @property
    def most(self) -> int:
        """How many units are handed over at once: enough for every worker to have the next one at hand."""
        return 1024

    @property
    def size(self) -> int:
        """How many units run at once; 0 where that is not known."""
        return 0

    def renew(self, *, alone: bool) -> None:
        """Start again after the executor broke; `alone`: with one worker, so that it is known whose unit kills it.

        Raises
        ------
        TransferscopeError
            That is not for us to do.
        """
        raise TransferscopeError(
            f"{self.name} broke: {self.lost}; what has ended is kept, and the same call with a new one goes on from "
            "there"
        )

    def check(self) -> None:  # noqa: B027  # most engines have nothing to say
        """Look, every few seconds in which no unit ends, whether one still can.

        Raises
        ------
        TransferscopeError
            None can; the text says why.
        """

    @abstractmethod
    def close(self) -> None:
        """Cancel what runs and let the workers go."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Given(Engine):
    """An executor of the caller's, who made it and ends it."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.name = f"the {type(executor).__name__}"

    @property
    def executor(self) -> Executor:
        """What units are submitted to."""
        return self._executor

    def close(self) -> None:
        """Do nothing: units that wait are cancelled by whoever submitted them."""


def is_lost(error: BaseException) -> bool:
    """Whether an error says that a worker went away, not that its unit failed."""
    return isinstance(error, BrokenExecutor | CancelledError) or any(
        each.__name__ in _LOST for each in type(error).__mro__
    )


def missing(extra: str, error: ImportError) -> TransferscopeError:
    """Return what to say where the package of an engine is not installed."""
    return TransferscopeError(
        f"Expected the package {error.name} for `on`, but it is not installed; pip install 'transferscope[{extra}]'"
    )


def lines(error: Any) -> str:
    """Return the text of a foreign error in one line, not too long."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]}…"
