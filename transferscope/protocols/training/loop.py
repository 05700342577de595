"""The one training loop: deterministic by seed, early stopping, best weights restored, within a time budget.

It steps one network or several of one shape at once (a `Learner`), and keeps the books of each run apart.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from transferscope.errors import InputError, SourceError
from transferscope.protocols.training.inputs import Batches, CachedViews, Inputs, epoch_seeds, placed
from transferscope.protocols.training.learner import Learner, assign
from transferscope.protocols.training.objective import CLASSES, Objective
from transferscope.protocols.training.recipe import Recipe, TrainingRecord, batch_bounds
from transferscope.protocols.training.resuming import StateFile
from transferscope.runtime.seeding import seeded


@dataclass(frozen=True, eq=False)
class Member:
    """One training run: a network and what it learns from."""

    net: nn.Module
    """Trained in place, on the device it is on."""
    inputs: Inputs
    labels: Tensor
    """(n_samples,) int64 of classes, else (n_samples, n_outputs) float32."""
    validation: tuple[Tensor, Tensor] | None
    """Inputs and labels that decide when to stop and which epoch is best; None: the last weights are kept."""
    seed: int
    """Decides the order of the images, their shifts and dropout."""
    rates: Mapping[str, float] | None = None
    """Factor on the learning rate of the parameters under a module path or of that name (the longest match counts, 1
    without any); 0: frozen."""
    objective: Objective = CLASSES

    def __post_init__(self) -> None:
        n_samples = self.inputs.views.shape[1] if isinstance(self.inputs, CachedViews) else len(self.inputs)
        pairs = [("", n_samples, self.labels)]
        if self.validation is not None:
            pairs.append(("validation ", len(self.validation[0]), self.validation[1]))
        for kind, count, labels in pairs:
            if count != len(labels) or count == 0:
                raise InputError(
                    f"Expected one {kind}label for each of at least one {kind}image, but got {count} images and "
                    f"{len(labels)} labels"
                )


@dataclass
class _Run:
    """One member on its way."""

    member: Member
    data: Batches
    validation: tuple[Tensor, Tensor] | None
    seconds: float = 0.0
    best_epoch: int = 0
    best_loss: float = math.nan
    best_accuracy: float = math.nan
    weights: dict[str, Tensor] = field(default_factory=dict)
    """Of the best epoch; without validation images those at the end."""
    outcome: TrainingRecord | SourceError | None = None
    """None while it goes on."""


_LOOP_STATE = ("_epoch", "_steps", "_seen", "_seconds")
_RUN_STATE = ("seconds", "best_epoch", "best_loss", "best_accuracy", "weights")


class Loop:
    """Trains networks of one shape, each for itself.

    Parameters
    ----------
    learner : Learner
        Holds the networks of all members.
    members : sequence of Member
        With the same number of images each, and all or none with validation images.
    recipe : Recipe
        Schedule and budget.
    """

    def __init__(self, learner: Learner, members: Sequence[Member], recipe: Recipe) -> None:
        self._learner, self._recipe = learner, recipe
        self._runs = [_begun(member, learner, recipe) for member in members]
        self._going = self._runs
        self._bounds = batch_bounds(len(members[0].labels), recipe.batch_size)
        self._epochs = recipe.most_epochs(len(members[0].labels))
        self._total = self._epochs * (len(self._bounds) - 1)
        self._epoch = self._steps = self._seen = 0
        self._seconds = 0.0

    def run(
        self,
        on_epoch: Callable[[int, int], None] | None = None,
        state: StateFile | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> list[TrainingRecord | SourceError]:
        """Train all networks, and leave them in evaluation mode with their best weights.

        Parameters
        ----------
        on_epoch : callable, optional
            Called as `on_epoch(done, total)` after each epoch.
        state : StateFile, optional
            Where the run of a single member is kept, and goes on from.
        on_step : callable, optional
            Called as `on_step(done)` after each optimiser step; it leaves modes, weights and random state as they are.

        Returns
        -------
        list of TrainingRecord or SourceError
            The error of a member whose loss became NaN or infinite; the weights of its network mean nothing.
        """
        if state is not None and (saved_state := state.read(self._learner.device)) is not None:
            self._go_on_from(saved_state)
        with deterministic_kernels():
            self._settle()
            while self._going:
                self._train_epoch(on_step)
                if state is not None and self._going[0].outcome is None:
                    state.write(self._to_keep)
                if on_epoch is not None:
                    on_epoch(self._epoch, self._epochs)
                self._settle()
        for run in self._runs:
            assign(run.member.net, run.weights)
            run.member.net.eval()
        if state is not None:
            state.remove()
        return [run.outcome for run in self._runs if run.outcome is not None]

    def _train_epoch(self, on_step: Callable[[int], None] | None) -> None:
        learner, going, started = self._learner, self._going, time.monotonic()
        self._epoch += 1
        # Dropout draws for all networks at once, from the first one's seed.
        with seeded(epoch_seeds(going[0].member.seed, self._epoch)[1], learner.device):
            learner.train()
            for run in going:
                run.data.begin(self._epoch)
            losses = torch.zeros(len(going), device=learner.device)
            for start, stop in itertools.pairwise(self._bounds):
                inputs, labels = zip(*(run.data.batch(start, stop) for run in going), strict=True)
                # The losses stay on the device: reading each would make a GPU wait.
                losses = losses + learner.step(inputs, labels, self._schedule())
                self._steps += 1
                self._seen += stop - start
                if on_step is not None:
                    called = time.monotonic()
                    on_step(self._steps)
                    started += time.monotonic() - called
                if self._seconds + time.monotonic() - started > self._recipe.limit_s:
                    break
            validations = [run.validation for run in going if run.validation is not None]
            scores = learner.evaluate(validations) if validations else []
            mean_losses = losses.tolist()
        took = time.monotonic() - started
        self._seconds += took
        for run in going:
            run.seconds += took / len(going)
        for position, (run, loss) in enumerate(zip(going, mean_losses, strict=True)):
            self._judge(run, position, loss, scores[position] if scores else None)

    def _schedule(self) -> float:
        """Return the share of the learning rate that the next step is made at."""
        if self._recipe.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * self._steps / self._total))

    def _judge(self, run: _Run, position: int, training_loss: float, score: tuple[float, float] | None) -> None:
        """Take note of a finite loss, and of the weights where it is the best one."""
        losses = {"training": training_loss} if score is None else {"validation": score[0], "training": training_loss}
        for kind, value in losses.items():
            if not math.isfinite(value):
                run.outcome = SourceError(
                    f"Training diverged in epoch {self._epoch} ({kind} loss {value}); lower the learning rate, now "
                    f"{self._recipe.learning_rate}"
                )
                return
        # The first loss is compared with NaN.
        if score is not None and not score[0] >= run.best_loss:
            run.best_epoch, (run.best_loss, run.best_accuracy) = self._epoch, score
            run.weights = self._learner.weights(position)

    def _settle(self) -> None:
        """End the runs that stop here, and go on with those that have neither stopped nor failed."""
        for position, run in enumerate(self._going):
            stopped = self._stopped(run)
            if run.outcome is None and stopped is not None:
                if run.validation is None:
                    run.best_epoch, run.weights = self._epoch, self._learner.weights(position)
                run.outcome = TrainingRecord(
                    epochs=self._epoch,
                    best_epoch=run.best_epoch,
                    steps=self._steps,
                    seconds=run.seconds,
                    stopped=stopped,
                    validation_accuracy=run.best_accuracy,
                    validation_loss=run.best_loss,
                    images_seen=self._seen,
                )
        left = [position for position, run in enumerate(self._going) if run.outcome is None]
        if 0 < len(left) < len(self._going):
            self._learner.keep(left)
        self._going = [self._going[position] for position in left]

    def _stopped(self, run: _Run) -> str | None:
        if self._steps == self._total:
            return "finished"
        if self._epoch and self._seconds > self._recipe.limit_s:
            return "budget"
        epochs = self._epoch - max(run.best_epoch, self._epochs // 2)
        return "early" if run.validation is not None and epochs >= self._recipe.patience else None

    def _to_keep(self) -> dict[str, Any]:
        (run,) = self._runs
        return {
            "loop": {name: getattr(self, name) for name in _LOOP_STATE},
            "run": {name: getattr(run, name) for name in _RUN_STATE},
            "weights": self._learner.weights(0),
            "optimiser": self._learner.optimiser.state_dict(),
        }

    def _go_on_from(self, saved_state: Mapping[str, Any]) -> None:
        (run,) = self._runs
        for target, values in ((self, saved_state["loop"]), (run, saved_state["run"])):
            for name, value in values.items():
                setattr(target, name, value)
        assign(run.member.net, saved_state["weights"])
        self._learner.optimiser.load_state_dict(saved_state["optimiser"])


def _begun(member: Member, learner: Learner, recipe: Recipe) -> _Run:
    batches = Batches(
        member.inputs, member.labels, shift=recipe.shift, seed=member.seed,
        device=learner.device, dtype=learner.dtype, memory_format=learner.memory_format,
    )  # fmt: skip
    if member.validation is None:
        return _Run(member, batches, None)
    images, labels = member.validation
    images = placed(images, learner.device).to(learner.dtype)
    if images.ndim == 4:
        images = images.contiguous(memory_format=learner.memory_format)
    return _Run(member, batches, (images, labels))


@contextmanager
def deterministic_kernels() -> Iterator[None]:
    """Choose deterministic cuDNN kernels; the settings are as before afterwards."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
