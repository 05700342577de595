"""Gram matrices of activations, formed inside the forward hook where the activation lives, which is then let go."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from transferscope.activations.finite import check_finite
from transferscope.activations.layout import Layout
from transferscope.activations.reductions import LayoutReduction, Reduction, reducer, unordered
from transferscope.arrays import backend
from transferscope.arrays.linalg import center, standardize

CENTRE_ABOVE = 30.0
"""Squared mean over variance above which features are centred before the product, not after it.

Centring a Gram matrix afterwards is exact but for rounding, which grows with this ratio; 30 loses one and a half of
float32's seven digits. Most layers are far below, and are spared a centred copy.
"""

_BLOCKS = 4
_FEWEST_ROWS = 64
"""Of a block."""


class GramReducer(LayoutReduction):
    """A reduction for `capture`: a layer's output becomes the Gram matrix (n_samples, n_samples) of its features.

    On the CPU, and on a GPU without CuPy, the matrix is a torch tensor of which only the upper triangle is filled; with
    CuPy a CuPy array. Several passes over the same layers: call `restart` before each.

    Parameters
    ----------
    reduce
        As in `reductions.reducer`.
    layers
        Names of the layers, in firing order.
    standardized
        Z-score every feature with the statistics of the batch.
    """

    def __init__(self, reduce: Reduction, layers: Sequence[str], *, standardized: bool = False) -> None:
        self._features = _features(reduce)
        self.needs_channels = reduce not in (None, "flatten")
        self._layers = layers
        self._standardized = standardized
        self._next = 0
        self._far: set[int] = set()

    def restart(self) -> None:
        """Count layers from the first one again."""
        self._next = 0

    def __call__(self, output: torch.Tensor, layout: Layout | None = None) -> Any:
        """Return the Gram matrix of the next layer's output.

        Raises
        ------
        CaptureError
            When activations to be standardised are NaN or infinite.
        """
        features = self._features(output, layout)
        layer, self._next = self._next, self._next + 1
        if self._standardized:
            check_finite(features, self._layers[layer])
        if self._standardized or (features.is_cuda and backend.has_cupy()):
            # On a GPU a centred copy costs less than the question whether it is needed, which stops the queue.
            X = backend.from_torch(features)
            X = standardize(X) if self._standardized else center(X)
            return backend.row_products(X, X)
        if layer not in self._far:
            product = upper_gram(features)
            if not _far_from_zero(product):
                return product
            self._far.add(layer)
        # A sample is as near to the mean as the variance says; what is left is subtracted from the product.
        return upper_gram(features - features[:1])

    def stack(self, grams: Sequence[Any]) -> backend.Array:
        """Stack what this reducer gave of each layer: (n_layers, n_samples, n_samples), float64.

        Raises
        ------
        CaptureError
            When activations are NaN or infinite, or too large for their squares; on a GPU nothing is looked at.
        """
        if not isinstance(grams[0], torch.Tensor):
            xp = backend.array_namespace(*grams)
            return xp.astype(xp.stack(list(grams)), xp.float64)
        upper = torch.stack(list(grams))
        for layer, trace in zip(self._layers, upper.diagonal(dim1=1, dim2=2).sum(dim=1), strict=True):
            check_finite(trace, layer)
        return backend.from_torch((upper.triu() + upper.triu(1).mT).double())


def _far_from_zero(product: torch.Tensor) -> bool:
    """Whether the mean of the features drowns their variance, told by the upper triangle of their Gram matrix."""
    n = len(product)
    diagonal = float(product.diagonal().sum(dtype=torch.float64))
    mean = (2 * float(product.triu().sum(dtype=torch.float64)) - diagonal) / n**2
    # A variance at or below zero is one that rounding swallowed.
    return mean > CENTRE_ABOVE * (diagonal / n - mean) and mean > 0


def _features(reduce: Reduction) -> Callable[[torch.Tensor, Layout | None], torch.Tensor]:
    """Return what makes (n_samples, n_features) of an output; None is for what is that already."""
    if reduce is None:
        return lambda features, _layout: features
    if reduce == "flatten":
        # Gram matrices do not depend on the order of features, so that flattening need not copy.
        return lambda output, layout: unordered(output, layout.samples if layout else 0)
    known = reducer(reduce)
    return known if isinstance(known, LayoutReduction) else lambda output, _layout: known(output)


def upper_gram(features: torch.Tensor) -> torch.Tensor:
    """Return features · featuresᵀ (n, n), of which only the upper triangle means anything.

    Products of blocks of rows with those from there on: what lies below the diagonal is left out. More or smaller
    blocks save less than their products, which then are too small, take longer.
    """
    n = len(features)
    product = features.new_empty(n, n)
    height = max(_FEWEST_ROWS, -(-n // _BLOCKS))
    for start in range(0, n, height):
        product[start : start + height, start:] = features[start : start + height] @ features[start:].T
    return product
