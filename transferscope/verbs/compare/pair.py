"""The two networks that are compared, loaded or trained, each with the layers that are looked at."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from transferscope.activations.capture import capture
from transferscope.activations.selecting import Layers
from transferscope.data.images import Transform
from transferscope.errors import SourceError, TransferscopeError, is_interrupt
from transferscope.networks.zoo import SCRATCH
from transferscope.runtime.failures import describe
from transferscope.runtime.seeding import contained
from transferscope.verbs.bench import Bench
from transferscope.verbs.compare.options import Options
from transferscope.verbs.compare.request import CompareRequest
from transferscope.verbs.rank.reference import ReferenceMaker, ReferenceNetwork


@dataclass(frozen=True)
class ComparedNetwork:
    """One of the two networks, with the layers that are compared unless others are asked for."""

    module: nn.Module
    transform: Transform
    layers: Layers

    def check(self, *asked: Layers | None) -> None:
        """Run one black image, so that what is wrong with this network or its layers is known as its own."""
        for layers in asked:
            with capture(self.module, layers or self.layers, reduce=lambda output: output[:0]):
                self.module(self.transform.blank())


@dataclass(frozen=True)
class Pair:
    """Both networks, and how they are compared."""

    x: ComparedNetwork
    y: ComparedNetwork
    options: Options
    reference: ReferenceNetwork | None
    """Where one of them is the scratch network."""


def load_pair(request: CompareRequest, bench: Bench) -> Pair:
    """Load the networks that a request names, and train the scratch network if it has to be.

    Raises
    ------
    SourceError
        One of them cannot be loaded, run or trained.
    """
    x, y = request.x, request.y
    named = request.named(bench.zoo)
    networks: dict[str, ComparedNetwork] = {}
    for name, source in named.items():
        if source is not None:
            with blamed_on(f"source {name!r}", request.batch_size):
                networks[name] = ComparedNetwork(*bench.load(source), source.layers)
                sides = ((x, request.layers_x), (y, request.layers_y))
                networks[name].check(*(layers for side, layers in sides if side == name))
    made: ReferenceNetwork | None = None
    if SCRATCH in named:
        made = make_reference(request, bench)  # last, because training takes longest
        networks[SCRATCH] = ComparedNetwork(*made.build(), made.layers)
    one, other = networks[x], networks[y]
    options = request.options(one.layers, other.layers, (one.transform, other.transform))
    return Pair(one, other, options, made)


def make_reference(request: CompareRequest, bench: Bench) -> ReferenceNetwork:
    """Return the scratch network that a request names, trained if it has to be."""
    maker = ReferenceMaker(request.reference, request.recipe, bench)
    source = next(filter(None, request.named(bench.zoo).values()), None)
    with blamed_on("the scratch network", request.batch_size), bench.reporter.bar("scratch reference") as report:
        return maker.network(source, report)


@contextmanager
def blamed_on(what: str, batch_size: int) -> Iterator[None]:
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
