"""Runs of a grid one after the other in this process, or as units of an engine, each result as it comes."""

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from transferscope.runtime.engines.crew import crew, warn_again
from transferscope.runtime.engines.naming import Place
from transferscope.runtime.engines.units import Outcome
from transferscope.runtime.store import home
from transferscope.verbs.running.executor import Executor, Setup
from transferscope.verbs.running.run import PROTOCOLS, Run
from transferscope.verbs.worker import check_worker

Row = dict[str, Any]
RunsTogether = tuple[Run, ...]
State = Literal["mine", "taken", "done"]
Claim = Callable[[RunsTogether, bool], AbstractContextManager[State]]
"""Says whether runs are for this process to carry out, for another one that is at it, or done; told whether to wait."""


def carry_out(
    executor: Executor, groups: Sequence[Sequence[Run]], claim: Claim, *, out_of_time: Callable[[], bool]
) -> Generator[list[Row]]:
    """Carry out the runs of all groups in this process, in order, until they are done or time is up.

    Yields the rows of each run, or of runs that were trained together, as soon as they have ended. What another process
    is at work on comes last, and is then waited for.
    """
    waiting = deque(unit for group in groups for unit in units(group))
    postponed: set[RunsTogether] = set()
    while waiting and not out_of_time():
        unit = waiting.popleft()
        with claim(unit, unit in postponed) as state:
            if state == "mine":
                yield executor.execute(unit)
            elif state == "taken":
                postponed.add(unit)
                waiting.append(unit)


@dataclass(frozen=True)
class Transfers:
    """The work of a grid: what its runs share."""

    setup: Setup

    def perform(self, *runs: Run, shared: bool) -> list[Row]:
        """Return the rows of runs that are carried out at once; the features that they need are computed but once.

        Raises
        ------
        RefusedError
            This worker does not see the images, or has no such device.
        """
        return (self._sharing if shared else self._apart).execute(runs)

    @cached_property
    def _sharing(self) -> Executor:
        return self._executor(self.setup)

    @cached_property
    def _apart(self) -> Executor:
        return self._executor(replace(self.setup, states=home() / "measure" / "states"))

    def _executor(self, setup: Setup) -> Executor:
        check_worker(setup.target, int(setup.test[0]), setup.device)
        return Executor(setup)


def carry_out_elsewhere(
    place: Place, setup: Setup, groups: Sequence[Sequence[Run]], *, out_of_time: Callable[[], bool]
) -> Generator[list[Row]]:
    """Carry out the runs of all groups as units of an engine; rows come in the order in which they are ready.

    The first of a group goes ahead, because it leaves in the cache what the others of its group need. A run whose
    worker is lost is tried again as `crew.TRIES` says, and counts as failed then.

    Raises
    ------
    InputError
        What the runs share cannot be sent to a process.
    TransferscopeError
        The engine cannot be reached, or no worker of it can carry out runs.
    """
    chains = [[(title(unit), unit) for unit in units(group)] for group in groups]
    with crew(place, Transfers(setup), spread=setup.device in ("auto", "cuda")) as workers:
        for runs, outcome in workers.carry_out(chains, out_of_time=out_of_time):
            warn_again(outcome.warnings)
            if outcome.error:
                yield [setup.row(run) | {"status": f"failed: {outcome.error}"} for run in runs]
                continue
            for row in outcome.value:
                if trace := row.pop("trace", ""):
                    reason = row["status"].removeprefix("failed: ")
                    workers.note(title(runs), Outcome(worker=outcome.worker, error=reason, trace=trace))
            yield outcome.value


def title(runs: Sequence[Run]) -> str:
    """Return what people call runs that are carried out at once."""
    first = runs[0]
    size = f"{first.samples_per_class} images a class"
    return f"{first.source} {first.protocol} at depth {first.depth}, {size}, seed {first.seed}"


def units(group: Sequence[Run]) -> list[RunsTogether]:
    """Divide a group into what is carried out at once: single runs, or all that are trained together."""
    if PROTOCOLS[group[0].protocol].kind == "trained":
        return [tuple(group)]
    return [(run,) for run in group]


def deadline(seconds: float | None) -> Callable[[], bool]:
    """Return a function that says whether so many seconds have passed since now; never, for None."""
    end = None if seconds is None else time.monotonic() + seconds
    return lambda: end is not None and time.monotonic() >= end
