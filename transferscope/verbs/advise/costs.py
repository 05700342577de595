"""What a transfer would cost on this machine, from a few of its steps that are really run."""

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
import torch

from transferscope.activations.stages import Stage
from transferscope.activations.timing import pace
from transferscope.data.splits import validation_part
from transferscope.errors import TransferscopeWarning
from transferscope.networks.loading import Network
from transferscope.protocols.cutting.cut import CutNetwork, cut
from transferscope.protocols.finetuning import KEPT_BYTES, Lesson, recipes, train
from transferscope.protocols.heads.fitting import fit_protocol
from transferscope.protocols.heads.toptuning import ENOUGH
from transferscope.protocols.scratch import load_images
from transferscope.protocols.training.recipe import Recipe, batch_bounds
from transferscope.runtime.footprint import Footprint, Meter
from transferscope.runtime.metrics import CLASSIFICATION
from transferscope.runtime.power import JOULES_PER_KWH
from transferscope.verbs.bench import Bench

HEADS = ("truncate", "fne", "toptuning")
"""Ways that fit a classifier to frozen features."""

_STEPS, _SECONDS = 5, 1.0
"""Fits are timed so often, or until that takes this long; optimiser steps twice so often at least, or about this long
in all. The least time counts: something else may run on the machine."""
_MOST_STEPS = 50
_WHOLE_BATCHES = 5
"""Images to time training with, in batches: enough for a batch of full size, and for `_STEPS` in one epoch."""
_FLOAT_BYTES = 4


class Cost(Protocol):
    """What a transfer takes, by the number of training images."""

    @property
    def trials(self) -> int:
        """Trainings or fits that the choice of settings takes; they are in the seconds."""

    def phases(self, n_samples: int) -> dict[str, tuple[float, float]]:
        """Return seconds and watts of each phase with this many training images."""


@dataclass(frozen=True)
class HeadCost:
    """Of a classifier on frozen features: one forward pass of every image up to the cut, and the fits."""

    trials: int
    per_image: float
    """Seconds of one image up to the cut."""
    sizes: tuple[int, int]
    """Images that fits were timed with."""
    fits: tuple[float, float]
    """Seconds of all fits, the search included, with so many images."""
    watts: tuple[float, float]
    """Mean power of the forward passes, and of the fits."""

    def phases(self, n_samples: int) -> dict[str, tuple[float, float]]:
        """Return seconds and watts of each phase; fits grow by a power of the number of images."""
        (small, large), (quick, slow) = self.sizes, self.fits
        power = max(0.0, math.log(slow / quick) / math.log(large / small))
        return {
            "features": (n_samples * self.per_image, self.watts[0]),
            "head": (slow * (n_samples / large) ** power, self.watts[1]),
        }


@dataclass(frozen=True)
class TrainingCost:
    """Of training by gradients: what a frozen prefix makes of the images, and the optimiser's steps."""

    trials: int
    recipe: Recipe
    batches: tuple[float, ...]
    """Images in a step, rising, and seconds of such a step."""
    steps: tuple[float, ...]
    per_image: float
    """Seconds of one image in the frozen prefix; 0 without one."""
    bytes_per_image: int
    """What the prefix makes of an image; 0 without one."""
    watts: float

    def phases(self, n_samples: int) -> dict[str, tuple[float, float]]:
        """Return seconds and watts of each phase: the whole schedule, once for every trial."""
        recipe, epochs = self.recipe, self.recipe.most_epochs(n_samples)
        per_epoch = len(batch_bounds(n_samples, recipe.batch_size)) - 1
        step = float(np.interp(n_samples / per_epoch, self.batches, self.steps))
        views = recipe.kept_views(n_samples)
        # What does not fit is computed anew in every epoch.
        passes = views if views * n_samples * self.bytes_per_image <= KEPT_BYTES else epochs
        seconds = {"features": passes * n_samples * self.per_image, "training": epochs * per_epoch * step}
        return {name: (self.trials * value, self.watts) for name, value in seconds.items() if value}


def footprint(cost: Cost, n_samples: int, meter: Meter) -> Footprint:
    """Return what a transfer with this many training images is expected to cost: nothing is run."""
    with meter.run() as run:
        for phase, (seconds, watts) in cost.phases(n_samples).items():
            run.charge(phase, seconds, kwh=watts * seconds / JOULES_PER_KWH)
        run.trials = cost.trials
    return run.footprint()


@dataclass(frozen=True)
class Timer:
    """Runs a few steps of each kind of work with one source, and times them.

    Attributes
    ----------
    network : Network
        The source.
    stages : sequence of Stage
        Where it can be cut.
    layers : sequence of numpy.ndarray
        (n_samples, n_features) of every stage, on the probe.
    bench : Bench
        The images to work with, and where and how networks run.
    meter : Meter
        Tells the power.
    """

    network: Network
    stages: Sequence[Stage]
    layers: Sequence[np.ndarray]
    bench: Bench
    meter: Meter

    def forward(self) -> tuple[dict[str, float], float]:
        """Return the seconds that one image takes up to each layer, and the power (W) that the source draws."""
        count = min(self.bench.batch_size, self.bench.probe.n_samples)
        net, shape = self.network.module.to(self.bench.device), self.network.transform.shape
        with self.meter.run() as run, run.phase("features"):
            passes = [
                pace(net, self.stages, shape, device=self.bench.device, batch_size=count, seconds=_SECONDS / 2)
                for _ in range(2)
            ]
        return min(passes, key=lambda seconds: max(seconds.values())), _watts(run.footprint())

    def head(
        self, protocol: str, depth: int, forward: tuple[Mapping[str, float], float], *, searched: bool
    ) -> HeadCost:
        """Fit a head to some of the features and to all of them, or to copies: each time four times as many.

        `searched` says whether there will be images enough to choose settings by.
        """
        n, labels = len(self.bench.probe.labels), self.bench.probe.labels
        counts = np.bincount(labels)
        fewest = int(counts[counts > 0].min())
        if fewest >= 4 * ENOUGH:  # there is enough to search with in a quarter too
            parts = [np.argsort(labels, kind="stable")[::4], np.arange(n)]
        else:
            copies = -(-ENOUGH // fewest) if searched else 1
            parts = [np.tile(np.arange(n), copies * more) for more in (1, 4)]
        (quick, _, _), (slow, watts, trials) = (self._fits(protocol, depth, part, searched) for part in parts)
        per_image = forward[0][self.stages[depth - 1].layer]
        return HeadCost(trials, per_image, (len(parts[0]), len(parts[1])), (quick, slow), (forward[1], watts))

    def _fits(self, protocol: str, depth: int, part: np.ndarray, searched: bool) -> tuple[float, float, int]:
        """Return the seconds of one fit to some of the images, its power (W) and its trials."""
        layers, labels = [layer[part] for layer in self.layers], self.bench.probe.labels[part]
        seed = self.bench.seed
        validation = validation_part(labels, seed) if searched else None
        fit = partial(fit_protocol, protocol, layers, depth, labels, CLASSIFICATION, validation, seed)
        times: list[float] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TransferscopeWarning)  # of a solver that stops early
            trials = fit().trials
            with self.meter.run() as run, run.phase("head"):
                while len(times) < _STEPS and (not times or sum(times) < _SECONDS):
                    began = time.perf_counter()
                    fit()
                    times.append(time.perf_counter() - began)
        return min(times), _watts(run.footprint()), trials

    def training(self, protocol: str, depth: int) -> TrainingCost:
        """Train for a few steps, in batches as small as the probe makes them and in whole ones."""
        recipe = recipes()[protocol]
        classes = len(self.bench.probe.classes)
        net = cut(self.network, depth, protocol, classes, seed=self.bench.seed, trust_code=self.bench.trust_code)
        whole = _WHOLE_BATCHES * recipe.batch_size
        batches, steps, per_image, watts = [], [], 0.0, math.nan
        for count in sorted({min(self.bench.probe.n_samples, whole), whole}):
            images, labels = self._images(count)
            step, prefix, watts = self._steps(net, Lesson(images, labels, None), recipe)
            batches.append(count / (len(batch_bounds(count, recipe.batch_size)) - 1))
            steps.append(step)
            per_image = prefix / count
        frozen = math.prod(self.stages[depth - 1].shape) * _FLOAT_BYTES if per_image else 0
        return TrainingCost(1, recipe, tuple(batches), tuple(steps), per_image, frozen, watts)

    def _steps(self, net: CutNetwork, lesson: Lesson, recipe: Recipe) -> tuple[float, float, float]:
        """Return the seconds of one optimiser step, those of the frozen prefix on all images, and the power (W)."""

        def run_for(epochs: int, budget_s: float | None) -> tuple[float, float, float]:
            short = replace(recipe, epochs=epochs, min_steps=0, views=1, budget_s=budget_s)
            with self.meter.run() as run:
                _, training = train(
                    lambda: net, lesson, recipe=short, seed=self.bench.seed, device=self.bench.device, meter=run,
                )  # fmt: skip
            spent, record = run.footprint(), training.record
            return record.seconds / record.steps, spent.seconds.get("features", 0.0), _watts(spent)

        # A first step, in which memory and kernels are set up, tells roughly how many there is time for.
        first, _, _ = run_for(1, 1e-9)
        wanted = min(max(_STEPS, round(_SECONDS / 2 / max(first, 1e-9))), _MOST_STEPS)
        epochs = -(-wanted // (len(batch_bounds(len(lesson.labels), recipe.batch_size)) - 1))
        runs = [run_for(epochs, recipe.budget_s) for _ in range(2)]
        return min(step for step, _, _ in runs), min(prefix for _, prefix, _ in runs), runs[-1][2]

    def _images(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return so many images of the probe and their labels, from the beginning again when there are fewer."""
        chosen = self.bench.probe.subset(np.arange(count) % self.bench.probe.n_samples)
        return load_images(chosen, self.network.transform)


def _watts(spent: Footprint) -> float:
    """Return the mean power of what was run (W)."""
    return spent.kwh * JOULES_PER_KWH / sum(spent.seconds.values())
