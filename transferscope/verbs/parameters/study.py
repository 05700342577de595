"""How much of each layer's parameters survives the move: sources fine-tuned on targets, and followed on the way."""

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from transferscope.arrays import backend
from transferscope.data.bank import Bank, sound
from transferscope.data.images import Transform
from transferscope.data.splits import hold_out, sizes_within
from transferscope.data.target import Target, load_target
from transferscope.data.value_range import Range
from transferscope.errors import InputError, SourceError, TransferscopeWarning
from transferscope.networks import loading
from transferscope.networks.zoo import Source, Zoo, load_zoo
from transferscope.protocols.training.recipe import Recipe
from transferscope.results.parameters import ParameterTransfer, Settings
from transferscope.runtime.checks import ALL, Size
from transferscope.runtime.failures import Failure, failure, listed
from transferscope.runtime.progress import Reporter
from transferscope.runtime.store import Store
from transferscope.verbs.parameters.explanation import explain, rank_correlations
from transferscope.verbs.parameters.moving import Draw, Mover
from transferscope.verbs.parameters.request import ParametersRequest
from transferscope.verbs.parameters.tables import Unit, tabulate

_DOMAIN_IMAGES = 1000
"""Of each target, at most, to describe it by."""


def measure(
    targets: Any,
    zoo: Zoo | str | Path | Mapping[str, Any] | Sequence[Any],
    *,
    samples_per_class: Sequence[Size] = (ALL,),
    seeds: int = 1,
    epochs: int = 40,
    optimiser: str = "sgd",
    learning_rate: float | None = None,
    recipe: Recipe | None = None,
    steps: int | None = None,
    loss: float | None = None,
    redraws: int = 5,
    groups: str | Mapping[str, Any] = "auto",
    test_samples: int = 500,
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
) -> ParameterTransfer:
    """Fine-tune each source on each target and measure the transferability of each layer's parameters on the way.

    T of Chen et al. (2022, arXiv 2212.00399), see `layerwise.transferability`, is taken at the end of training, as
    published; after equally many optimiser steps; and at the same training loss. The first alone follows the number of
    steps, and so the number of images. All weights are fine-tuned, with a new classifier, at a constant learning rate:
    a run of so many steps is then the beginning of a longer one, and one run gives T at every number of steps. There
    are no validation images and no early stopping. Finished fine-tunings are kept in the cache.

    Parameters
    ----------
    targets : path, Target, torchvision dataset or (images, labels), or a list of these
        What `load_target` takes; several need different names.
    zoo : Zoo, path, mapping or sequence
        What `load_zoo` takes. The `initial` weights of a source are used where they are named, and else redrawn; the
        `images` of a source give the domain gap.
    samples_per_class : sequence of int or "all"
        Training images of each class. For one seed, larger draws contain the smaller.
    seeds : int
        Draws of images for each size; each decides the new classifier and the order of the images too.
    epochs : int
        Passes over the training images.
    optimiser : str
        "sgd" or "adamw". AdamW makes steps of much the same size for every weight, whatever its gradient, so that the
        T of a layer then says more of the scale of its weights than of the target.
    learning_rate : float, optional
        By default that of the protocol that trains everything.
    recipe : Recipe, optional
        In place of the three above.
    steps : int, optional
        Optimiser steps that runs are matched at; by default the fewest that any took.
    loss : float, optional
        Training loss that runs are matched at, as a share of that of guessing, in (0, 1); by default one that every run
        reached: the largest of their lowest.
    redraws : int
        Draws of the initial weights, where the zoo does not name them; their seeds are in `settings["initial"]`.
    groups : "auto", "tensor" or mapping
        What a layer is, as in `layerwise.transferability`.
    test_samples : int
        Most images of each target to measure the accuracy on.
    device, batch_size, seed, progress, trust_code, images, labels, task, value_range, bands
        As in `ts.measure`; `batch_size` is that of forward passes.

    Raises
    ------
    InputError
        When an argument, a target or the zoo is not as expected.
    DeviceError
        When the device does not exist.
    SourceError
        When no fine-tuning came to its end; single failures are in `ParameterTransfer.failed`.

    Warns
    -----
    TransferscopeWarning
        When a source has learnt nothing of a target.
    """
    return answer(ParametersRequest(**locals()))  # each argument is a field


def answer(request: ParametersRequest) -> ParameterTransfer:
    """Answer what `parameters` is asked."""
    where = backend.resolve_device(request.device)
    sources = load_zoo(request.zoo)
    for source in sources:
        loading.check_trust(source, request.trust_code)
    targets = _targets(request)
    held = [_Images(target, request.test_samples, request.seed) for target in targets]
    source_images = {source.name: _own_images(source, request.progress) for source in sources}
    n_shown = min(_DOMAIN_IMAGES, *(len(images.pool) for images in held))
    reporter, store = Reporter(request.progress), Store()
    units: list[Unit] = []
    failed: list[Failure] = []
    initial = {}
    for source in sources:
        try:
            with reporter.bar(f"{source.name}: loading"):
                mover = Mover(
                    source, recipe=request.recipe, groups=request.groups, redraws=request.redraws, seed=request.seed,
                    device=where, batch_size=request.batch_size, trust_code=request.trust_code, store=store,
                )  # fmt: skip
        except InputError:
            raise  # of `groups`, which no source will fit
        except (Exception, SystemExit) as error:  # whatever a network's code raises must not cost the other sources
            failed.append(failure(source.name, error, request.batch_size))
            continue
        initial[source.name] = mover.initial.description
        units += _fine_tuned(mover, held, source_images[source.name], n_shown, request, reporter, failed)
    if not units:
        raise SourceError(f"No fine-tuning came to its end. {listed(failed)}")
    tables = tabulate(units, request.steps, request.loss)
    recipe: Recipe = request.recipe
    settings: Settings = {
        "targets": [images.summary() for images in held],
        "initial": initial,
        "epochs": recipe.epochs,
        "optimiser": recipe.optimiser,
        "learning_rate": recipe.learning_rate,
        "schedule": recipe.schedule,
        "matched_steps": tables.steps,
        "matched_loss": tables.loss,
        "redraws": request.redraws,
        "device": where.type,
        "versions": {name: version(name) for name in ("torch", "timm", "torchvision")},
        "groups": request.groups if isinstance(request.groups, str) else "given",
    }
    return ParameterTransfer(
        tables.layers, tables.runs, tables.trajectory, explain(tables.runs, seed=request.seed),
        rank_correlations(tables.layers, tables.runs, seed=request.seed), settings, tuple(failed),
    )  # fmt: skip


def _fine_tuned(
    mover: Mover,
    held: Sequence["_Images"],
    source_images: Target | None,
    n_shown: int,
    request: ParametersRequest,
    reporter: Reporter,
    failed: list[Failure],
) -> Iterator[Unit]:
    """Fine-tune a source on draws of each target, described by `n_shown` images; add what fails to `failed`."""
    name = mover.network.name
    for images in held:
        target = images.target
        try:
            with reporter.bar(f"{name}: images of {target.name}") as report:
                draws = list(images.draws(mover.network.transform, request.samples_per_class, request.seeds, report))
                gap = mover.domain(images.shown(n_shown, request.seed), source_images, request.seed, report)
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            failed.append(failure(name, error, request.batch_size, f"{name} on {target.name}"))
            continue
        for wanted, bank in draws:
            title = f"{name} on {target.name}, {wanted.samples_per_class} a class, seed {wanted.seed}"
            try:
                with reporter.bar(title) as report:
                    moved = mover.move(wanted, bank, report)
            except (Exception, SystemExit) as error:
                failed.append(failure(name, error, request.batch_size, title))
                continue
            if moved.trajectory.loss[-1] >= 1:
                warnings.warn(
                    f"{title}: the training loss is no better than that of guessing at the end, so that T tells of "
                    "no transfer; try another learning rate or optimiser, or more epochs",
                    TransferscopeWarning,
                    stacklevel=2,
                )
            yield Unit(
                name, target.name, len(target.classes), wanted.samples_per_class,
                len(wanted.indices), wanted.seed, mover.groups, moved, gap,
            )  # fmt: skip


def _targets(request: ParametersRequest) -> list[Target]:
    """Load one target or a list of them."""
    given = request.targets if isinstance(request.targets, list) else [request.targets]
    targets = [request.load(each) for each in given]
    names = [target.name for target in targets]
    if not targets or len(set(names)) != len(names):
        raise InputError(
            f"Expected `targets` to be at least one target, each with a name of its own, but got {names}; rename the "
            "folders, or use `load_target(folder, name=…)`"
        )
    return targets


def _own_images(source: Source, progress: bool) -> Target | None:
    try:
        return None if source.images is None else load_target(source.images, progress=progress)
    except InputError as error:
        raise InputError(f"source {source.name!r}: images: {error}") from error


@dataclass
class _Images:
    """The images of a target: set apart once, decoded for each transform."""

    target: Target
    test_samples: int
    seed: int

    def __post_init__(self) -> None:
        _ = self.target.labels  # which other tasks have not
        self.pool, self.test = hold_out(self.target, most=self.test_samples, seed=self.seed)
        self._banks: dict[Transform, Bank] = {}
        self._sizes: dict[int, tuple[int, ...]] = {}

    def draws(
        self, transform: Transform, sizes: Sequence[Size], seeds: int, report: Any
    ) -> Iterator[tuple[Draw, Bank]]:
        """Decode the images and yield the draws of all sizes and seeds, with the bank that holds them."""
        bank = self._banks.setdefault(transform, Bank(self.target, transform))
        self.pool, self.test, _ = sound(self.target, self.pool, self.test, sizes, range(seeds), bank, report)
        if len(self.pool) not in self._sizes:  # which every source would be warned of anew
            self._sizes[len(self.pool)] = sizes_within(sizes, self.target.labels[self.pool])
        for size, number in itertools.product(self._sizes[len(self.pool)], range(seeds)):
            yield Draw(self.target, self.pool, self.test, size, number), bank

    def shown(self, n_samples: int, seed: int) -> Target:
        """Return some of the images that are not tested on, to describe the target by."""
        return self.target.subset(self.pool).probe(n_samples, seed)

    def summary(self) -> dict[str, Any]:
        """Return what a report says of the target."""
        counts = np.bincount(self.target.labels[self.test])
        return {
            "name": self.target.name, "hash": self.target.hash, "classes": len(self.target.classes),
            "n_test": len(self.test), "chance": float(counts.max() / counts.sum()),
        }  # fmt: skip
