"""One source after the other: captured, scored and compared with the reference, from the cache where it can be."""

import logging
import math
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from transferscope.activations.features import LayerFeatures
from transferscope.errors import SourceError, TransferscopeError, TransferscopeWarning, noted_warnings
from transferscope.networks import loading
from transferscope.networks.zoo import OWN, Source
from transferscope.prediction.covariates import CUT_PROTOCOLS
from transferscope.results import labelled
from transferscope.results.labelled import SourceScores
from transferscope.runtime.failures import Failure, failure, listed
from transferscope.runtime.metrics import ACCURACY
from transferscope.runtime.progress import Report
from transferscope.runtime.seeding import contained
from transferscope.runtime.sharing import Shard, turn
from transferscope.runtime.store import digest
from transferscope.runtime.threads import suited_to
from transferscope.transferability import Layer
from transferscope.transferability.panel import score_source
from transferscope.transferability.scores import needs_predictions
from transferscope.transferability.standard_errors import KEPT, standard_errors, stratified_draws
from transferscope.verbs.rank.factored import Factored, compare_layers, factor, layers_of
from transferscope.verbs.rank.reference import ReferenceFacts, ReferenceMaker, TrainedReference

logger = logging.getLogger("transferscope")

_VERSION = 4
"""Goes up when the meaning of a score changes, so that cached scores of an earlier meaning are not used."""


def best_of(references: Iterable[ReferenceFacts]) -> ReferenceFacts:
    """Return the reference with the highest held-out accuracy, the first of equals."""
    # A network that was handed in has no accuracy, but it is the only one.
    return max(references, key=lambda made: -math.inf if (found := made.summary.held_out_accuracy) is None else found)


class Scorer:
    """Scores one source after the other against the reference, from the cache where it can.

    Parameters
    ----------
    maker : ReferenceMaker
        Makes the reference; on its bench everything runs.
    names : iterable of str
        Of the scores.
    draws : int
        Of the images, for standard errors; 0 for none.

    Raises
    ------
    InputError
        When there are too few images for so many draws.
    """

    def __init__(self, maker: ReferenceMaker, names: Iterable[str], draws: int) -> None:
        self.maker = maker
        self.names = tuple(names)
        self.draws = draws
        self._bench = maker.bench
        self._references: dict[str, TrainedReference] = {}
        self._factored: dict[str, Factored] = {}
        self._computed = 0
        self._remembered = 0
        if self.draws:
            next(stratified_draws(self._bench.probe.strata, self.draws, self._bench.seed))

    def score_all(self, shard: Shard | None = None) -> tuple[list[SourceScores], list[Failure], ReferenceFacts]:
        """Score every candidate; those that fail are named beside the others, and the reference of the answer last.

        Raises
        ------
        SourceError
            When all of them fail.
        """
        candidates = self.maker.candidates()
        if self.maker.kind != OWN:
            self.prepare(None)
        scored: dict[str, SourceScores] = {}
        failures: dict[str, Failure] = {}
        # Other processes may be asked the same: each begins at another source, and leaves alone what is under way.
        waiting = deque(turn(candidates, shard))
        postponed: set[str] = set()
        noted: dict[str, list[str]] = {}
        unsaid = deque(source.name for source in candidates)  # what is warned of stands in the order of the zoo
        while waiting:
            source = waiting.popleft()
            with self._bench.store.lease("sources", self._key(source), wait=source.name in postponed) as free:
                if not free and source.name not in postponed:
                    postponed.add(source.name)
                    waiting.append(source)
                    continue
                number = len(scored) + len(failures) + 1
                try:
                    with noted_warnings(shown=False) as noted[source.name]:
                        scored[source.name] = self.score(source, f"{source.name} ({number} of {len(candidates)})")
                except (Exception, SystemExit) as error:  # whatever a network's code raises must not cost the others
                    failures[source.name] = failure(source.name, error, self._bench.batch_size)
            while unsaid and unsaid[0] in noted:
                for text in noted[unsaid.popleft()]:
                    warnings.warn(text, TransferscopeWarning, stacklevel=2)
        units = [scored[source.name] for source in candidates if source.name in scored]
        failed = [failures[source.name] for source in candidates if source.name in failures]
        if not units:
            raise SourceError(f"No source could be ranked. {listed(failed)}")
        if self._remembered:
            root = self._bench.store.root
            logger.info("%d of %d sources came from the cache in %s.", self._remembered, len(candidates), root)
        return units, failed, best_of(made.facts() for made in self._references.values())

    def _key(self, source: Source) -> str:
        """Return what other processes know the work on a source by."""
        identity: Any = source.name
        with suppress(TransferscopeError):  # which is said when it is run
            identity = loading.identity(source, self._bench.seed)
        return digest(identity, self._bench.probe.hash, self.maker.kind, self.names, self.draws)

    def prepare(self, source: Source | None) -> TrainedReference:
        """Make the reference of `source`, or the one that serves all of them."""
        name = source.name if source is not None and self.maker.kind == OWN else ""
        if name not in self._references:
            with self._bench.reporter.bar("scratch reference") as report:
                self._references[name] = self.maker.make(source, report)
            self._bench.clock.lap("reference")
        return self._references[name]

    def reference_of(self, source: Source) -> ReferenceFacts | None:
        """Return the reference that was made for a source alone, if it was."""
        made = self._references.get(source.name)
        return None if made is None else made.facts()

    def score(self, source: Source, title: str) -> SourceScores:
        """Capture and score one source; warnings name it, each once."""
        caught: list[warnings.WarningMessage] = []
        try:
            with contained(), warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                return self._score(source, title)
        finally:
            for category, text in dict.fromkeys((item.category, str(item.message)) for item in caught):
                warnings.warn(f"{source.name}: {text}", category, stacklevel=2)

    def _score(self, source: Source, title: str) -> SourceScores:
        reference = self.prepare(source)
        with self._bench.reporter.bar(title) as report:
            features = self._bench.source_features(source, report)
        self._bench.clock.lap("features")
        with self._bench.reporter.bar(f"{title}, scores") as report, suited_to(self._bench.probe.n_samples) as free:
            unit = self._unit(
                source.name, features, reference, report, 1 if self._bench.device.type == "cuda" else free
            )
        self._bench.clock.lap("scores")
        possible = self._bench.possible(source, [stage.layer for stage in features.stages])
        self._bench.clock.lap("protocols")
        # Nothing frozen at all, which defrost allows too, is no depth of its own.
        depths = range(1, len(features.stages) + 1)
        impossible = {protocol: tuple(possible[protocol][depth] for depth in depths) for protocol in CUT_PROTOCOLS}
        return replace(unit, impossible=impossible)

    def _unit(
        self, name: str, features: LayerFeatures, reference: TrainedReference, report: Report, threads: int
    ) -> SourceScores:
        labels, metric = self._bench.values, self._bench.metric
        factored = cache(lambda: factor(features.arrays))
        of_predictions = needs_predictions(self.names)
        if of_predictions and features.probabilities is None:
            warnings.warn(
                f"{' and '.join(of_predictions)} {'are' if len(of_predictions) > 1 else 'is'} NaN: "
                f"{features.no_probabilities}",
                TransferscopeWarning,
                stacklevel=2,
            )

        def reported() -> Iterator[Layer]:
            for number, layer in enumerate(layers_of(factored())):
                report(number, len(features.arrays))
                yield layer

        def score(names: list[str]) -> dict[str, np.ndarray]:
            layers = reported() if len(needs_predictions(names)) < len(names) else ()
            return score_source(layers, features.probabilities, labels, names, metric=metric, threads=threads)

        def compare(_names: list[str]) -> dict[str, np.ndarray]:
            if reference.network.name not in self._factored:
                self._factored[reference.network.name] = factor(reference.features.arrays)
            return compare_layers(factored(), self._factored[reference.network.name])

        def spread(names: list[str]) -> dict[str, np.ndarray]:
            return standard_errors(
                scores, features.arrays, features.probabilities, labels, names,
                draws=self.draws, seed=self._bench.seed, worth=metric.worth_of(labels), metric=metric,
                strata=self._bench.probe.strata,
            )  # fmt: skip

        before = self._computed
        # Of each metric apart; the plain one keeps the name that it always had.
        judged = [] if metric is ACCURACY else [metric.name]
        scores = self._remember("scores", [features.key, *judged], self.names, score, name)
        pair = [features.key, reference.features.key]
        similarities = self._remember("similarities", pair, labelled.SIMILARITIES, compare, name)
        drawn = [features.key, self.draws, self._bench.seed, KEPT, *judged]
        errors = self._remember("standard_errors", drawn, self.names if self.draws else (), spread, name)
        self._remembered += self._computed == before
        return SourceScores(name, features.stages, tuple(reference.features.arrays), scores, similarities, errors)

    def _remember(
        self,
        kind: str,
        identity: list[Any],
        names: Sequence[str],
        compute: Callable[[list[str]], dict[str, np.ndarray]],
        source: str,
    ) -> dict[str, np.ndarray]:
        """Return the arrays of these names from the cache; only those that it lacks are computed, and added to it."""
        key, store = digest(_VERSION, *identity), self._bench.store

        def known() -> tuple[dict[str, np.ndarray], list[str]]:
            entry = store.get(kind, key) if names else None
            arrays = {} if entry is None else entry[0]
            return arrays, [name for name in names if name not in arrays]

        arrays, missing = known()
        if missing:
            with store.lease(kind, key) as waited:
                if waited:
                    arrays, missing = known()
                if missing:
                    arrays |= compute(missing)
                    self._computed += 1
                    store.put(kind, key, arrays, {"source": source})
        return {name: arrays[name] for name in names}
