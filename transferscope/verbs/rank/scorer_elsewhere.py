"""Sources run and scored as units of an engine: source × shard of images, then source × scores."""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from transferscope.errors import SourceError, is_interrupt
from transferscope.networks.zoo import COMPACT, OWN, Source
from transferscope.protocols.training.recipe import Recipe
from transferscope.results.labelled import SourceScores
from transferscope.runtime.engines.crew import Chain, Crew, crew, warn_again
from transferscope.runtime.engines.naming import Place
from transferscope.runtime.engines.units import Outcome
from transferscope.runtime.failures import Failure, describe, failure, listed
from transferscope.runtime.progress import Report, silent
from transferscope.runtime.regular import is_regular
from transferscope.verbs.bench import Bench, PackedBench
from transferscope.verbs.rank.reference import ReferenceFacts, ReferenceMaker
from transferscope.verbs.rank.scorer import Scorer, best_of
from transferscope.verbs.running.reference_elsewhere import have_reference_made

Step = Literal["reference", "features", "scores"]

_BATCHES = 4
"""In a shard at least: loading a network has to be worth it."""
_IMAGES = 2048
"""In a shard where nobody knows how many workers there are."""


@dataclass(frozen=True)
class Scored:
    """What became of a source, with the reference that it was compared with where there is one for each."""

    scores: SourceScores | None
    failed: Failure | None = None
    trace: str = ""
    reference: ReferenceFacts | None = None


@dataclass(frozen=True)
class Scoring:
    """The work of a ranking: what its units share."""

    bench: PackedBench
    kind: str
    recipe: Recipe
    names: tuple[str, ...]
    draws: int
    trained: Any = None
    """The reference as the cache keeps it, for workers that have another one; None where they share it."""

    def perform(self, *arguments: Any, shared: bool) -> Any:
        """Return the facts of the reference; nothing, for features stay in the cache; or what a source scored."""
        step: Step = arguments[0]
        if self.trained is not None and not shared:
            self._bench.store.put(*self.trained)
        if step == "reference":
            made = self._scorer.prepare(None)
            return made.facts(), None if shared else made.network.entry
        entry = self._bench.zoo[arguments[1]]
        if step == "features":
            self._bench.source_features(entry, silent, slice(*arguments[2:]))
            return None
        return self._scored(entry)

    @cached_property
    def _bench(self) -> Bench:
        return self.bench.unpack()

    @cached_property
    def _scorer(self) -> Scorer:
        return Scorer(ReferenceMaker(self.kind, self.recipe, self._bench), self.names, self.draws)

    def _scored(self, source: Source) -> Scored:
        try:
            scores, failed, trace = self._scorer.score(source, source.name), None, ""
        except (Exception, SystemExit) as error:  # whatever a network's code raises must not cost the others
            if is_interrupt(error):
                raise KeyboardInterrupt from error
            scores, failed = None, Failure(source.name, describe(source.name, error, self.bench.batch_size))
            trace = "".join(traceback.format_exception(error))
        return Scored(scores, failed, trace, self._scorer.reference_of(source) if self.kind == OWN else None)


def score_elsewhere(place: Place, scorer: Scorer) -> tuple[list[SourceScores], list[Failure], ReferenceFacts]:
    """Do what `Scorer.score_all` does, as units of an engine; everything comes back in the order of the zoo.

    Raises
    ------
    SourceError
        When all sources fail.
    TransferscopeError
        The engine cannot be reached, or no worker of it can carry out units; or as the reference cannot be made.
    """
    maker, bench = scorer.maker, scorer.maker.bench
    candidates = maker.candidates()
    kind = (
        str(Path(maker.kind).absolute()) if is_regular(maker.kind) and maker.kind not in (COMPACT, OWN) else maker.kind
    )
    work = Scoring(bench.packed(), kind, maker.recipe, scorer.names, scorer.draws)
    with crew(place, work, spread=bench.spread) as workers, bench.reporter.bar("units") as report:
        reference, shared = None, True
        if maker.kind != OWN:
            reference, shared = have_reference_made(workers, work)
            bench.clock.lap("reference")
        shards = _shards(bench, workers.size, len(candidates)) if shared else []
        scored = _scored_by(workers, candidates, shards, report, bench)
        bench.clock.lap("scores")
    units = [each.scores for each in scored if each.scores is not None]
    failed = [each.failed for each in scored if each.failed is not None]
    if not units:
        raise SourceError(f"No source could be ranked. {listed(failed)}")
    made = [each.reference for each in scored if each.reference is not None]
    return units, failed, best_of(made) if reference is None else reference


def _shards(bench: Bench, workers: int, sources: int) -> list[tuple[int, int]]:
    """Divide the probe where there are more workers than sources; batches are those of one process."""
    images, batch = len(set(bench.probe.contents)), bench.batch_size
    each = images if 0 < workers <= sources else -(-images * sources // workers) if workers else _IMAGES
    size = batch * max(_BATCHES, -(-each // batch))
    bounds = [(start, min(start + size, images)) for start in range(0, images, size)]
    return bounds if len(bounds) > 1 else []


def _scored_by(
    workers: Crew, candidates: Sequence[Source], shards: Sequence[tuple[int, int]], report: Report, bench: Bench
) -> list[Scored]:
    """Return what became of each candidate, in their order."""
    left = {source.name: len(shards) for source in candidates}
    scores = {source.name: (f"{source.name}, scores", ("scores", source.name)) for source in candidates}
    first: list[Chain] = [[unit] for unit in scores.values()] if not shards else [
        [(f"{source.name}, images {start} to {stop}", ("features", source.name, start, stop))]
        for source in candidates for start, stop in shards
    ]  # fmt: skip

    def then(arguments: tuple[Any, ...]) -> Chain:
        """Return the scores of a source whose last shard has ended."""
        if arguments[0] != "features":
            return ()
        left[arguments[1]] -= 1
        return () if left[arguments[1]] else [scores[arguments[1]]]

    total = len(candidates) * (len(shards) + 1)
    outcomes: dict[str, Outcome] = {}
    report(0, total)
    for done, (arguments, outcome) in enumerate(workers.carry_out(first, then=then), 1):
        report(done, total)
        if arguments[0] == "scores":  # a shard that failed fails there again, in the words of the source
            outcomes[arguments[1]] = outcome
    return [_settled(workers, source, outcomes[source.name], bench.batch_size) for source in candidates]


def _settled(workers: Crew, source: Source, outcome: Outcome, batch_size: int) -> Scored:
    warn_again(outcome.warnings)
    if outcome.error:
        return Scored(None, failure(source.name, SourceError(outcome.error), batch_size))
    scored: Scored = outcome.value
    if scored.failed is not None:
        failure(source.name, SourceError(scored.failed.error), batch_size)
        workers.note(source.name, Outcome(worker=outcome.worker, error=scored.failed.error, trace=scored.trace))
    return scored
