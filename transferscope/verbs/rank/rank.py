"""`rank`, step by step: bench, features and scores, expected accuracies, choice."""

import concurrent.futures
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from transferscope.activations.stages import Stage
from transferscope.data.value_range import Range
from transferscope.errors import noted_warnings
from transferscope.networks import loading
from transferscope.networks.zoo import Source, Zoo
from transferscope.prediction import expected
from transferscope.prediction.any_task import calibration_for
from transferscope.prediction.belief import Belief, believe
from transferscope.prediction.calibration import Calibration, load_calibration
from transferscope.prediction.evidence import Table, given_evidence, observations, read_evidence
from transferscope.prediction.observation import Observation
from transferscope.prediction.selection import ScratchCandidate, recommend
from transferscope.protocols.training.recipe import Recipe
from transferscope.results import labelled
from transferscope.results.ranking import Ranking
from transferscope.results.reason import reason
from transferscope.runtime.metrics import uneven_hint
from transferscope.runtime.provenance import Provenance, versions
from transferscope.verbs.bench import Bench
from transferscope.verbs.rank.pilots import as_results, find_out
from transferscope.verbs.rank.reference import ReferenceFacts, ReferenceMaker
from transferscope.verbs.rank.request import RankRequest
from transferscope.verbs.rank.scorer import Scorer
from transferscope.verbs.rank.scorer_elsewhere import score_elsewhere

logger = logging.getLogger("transferscope")


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
    images: str | None = None,
    labels: str | Sequence[str] | None = None,
    task: str | None = None,
    value_range: Range | None = None,
    bands: Sequence[int] | None = None,
    protocol: str = "any",
    shots: int | None = None,
    objective: str = "accuracy",
    mode: str = "default",
    pilots: int | str = 0,
    pilot_budget: float | None = None,
    evidence: str | Path | pd.DataFrame | Sequence[str | Path | pd.DataFrame] | None = None,
    calibration: str | Path | None = None,
    metric: str | None = None,
    on: str | None = None,
    executor: concurrent.futures.Executor | None = None,
    shard: str | None = None,
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
        no accuracy, whose error needs none: at least 2, 20 are enough; 0 for none at all. Every draw costs as much
        as those scores themselves.
    reference : str
        "compact": a small residual network trained from scratch on the probe; "own": each source's own
        architecture, re-initialised and trained; a checkpoint of `networks.CompactResNet`; or the name of a
        source in the zoo, which is then not ranked.
    recipe : Recipe, optional
        How the reference is trained.
    trust_code : bool
        Whether factories of `loader: python` may be run.
    images, labels
        Columns of a table, see `load_target`.
    value_range, bands
        How images are read, as `load_target` says: by default as they tell.
    protocol : str
        "truncate" (a linear head on frozen features, the network ends at the cut), "reinit" (what follows the cut is
        re-initialised and trained, what is kept stays frozen), "finetune" (the same, all of it trained), "defrost" (the
        whole source is kept, frozen up to the cut, the rest trained) or "any": the best of them for each source.
    shots : int, optional
        Images of each class that a transfer is expected to be trained on. By default all images of the target. With
        fewer than the target has, the probe set is that small too.
    objective : str
        "accuracy"; "accuracy-per-joule" of one prediction (accuracy above that of always guessing the largest class,
        over FLOPs); or "latency": the fewest FLOPs of all that are tied for best.
    mode : str
        "default", or "quick": similarities, and only the scores that the prediction needs.
    pilots : int or "auto"
        Real transfers to run before the answer, at most; one after the other, first the one that is expected to help
        most for its time, with the recipe of `measure`. They end early when one source with one protocol is the best
        with probability 0.9, or nothing is to be gained. "auto": as many as `pilot_budget` allows. Each is trained and
        tested on images as `PilotImages` says, and is kept, so that the same question is answered without running
        anything again. By default none is run, and the result says what some would bring.
    pilot_budget : float, optional
        Seconds that pilots may take together, by default 120 for "auto" and without limit for a number. No pilot is
        begun that is expected to take longer than what is left. Which pilots that allows depends on the speed of the
        machine; with a number alone it does not: what they cost is then counted in operations.
    evidence : path, DataFrame or several of them, optional
        What was measured before: runs.csv as `measure` writes it. Rows of this target and of sources of the zoo count;
        what is left out is named in a warning.
    calibration : path, optional
        What accuracies are expected by, a file of `calibrate`. By default the one of this version, from measured
        transfers of other targets.
    metric : str, optional
        What sources are ranked by and expectations are of: "accuracy", or "balanced-accuracy", the mean over classes of
        the share that is right, in which rare classes count as much as others. The model that expects it was fitted to
        targets whose classes have equally many images, where both are the same. Of several labels an image
        "mean-average-precision" or "macro-f1", of numbers "r2" or "spearman", which are expected as `any_task` says.
        By default the first of them that suits the task.
    on : str, optional
        Where sources are run and scored: "processes:N", "dask:tcp://HOST:PORT", "dask:local", "slurm" or
        "slurm:partition=NAME,gpus=1,time=60"; by default in this process. The answer is the same.
    executor : concurrent.futures.Executor, optional
        The same with an executor of one's own, such as Dask's ``client.get_executor()``, mpi4py's or loky's.
    shard : str, optional
        "i/n" of n processes that are asked the same at the same time and share the cache: which sources this one begins
        with. Each leaves alone what another one is at work on, and ends with the whole answer. By default what a batch
        system says: the task of a SLURM array, or RANK and WORLD_SIZE.

    Raises
    ------
    InputError
        When an argument, the target or the zoo is not as expected.
    DeviceError
        When the device does not exist.
    SourceError
        When not a single source could be ranked; single failures are in `Ranking.failed`.
    """
    return answer(RankRequest(**locals()))  # each argument is a field


def answer(request: RankRequest, bench: Bench | None = None) -> Ranking:
    """Answer what `rank` is asked, on a bench that is set up already where another verb has one."""
    return answer_and_belief(request, bench)[0]


def answer_and_belief(request: RankRequest, bench: Bench | None = None) -> tuple[Ranking, Belief]:
    """Return the answer with the belief that it follows from, for other numbers of images."""
    with noted_warnings() as noted:
        tables = read_evidence(given_evidence(request.evidence))
        given = None if request.calibration is None else load_calibration(request.calibration)
        bench = bench or Bench.set_up(request)
        task = bench.target.task
        calibration_for(task, given)  # complains before anything is run
        if hint := uneven_hint(bench.metric, bench.target.classes, bench.counts):
            logger.info("%s", hint)
        maker = ReferenceMaker(request.reference, request.recipe, bench)
        scorer = Scorer(maker, request.scores_for(task), request.uncertainty)
        if request.place is None:
            units, failed, reference = scorer.score_all(request.part)
        else:
            units, failed, reference = score_elsewhere(request.place, scorer)
        scratch = reference.candidate()
        scores = _labelled(units, bench, request, scratch, reference)
        stages = {unit.source: unit.stages for unit in units}
        fingerprints = {source: loading.fingerprint(bench.zoo[source]) for source in stages}
        belief = believe(scores, _trained_on(bench, request), _of_sources(given, fingerprints))
        known = _evidence(tables, stages, belief, bench, fingerprints)
        tried, outlook = find_out(bench, request, scores, stages, belief.given(known))
        pilots = as_results(tried)
        belief = belief.given([*known, *tried])
        predictions = expected.labelled(scores, belief).sel(protocol=list(request.protocols))
        predictions = predictions.assign_attrs(objective=request.objective, evidence=len(known))
        picks = recommend(
            predictions,
            belief,
            labelled.score_names(scores),
            scratch,
            [name for name in labelled.BASELINES if name in scores],
            request.objective,
        )
        recommendations = tuple(replace(pick, reason=reason(pick, picks, predictions, pilots)) for pick in picks)
        bench.clock.lap("selection")
    ranking = Ranking(
        target=bench.summary(),
        reference=reference.summary,
        recommendations=recommendations,
        scores=predictions,
        failed=tuple(failed),
        provenance=_provenance(fingerprints, bench, request, tables),
        warnings=tuple(noted),
        timings=bench.clock.seconds,
        pilots=pilots,
        outlook=outlook,
    )
    return ranking, belief


def _labelled(
    units: Sequence[labelled.SourceScores],
    bench: Bench,
    request: RankRequest,
    scratch: ScratchCandidate | None,
    reference: ReferenceFacts,
) -> xr.Dataset:
    """Return the scores of all sources over (source, depth), with what is known beside them."""
    target, probe, metric = bench.target, bench.probe, bench.metric
    attributes = {
        "target": target.name,
        "target_hash": target.hash,
        "n_samples": probe.n_samples,
        "classes": len(target.classes),
        "seed": bench.seed,
        "device": str(bench.device),
        "largest_class": metric.without_looking(bench.values),
        "metric": metric.name,
    }
    if request.uncertainty:
        attributes["uncertainty"] = request.uncertainty
    if scratch is not None:
        attributes |= {
            "scratch_accuracy": scratch.accuracy,
            "scratch_held_out": reference.held_out_worth,
            "scratch_tested_on": reference.summary.held_out_samples,
            "scratch_trained_on": reference.summary.trained_on,
        }
    scored = [bench.zoo[unit.source] for unit in units]
    return labelled.to_dataset(units, attributes, _baselines(scored, bench.zoo.order))


def _of_sources(given: Calibration | None, fingerprints: Mapping[str, str]) -> Calibration | None:
    """Return a calibration by the names of the sources, and say how many of its networks these are."""
    if given is None or not given.networks:
        return given
    found = given.of_sources(fingerprints)
    logger.info(
        "The calibration knows %d of the %d sources from other targets; it has learnt of %d networks",
        len(found.networks), len(fingerprints), len(given.networks),
    )  # fmt: skip
    return found


def _trained_on(bench: Bench, request: RankRequest) -> int:
    """Return how many images transfers are expected to be trained on."""
    if request.shots is None:
        return max(bench.n_sound, bench.probe.n_samples)
    return request.shots * len(bench.target.learnt.groups)


def _evidence(
    tables: Sequence[Table],
    stages: Mapping[str, Sequence[Stage]],
    belief: Belief,
    bench: Bench,
    fingerprints: Mapping[str, str],
) -> list[Observation]:
    """Return what was measured of this target with these sources."""
    return observations(
        tables,
        target=bench.target.name,
        target_hash=bench.target.hash,
        layers={source: [stage.layer for stage in of_source] for source, of_source in stages.items()},
        candidates=set(belief.rows[["source", "depth", "protocol"]].itertuples(index=False, name=None)),
        fingerprints=fingerprints,
        metric=bench.metric,
        worth=bench.metric.worth_of(pool := bench.target.values[bench.target.pool()]) / len(pool),
    )


def _provenance(
    fingerprints: Mapping[str, str], bench: Bench, request: RankRequest, tables: Sequence[Table]
) -> Provenance:
    return Provenance(
        settings={**request.settings_for(bench.target.task), "evidence": [table.record() for table in tables]},
        sources=fingerprints,
        versions=versions(),
    )


def _baselines(sources: Sequence[Source], order: Sequence[str] | None) -> dict[str, list[float]]:
    """Return what the zoo says of these sources, where it says anything."""
    baselines = {}
    accuracies = [source.accuracy for source in sources]
    if any(accuracies):
        baselines["source_accuracy"] = [np.nan if accuracy is None else accuracy for accuracy in accuracies]
    if order is not None:
        baselines["preference"] = [
            float(len(order) - order.index(source.name)) if source.name in order else 0.0 for source in sources
        ]
    return baselines
