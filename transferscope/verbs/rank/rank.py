"""Where the parts meet: target and zoo in, captured, scored and selected, a ranking out."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from transferscope.arrays import backend
from transferscope.data.target import load_target
from transferscope.errors import (
    InputError,
    SourceError,
    is_whole,
    noted_warnings,
)
from transferscope.networks import loading
from transferscope.networks.zoo import OWN, Source, Zoo, load_zoo
from transferscope.prediction.expected import expected_accuracies, most_samples
from transferscope.prediction.selection import OBJECTIVES, ScratchCandidate, protocols_of, recommend
from transferscope.protocols.scratch import reference_recipe
from transferscope.protocols.training.recipe import Recipe
from transferscope.results import labelled
from transferscope.results.ranking import Ranking
from transferscope.results.summary import Reference, TargetSummary
from transferscope.results.wording import reason
from transferscope.runtime.checks import check_arguments
from transferscope.runtime.failures import Failure, failure
from transferscope.runtime.progress import Reporter
from transferscope.runtime.provenance import Provenance, versions
from transferscope.runtime.store import Store
from transferscope.transferability.scores import choose_scores
from transferscope.transferability.standard_errors import stratified_draws
from transferscope.verbs.rank.reference import ReferenceMaker, ReferenceNetwork, TrainedReference
from transferscope.verbs.rank.scorer import Clock, Scorer

logger = logging.getLogger("transferscope")

MODES = ("default", "quick")


def rank(
    target: Any,
    zoo: Zoo | str | Path | Mapping[str, Any] | Sequence[Any] | pd.DataFrame,
    *,
    device: str = "auto",
    samples: int = 1000,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
    scores: str | Iterable[str] = "default",
    uncertainty: int = 0,
    reference: str = "compact",
    recipe: Recipe | None = None,
    trust_code: bool = False,
    protocol: str = "any",
    shots: int | None = None,
    objective: str = "accuracy",
    mode: str = "default",
) -> Ranking:
    """Rank the sources of a zoo, each with its best cut and protocol, for a target that no transfer was run on.

    Every source runs once over a stratified probe set of the target. Each of its stages gets transferability
    scores (LogME, H-score, leave-one-out ridge …) and its similarity (debiased linear CKA, SVCCA) to a network
    trained from scratch on the same images, after Gerace et al. (2024, arXiv 2303.01429; our instantiation). Accuracies
    are expected from scores by a model that was fitted to measured transfers of other targets.

    Parameters
    ----------
    target : path, Target, torchvision dataset, (images, labels) or DataFrame
        What `load_target` takes.
    zoo : Zoo, path, mapping, sequence or DataFrame
        What `load_zoo` takes.
    device : str
        "auto", "cpu", "cuda" or "cuda:N".
    samples : int
        Images in the probe set, that scores are computed on.
    batch_size : int
        Images in one forward pass.
    seed : int
        Decides the probe set and the reference. Same seed, same device, same answer.
    progress : bool
        Whether to draw progress bars on stderr when it is a terminal.
    scores : str or iterable of str
        Names of `transferability.SCORES`; "default" for those that take next to no time; "all". LEEP and NCE look at
        the source's predictions for its own classes: they are one number a source, NaN where it has no classifier.
    uncertainty : int
        Stratified draws of the images (without replacement, 80 % of them) for the standard error of every score that is
        no accuracy, whose error needs none: at least 2, some 20 say enough; 0 for none at all. Every draw costs as much
        as those scores themselves.
    reference : str
        "compact": a small residual network trained from scratch on the probe; "own": each source's own
        architecture, re-initialised and trained; a checkpoint of `networks.CompactResNet`; or the name of a
        source in the zoo, which is then not ranked.
    recipe : Recipe, optional
        How the reference is trained.
    trust_code : bool
        Whether factories of `loader: python` may be run.
    protocol : str
        "truncate" (a linear head on frozen features, the network ends at the cut), "reinit" (what follows the cut is
        drawn anew and trained, what is kept stays frozen), "finetune" (the same, all of it trained) or "any": the
        best of them for each source.
    shots : int, optional
        Images of each class that a transfer is expected to be trained on. By default all images of the target, or as
        many as transfers were measured with. With fewer than the target has, the probe set is that small too.
    objective : str
        "accuracy"; "accuracy-per-joule" of one prediction (accuracy above that of always guessing the largest class,
        over FLOPs); or "latency": the fewest FLOPs of all that cannot be told apart from the most accurate.
    mode : str
        "default", or "quick": similarities, and of the scores those alone that expected accuracies are made from.

    Raises
    ------
    InputError
        When an argument, the target or the zoo is not as expected.
    DeviceError
        When the device does not exist.
    SourceError
        When not a single source could be ranked; single failures are in `Ranking.failed`.
    """
    samples, batch_size, seed = check_arguments(samples, batch_size, seed, reference)
    kept = protocols_of(protocol)
    names = _scores_of_mode(mode, scores)
    if objective not in OBJECTIVES:
        raise InputError(f"Expected `objective` to be one of {', '.join(OBJECTIVES)}, but got {objective!r}.")
    if shots is not None and not is_whole(shots, 1):
        raise InputError(f"Expected `shots` to be a whole number of at least 1, or None, but got {shots!r}.")
    if not is_whole(uncertainty, 0) or uncertainty == 1:
        raise InputError(
            f"Expected `uncertainty` to be a number of draws, at least 2, or 0 for none, but got {uncertainty!r}."
        )
    uncertainty, shots = int(uncertainty), None if shots is None else int(shots)
    recipe = recipe or reference_recipe()
    where = backend.resolve_device(device)
    sources = load_zoo(zoo)
    for source in sources:
        # Before the reference is trained, not after.
        loading.check_trust(source, trust_code)
    clock = Clock()
    with noted_warnings() as noted:
        images = load_target(target, progress=progress)
        classes = len(images.classes)
        size = samples if shots is None else min(samples, max(shots, 2) * classes)
        probe = images.probe(size, seed, progress=progress)
        if uncertainty:
            next(stratified_draws(probe.labels, uncertainty, seed))  # too few images: an error now, not a source's
        clock.lap("data")
        reporter = Reporter(progress)
        store = Store()
        maker = ReferenceMaker(reference, images, probe, sources, recipe, seed, trust_code, store, where, batch_size)
        given = maker.given_source()
        candidates = [source for source in sources if source is not given]
        if not candidates:
            raise InputError(
                f"Expected the zoo to hold sources beside the reference {reference!r}, but there are none; add the "
                "networks to be ranked."
            )
        scorer = Scorer(maker, names, uncertainty, reporter, clock)
        if reference != OWN:
            scorer.prepare(None)
        units, failed = _score_all(candidates, scorer, batch_size)
        if scorer.remembered:
            logger.info("%d of %d sources came from the cache in %s.", scorer.remembered, len(candidates), store.root)
        scored = [sources[unit.source] for unit in units]
        provenance = Provenance(
            settings={
                "samples": samples, "seed": seed, "device": str(where), "batch_size": batch_size, "scores": list(names),
                "uncertainty": uncertainty, "reference": reference, "recipe": asdict(recipe), "protocol": protocol,
                "shots": shots, "objective": objective, "mode": mode,
            },
            sources={source.name: loading.fingerprint(source) for source in scored},
            versions=versions(),
        )  # fmt: skip
        largest = float(np.bincount(probe.labels).max() / probe.n_samples)
        attributes = {
            "target": images.name, "target_hash": images.hash, "n_samples": probe.n_samples, "classes": classes,
            "seed": seed, "device": str(where), "largest_class": largest,
        }  # fmt: skip
        if uncertainty:
            attributes["uncertainty"] = uncertainty
        chosen = scorer.best_reference()
        candidate = _candidate(chosen)
        if candidate is not None:
            attributes |= {"scratch_accuracy": candidate.accuracy, "scratch_held_out": candidate.n_held_out}
        dataset = labelled.to_dataset(units, attributes, _baselines(scored, sources.order))
        most = max(min(len(images), most_samples(dataset)), probe.n_samples)
        predictions = expected_accuracies(dataset, most if shots is None else shots * classes).sel(protocol=list(kept))
        shown = labelled.score_names(dataset)
        baselines = [name for name in labelled.BASELINES if name in dataset]
        predictions.attrs["objective"] = objective
        picks = recommend(predictions, shown, candidate, baselines, objective)
        recommendations = tuple(replace(pick, reason=reason(pick, picks, predictions)) for pick in picks)
        clock.lap("selection")
    return Ranking(
        target=TargetSummary(images.name, probe.n_samples, classes, images.hash),
        reference=summarize(chosen.network),
        recommendations=recommendations,
        scores=predictions,
        failed=tuple(failed),
        provenance=provenance,
        warnings=tuple(noted),
        timings=clock.seconds,
    )


def _score_all(
    candidates: Sequence[Source], scorer: Scorer, batch_size: int
) -> tuple[list[labelled.SourceScores], list[Failure]]:
    units, failed = [], []
    for i, source in enumerate(candidates, 1):
        try:
            units.append(scorer.score(source, f"{source.name} ({i} of {len(candidates)})"))
        except (Exception, SystemExit) as error:  # whatever a network's code raises must not cost the other sources
            failed.append(failure(source.name, error, batch_size))
    if not units:
        reasons = "; ".join(f"{failure.source}: {failure.error}" for failure in failed)
        raise SourceError(f"No source could be ranked. {reasons}")
    return units, failed


def _scores_of_mode(mode: str, scores: str | Iterable[str]) -> tuple[str, ...]:
    if mode not in MODES:
        raise InputError(f"Expected `mode` to be one of {', '.join(MODES)}, but got {mode!r}.")
    if mode == "default":
        return choose_scores(scores)
    if scores != "default":
        raise InputError(f"Expected no `scores` with `mode` 'quick', which has its own, but got {scores!r}.")
    return choose_scores(())


def summarize(reference: ReferenceNetwork) -> Reference:
    """Return what a report says of a reference network."""
    record = reference.record
    return Reference(
        network=reference.name,
        held_out_accuracy=reference.accuracy,
        held_out_samples=reference.n_held_out,
        trained_on=reference.n_train,
        epochs=0 if record is None else record.epochs,
        stopped="given" if record is None else record.stopped,
    )


def _baselines(sources: Sequence[Source], order: Sequence[str] | None) -> dict[str, list[float]]:
    """Return what the zoo says of these sources, where it says anything."""
    found = {}
    accuracies = [source.accuracy for source in sources]
    if any(accuracies):
        found["source_accuracy"] = [np.nan if accuracy is None else accuracy for accuracy in accuracies]
    if order is not None:
        found["preference"] = [
            float(len(order) - order.index(source.name)) if source.name in order else 0.0 for source in sources
        ]
    return found


def _candidate(reference: TrainedReference) -> ScratchCandidate | None:
    network = reference.network
    if network.accuracy is None:
        return None
    last = reference.features.stages[-1]
    return ScratchCandidate(
        network.name,
        network.accuracy,
        network.n_held_out,
        len(reference.features.stages),
        last.params,
        last.flops,
    )
