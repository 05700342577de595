"""How a network is trained, and what a training run did."""

import itertools
import math
from dataclasses import dataclass

from transferscope.errors import InputError, check_whole

OPTIMISERS = ("sgd", "adamw", "muon")
PRECISIONS = ("auto", "float32", "bfloat16")
SCHEDULES = ("cosine", "constant")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: optimiser, schedule, random shifts of the images."""

    epochs: int = 40
    """Most passes over the training images, unless they are fewer steps than `min_steps`; a cosine schedule spans them.
    """
    batch_size: int = 32
    """At most; of few images a quarter."""
    learning_rate: float = 0.05
    momentum: float = 0.9
    """Nesterov's for "sgd" and "muon", the first moment's decay for "adamw"."""
    weight_decay: float = 5e-4
    patience: int = 8
    """Epochs without a better validation loss after which training stops, counted from half the schedule on: before,
    with a high learning rate and few steps for batch norm's averages, a bad validation loss says little."""
    shift: float = 0.125
    """Largest shift of an image, as a share of its side. Flips are left out: digits and signs do not survive them."""
    budget_s: float | None = 600.0
    """Seconds after which training stops, in the middle of an epoch too; None or infinity for no such end."""
    optimiser: str = "sgd"
    """"sgd" (with Nesterov momentum), "adamw" or "muon" (the same as "sgd" but for convolutions, see `muon.Muon`)."""
    views: int = 16
    """Augmented views of the images that are kept where a frozen prefix is run only once; no more than epochs. Few of
    them are learnt by heart: benchmarks/groundtruth/check.py measures what four cost."""
    precision: str = "auto"
    """"float32", "bfloat16" (autocast: the weights stay float32) or "auto": bfloat16 on a GPU that has it."""
    schedule: str = "cosine"
    """Of the learning rate: "cosine" falls to 0 at the end of the epochs, with "constant" it stays as it is. Then a run
    is, bit by bit, the beginning of every longer one, and one run shows the network after every number of steps."""
    min_steps: int = 0
    """Optimiser steps that the schedule has at least, in more epochs if need be: with few images an epoch is few steps,
    and a network that ends undertrained says nothing of how well it could have been adapted."""

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("patience", 1), ("views", 1), ("min_steps", 0)):
            # As Python's own, for recipes are part of what names a result in the cache.
            object.__setattr__(self, name, check_whole(name, getattr(self, name), least))
        if self.budget_s == math.inf:
            object.__setattr__(self, "budget_s", None)  # which JSON knows
        for name, value in (("learning_rate", self.learning_rate), ("budget_s", self.limit_s)):
            if not value > 0:
                raise InputError(f"Expected `{name}` to be positive, but got {value}")
        if not math.isfinite(self.learning_rate):
            raise InputError(f"Expected `learning_rate` to be finite, but got {self.learning_rate}")
        for name in ("momentum", "shift"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"Expected `{name}` to be at least 0 and below 1, but got {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"Expected `weight_decay` to be 0 or a positive number, but got {self.weight_decay}")
        for name, choices in (("optimiser", OPTIMISERS), ("precision", PRECISIONS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in choices:
                raise InputError(
                    f"Expected `{name}` to be one of {', '.join(choices)}, but got {getattr(self, name)!r}"
                )

    @property
    def limit_s(self) -> float:
        """The budget in seconds, infinite where there is none."""
        return math.inf if self.budget_s is None else self.budget_s

    def most_epochs(self, n_samples: int) -> int:
        """Return how many epochs the schedule spans with this many training images."""
        steps = len(batch_bounds(n_samples, self.batch_size)) - 1
        return max(self.epochs, -(-self.min_steps // steps))

    def kept_views(self, n_samples: int) -> int:
        """Return how many views of this many training images are kept behind a frozen prefix."""
        return min(self.views, self.most_epochs(n_samples)) if self.shift else 1


def batch_bounds(n_samples: int, batch_size: int) -> list[int]:
    """Return where the batches of an epoch begin, and the end of the last."""
    batch_size = min(batch_size, max(2, n_samples // 4))
    # Two images a step at least: batch norm after global pooling cannot take one.
    steps = max(1, min(-(-n_samples // batch_size), n_samples // 2))
    # Batches differ in size by one at most, so that none is small.
    sizes = [n_samples // steps + (step < n_samples % steps) for step in range(steps)]
    return [0, *itertools.accumulate(sizes)]


@dataclass(frozen=True)
class TrainingRecord:
    """What a training run did."""

    epochs: int
    """Begun; the last one may have been cut short by the budget."""
    best_epoch: int
    """The one whose weights were kept: the last one, without validation images."""
    steps: int
    seconds: float
    """Of wall time, before an interruption too; of several networks trained at once, this one's share. Without the time
    of an `on_step` callback, to which on a GPU what was still queued before it is counted."""
    stopped: str
    """"finished", "early" (no better validation loss) or "budget" (time ran out)."""
    validation_accuracy: float
    """Of the best epoch, like the loss; both are NaN without validation images."""
    validation_loss: float
    images_seen: int
    """Training images that went through the network, each as often as it did."""
