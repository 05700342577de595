"""The one training loop: deterministic by seed, early stopping, best weights restored, within a time budget."""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from transferscope.errors import InputError, SourceError
from transferscope.seeding import seeded


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: SGD with Nesterov momentum, a cosine schedule, random shifts of the images."""

    epochs: int = 40
    """Most passes over the training images; the cosine schedule spans them."""
    batch_size: int = 32
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    patience: int = 8
    """Epochs without a better validation loss after which training stops, counted from half the schedule on: before,
    with a high learning rate and few steps for batch norm's averages, a bad validation loss says little."""
    shift: float = 0.125
    """Largest shift of an image, as a share of its side. Flips are left out: digits and signs do not survive them."""
    budget_s: float = 600.0
    """Seconds after which training stops, in the middle of an epoch too."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "patience", "budget_s"):
            if not getattr(self, name) > 0:
                raise InputError(f"Expected `{name}` to be positive, but got {getattr(self, name)}.")


@dataclass(frozen=True)
class TrainingRecord:
    """What a training run did."""

    epochs: int
    """Begun; the last one may have been cut short by the budget."""
    best_epoch: int
    steps: int
    seconds: float
    stopped: str
    """"finished", "early" (no better validation loss) or "budget" (time ran out)."""
    validation_accuracy: float


def fit(
    net: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    validation: tuple[torch.Tensor, torch.Tensor],
    *,
    recipe: Recipe,
    seed: int,
    on_epoch: Callable[[int, int], None] | None = None,
) -> TrainingRecord:
    """Train `net` in place and leave it in evaluation mode with the weights of its best epoch.

    Parameters
    ----------
    net : torch.nn.Module
        On the device on which it is trained.
    images : torch.Tensor
        (n_samples, 3, height, width), normalised.
    labels : torch.Tensor
        (n_samples,) int64.
    validation : tuple of torch.Tensor
        Images and labels that decide when to stop and which epoch is best.
    recipe : Recipe
        Schedule and budget.
    seed : int
        Decides the order of the images, their shifts and dropout; the global random state is left alone.
    on_epoch : callable, optional
        Called as `on_epoch(done, total)` after each epoch.

    Raises
    ------
    SourceError
        When the loss is NaN or infinite.
    """
    device = next(net.parameters()).device
    batch_size = min(recipe.batch_size, max(2, len(images) // 4))
    # Two images a step at least: batch norm after global pooling cannot take one.
    steps_per_epoch = max(1, min(-(-len(images) // batch_size), len(images) // 2))
    optimiser = torch.optim.SGD(
        net.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.epochs * steps_per_epoch)
    draw = torch.Generator().manual_seed(seed)
    started = time.monotonic()
    best_loss, best_epoch, best_accuracy = float("inf"), 0, 0.0
    best_weights = copy.deepcopy(net.state_dict())
    stopped, epoch, steps = "finished", 0, 0

    with _reproducible(seed, device):
        for epoch in range(1, recipe.epochs + 1):
            net.train()
            order = torch.randperm(len(images), generator=draw)
            # Chunks differ in size by one at most, so that none is small.
            for chunk in torch.tensor_split(order, steps_per_epoch):
                batch = _shifted(images[chunk].to(device), recipe.shift, draw)
                loss = nn.functional.cross_entropy(net(batch), labels[chunk].to(device))
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
                steps += 1
                if out_of_time := time.monotonic() - started > recipe.budget_s:
                    break
            validation_loss, accuracy = evaluate(net, *validation)
            if not validation_loss < float("inf"):
                raise SourceError(
                    f"Training diverged in epoch {epoch} (validation loss {validation_loss}); lower the learning "
                    f"rate, now {recipe.learning_rate}."
                )
            if validation_loss < best_loss:
                best_loss, best_epoch, best_accuracy = validation_loss, epoch, accuracy
                best_weights = copy.deepcopy(net.state_dict())
            if on_epoch is not None:
                on_epoch(epoch, recipe.epochs)
            if steps == recipe.epochs * steps_per_epoch:
                break
            if out_of_time:
                stopped = "budget"
                break
            if epoch - max(best_epoch, recipe.epochs // 2) >= recipe.patience:
                stopped = "early"
                break
    net.load_state_dict(best_weights)
    net.eval()
    return TrainingRecord(
        epochs=epoch,
        best_epoch=best_epoch,
        steps=steps,
        seconds=time.monotonic() - started,
        stopped=stopped,
        validation_accuracy=best_accuracy,
    )


def evaluate(
    net: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, batch_size: int = 256
) -> tuple[float, float]:
    """Return (mean cross-entropy, accuracy) of `net` in evaluation mode; the mode is left there."""
    net.eval()
    device = next(net.parameters()).device
    loss, correct = 0.0, 0
    with torch.inference_mode():
        for batch, truth in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            logits = net(batch.to(device)).double()
            truth = truth.to(device)
            loss += float(nn.functional.cross_entropy(logits, truth, reduction="sum"))
            correct += int((logits.argmax(1) == truth).sum())
    return loss / len(labels), correct / len(labels)


def _shifted(batch: torch.Tensor, share: float, draw: torch.Generator) -> torch.Tensor:
    """Shift each image by its own random offset; what moves in repeats the border."""
    reach = round(share * batch.shape[-1])
    if reach == 0:
        return batch
    height, width = batch.shape[-2:]
    padded = nn.functional.pad(batch, (reach,) * 4, mode="replicate")
    offsets = torch.randint(0, 2 * reach + 1, (len(batch), 2), generator=draw).tolist()
    return torch.stack([image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, offsets, strict=True)])


@contextmanager
def _reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch for dropout and choose deterministic kernels; both are as before afterwards."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        with seeded(seed, device):
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
