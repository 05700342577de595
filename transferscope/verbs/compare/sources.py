"""Two networks of a zoo, or one and the scratch reference: how similar their layers are on a target."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from transferscope.activations.capture import capture
from transferscope.activations.reductions import Reduction
from transferscope.activations.selecting import Layers
from transferscope.arrays import backend
from transferscope.data.images import Transform
from transferscope.data.value_range import Range
from transferscope.errors import SourceError, TransferscopeError, is_interrupt
from transferscope.networks.zoo import SCRATCH, Zoo
from transferscope.protocols.training.recipe import Recipe
from transferscope.results.comparison import Comparison
from transferscope.runtime.failures import describe
from transferscope.runtime.seeding import contained
from transferscope.verbs.bench import Bench
from transferscope.verbs.compare.networks import compare_by
from transferscope.verbs.compare.options import Estimator
from transferscope.verbs.compare.request import CompareRequest
from transferscope.verbs.rank.reference import ReferenceMaker, ReferenceNetwork


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
    value_range: Range | None = None,
    bands: Sequence[int] | None = None,
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
    device, samples, batch_size, seed, progress, trust_code, images, labels, value_range, bands
        As in `rank`.

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
    x, y, batch_size = request.x, request.y, request.batch_size
    named = request.named(bench.zoo)
    maker = ReferenceMaker(request.reference, request.recipe, bench)
    if SCRATCH in named:
        maker.given_source()  # which checks what the reference is
    networks: dict[str, _Network] = {}
    for name, source in named.items():
        if source is not None:
            with _blamed_on(f"source {name!r}", batch_size):
                networks[name] = _Network(*bench.load(source), source.layers)
                sides = ((x, request.layers_x), (y, request.layers_y))
                networks[name].check(*(layers for side, layers in sides if side == name))
    made: ReferenceNetwork | None = None
    if SCRATCH in named:
        # Last, because training takes longest.
        with _blamed_on("the scratch network", batch_size):
            with bench.reporter.bar("scratch reference") as report:
                made = maker.network(next(filter(None, named.values()), None), report)
            networks[SCRATCH] = _Network(*made.build(), made.layers)
    one, other = networks[x], networks[y]
    with _blamed_on(f"{x} with {y}", batch_size), bench.reporter.bar(f"{x} with {y}") as report:
        options = request.options(one.layers, other.layers, (one.transform, other.transform))
        results = compare_by(one.module, other.module, bench.probe, options, report)
    return Comparison(
        x=x,
        y=y,
        target=bench.summary(),
        reference=None if made is None else made.summary(),
        results={measure: array.assign_attrs(x=x, y=y) for measure, array in results.items()},
    )


@dataclass(frozen=True)
class _Network:
    """One of the two networks, with the layers that are compared unless others are asked for."""

    module: nn.Module
    transform: Transform
    layers: Layers

    def check(self, *asked: Layers | None) -> None:
        """Run one black image, so that what is wrong with this network or its layers is known as its own."""
        for layers in asked:
            with capture(self.module, layers or self.layers, reduce=lambda output: output[:0]):
                self.module(self.transform.blank())


@contextmanager
def _blamed_on(what: str, batch_size: int) -> Iterator[None]:
    """Turn what networks raise, and their code may raise anything, into a SourceError that names them."""
    try:
        with contained():
            yield
    except (Exception, SystemExit) as error:
        if is_interrupt(error):
            raise KeyboardInterrupt from error
        if isinstance(error, TransferscopeError) and not isinstance(error, SourceError):
            raise
        text = describe(what, error, batch_size)
        raise SourceError(f"{what}: {text.removeprefix(f'{what}: ')}") from error
