"""The transfers that train a network: reinit, finetune, defrost, surgical and scratch, on one training loop.

What a frozen prefix computes is computed once, for a fixed number of augmented views which the epochs take in turn.
Protocol names after Gerace et al. (2024, arXiv 2303.01429), of which only the abstract was at hand: our instantiation.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from transferscope.errors import InputError, SourceError
from transferscope.protocols.cutting.cut import CutNetwork
from transferscope.protocols.training.inputs import CachedViews, shifted
from transferscope.protocols.training.loop import Member
from transferscope.protocols.training.objective import CLASSES, Objective
from transferscope.protocols.training.recipe import Recipe, TrainingRecord
from transferscope.protocols.training.single import fit, relative_gradient_norms
from transferscope.protocols.training.together import fit_together
from transferscope.runtime.flops import count_flops
from transferscope.runtime.footprint import RunMeter

KEPT_BYTES = 2 * 2**30
"""What a frozen prefix computes is kept up to this size; beyond it is computed anew in every epoch."""

MIN_STEPS = 300
"""Of training, however few images there are."""

_LEARNING_RATES = {
    "sgd": {"scratch": 0.05, "reinit": 0.02, "finetune": 0.01, "defrost": 0.01, "surgical": 0.01},
    "adamw": {"scratch": 1e-3, "reinit": 1e-3, "finetune": 5e-4, "defrost": 5e-4, "surgical": 5e-4},
}
"""What is drawn anew takes larger steps than what is carried over."""

OPTIMISERS = tuple(_LEARNING_RATES)
"""Of transfers; Muon's learning rates were chosen for networks from scratch alone."""

_WEIGHT_DECAY = {"sgd": 5e-4, "adamw": 0.05}


def recipes(optimiser: str = "adamw", epochs: int = 40, min_steps: int = MIN_STEPS) -> dict[str, Recipe]:
    """Return how each protocol trains, by its name.

    Raises
    ------
    InputError
        When there is no such optimiser, `epochs` is not positive or `min_steps` is negative.
    """
    if optimiser not in OPTIMISERS:
        raise InputError(f"Expected `optimiser` to be one of {', '.join(OPTIMISERS)}, but got {optimiser!r}")
    Recipe(epochs=epochs, min_steps=min_steps)  # which checks them
    return {
        name: Recipe(
            optimiser=optimiser, epochs=epochs, learning_rate=rate, weight_decay=_WEIGHT_DECAY[optimiser],
            budget_s=None, min_steps=min_steps,
        )
        for name, rate in _LEARNING_RATES[optimiser].items()
    }  # fmt: skip


@dataclass(frozen=True)
class Lesson:
    """What a network is to learn, and by what it stops.

    Attributes
    ----------
    images
        (n_samples, channels, height, width) float32, normalised.
    labels
        (n_samples,) int64 of classes; else (n_samples, n_outputs) float32.
    validation
        Positions among the images that are not trained on and decide when to stop; None with too few images.
    objective
        What is learnt.
    """

    images: torch.Tensor
    labels: torch.Tensor
    validation: np.ndarray | None
    objective: Objective = CLASSES


@dataclass(frozen=True)
class Training:
    """How one training run of a transfer went, and what was tried."""

    record: TrainingRecord
    learning_rate: float
    """The best of those tried."""
    trials: int


def train(
    build: Callable[[], CutNetwork],
    lesson: Lesson,
    *,
    recipe: Recipe,
    learning_rates: Sequence[float] = (),
    seed: int,
    device: torch.device,
    meter: RunMeter,
    state: Path | None = None,
    on_epoch: Callable[[int, int], None] | None = None,
) -> tuple[CutNetwork, Training]:
    """Train a cut network by its protocol, once for each learning rate, and return the best by validation.

    Parameters
    ----------
    build : callable
        Returns the untrained network, as `cut` makes it; called once for each learning rate.
    lesson : Lesson
        Images to learn from.
    recipe : Recipe
        Schedule and budget.
    learning_rates : sequence of float
        To choose among on the validation images; the recipe's own alone by default, and where there is no validation
        the first alone.
    seed : int
        Decides the order of the images and their shifts.
    device : torch.device
        Where the network is trained and left.
    meter : RunMeter
        Told of the phases "features" (the frozen prefix) and "training", and of the operations.
    state : Path, optional
        File from which an interrupted run goes on; used where there is one learning rate.
    on_epoch : callable, optional
        Called as `on_epoch(done, total)` after each epoch.

    Raises
    ------
    SourceError
        When training diverges with every learning rate, or the network cannot be trained on these images.
    """
    rates = tuple(learning_rates) or (recipe.learning_rate,)
    if lesson.validation is None:
        rates = rates[:1]
    best: tuple[CutNetwork, Training] | None = None
    diverged: SourceError | None = None
    for rate in rates:
        net = build().to(device)
        try:
            record = _train_once(
                net, lesson, replace(recipe, learning_rate=rate), seed, device, meter,
                state if len(rates) == 1 else None, on_epoch,
            )  # fmt: skip
        except SourceError as error:
            diverged = error
            continue
        if best is None or _better(record, best[1].record):
            best = net, Training(record, rate, len(rates))
    if best is None:
        assert diverged is not None
        raise diverged
    return best


def train_together(
    nets: Sequence[CutNetwork],
    lessons: Sequence[Lesson],
    *,
    recipe: Recipe,
    seeds: Sequence[int],
    device: torch.device,
    meter: RunMeter,
    on_epoch: Callable[[int, int], None] | None = None,
) -> list[TrainingRecord | SourceError]:
    """Train cut networks of one shape, made by one protocol, as one batched network: see `together.fit_together`.

    Parameters
    ----------
    nets : sequence of CutNetwork
        Trained in place and left on `device`.
    lessons : sequence of Lesson
        One for each, of equally many images.
    seeds : sequence of int
        One for each.
    recipe, device, meter, on_epoch
        As in `train`.

    Returns
    -------
    list of TrainingRecord or SourceError
        In the order of the networks; the error of those that diverged.

    Raises
    ------
    InputError
        When the networks or lessons are not of one shape.
    """
    prepared = [
        _prepare(net.to(device), lesson, recipe, seed, device, meter)
        for net, lesson, seed in zip(nets, lessons, seeds, strict=True)
    ]
    members = [
        Member(part.net, part.inputs, part.labels, part.validation, seed, part.rates, part.objective)
        for part, seed in zip(prepared, seeds, strict=True)
    ]
    with meter.phase("training"):
        outcomes = fit_together(members, recipe=recipe, on_epoch=on_epoch)
    for net, part, outcome in zip(nets, prepared, outcomes, strict=True):
        net.eval()
        if isinstance(outcome, TrainingRecord):
            _count(part, outcome, device, meter)
    return outcomes


def _better(record: TrainingRecord, other: TrainingRecord) -> bool:
    return (record.validation_accuracy, -record.validation_loss) > (other.validation_accuracy, -other.validation_loss)


def _train_once(
    net: CutNetwork,
    lesson: Lesson,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    meter: RunMeter,
    state: Path | None,
    on_epoch: Callable[[int, int], None] | None,
) -> TrainingRecord:
    part = _prepare(net, lesson, recipe, seed, device, meter)
    with meter.phase("training"):
        started = time.monotonic()
        record = fit(
            part.net, part.inputs, part.labels, part.validation,
            recipe=recipe, seed=seed, on_epoch=on_epoch, rates=part.rates, state=state, objective=part.objective,
        )  # fmt: skip
        before = record.seconds - (time.monotonic() - started)
    if before > 0:  # an interruption
        meter.charge("training", before)
    _count(part, record, device, meter)
    net.eval()
    return record


@dataclass(frozen=True)
class _Prepared:
    """What is trained of a cut network, and on what: behind a frozen prefix on what that makes of the images."""

    net: nn.Module
    inputs: torch.Tensor | CachedViews
    labels: torch.Tensor
    validation: tuple[torch.Tensor, torch.Tensor] | None
    rates: dict[str, float] | None
    objective: Objective


def _prepare(
    net: CutNetwork, lesson: Lesson, recipe: Recipe, seed: int, device: torch.device, meter: RunMeter
) -> _Prepared:
    held = lesson.validation
    others = np.setdiff1d(np.arange(len(lesson.labels)), [] if held is None else held)
    train = torch.from_numpy(others)
    inputs: torch.Tensor | CachedViews = lesson.images[train]
    validation = None if held is None else (lesson.images[held], lesson.labels[held])
    prefix, trained = net.divided()
    if prefix is not None:
        views = recipe.kept_views(len(train))
        if views * len(train) * _bytes_of_one(prefix, lesson.images[:1].to(device)) > KEPT_BYTES:
            trained = net
        else:
            n_seen = views * len(train)
            with meter.phase("features"):
                seen = _prefixed(prefix, lesson.images[train], views, recipe, seed, device)
                inputs = CachedViews(torch.stack(list(seen)))
                if validation is not None:
                    n_seen += len(validation[1])
                    validation = _through(prefix, validation[0], device), validation[1]
            meter.add_flops(prefix.flops * n_seen)
    return _Prepared(
        trained, inputs, lesson.labels[train], validation,
        _surgical_rates(net, lesson, train, device, meter) if net.protocol == "surgical" else None, lesson.objective,
    )  # fmt: skip


def _count(part: _Prepared, record: TrainingRecord, device: torch.device, meter: RunMeter) -> None:
    """Add the operations of a training run, and of the gradients that the rates of surgical fine-tuning come from."""
    sample = part.inputs.views[0, :2] if isinstance(part.inputs, CachedViews) else part.inputs[:2]
    step, forward = _operations(part.net, sample.to(device))
    validated = 0 if part.validation is None else len(part.validation[1]) * record.epochs
    gradients = record.images_seen + (0 if part.rates is None else len(part.labels))
    operations = step * gradients + forward * validated
    meter.add_flops(operations if math.isnan(operations) else round(operations))


def _bytes_of_one(prefix: nn.Module, image: torch.Tensor) -> int:
    """Return the size of what a prefix makes of one image."""
    with torch.inference_mode():
        return prefix(image).nbytes


def _prefixed(
    prefix: nn.Module, images: torch.Tensor, views: int, recipe: Recipe, seed: int, device: torch.device
) -> Iterator[torch.Tensor]:
    """Yield what a frozen prefix makes of each view of the images; the first view is the images as they are."""
    draw = torch.Generator().manual_seed(seed)
    for view in range(views):
        yield _through(prefix, images if view == 0 else shifted(images, recipe.shift, draw), device)


def _through(prefix: nn.Module, images: torch.Tensor, device: torch.device, batch_size: int = 64) -> torch.Tensor:
    """Return what a frozen prefix makes of at least one image: not every network takes none."""
    with torch.inference_mode():
        parts = [prefix(batch.to(device)) for batch in images.split(batch_size)]
    # Tensors made in inference mode may not enter autograd.
    return torch.cat(parts).clone()


def _surgical_rates(
    net: CutNetwork, lesson: Lesson, train: torch.Tensor, device: torch.device, meter: RunMeter
) -> dict[str, float]:
    """Return the factor on the learning rate of every parameter, that of its stage; the new head has none, that is 1.

    In Auto-RGN (Lee et al. 2023, arXiv 2210.11466) the relative gradient norms are taken anew in every epoch; here
    once, before training.
    """
    groups = {layer: names for layer, names in net.stage_parameters().items() if names}
    with meter.phase("gradients"):
        images, labels = lesson.images[train].to(device), lesson.labels[train].to(device)
        norms = relative_gradient_norms(net, images, labels, groups, objective=lesson.objective)
    return {name: norms[layer] for layer, names in groups.items() for name in names}


def _operations(net: nn.Module, sample: torch.Tensor) -> tuple[float, float]:
    """Count the operations of one training step and of one forward pass, for one image; NaN when unknown."""
    counted = copy.deepcopy(net)  # batch norm would remember the images
    with torch.inference_mode():
        forward = count_flops(counted.eval(), sample)
    counted.train()
    step = count_flops(lambda: counted(sample).sum().backward())
    return step / len(sample), forward / len(sample)
