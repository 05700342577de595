"""Pilots as units of an engine: which one is next depends on the one before, so that one runs at a time."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from types import TracebackType
from typing import Any, Self

from transferscope.activations.stages import Stage
from transferscope.runtime.engines.crew import Crew, crew, warn_again
from transferscope.runtime.engines.naming import Place
from transferscope.verbs.bench import Bench, PackedBench
from transferscope.verbs.rank.pilot_images import PilotImages
from transferscope.verbs.rank.pilot_runs import PilotRunner
from transferscope.verbs.running.run import Run


@dataclass(frozen=True)
class Piloting:
    """The work of pilots: what its units share."""

    bench: PackedBench
    images: PilotImages
    stages: Mapping[str, Sequence[Stage]]

    def perform(self, *arguments: Any, shared: bool) -> Any:
        """Return what the cache keeps of a pilot, or the seconds of one image.

        The process that asks holds the lease of a pilot and keeps what was found, whatever cache the worker has.
        """
        del shared
        what, argument = arguments
        return self._runner.record(argument, "") if what == "pilot" else self._runner.found_speeds(argument)

    @cached_property
    def _runner(self) -> PilotRunner:
        return PilotRunner(self.bench.unpack(), self.images, self.stages)


class PilotsElsewhere(PilotRunner):
    """Has pilots run by workers of an engine, opened for the first one that the cache does not know.

    A context manager; parameters as those of `PilotRunner`.
    """

    def __init__(self, bench: Bench, images: PilotImages, stages: Mapping[str, Sequence[Stage]], place: Place) -> None:
        super().__init__(bench, images, stages)
        self._place = place
        self._work = Piloting(bench.packed(), replace(images, target=images.target.bare()), stages)
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def record(self, run: Run, title: str) -> dict[str, Any]:
        """Have a pilot run."""
        return self._carried_out(title, "pilot", run)

    def found_speeds(self, name: str) -> tuple[float, float]:
        """Have a source timed, where pilots of it will run."""
        return self._carried_out(f"timing {name}", "speeds", name)

    @cached_property
    def _workers(self) -> Crew:
        return self._opened.enter_context(crew(self._place, self._work))

    def _carried_out(self, title: str, what: str, argument: Any) -> Any:
        with self._bench.reporter.bar(title) as report:
            report(0, 1)
            ((_, outcome),) = self._workers.carry_out([[(title, (what, argument))]])
        warn_again(outcome.warnings)
        outcome.check()
        return outcome.value
