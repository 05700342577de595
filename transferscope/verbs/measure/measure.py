"""A grid of real transfers from beginning to end: plan, run what is missing, record each run as it ends."""

import concurrent.futures
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transferscope.activations.capture import resolve_stages
from transferscope.arrays import backend
from transferscope.data.bank import Bank, sound
from transferscope.data.images import Transform
from transferscope.data.splits import hold_out, sizes_within
from transferscope.data.value_range import Range
from transferscope.errors import SourceError
from transferscope.networks import loading
from transferscope.networks.zoo import Zoo, load_zoo
from transferscope.protocols.finetuning import MIN_STEPS
from transferscope.protocols.heads.several import check_protocol
from transferscope.results.left_out import LeftOut, left_out_of, sentences
from transferscope.results.measurement import Measurement
from transferscope.runtime.checks import ALL, Size
from transferscope.runtime.failures import Failure, failure, listed
from transferscope.runtime.metrics import metric_of
from transferscope.runtime.power import WORLD
from transferscope.runtime.progress import Report, Reporter
from transferscope.runtime.store import Store
from transferscope.verbs.measure.grid import Grid
from transferscope.verbs.measure.plan import Depths, plan
from transferscope.verbs.measure.request import OUTPUT, PROTOCOLS_BY_DEFAULT, SIZES_BY_DEFAULT, MeasureRequest
from transferscope.verbs.measure.settings import Settings, held_out
from transferscope.verbs.possible import possible_protocols
from transferscope.verbs.running.executor import Executor, Setup
from transferscope.verbs.running.run import PROTOCOLS, Run


def measure(
    target: Any,
    zoo: Zoo | str | Path | Mapping[str, Any] | Sequence[Any],
    output: str | Path = OUTPUT,
    *,
    protocols: Sequence[str] = PROTOCOLS_BY_DEFAULT,
    samples_per_class: Sequence[Size] = SIZES_BY_DEFAULT,
    depths: Depths = ALL,
    seeds: int = 3,
    test_samples: int = 2000,
    optimiser: str = "adamw",
    epochs: int = 40,
    min_steps: int = MIN_STEPS,
    learning_rates: Sequence[float] = (),
    early_stopping: bool = False,
    jobs: int = 1,
    on: str | None = None,
    executor: concurrent.futures.Executor | None = None,
    shard: str | None = None,
    metric: str | None = None,
    time_budget: float | None = None,
    retry_failed: bool = False,
    country: str = WORLD,
    device: str = "auto",
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
    trust_code: bool = False,
    images: str | None = None,
    labels: str | Sequence[str] | None = None,
    task: str | None = None,
    value_range: Range | None = None,
    bands: Sequence[int] | None = None,
) -> Measurement:
    """Run real transfers over sources, protocols, depths and numbers of images; record what each gave and cost.

    Every run that ends is a row of ``runs.csv`` at once. A grid that was interrupted, or is asked for again with more
    of anything, runs what is missing.

    Parameters
    ----------
    target : path, Target, torchvision dataset or (images, labels)
        What `load_target` takes.
    zoo : Zoo, path, mapping or sequence
        What `load_zoo` takes.
    output : path
        Folder of the results.
    protocols : sequence of str
        Names in `run.PROTOCOLS`.
    samples_per_class : sequence of int or "all"
        Training images of each class; of several labels, of each that is the rarest of an image; of numbers, of each of
        ten ranges with as many images. For one seed, larger draws contain the smaller. Where settings are to be chosen
        and there are 5 images of each class and more, a fifth of them decide.
    depths : "all" or sequence of int
        Stages to keep; negative ones count from the end.
    seeds : int
        Draws of images for each size; each decides everything random about its runs.
    test_samples : int
        Most images to measure on. They are the folder's own test split where there is one, else a quarter of each
        class, the same for all runs, and none is ever trained on.
    optimiser, epochs, min_steps, learning_rates
        Of the protocols that train, in place of their own recipe. Training takes `epochs` or, with few images, as many
        as make `min_steps` optimiser steps. Of several learning rates the best on validation images is taken, and each
        counts as a trial.
    early_stopping : bool
        Whether training stops, and which epoch it keeps, by the loss on a fifth of the images, which then are not
        trained on; as in Tormos et al. (2022, arXiv 2211.04347). Without, all images are trained on to the end of the
        schedule, unless there are several learning rates. What it costs with few images is what
        benchmarks/groundtruth/check.py measures.
    jobs : int
        Runs side by side, each in a process of its own with its share of the cores. A script that asks for more than
        one needs ``if __name__ == "__main__":``.
    on : str, optional
        Where runs are carried out instead: "processes:N", which is what `jobs` does; "dask:tcp://HOST:PORT" or
        "dask:local"; "slurm" or "slurm:partition=NAME,gpus=1,time=60".
    executor : concurrent.futures.Executor, optional
        The same with an executor of one's own, such as Dask's ``client.get_executor()``, mpi4py's or loky's.
    shard : str, optional
        "i/n" of n processes that are asked the same with one `output` folder: where this one begins, as in `rank`.
    metric : str, optional
        What the best is by: "accuracy" or "balanced-accuracy"; of several labels "mean-average-precision" or
        "macro-f1"; of numbers "r2" or "spearman". The first of each by default.
    time_budget : float, optional
        Seconds after which no run is begun.
    retry_failed : bool
        Whether runs that are recorded as failed are run again.
    country : str
        Whose electricity is counted: an ISO 3166 alpha-3 code, or "world".
    device, batch_size, progress, trust_code, images, labels, task, value_range, bands
        As in `rank`.
    seed : int
        Decides which images are tested on, and weights of a source that no file gives.

    Raises
    ------
    InputError
        When an argument, the target or the zoo is not as expected.
    DeviceError
        When the device does not exist.
    SourceError
        When not a single source can be loaded.
    TransferscopeError
        When a result cannot be written; what was recorded before is intact.
    """
    return answer(MeasureRequest(**locals()))  # each argument is a field


def answer(request: MeasureRequest) -> Measurement:
    """Answer what `measure` is asked."""
    return prepare(request).run(request.time_budget)


def prepare(request: MeasureRequest) -> Grid:
    """Plan a grid and read its images; nothing is written yet."""
    where = backend.resolve_device(request.device)
    sources = load_zoo(request.zoo)
    seeds, place = request.seeds, request.place
    for source in sources:
        loading.check_trust(source, request.trust_code)
    images = request.load(request.target)
    metric = metric_of(request.metric, images.task)
    for protocol in request.protocols:
        check_protocol(protocol, images.task)
    pool, test = hold_out(images, most=request.test_samples, seed=request.seed)
    reporter = Reporter(request.progress)
    with reporter.bar("loading networks") as report:
        layers, impossible, transform, failed = _layers(sources, request, report)
    bank = Bank(images, transform)
    with reporter.bar("reading images") as report:
        pool, test, drawn = sound(images, pool, test, request.samples_per_class, range(seeds), bank, report)
    setup = Setup(
        target=images,
        zoo=sources,
        pool=pool,
        test=test,
        drawn=drawn,
        recipes=dict(request.recipes),
        learning_rates=tuple(request.learning_rates),
        early_stopping=request.early_stopping,
        device=where.type if request.device == "auto" else request.device,
        batch_size=request.batch_size,
        trust_code=request.trust_code,
        country=request.country,
        states=Path(request.output).absolute() / ".states",
        seed=request.seed,
        together=where.type == "cuda",
        jobs=max(1, place.workers) if place is not None and place.kind == "processes" else 1,
    )
    sizes = sizes_within(request.samples_per_class, images.strata[pool], images.task)
    runs = plan(
        layers, request.protocols, sizes,
        target=images.name, seeds=seeds, depths=request.depths, impossible=impossible,
    )  # fmt: skip
    if not runs:
        reasons = [" ".join(sentences(entries).values()) for entries in impossible.values()]
        raise SourceError(f"Nothing is left to run. {'. '.join(reasons)}")
    settings = Settings(
        target=images.name,
        target_hash=images.hash,
        held_out=held_out(pool, test),
        device=where.type,
        options=request.decisive(),
        sources={name: loading.fingerprint(sources[name]) for name in layers},
        n_test=len(test),
        task=images.task,
    )
    return Grid(
        runs,
        Path(request.output),
        settings,
        Executor(setup, bank),
        reporter,
        failed,
        request.retry_failed,
        _twins(runs, sources),
        place,
        request.part,
        metric,
    )


def _layers(
    sources: Zoo, request: MeasureRequest, report: Report
) -> tuple[dict[str, tuple[str, ...]], dict[str, list[LeftOut]], Transform, tuple[Failure, ...]]:
    """Return where each source can be cut, by what it cannot be adapted, a transform, and what cannot be loaded."""
    layers: dict[str, tuple[str, ...]] = {}
    impossible: dict[str, list[LeftOut]] = {}
    store, trains = Store(), any(PROTOCOLS[name].kind == "trained" for name in request.protocols)
    transforms: list[Transform] = []
    failed: list[Failure] = []
    for i, source in enumerate(sources):
        report(i, len(sources))
        try:
            network = loading.load_network(source, trust_code=request.trust_code, seed=request.seed)
            sample = network.transform.blank()
            stages = resolve_stages(network.module, source.layers, sample, cuts_only=True)
        except (Exception, SystemExit) as error:  # whatever a network's code raises must not cost the other sources
            failed.append(failure(source.name, error, request.batch_size))
            continue
        layers[source.name] = tuple(stage.layer for stage in stages)
        transforms.append(network.transform)
        if trains:
            possible = possible_protocols(
                source, network, layers[source.name], seed=request.seed, trust_code=request.trust_code, store=store
            )
            impossible[source.name] = left_out_of(source.name, possible)
    if not layers:
        raise SourceError(f"No source could be loaded. {listed(failed)}")
    return layers, impossible, transforms[0], tuple(failed)


def _twins(runs: Iterable[Run], sources: Zoo) -> dict[Run, list[Run]]:
    """Find scratch runs of sources that differ in their weights alone: they are one and the same transfer."""
    first: dict[Any, Run] = {}
    twins: dict[Run, list[Run]] = {}
    for run in runs:
        if PROTOCOLS[run.protocol].depths != "none":
            continue
        architecture = loading.architecture(sources[run.source])
        key = architecture, run.samples_per_class, run.seed
        if key in first:
            twins.setdefault(first[key], []).append(run)
        else:
            first[key] = run
    return twins
