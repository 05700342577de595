"""Fitted heads as modules of torch: the same scores from the same features, to be part of a network."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn


class HeadScores(nn.Module):
    """A score for each class from features (n, n_features); the largest is the class that the fitted head predicts.

    Features are z-scored, made ternary where there are thresholds (`low`, `high`), or compared with `centers` by a
    Gaussian kernel where there are some, and weighted. All of it in float64, as the heads are fitted.

    Parameters
    ----------
    arrays : mapping of str to numpy.ndarray
        As `HeadFit.arrays`: mean, deviation (n_features,), weight (n_classes, n_inputs), bias (n_classes,), and one of
        low and high (thresholds of z-scores) or centers (n_centers, n_features) or neither.
    """

    mean: Tensor
    deviation: Tensor
    weight: Tensor
    bias: Tensor
    low: Tensor | None
    high: Tensor | None
    centers: Tensor | None

    _NAMES = ("mean", "deviation", "weight", "bias", "low", "high", "centers")

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        for name in self._NAMES:
            array = arrays.get(name)
            self.register_buffer(name, None if array is None else torch.from_numpy(np.array(array, dtype=np.float64)))

    @classmethod
    def like(cls, shapes: Mapping[str, tuple[int, ...]]) -> "HeadScores":
        """Return one whose arrays have these shapes, to load a `state_dict` into."""
        return cls({name: np.zeros(shape) for name, shape in shapes.items()})

    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, n_features) to scores (n, n_classes), float64."""
        values = (features.double() - self.mean) / self.deviation
        if self.low is not None and self.high is not None:
            values = (values > self.high).double() - (values < self.low).double()
        if self.centers is not None:
            squares = (values**2).sum(1, keepdim=True) + (self.centers**2).sum(1) - 2 * (values @ self.centers.T)
            values = torch.exp(squares.clamp(min=0) / -2)
        return values @ self.weight.T + self.bias
