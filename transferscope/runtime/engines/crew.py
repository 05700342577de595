"""Units handed to the workers of an engine, each result as it comes; lost workers are made up for."""

import logging
import warnings
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from transferscope.errors import TransferscopeError, TransferscopeWarning
from transferscope.runtime.engines.engine import Engine, Given, is_lost, lines
from transferscope.runtime.engines.naming import Place
from transferscope.runtime.engines.units import (
    Job,
    Outcome,
    Unit,
    Work,
    note_failure,
    perform,
    remove_job,
    write_job,
)

logger = logging.getLogger("transferscope")

TRIES = 3
"""How often a unit is carried out whose worker is lost."""

_LOOK_EVERY_S = 5.0

Chain = Sequence[tuple[str, tuple[Any, ...]]]
"""Titles and arguments of units; the first goes ahead, for what it leaves in the cache the others need."""


class Crew:
    """The workers of an engine, and what they work on.

    Parameters
    ----------
    engine : Engine
        Has the workers.
    work : Work
        What the units share.

    Raises
    ------
    InputError
        The work cannot be sent to other processes.
    """

    def __init__(self, engine: Engine, work: Work) -> None:
        self._engine = engine
        self._job, self._content = write_job(work)
        self._told: set[str] = set()
        if engine.dashboard:
            logger.info("%s: %s", engine.name, engine.dashboard)

    @property
    def job(self) -> Job:
        """What the units are part of."""
        return self._job

    @property
    def size(self) -> int:
        """How many workers there are, 0 where that is not known."""
        return self._engine.size

    def change(self, work: Work) -> None:
        """Take up other work."""
        remove_job(self._job)
        self._job, self._content = write_job(work)

    def carry_out(
        self,
        chains: Iterable[Chain],
        *,
        then: Callable[[tuple[Any, ...]], Chain] = lambda _arguments: (),
        out_of_time: Callable[[], bool] = lambda: False,
    ) -> Generator[tuple[tuple[Any, ...], Outcome]]:
        """Carry out the units of all chains; yield the arguments and the outcome of each as it ends, in any order.

        `then` is asked after each unit, by its arguments, for units that it made possible.

        Of a unit whose worker is lost `TRIES` times, and of one that fails, the outcome says why. What is warned of
        elsewhere is for the caller to say.

        Raises
        ------
        TransferscopeError
            Workers can carry out no such unit, or the engine fails.
        """
        ready = deque((chain[0], list(chain[1:])) for chain in chains if chain)
        suspects: deque[tuple[_Named, list[_Named]]] = deque()
        under_way: dict[Future[Outcome], tuple[_Named, list[_Named]]] = {}
        tries: Counter[_Named] = Counter()
        begun = False
        try:
            while (ready or suspects) and not out_of_time():
                alone = bool(suspects)
                if begun:
                    self._engine.renew(alone=alone)
                begun, queue = True, suspects if alone else ready
                try:
                    while under_way or (queue and not out_of_time()):
                        most = 1 if alone else self._engine.most
                        while queue and len(under_way) < most and not out_of_time():
                            under_way[self._submit(queue[0][0])] = queue[0]
                            queue.popleft()
                        ended = wait(under_way, _LOOK_EVERY_S, return_when=FIRST_COMPLETED).done
                        if not ended:
                            self._engine.check()
                        for future in ended:
                            outcome = self._outcome(future)
                            unit, others = under_way.pop(future)
                            if outcome.lacks_job and self._job.content is None:
                                self._job = replace(self._job, content=self._content)
                            elif not outcome.lacks_job and not self._failing(unit, outcome, tries):
                                ready.extendleft((other, []) for other in reversed([*others, *then(unit[1])]))
                                yield unit[1], outcome
                                continue
                            queue.appendleft((unit, others))
                except BrokenExecutor:
                    if not alone or not under_way:  # which of the workers died is not known
                        tries.update(unit for unit, _ in under_way.values())
                        suspects.extend(under_way.values())
                        under_way.clear()
                        continue
                    ((unit, others),) = under_way.values()
                    under_way.clear()
                    lost = Outcome(error=self._engine.lost, refused=True)
                    if self._failing(unit, lost, tries):
                        suspects.appendleft((unit, others))
                    else:
                        ready.extendleft((other, []) for other in reversed([*others, *then(unit[1])]))
                        yield unit[1], lost
        finally:
            for future in under_way:
                future.cancel()

    def _submit(self, unit: "_Named") -> "Future[Outcome]":
        title, arguments = unit
        try:
            return self._engine.executor.submit(perform, Unit(self._job, title, arguments))
        except BrokenExecutor:
            raise
        except RuntimeError as error:
            raise TransferscopeError(
                f"{self._engine.name} takes no more units ({lines(error)}); what has ended is kept, and the same call "
                "with a new one goes on from there"
            ) from error

    def _outcome(self, future: "Future[Outcome]") -> Outcome:
        """Return what became of a unit, its worker's loss too; raise `BrokenExecutor` where all workers are gone."""
        try:
            return future.result()
        except BrokenExecutor:
            raise
        except Exception as error:
            if is_lost(error):
                self._engine.check()
                return Outcome(error=self._engine.lost, refused=not self._engine.retries, trace=lines(error))
            if isinstance(error, ImportError | AttributeError):
                raise TransferscopeError(
                    f"A worker of {self._engine.name} has no transferscope, or another version ({lines(error)}); "
                    f"install transferscope {dict(self._job.versions)['transferscope']} there"
                ) from error
            if isinstance(error, TransferscopeError):
                raise
            raise TransferscopeError(
                f"{self._engine.name} failed ({type(error).__name__}: {lines(error)}); what has ended is kept, and the "
                "same call goes on from there"
            ) from error

    def _failing(self, unit: "_Named", outcome: Outcome, tries: "Counter[_Named]") -> bool:
        """Whether a unit is to be tried again; a failure that is final is written down."""
        if not outcome.error:
            return False
        if outcome.refused:
            tries[unit] += 1
            if tries[unit] < TRIES:
                return True
            if outcome.worker:
                raise TransferscopeError(
                    f"The worker {outcome.worker} cannot carry out {unit[0]}: {outcome.error}; what has ended is kept"
                )
        self.note(unit[0], outcome)
        return False

    def note(self, title: str, outcome: Outcome) -> None:
        """Write down which unit failed, where and why, and say once where that stands."""
        path = note_failure(self._job, title, outcome)
        if path is not None and str(path) not in self._told:
            self._told.add(str(path))
            logger.info("Failures, with the names of workers and tracebacks, are in %s.", path)

    def close(self) -> None:
        """Take away what the units shared; the engine is for its owner to close."""
        remove_job(self._job)


_Named = tuple[str, tuple[Any, ...]]


@contextmanager
def crew(place: Place, work: Work, *, spread: bool = False) -> Iterator[Crew]:
    """Open the engine at a place and hand it work, for the duration of the block.

    Parameters
    ----------
    place : Place
        Where units are carried out.
    work : Work
        What they share.
    spread : bool
        Whether workers that are started on this machine get a GPU each, where there are several.

    Raises
    ------
    InputError
        The work cannot be sent to other processes, or the engine refuses its options.
    TransferscopeError
        The engine cannot be reached, or its package is not installed.
    """
    with _opened(place, spread) as engine:
        made = Crew(engine, work)
        try:
            yield made
        finally:
            made.close()


def _opened(place: Place, spread: bool) -> Engine:
    if place.kind == "executor":
        return Given(place.executor)
    if place.kind == "dask":
        from transferscope.runtime.engines.on_dask import OnDask

        return OnDask(place.address, place.workers, spread=spread)
    if place.kind == "slurm":
        from transferscope.runtime.engines.on_slurm import OnSlurm

        return OnSlurm(place.options)
    from transferscope.runtime.engines.processes import Processes

    return Processes(place.workers, spread=spread)


def warn_again(texts: Iterable[str]) -> None:
    """Warn here of what workers warned of."""
    for text in texts:
        warnings.warn(text, TransferscopeWarning, stacklevel=3)
