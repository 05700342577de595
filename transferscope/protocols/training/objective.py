"""What a network learns of images: the loss of its outputs for classes, several labels or numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from transferscope.runtime.metrics import CLASSIFICATION, MULTI_LABEL, REGRESSION

Reduction = Literal["none", "mean", "sum"]
"""Over images."""


@dataclass(frozen=True)
class Objective:
    """How outputs (n, n_outputs) of a network are compared with what is to be learnt."""

    task: str
    loss: Callable[[Tensor, Tensor, Reduction], Tensor]
    """``f(outputs, values, reduction)``, a mean over outputs: cross-entropy, binary cross-entropy or Huber's loss."""
    right: Callable[[Tensor, Tensor], Tensor]
    """``f(outputs, values)``, of each image, along the last axis but one: whether its class is right; the share of its
    labels that are; 1 less the squared error of its numbers, whose mean is R² of standardised ones."""

    def tensor(self, values: np.ndarray) -> Tensor:
        """Return what is to be learnt, as in `Target.values` or standardised, as `loss` takes it."""
        return torch.from_numpy(values if self.task == CLASSIFICATION else values.astype(np.float32))

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return what outputs predict, as `Metric.of` takes it: codes of classes, scores of labels, or numbers."""
        return outputs.argmax(1) if self.task == CLASSIFICATION else outputs


def _cross_entropy(outputs: Tensor, codes: Tensor, reduction: Reduction) -> Tensor:
    return nn.functional.cross_entropy(outputs, codes, reduction=reduction)


def _binary(outputs: Tensor, indicators: Tensor, reduction: Reduction) -> Tensor:
    losses = nn.functional.binary_cross_entropy_with_logits(outputs, indicators.to(outputs.dtype), reduction="none")
    return _reduced(losses.mean(-1), reduction)


def _huber(outputs: Tensor, numbers: Tensor, reduction: Reduction) -> Tensor:
    """Take half the squared error up to one standard deviation, and go on along a line (Huber 1964).

    The gradient of squared errors has no bound and diverges at rates that suit cross-entropy: from scratch, with Muon,
    within three epochs.
    """
    losses = nn.functional.smooth_l1_loss(outputs, numbers.to(outputs.dtype), reduction="none")
    return _reduced(losses.mean(-1), reduction)


def _reduced(losses: Tensor, reduction: Reduction) -> Tensor:
    return losses if reduction == "none" else losses.mean() if reduction == "mean" else losses.sum()


OBJECTIVES = {
    CLASSIFICATION: Objective(CLASSIFICATION, _cross_entropy, lambda outputs, codes: outputs.argmax(-1) == codes),
    MULTI_LABEL: Objective(
        MULTI_LABEL, _binary, lambda outputs, truth: ((outputs > 0) == (truth > 0)).to(outputs.dtype).mean(-1)
    ),
    REGRESSION: Objective(REGRESSION, _huber, lambda outputs, truth: 1 - ((outputs - truth) ** 2).mean(-1)),
}
"""By task."""
CLASSES = OBJECTIVES[CLASSIFICATION]


@dataclass(frozen=True)
class Scale:
    """Of numbers that are to be learnt: networks and heads learn them with mean 0 and variance 1.

    Attributes
    ----------
    mean, deviation : numpy.ndarray
        (n_numbers,) float64; the deviation of a constant counts as 1.
    """

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> "Scale":
        """Return that of training images, of numbers (n_samples, n_numbers)."""
        deviation = values.std(axis=0)
        return cls(values.mean(axis=0), np.where(deviation > 0, deviation, 1.0))

    def applied(self, values: np.ndarray) -> np.ndarray:
        """Return standardised numbers."""
        return (values - self.mean) / self.deviation

    def undone(self, outputs: np.ndarray) -> np.ndarray:
        """Return numbers in their own units, float64."""
        return outputs * self.deviation + self.mean
