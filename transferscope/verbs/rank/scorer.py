"""One source after the other: captured, scored and compared with the reference, from the cache where it can be."""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from transferscope.activations.features import LayerFeatures
from transferscope.errors import TransferscopeWarning
from transferscope.networks.zoo import OWN, Source
from transferscope.results import labelled
from transferscope.results.labelled import SourceScores
from transferscope.runtime.progress import Report, Reporter
from transferscope.runtime.seeding import contained
from transferscope.runtime.store import digest
from transferscope.transferability import Layer
from transferscope.transferability.panel import score_source
from transferscope.transferability.scores import needs_predictions
from transferscope.transferability.standard_errors import KEPT, standard_errors
from transferscope.verbs.features import source_features
from transferscope.verbs.rank import layers
from transferscope.verbs.rank.layers import Factored
from transferscope.verbs.rank.reference import ReferenceMaker, TrainedReference


class Clock:
    """Seconds spent on each part, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the time since the last call to part `name`."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


class Scorer:
    """Scores one source after the other against the reference, from the cache where it can.

    Parameters
    ----------
    maker : ReferenceMaker
        Makes the reference; it also knows the probe set, the cache and the device.
    names : tuple of str
        Of `transferability.SCORES`.
    draws : int
        For standard errors; 0 for none.
    reporter, clock
        Whom to tell, and where to note the time it took.
    """

    def __init__(
        self, maker: ReferenceMaker, names: tuple[str, ...], draws: int, reporter: Reporter, clock: Clock
    ) -> None:
        self._maker = maker
        self._names = names
        self._draws = draws
        self._reporter = reporter
        self._clock = clock
        self._references: dict[str, TrainedReference] = {}
        self._factored: dict[str, Factored] = {}
        self._computed = 0
        self.remembered = 0
        """Sources whose scores came from the cache."""

    def prepare(self, source: Source | None) -> TrainedReference:
        """Make the reference of `source`, or the one that serves all of them."""
        name = source.name if source is not None and self._maker.kind == OWN else ""
        if name not in self._references:
            with self._reporter.bar("scratch reference") as report:
                self._references[name] = self._maker.make(source, report)
            self._clock.lap("reference")
        return self._references[name]

    def best_reference(self) -> TrainedReference:
        """Return the reference with the highest held-out accuracy, the first of equals."""
        # A network that was handed in has no accuracy, but it is the only one.
        return max(self._references.values(), key=lambda made: made.network.accuracy or 0.0)

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
        maker = self._maker
        reference = self.prepare(source)
        with self._reporter.bar(title) as report:
            features = source_features(
                source, maker.probe, seed=maker.seed, trust_code=maker.trust_code, store=maker.store,
                device=maker.device, batch_size=maker.batch_size, report=report,
            )  # fmt: skip
        self._clock.lap("features")
        with self._reporter.bar(f"{title}, scores") as report:
            unit = self._unit(source.name, features, reference, report)
        self._clock.lap("scores")
        return unit

    def _unit(self, name: str, features: LayerFeatures, reference: TrainedReference, report: Report) -> SourceScores:
        labels = self._maker.probe.labels
        factored = cache(lambda: layers.factor(features.arrays))
        own = needs_predictions(self._names)
        if own and features.probabilities is None:
            warnings.warn(
                f"{' and '.join(own)} {'are' if len(own) > 1 else 'is'} NaN: {features.no_probabilities}",
                TransferscopeWarning,
                stacklevel=2,
            )

        def layers_of() -> Iterator[Layer]:
            for number, layer in enumerate(layers.layers_of(factored())):
                report(number, len(features.arrays))
                yield layer

        def score(names: list[str]) -> dict[str, np.ndarray]:
            layers = layers_of() if len(needs_predictions(names)) < len(names) else ()
            return score_source(layers, features.probabilities, labels, names)

        def compare(_names: list[str]) -> dict[str, np.ndarray]:
            if reference.network.name not in self._factored:
                self._factored[reference.network.name] = layers.factor(reference.features.arrays)
            return layers.compare_layers(factored(), self._factored[reference.network.name])

        def spread(names: list[str]) -> dict[str, np.ndarray]:
            return standard_errors(
                scores, features.arrays, features.probabilities, labels, names, draws=self._draws, seed=self._maker.seed
            )

        before = self._computed
        scores = self._remember("scores", [features.key], self._names, score, name)
        pair = [features.key, reference.features.key]
        similarities = self._remember("similarities", pair, labelled.SIMILARITIES, compare, name)
        drawn = [features.key, self._draws, self._maker.seed, KEPT]
        errors = self._remember("standard_errors", drawn, self._names if self._draws else (), spread, name)
        self.remembered += self._computed == before
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
        key = digest(labelled.VERSION, *identity)
        entry = self._maker.store.get(kind, key) if names else None
        arrays = {} if entry is None else entry[0]
        if missing := [name for name in names if name not in arrays]:
            arrays |= compute(missing)
            self._computed += 1
            self._maker.store.put(kind, key, arrays, {"source": source})
        return {name: arrays[name] for name in names}
