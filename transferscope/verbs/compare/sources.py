"""Two networks of a zoo, or one and the scratch reference: how similar their layers are on a target."""

import concurrent.futures
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transferscope.activations.reductions import Reduction
from transferscope.activations.selecting import Layers
from transferscope.arrays import backend
from transferscope.data.value_range import Range
from transferscope.networks.zoo import SCRATCH, Zoo
from transferscope.protocols.training.recipe import Recipe
from transferscope.results.comparison import Comparison
from transferscope.verbs.bench import Bench
from transferscope.verbs.compare.elsewhere import compare_elsewhere
from transferscope.verbs.compare.networks import compare_by
from transferscope.verbs.compare.options import Estimator
from transferscope.verbs.compare.pair import blamed_on, load_pair
from transferscope.verbs.compare.request import CompareRequest
from transferscope.verbs.rank.reference import ReferenceMaker


def compare_sources(
    x: str,
    y: str,
    target: Any,
    zoo: Zoo | str | Path | Mapping[str, Any] | Sequence[Any],
    *,
    measures: str | Sequence[str] = "linear_cka",
    layers_x: Layers | None = None,
    layers_y: Layers | None = None,
    reduce: Reduction = "flatten",
    standardize: bool = False,
    estimator: Estimator = "minibatch",
    standard_error: bool = False,
    permutations: int = 0,
    precision: backend.Precision = "float32",
    reference: str = "compact",
    recipe: Recipe | None = None,
    device: str = "auto",
    samples: int = 1000,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
    trust_code: bool = False,
    images: str | None = None,
    labels: str | Sequence[str] | None = None,
    task: str | None = None,
    value_range: Range | None = None,
    bands: Sequence[int] | None = None,
    on: str | None = None,
    executor: concurrent.futures.Executor | None = None,
) -> Comparison:
    """Compare every layer of one network with every layer of another on the images of a target.

    Each network sees the images as its own transform prepares them; the same tensors where the transforms agree.

    Parameters
    ----------
    x, y : str
        Names of sources in the zoo; they may be the same. "scratch" is the reference network of `rank`.
    target : path, Target, torchvision dataset or (images, labels)
        What `load_target` takes.
    zoo : Zoo, path, mapping or sequence
        What `load_zoo` takes.
    measures : str or sequence of str
        Names in `similarity.MEASURES`.
    layers_x, layers_y
        As in `capture`; by default what the zoo says of the source.
    reduce, standardize, estimator, standard_error, permutations, precision
        As in `compare`.
    reference, recipe
        What "scratch" is, and how it is trained, as in `rank`; found in the cache where `rank` has trained it.
    device, samples, batch_size, seed, progress, trust_code, images, labels, task, value_range, bands
        As in `rank`.
    on, executor
        Where the networks run, as in `rank`; linear CKA over batches is divided among workers.

    Raises
    ------
    InputError
        When an argument, the target or the zoo is not as expected.
    DeviceError
        When the device does not exist.
    SourceError
        When a network cannot be loaded, run or compared.
    """
    return answer(CompareRequest(**locals()))  # each argument is a field


def answer(request: CompareRequest) -> Comparison:
    """Answer what `compare_sources` is asked."""
    bench = Bench.set_up(request)
    if SCRATCH in request.named(bench.zoo):
        ReferenceMaker(request.reference, request.recipe, bench).given_source()  # which checks what the reference is
    if request.place is None:
        pair = load_pair(request, bench)
        both = f"{request.x} with {request.y}"
        with blamed_on(both, request.batch_size), bench.reporter.bar(both) as report:
            results = compare_by(pair.x.module, pair.y.module, bench.probe, pair.options, report)
        reference = None if pair.reference is None else pair.reference.summary()
    else:
        results, reference = compare_elsewhere(request.place, request, bench)
    return Comparison(
        x=request.x,
        y=request.y,
        target=bench.summary(),
        reference=reference,
        results={measure: array.assign_attrs(x=request.x, y=request.y) for measure, array in results.items()},
    )
