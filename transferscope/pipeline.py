"""Where the parts meet: target and zoo in, captured, scored and selected, a ranking out."""

import logging
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from transferscope import backend, models, scoring
from transferscope.activations import resolve_stages
from transferscope.data import load_target
from transferscope.errors import InputError, SourceError, TransferscopeError, is_interrupt
from transferscope.features import LayerFeatures, layer_features
from transferscope.progress import Reporter
from transferscope.protocols.training import Recipe
from transferscope.reference import ReferenceMaker, TrainedReference
from transferscope.report.ranking import Failure, Ranking, Reference, TargetSummary
from transferscope.scoring import Factored, SourceScores
from transferscope.seeding import contained
from transferscope.selection import ScratchCandidate, Selector, leave_one_out, recommend
from transferscope.stages import trace
from transferscope.store import Store, digest
from transferscope.zoo import OWN, Source, Zoo, load_zoo

logger = logging.getLogger("transferscope")


def rank(
    target: Any,
    zoo: Zoo | str | Path | Mapping[str, Any] | Sequence[Any],
    *,
    device: str = "auto",
    samples: int = 1000,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
    reference: str = "compact",
    recipe: Recipe | None = None,
    trust_code: bool = False,
    selector: Selector = leave_one_out,
) -> Ranking:
    """Rank the sources of a zoo, each with the depth at which to cut it, for a target that nothing was run on.

    Every source runs once over a stratified probe set of the target. Each of its stages gets transferability
    scores (LogME, H-score, leave-one-out ridge) and its similarity (debiased linear CKA, SVCCA) to a network
    trained from scratch on the same images, after Gerace et al. (2024, arXiv 2303.01429; our instantiation).

    Parameters
    ----------
    target : path, Target, torchvision dataset or (images, labels)
        What `load_target` takes.
    zoo : Zoo, path, mapping or sequence
        What `load_zoo` takes.
    device : str
        "auto", "cpu", "cuda" or "cuda:N".
    samples : int
        Images in the probe set; every prediction is for this number of images.
    batch_size : int
        Images in one forward pass.
    seed : int
        Decides the probe set and the reference. Same seed, same device, same answer.
    progress : bool
        Whether to draw progress bars on stderr when it is a terminal.
    reference : str
        "compact": a small residual network trained from scratch on the probe; "own": each source's own
        architecture, re-initialised and trained; a checkpoint of `networks.CompactResNet`; or the name of a
        source in the zoo, which is then not ranked.
    recipe : Recipe, optional
        How the reference is trained.
    trust_code : bool
        Whether factories of `loader: python` may be run.
    selector : callable
        Scores over (source, depth) to predicted accuracies.

    Raises
    ------
    InputError
        When an argument, the target or the zoo is not as expected.
    DeviceError
        When the device does not exist.
    SourceError
        When not a single source could be ranked; single failures are in `Ranking.failed`.
    """
    for name, value, least in (("samples", samples, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        if not isinstance(value, (int, np.integer)) or not least <= value < 2**63:
            raise InputError(f"Expected `{name}` to be a whole number of at least {least}, but got {value!r}.")
    if not isinstance(reference, str):
        raise InputError(
            "Expected `reference` to be 'compact', 'own', the name of a source in the zoo or a checkpoint file, but "
            f"got {type(reference).__name__}; put a network of your own into the zoo and pass its name."
        )
    where = backend.resolve_device(device)
    sources = load_zoo(zoo)
    for source in sources:
        # Before the reference is trained, not after.
        models.check_trust(source, trust_code)
    clock = _Clock()
    images = load_target(target)
    probe = images.probe(samples, seed)
    clock.lap("data")

    reporter = Reporter(progress)
    store = Store()
    maker = ReferenceMaker(
        reference, images, probe, sources, recipe or Recipe(), seed, trust_code, store, where, batch_size
    )
    given = maker.given_source()
    candidates = [source for source in sources if source is not given]
    if not candidates:
        raise InputError(
            f"Expected the zoo to hold sources beside the reference {reference!r}, but there are none; add the "
            "networks to be ranked."
        )
    scorer = _Scorer(maker, reporter, clock)
    if reference != OWN:
        scorer.prepare(None)
    units, failed = [], []
    for i, source in enumerate(candidates, 1):
        try:
            units.append(scorer.score(source, f"{source.name} ({i} of {len(candidates)})"))
        except (Exception, SystemExit) as error:  # whatever a network's code raises must not cost the other sources
            if is_interrupt(error):
                raise KeyboardInterrupt from error
            failed.append(Failure(source.name, _describe(source.name, error, batch_size)))
            logger.warning("%s failed: %s", source.name, failed[-1].error)
            logger.debug("%s", traceback.format_exc())
    if not units:
        reasons = "; ".join(f"{failure.source}: {failure.error}" for failure in failed)
        raise SourceError(f"No source could be ranked. {reasons}")

    if scorer.remembered:
        logger.info("%d of %d sources came from the cache in %s.", scorer.remembered, len(candidates), store.root)
    largest = float(np.bincount(probe.labels).max() / probe.n_samples)
    attributes = {"target": images.name, "n_samples": probe.n_samples, "seed": seed, "largest_class": largest}
    scores = scoring.to_dataset(units, attributes)
    predictions = selector(scores)
    names = (*(f"{name}_to_scratch" for name in scoring.SIMILARITIES), *scoring.SCORES)
    chosen = scorer.best_reference()
    clock.lap("selection")
    return Ranking(
        target=TargetSummary(images.name, probe.n_samples, len(images.classes), images.hash),
        reference=_summary(chosen),
        recommendations=recommend(predictions, names, _candidate(chosen)),
        scores=predictions,
        failed=tuple(failed),
        timings=clock.seconds,
    )


class _Clock:
    """Seconds spent on each part, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


class _Scorer:
    """Scores one source after the other against the reference, from the cache where it can."""

    def __init__(self, maker: ReferenceMaker, reporter: Reporter, clock: _Clock) -> None:
        self._maker = maker
        self._reporter = reporter
        self._clock = clock
        self._references: dict[str, TrainedReference] = {}
        self._factored: dict[str, Factored] = {}
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
        """Return the reference that did best on the images it was stopped by."""
        return max(
            self._references.values(),
            key=lambda made: made.record.validation_accuracy if made.record is not None else 0.0,
        )

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
            features = layer_features(
                lambda: _loaded(source, maker.seed, maker.trust_code),
                [models.fingerprint(source), maker.seed],
                source.layers,
                maker.probe,
                store=maker.store,
                device=maker.device,
                batch_size=maker.batch_size,
                report=report,
            )
        self._clock.lap("features")
        unit = self._unit(source.name, features, reference)
        self._clock.lap("scores")
        return unit

    def _unit(self, name: str, features: LayerFeatures, reference: TrainedReference) -> SourceScores:
        store = self._maker.store
        key = digest(scoring.VERSION, features.key, reference.features.key)
        measures = (*scoring.SCORES, *scoring.SIMILARITIES)
        if (entry := store.get("scores", key)) is not None and set(entry[0]) == set(measures):
            arrays = entry[0]
            self.remembered += 1
        else:
            if reference.network not in self._factored:
                self._factored[reference.network] = scoring.factor(reference.features.arrays)
            layers = scoring.factor(features.arrays)
            arrays = {
                **scoring.score_layers(layers, self._maker.probe.labels),
                **scoring.compare_layers(layers, self._factored[reference.network]),
            }
            store.put("scores", key, arrays, {"source": name})
        return SourceScores(
            name,
            features.stages,
            tuple(reference.features.arrays),
            {measure: arrays[measure] for measure in scoring.SCORES},
            {measure: arrays[measure] for measure in scoring.SIMILARITIES},
        )


def _loaded(source: Source, seed: int, trust_code: bool) -> tuple[Any, Any]:
    network = models.load_network(source, seed=seed, trust_code=trust_code)
    return network.module, network.transform


def _describe(name: str, error: BaseException, batch_size: int) -> str:
    """Say in one sentence what went wrong with a source."""
    if isinstance(error, TransferscopeError):
        return str(error).removeprefix(f"source {name!r}: ")
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text:
        return f"Out of memory at batch size {batch_size}; try a smaller one with --batch-size."
    return f"{type(error).__name__}: {text}; check that the network takes images of the size in its `transform`."


def _summary(reference: TrainedReference) -> Reference:
    record = reference.record
    return Reference(
        network=reference.network,
        held_out_accuracy=reference.accuracy,
        held_out_samples=reference.n_held_out,
        trained_on=reference.n_train,
        epochs=0 if record is None else record.epochs,
        stopped="given" if record is None else record.stopped,
    )


def _candidate(reference: TrainedReference) -> ScratchCandidate | None:
    if reference.accuracy is None:
        return None
    last = reference.features.stages[-1]
    return ScratchCandidate(
        reference.network,
        reference.accuracy,
        reference.n_held_out,
        len(reference.features.stages),
        last.params,
        last.flops,
    )


def list_layers(
    source: str, zoo: Zoo | str | Path, *, everything: bool = False, trust_code: bool = False
) -> pd.DataFrame:
    """List where a source can be captured: a row per stage with the size of the network cut there.

    Parameters
    ----------
    source : str
        Name of an entry of `zoo`.
    zoo : Zoo or path
        What `load_zoo` takes.
    everything : bool
        Every module call instead of the stages; `is_cut` says where the network can be cut.
    trust_code : bool
        Whether a factory of `loader: python` may be run.

    Returns
    -------
    pandas.DataFrame
        Indexed by layer, in firing order: depth, shape (of one sample), params and flops up to there.

    Raises
    ------
    InputError, SourceError
        When the zoo, the source or its layers are not as expected.
    """
    network = models.load_network(load_zoo(zoo)[source], trust_code=trust_code)
    sample = torch.zeros(1, 3, network.transform.size, network.transform.size)
    try:
        return _layer_table(network, sample, everything)
    except TransferscopeError:
        raise
    except (Exception, SystemExit) as error:
        if is_interrupt(error):
            raise
        raise SourceError(f"source {source!r}: {_describe(source, error, 1)}") from error


def _layer_table(network: models.Network, sample: torch.Tensor, everything: bool) -> pd.DataFrame:
    if everything:
        calls = [call for call in trace(network.module, sample) if call.layer]
        rows = [(c.layer, "×".join(map(str, c.shape)), c.params, c.flops, c.is_cut) for c in calls]
        columns = ["layer", "shape", "params", "flops", "is_cut"]
        return pd.DataFrame(rows, columns=columns).set_index("layer")
    stages = resolve_stages(network.module, network.source.layers, sample)
    listed = [
        (stage.layer, depth, "×".join(map(str, stage.shape)), stage.params, stage.flops)
        for depth, stage in enumerate(stages, 1)
    ]
    return pd.DataFrame(listed, columns=["layer", "depth", "shape", "params", "flops"]).set_index("layer")
