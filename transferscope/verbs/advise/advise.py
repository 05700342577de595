"""Target and zoo in, advice out: which way to transfer the best source to these images, and at what cost here."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from transferscope.arrays import backend
from transferscope.data.value_range import Range
from transferscope.errors import InputError, SourceError, is_interrupt
from transferscope.networks.zoo import Zoo
from transferscope.prediction.belief import Belief
from transferscope.prediction.expected import labelled
from transferscope.protocols.heads.toptuning import ENOUGH
from transferscope.protocols.training.recipe import Recipe
from transferscope.results.advice import NAMES, Advice, Change, Way
from transferscope.results.ranking import Ranking
from transferscope.runtime.failures import Failure, describe, failure
from transferscope.runtime.footprint import Footprint, Meter
from transferscope.runtime.metrics import CLASSIFICATION
from transferscope.runtime.power import WORLD
from transferscope.runtime.progress import Report
from transferscope.runtime.seeding import contained
from transferscope.verbs.advise.accuracies import choose_depths, expected, head_shifts
from transferscope.verbs.advise.costs import HEADS, Cost, Timer, footprint
from transferscope.verbs.advise.decision import changes, cheapest
from transferscope.verbs.advise.request import AdviseRequest
from transferscope.verbs.bench import Bench
from transferscope.verbs.rank.rank import answer_and_belief

_SIZES = 16
"""Numbers of images per class at which advice is sought, evenly spaced on a log scale."""
_FURTHEST = 10
"""How many times as many images as scores were computed on, or as were asked for, advice is sought for at most."""


def advise(
    target: Any,
    zoo: Zoo | str | Path | Mapping[str, Any] | Sequence[Any],
    *,
    source: str | None = None,
    shots: int | None = None,
    pilots: int | str = 0,
    pilot_budget: float | None = None,
    evidence: str | Path | pd.DataFrame | Sequence[str | Path | pd.DataFrame] | None = None,
    calibration: str | Path | None = None,
    metric: str | None = None,
    tolerance: float = 0.02,
    device: str = "auto",
    samples: int = 1000,
    batch_size: int = 64,
    seed: int = 0,
    country: str = WORLD,
    recipe: Recipe | None = None,
    progress: bool = True,
    trust_code: bool = False,
    images: str | None = None,
    labels: str | Sequence[str] | None = None,
    task: str | None = None,
    value_range: Range | None = None,
    bands: Sequence[int] | None = None,
) -> Advice:
    """Say which way to transfer a source to a target: a row for each way, with expected accuracy and cost.

    The ways are those that Tormos et al. (2022, arXiv 2211.04347) and Alfano et al. (2022, arXiv 2209.07932) weigh
    against each other: a linear head, the full-network embedding and top-tuning on frozen features, partial and full
    fine-tuning, and training from scratch; and fine-tuning with the first stages frozen. Accuracies are those of
    `rank`; of the embedding and of top-tuning, which its model does not have, that of a linear head, moved by what they
    have over it when images are left out. Costs come
    from a few steps of each that are really run here, times the steps that `measure` would take.

    Parameters
    ----------
    target : path, Target, torchvision dataset or (images, labels)
        What `load_target` takes.
    zoo : Zoo, path, mapping or sequence
        What `load_zoo` takes.
    source : str, optional
        Name of the source; by default the one that ranks first.
    shots : int, optional
        Images of each class to train on; by default those of the target, as in `rank`.
    pilots, pilot_budget, evidence, calibration, metric
        As in `rank`, of the source alone where one is named: what was measured counts for the accuracy of each way.
    tolerance : float
        Accuracy that may be lost for the sake of cost, at least 0 and below 1.
    device, samples, batch_size, seed, progress, trust_code, images, labels, task, value_range, bands
        As in `rank`.
    country : str
        Whose electricity is counted: an ISO 3166 alpha-3 code, or "world".
    recipe : Recipe, optional
        How the reference of `rank` is trained.

    Raises
    ------
    InputError
        When an argument, the target or the zoo is not as expected.
    DeviceError
        When the device does not exist.
    SourceError
        When the source cannot be ranked, or not a single one can.
    """
    return answer(AdviseRequest(**locals()))  # each argument is a field


def answer(request: AdviseRequest) -> Advice:
    """Answer what `advise` is asked."""
    ranked = request.of_rank()
    meter = Meter(request.country, backend.resolve_device(request.device))
    bench = Bench.set_up(ranked)
    if bench.target.task != CLASSIFICATION:
        raise InputError(
            f"Expected a target whose images have one class each, but the task of {bench.target.name!r} is "
            f"{bench.target.task}, for which what ways to transfer give is not known; `rank` and `measure` take it"
        )
    ranking, belief = answer_and_belief(ranked, bench)
    tolerance = request.tolerance
    chosen = next(pick.source for pick in ranking.recommendations if pick.layer is not None)
    scores = ranking.scores.sel(source=chosen)
    depths = choose_depths(scores)
    with contained():
        with bench.reporter.bar(f"features of {chosen}") as report:
            features = bench.source_features(bench.zoo[chosen], report)
        shifts = head_shifts(
            list(features.arrays.values()), bench.probe.labels, depths["truncate"], bench.seed, bench.metric
        )
        began = time.perf_counter()
        network = bench.network(bench.zoo[chosen])
        layers = [backend.to_numpy(array) for array in features.arrays.values()]
        timer = Timer(network, features.stages, layers, bench, meter)
        # With fewer images of a class, `measure` sets none aside to choose settings by.
        fewest = np.bincount(bench.target.labels).min() if request.shots is None else request.shots
        with bench.reporter.bar("costs") as report:
            costs, untimed = _costs(timer, depths, fewest >= ENOUGH, report)
        spent = time.perf_counter() - began
    depths = {protocol: depth for protocol, depth in depths.items() if protocol in costs}
    accuracies = expected(scores, depths, shifts)
    names = ["", *(stage.layer for stage in features.stages)]
    spending = {protocol: footprint(costs[protocol], ranking.expected_for, meter) for protocol in depths}
    ways = [
        _way(protocol, depth, names[depth], accuracies[protocol], spending[protocol])
        for protocol, depth in depths.items()
    ]
    turns, looked_at = _turning_points(ranking, belief, chosen, depths, shifts, costs, tolerance)
    return Advice(
        target=ranking.target,
        source=chosen,
        depths=len(features.stages),
        samples=ranking.expected_for,
        tolerance=float(tolerance),
        ways=tuple(ways),
        advised=cheapest(
            {way.protocol: way.expected_accuracy for way in ways},
            {way.protocol: way.seconds for way in ways},
            tolerance,
        ),
        changes=turns,
        looked_at=looked_at,
        energy=meter.describe(),
        measured_seconds=spent,
        left_out=(*_impossible(ranking, chosen, depths), *untimed),
        failed=ranking.failed,
        pilots=ranking.pilots,
        hint=ranking.hint,
        metric=bench.metric.name,
    )


def _impossible(ranking: Ranking, source: str, depths: Mapping[str, int]) -> list[Failure]:
    """Return the ways that the source cannot be adapted by at any depth, each with the reason."""
    known = [entry for entry in ranking.left_out if entry.source == source and entry.protocol not in depths]
    return [Failure(entry.protocol, entry.reason) for entry in known]


def _costs(
    timer: Timer, depths: Mapping[str, int], searched: bool, report: Report
) -> tuple[dict[str, Cost], tuple[Failure, ...]]:
    """Time each way; those that the source does not allow come back with the reason."""
    name = timer.network.name
    try:
        forward = timer.forward()
    except (Exception, SystemExit) as error:
        if is_interrupt(error):
            raise KeyboardInterrupt from error
        raise SourceError(f"source {name!r}: {describe(name, error, timer.bench.batch_size)}") from error
    costs: dict[str, Cost] = {}
    left_out = []
    for done, (protocol, depth) in enumerate(depths.items(), 1):
        if protocol in HEADS:
            costs[protocol] = timer.head(protocol, depth, forward, searched=searched)
        elif protocol == "scratch" and "finetune" in costs:
            costs[protocol] = costs["finetune"]  # the same work: all weights of this architecture are trained
        else:
            try:
                costs[protocol] = timer.training(protocol, depth)
            except (Exception, SystemExit) as error:  # whatever a network's code raises must not cost the other ways
                reason = failure(name, error, timer.bench.batch_size, f"{NAMES[protocol]} of {name}").error
                left_out.append(Failure(protocol, reason))
        report(done, len(depths))
    return costs, tuple(left_out)


def _way(protocol: str, depth: int, layer: str, accuracy: tuple[float, float, float], cost: Footprint) -> Way:
    seconds = sum(cost.seconds.values())
    return Way(protocol, depth, layer, accuracy[0], accuracy[1:], seconds, cost.kwh, cost.kgco2e, cost.trials)


def _turning_points(
    ranking: Ranking,
    belief: Belief,
    source: str,
    depths: Mapping[str, int],
    shifts: Mapping[str, float],
    costs: Mapping[str, Cost],
    tolerance: float,
) -> tuple[tuple[Change, ...], tuple[int, int]]:
    """Seek advice from the images that scores were computed on up to `_FURTHEST` times as many."""
    classes, scores = ranking.target.classes, ranking.scores
    seen, asked = math.ceil(ranking.target.samples / classes), ranking.expected_for // classes
    grid = set(np.round(np.geomspace(seen, _FURTHEST * max(seen, asked), _SIZES)).astype(int).tolist())
    if asked >= seen:
        grid.add(asked)
    sizes, chosen = sorted(grid), []
    for size in sizes:
        n_samples = size * classes
        expectations = expected(labelled(scores, belief.trained_on(n_samples)).sel(source=source), depths, shifts)
        seconds = {name: sum(spent for spent, _ in costs[name].phases(n_samples).values()) for name in depths}
        chosen.append(cheapest({name: values[0] for name, values in expectations.items()}, seconds, tolerance))
    return changes(sizes, chosen), (sizes[0], sizes[-1])
