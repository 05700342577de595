"""Target and zoo in, advice out: which way to transfer the best source to these images, and at what cost here."""

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from transferscope.arrays import backend
from transferscope.data.target import load_target
from transferscope.errors import InputError, SourceError, TransferscopeWarning, is_interrupt, near
from transferscope.networks import loading
from transferscope.networks.zoo import Zoo, load_zoo
from transferscope.prediction.expected import expected_accuracies, most_samples
from transferscope.protocols.heads.toptuning import ENOUGH
from transferscope.protocols.training.recipe import Recipe
from transferscope.results.advice import NAMES, Advice, Change, Way
from transferscope.results.ranking import Ranking
from transferscope.runtime.checks import check_arguments
from transferscope.runtime.failures import Failure, describe, failure
from transferscope.runtime.footprint import Footprint, Meter
from transferscope.runtime.power import WORLD
from transferscope.runtime.progress import Report, Reporter
from transferscope.runtime.seeding import contained
from transferscope.runtime.store import Store
from transferscope.verbs.advise.accuracies import choose_depths, expected, head_shifts
from transferscope.verbs.advise.costs import HEADS, Cost, Timer, footprint
from transferscope.verbs.advise.decision import changes, cheapest
from transferscope.verbs.features import source_features
from transferscope.verbs.rank.rank import rank

_SIZES = 16
"""Numbers of images per class at which advice is sought, evenly spaced on a log scale."""


def advise(
    target: Any,
    zoo: Zoo | str | Path | Mapping[str, Any] | Sequence[Any],
    *,
    source: str | None = None,
    shots: int | None = None,
    tolerance: float = 0.02,
    device: str = "auto",
    samples: int = 1000,
    batch_size: int = 64,
    seed: int = 0,
    country: str = WORLD,
    recipe: Recipe | None = None,
    progress: bool = True,
    trust_code: bool = False,
) -> Advice:
    """Say which way to transfer a source to a target: a row for each way, with expected accuracy and cost.

    The ways are those that Tormos et al. (2022, arXiv 2211.04347) and Alfano et al. (2022, arXiv 2209.07932) weigh
    against each other: a linear head, the full-network embedding and top-tuning on frozen features, partial and full
    fine-tuning, and training from scratch. Accuracies are those of `rank`; of the embedding and of top-tuning, which
    were not calibrated, that of a linear head, moved by what they have over it when images are left out. Costs come
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
    tolerance : float
        Accuracy that may be lost for the sake of cost, at least 0 and below 1.
    device, samples, batch_size, seed, progress, trust_code
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
    check_arguments(samples, batch_size, seed, "compact")
    _check_numbers(tolerance, shots)
    where = backend.resolve_device(device)
    sources = load_zoo(zoo)
    if source is not None:
        sources = _only(sources, source)
    meter = Meter(country, where)
    images = load_target(target, progress=progress)
    ranking = rank(
        images, sources, device=device, samples=samples, batch_size=batch_size, seed=seed, progress=progress,
        recipe=recipe, trust_code=trust_code, shots=shots, mode="quick",
    )  # fmt: skip
    chosen = next(pick.source for pick in ranking.recommendations if pick.layer is not None)
    own = ranking.scores.sel(source=chosen)
    depths = choose_depths(own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TransferscopeWarning)  # of broken images, which `rank` has told of
        probe = images.probe(ranking.target.samples, seed, progress=progress)
    reporter = Reporter(progress)
    with contained():
        with reporter.bar(f"features of {chosen}") as report:
            features = source_features(
                sources[chosen], probe, seed=seed, trust_code=trust_code, store=Store(), device=where,
                batch_size=batch_size, report=report,
            )  # fmt: skip
        shifts = head_shifts(list(features.arrays.values()), probe.labels, depths["truncate"], seed)
        began = time.perf_counter()
        network = loading.load_network(sources[chosen], seed=seed, trust_code=trust_code)
        layers = [backend.to_numpy(array) for array in features.arrays.values()]
        timer = Timer(network, features.stages, layers, probe, where, batch_size, seed, trust_code, meter)
        # With fewer images of a class, `measure` sets none aside to choose settings by.
        searched = (np.bincount(images.labels).min() if shots is None else shots) >= ENOUGH
        with reporter.bar("costs") as report:
            costs, left_out = _costs(timer, depths, searched, report)
        spent = time.perf_counter() - began
    depths = {protocol: depth for protocol, depth in depths.items() if protocol in costs}
    accuracies = expected(own, depths, shifts)
    names = ["", *(stage.layer for stage in features.stages)]
    spending = {protocol: footprint(costs[protocol], ranking.expected_for, meter) for protocol in depths}
    ways = [
        _way(protocol, depth, names[depth], accuracies[protocol], spending[protocol])
        for protocol, depth in depths.items()
    ]
    found, looked_at = _turning_points(ranking, chosen, depths, shifts, costs, tolerance)
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
        changes=found,
        looked_at=looked_at,
        calibrated=bool(own.attrs["calibrated"]),
        energy=meter.describe(),
        measured_seconds=spent,
        left_out=left_out,
        failed=ranking.failed,
    )


def _check_numbers(tolerance: Any, shots: Any) -> None:
    if not isinstance(tolerance, (int, float)) or isinstance(tolerance, bool) or not 0 <= tolerance < 1:
        raise InputError(f"Expected `tolerance` to be an accuracy, at least 0 and below 1, but got {tolerance!r}.")
    if shots is not None and (not isinstance(shots, Integral) or isinstance(shots, bool) or shots < 1):
        raise InputError(
            f"Expected `shots` to be a whole number of images of each class, at least 1, but got {shots!r}."
        )


def _only(zoo: Zoo, source: str) -> Zoo:
    """Return a zoo that holds this source alone."""
    if source not in zoo:
        hint = near(source, zoo.names) or f"; there are {', '.join(zoo.names)}"
        raise InputError(f"Expected `source` to name a source of the zoo, but got {source!r}{hint}")
    return zoo.model_copy(update={"sources": (zoo[source],), "order": None})


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
        raise SourceError(f"source {name!r}: {describe(name, error, timer.batch_size)}") from error
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
                reason = failure(name, error, timer.batch_size, f"{NAMES[protocol]} of {name}").error
                left_out.append(Failure(protocol, reason))
        report(done, len(depths))
    return costs, tuple(left_out)


def _way(protocol: str, depth: int, layer: str, accuracy: tuple[float, float, float], cost: Footprint) -> Way:
    seconds = sum(cost.seconds.values())
    return Way(protocol, depth, layer, accuracy[0], accuracy[1:], seconds, cost.kwh, cost.kgco2e, cost.trials)


def _turning_points(
    ranking: Ranking,
    source: str,
    depths: Mapping[str, int],
    shifts: Mapping[str, float],
    costs: Mapping[str, Cost],
    tolerance: float,
) -> tuple[tuple[Change, ...], tuple[int, int] | None]:
    """Seek advice from the images that scores were computed on up to the most that transfers were measured with."""
    classes, scores = ranking.target.classes, ranking.scores
    low, high = math.ceil(ranking.target.samples / classes), most_samples(scores) // classes
    if high < low:
        return (), None
    grid = set(np.round(np.geomspace(low, high, _SIZES)).astype(int).tolist())
    if low <= (asked := ranking.expected_for // classes) <= high:
        grid.add(asked)
    sizes, chosen = [], []
    for size in sorted(grid):
        n_samples = size * classes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TransferscopeWarning)  # that it is beyond what was measured
            predicted = expected_accuracies(scores, n_samples)
        if predicted.attrs["calibrated"]:
            found = expected(predicted.sel(source=source), depths, shifts)
            seconds = {name: sum(spent for spent, _ in costs[name].phases(n_samples).values()) for name in depths}
            sizes.append(size)
            chosen.append(cheapest({name: values[0] for name, values in found.items()}, seconds, tolerance))
    return changes(sizes, chosen), (sizes[0], sizes[-1]) if sizes else None
