"""Training from scratch on the target: the reference every source is compared with, and a candidate itself.

Gerace et al. (2024, arXiv 2303.01429) pick sources by their similarity to a network trained from scratch on the
target. Only the abstract of that paper was at hand; what is built here is our instantiation.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from transferscope.activations.stages import classifiers
from transferscope.activations.tracing import trace
from transferscope.arrays.strata import apportion
from transferscope.data.images import Transform
from transferscope.data.target import Target
from transferscope.errors import InputError, SourceError, TransferscopeWarning
from transferscope.networks.compact import WIDTH, CompactResNet
from transferscope.protocols.cutting.heads import renew_head
from transferscope.protocols.training.objective import OBJECTIVES, Scale
from transferscope.protocols.training.recipe import Recipe, TrainingRecord
from transferscope.protocols.training.single import fit, predicted
from transferscope.runtime.metrics import REGRESSION, metrics_of

SMALL, LARGE = 32, 64
"""Image sides (pixels) at which the compact network works; its inner resolution is the same for both."""

EPOCHS, MIN_STEPS = 10, 75
"""Of a reference, a quarter of those of a transfer: `benchmarks/reference.py` compares it with four times as many steps
of plain gradient descent."""

_HELD_OUT_SHARE = 0.2
_MOST_HELD_OUT = 1000


@dataclass(frozen=True)
class Split:
    """Positions in the probe to train on, and the images the result is measured on."""

    train: np.ndarray
    held_out: Target


@dataclass(frozen=True)
class ScratchResult:
    """How a network trained from scratch did."""

    record: TrainingRecord
    figures: Mapping[str, float]
    """Of the held-out images, which it never saw: what each metric of the task says, by its column."""
    n_held_out: int


def reference_recipe(epochs: int | None = None, budget_s: float | None = 600.0) -> Recipe:
    """Return how a reference is trained: in just so many epochs.

    By default in `EPOCHS` or, with few images, as many as make `MIN_STEPS` optimiser steps.

    Raises
    ------
    InputError
        When an argument is not positive.
    """
    if epochs is None:
        return Recipe(epochs=EPOCHS, budget_s=budget_s, min_steps=MIN_STEPS, optimiser="muon")
    return Recipe(epochs=epochs, budget_s=budget_s, optimiser="muon")


def split_probe(target: Target, probe: Target, seed: int) -> Split:
    """Hold images out to measure accuracy on; all others of the probe are trained on.

    Images of `target` that are not in `probe` are held out when there are at least ten a class of them (about
    1000 at most are used); otherwise a fifth of the probe is.
    """
    positions = np.arange(probe.n_samples)
    outside = np.setdiff1d(np.arange(target.n_samples), probe.indices)
    if len(outside) >= 10 * len(target.learnt.groups):
        return Split(positions, target.subset(outside[_stratified(target.strata[outside], _MOST_HELD_OUT, seed)]))
    chosen = _stratified(probe.strata, _HELD_OUT_SHARE, seed)
    return Split(np.setdiff1d(positions, chosen), probe.subset(chosen))


def _stratified(labels: np.ndarray, amount: float, seed: int) -> np.ndarray:
    """Draw a share (below 1) or a number of positions, class by class in proportion; one of each at least."""
    share = amount if amount < 1 else min(1.0, amount / len(labels))
    classes, counts = np.unique(labels, return_counts=True)
    # The last image of a class stays behind: a class without training images cannot be learnt.
    wanted = apportion(counts, share=share, most=counts if share == 1 else counts - 1)
    rng = np.random.default_rng(seed)
    chosen = [
        rng.permutation(np.flatnonzero(labels == label))[:count] for label, count in zip(classes, wanted, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def load_images(target: Target, transform: Transform) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images of `target` that can be decoded, (n_samples, channels, height, width), and their values."""
    images, sound, broken = [], [], []
    for i in range(target.n_samples):
        try:
            image = target.image(i)
        except InputError as error:
            broken.append(str(error))
            continue
        images.append(transform(image))
        sound.append(i)
    if not images:
        raise InputError(f"Expected {target.name} to hold images that can be decoded, but all of them are broken")
    if broken:
        named = "; ".join(broken[:5]) + ("; …" if len(broken) > 5 else "")
        warnings.warn(
            f"{len(broken)} of {target.n_samples} held-out images are left out: {named}",
            TransferscopeWarning,
            stacklevel=2,
        )
    return torch.stack(images), torch.from_numpy(target.values[sound])


def compact_transform(probe: Target) -> Transform:
    """Choose the image side for the compact network: 32 px for small images, 64 px for others; all their bands."""
    shapes = [
        image.shape if isinstance(image, np.ndarray) else (image.height, image.width, 3)
        for image in map(probe.image, range(min(probe.n_samples, 50)))
    ]
    sides = [min(height, width) for height, width, _ in shapes]
    size = SMALL if np.median(sides) < (SMALL + LARGE) / 2 else LARGE
    channels = shapes[0][2]
    return Transform(size=size, mean=(0.5,) * channels, std=(0.25,) * channels)


def compact_network(classes: int, transform: Transform, *, width: int = WIDTH) -> CompactResNet:
    """Return the untrained compact network for images as `transform` gives them."""
    channels, *sides = transform.shape
    return CompactResNet(classes, width=width, stem_stride=max(1, min(sides) // SMALL), channels=channels)


def with_head(net: nn.Module, classes: int, transform: Transform, seed: int) -> nn.Module:
    """Give `net` a classifier with as many outputs as there are classes, unless its own has so many.

    Raises
    ------
    SourceError
        When the network can be given none.
    """
    sample = transform.blank()
    traced = trace(net, sample)
    heads = classifiers(traced)
    if heads and not traced.output.way and all(_width(head.module) == classes for head in heads):
        return net
    try:
        renew_head(net, classes, sample, seed)
    except SourceError as error:
        raise SourceError(str(error).replace("use the protocol 'truncate'", "use `reference='compact'`")) from error
    return net


def _width(classifier: nn.Module) -> int | None:
    return getattr(classifier, "out_features", getattr(classifier, "out_channels", None))


def train_from_scratch(
    net: nn.Module,
    transform: Transform,
    probe: Target,
    split: Split,
    *,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[int, int], None] | None = None,
) -> ScratchResult:
    """Train `net` on all images of the probe that are not held out, and measure it on those that are.

    The network ends on `device`, in evaluation mode, with the last weights: images to stop by would be missed in
    training, and few of them choose badly.

    Raises
    ------
    InputError
        When the probe is too small to be split.
    SourceError
        When training diverges.
    """
    if len(split.train) < 2 or not split.held_out.n_samples:
        raise InputError(
            f"Expected enough images to train a reference on and to measure it on, but got {len(split.train)} and "
            f"{split.held_out.n_samples}; raise `samples` or hand in a `reference`"
        )
    # The images of a probe were all decoded when it was drawn, so positions in it hold here too.
    images, _ = load_images(probe, transform)
    objective, learnt = OBJECTIVES[probe.task], probe.values[split.train]
    scale = Scale.of(learnt) if probe.task == REGRESSION else None
    labels = objective.tensor(learnt if scale is None else scale.applied(learnt))
    net.to(device)
    record = fit(
        net, images[torch.from_numpy(split.train)], labels, None,
        recipe=recipe, seed=seed, on_epoch=on_epoch, objective=objective,
    )  # fmt: skip
    held_out, truth = load_images(split.held_out, transform)
    outputs = predicted(net, held_out, objective=objective).numpy()
    outputs = outputs if scale is None else scale.undone(outputs)
    figures = {metric.column: metric.of(outputs, truth.numpy()) for metric in metrics_of(probe.task)}
    return ScratchResult(record, figures, len(truth))
