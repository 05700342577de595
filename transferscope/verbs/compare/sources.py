"""Two networks of a zoo, or one and the scratch reference: how similar their layers are on a target."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from transferscope.activations.capture import Layers, capture
from transferscope.activations.reductions import Reduction
from transferscope.arrays import backend
from transferscope.data.images import Transform
from transferscope.data.target import load_target
from transferscope.errors import InputError, SourceError, TransferscopeError, is_interrupt, near
from transferscope.networks import loading
from transferscope.networks.zoo import OWN, SCRATCH, Source, Zoo, load_zoo
from transferscope.protocols.scratch import reference_recipe
from transferscope.protocols.training.recipe import Recipe
from transferscope.results.comparison import Comparison
from transferscope.results.summary import TargetSummary
from transferscope.runtime.checks import check_arguments
from transferscope.runtime.failures import describe
from transferscope.runtime.progress import Reporter
from transferscope.runtime.seeding import contained
from transferscope.runtime.store import Store
from transferscope.verbs.compare.networks import Estimator, check_options, compare_by
from transferscope.verbs.rank.rank import summarize
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
    device, samples, batch_size, seed, progress, trust_code
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
    samples, batch_size, seed = check_arguments(samples, batch_size, seed, reference)
    measures = list(dict.fromkeys([measures] if isinstance(measures, str) else measures))
    if not measures:
        raise InputError("Expected `measures` to name one measure at least, but got none; leave it out for linear CKA.")
    check_options(measures, reduce, estimator, permutations, batch_size)
    where = backend.resolve_device(device)
    sources = load_zoo(zoo)
    named = {name: _source(name, sources) for name in (x, y)}
    for source in named.values():
        if source is not None:
            loading.check_trust(source, trust_code)
    images = load_target(target, progress=progress)
    probe = images.probe(samples, seed, progress=progress)
    maker = ReferenceMaker(
        reference, images, probe, sources, recipe or reference_recipe(), seed, trust_code, Store(), where, batch_size
    )
    wants_scratch = None in named.values()
    if wants_scratch:
        maker.given_source()
    if wants_scratch and reference == OWN and len(named) == 1:
        raise InputError("Expected a source of the zoo beside 'scratch', whose own architecture it takes; name one.")

    networks: dict[str, _Network] = {}
    for name, source in named.items():
        if source is not None:
            with _blamed_on(f"source {name!r}", batch_size):
                found = loading.load_network(source, trust_code=trust_code, seed=seed)
                networks[name] = _Network(found.module, found.transform, source.layers)
                networks[name].check(*(layers for side, layers in ((x, layers_x), (y, layers_y)) if side == name))
    reporter = Reporter(progress)
    made: ReferenceNetwork | None = None
    if wants_scratch:
        # Last, because training takes longest.
        with _blamed_on("the scratch network", batch_size):
            with reporter.bar("scratch reference") as report:
                made = maker.network(next(filter(None, named.values()), None), report)
            networks[SCRATCH] = _Network(*made.build(), made.layers)
    one, other = networks[x], networks[y]
    with _blamed_on(f"{x} with {y}", batch_size), reporter.bar(f"{x} with {y}") as report:
        results = compare_by(
            measures,
            one.module,
            other.module,
            probe,
            layers_x=layers_x or one.layers,
            layers_y=layers_y or other.layers,
            reduce=reduce,
            standardize=standardize,
            estimator=estimator,
            standard_error=standard_error,
            permutations=permutations,
            precision=precision,
            transform=(one.transform, other.transform),
            batch_size=batch_size,
            device=device,
            seed=seed,
            report=report,
        )
    return Comparison(
        x=x,
        y=y,
        target=TargetSummary(images.name, probe.n_samples, len(images.classes), images.hash),
        reference=None if made is None else summarize(made),
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
                self.module(torch.zeros(1, 3, self.transform.size, self.transform.size))


def _source(name: str, zoo: Zoo) -> Source | None:
    """Return the entry of this name; None for the scratch network."""
    if name == SCRATCH:
        return None
    if name not in zoo:
        raise InputError(
            f"no source is called {name!r}{near(name, [*zoo.names, SCRATCH])}; there are {', '.join(zoo.names)}, and "
            f"{SCRATCH} for the network trained on the target"
        )
    return zoo[name]


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
