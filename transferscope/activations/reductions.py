"""From a layer's output to features: what becomes of space, tokens and channels."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn

from transferscope.activations.layout import Grid, Layout, usual
from transferscope.errors import CaptureError, InputError

Reduction = (
    Literal["flatten", "mean", "grid", "class_token", "positions"] | Callable[[torch.Tensor], torch.Tensor] | None
)

GRID = 2
"""Side of the spatial grid to which "grid" averages."""


class LayoutReduction(ABC):
    """A reduction that is told what the axes of an output are."""

    needs_channels: bool = True
    """Whether the result depends on which axis the channels are, but for the order of the features."""

    @abstractmethod
    def __call__(self, output: torch.Tensor, layout: Layout | None = None) -> torch.Tensor:
        """Return what is kept of a layer's output; without a layout the customary one is assumed."""


class _Named(LayoutReduction):
    """One of the reductions that have a name."""

    def __init__(self, reduce: Callable[[torch.Tensor, Layout], torch.Tensor]) -> None:
        self._reduce = reduce
        self.needs_channels = reduce is not _flatten

    def __call__(self, output: torch.Tensor, layout: Layout | None = None) -> torch.Tensor:
        """Return (n_samples, n_features), a copy."""
        layout = layout or usual(output.ndim)
        features = self._reduce(_full(layout.arranged(output)), layout)
        # A view would follow the activation when the next module overwrites it.
        shared = features.untyped_storage().data_ptr() == output.untyped_storage().data_ptr()
        return features.clone() if shared else features


def reducer(reduce: Reduction) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function that `reduce` stands for: layer output (n_samples, ...) to what is kept of it.

    None keeps the output as it is, as a copy that is safe from later in-place changes. The names give
    (n_samples, n_features), half precision raised to float32:

    "flatten"
        Every value, in channel-first order; also a copy.
    "mean"
        The average over space or tokens.
    "grid"
        The average over a 2 × 2 spatial grid; of tokens as "mean".
    "class_token"
        The class token, where there is one beside the grid of patches.
    "positions"
        Every position of a feature map, or patch token, is a sample: (n_samples × height × width, channels). Class,
        distillation and register tokens are left out.

    Those with a name are told by `capture` which axes of an output are images, channels and positions; called alone
    they take maps (n_samples, channels, height, width), tokens (n_samples, tokens, channels) and vectors.

    Raises
    ------
    InputError
        When `reduce` is none of these, nor callable. The function raises CaptureError for an output without a class
        token or positions.
    """
    if reduce is None:
        return torch.clone
    if callable(reduce):
        return reduce
    if reduce not in _REDUCTIONS:
        raise InputError(f"Expected `reduce` to be None, a callable or one of {list(_REDUCTIONS)}, but got {reduce!r}")
    return _Named(_REDUCTIONS[reduce])


def mean_over_positions(output: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Return the "mean" reduction of a layer's output, (n_samples, channels), through which gradients flow."""
    return _mean(_full(layout.arranged(output)), layout)


def unordered(tensor: torch.Tensor, samples: int = 0) -> torch.Tensor:
    """Flatten to (n_samples, n_features) in whatever order the values lie in memory: a view wherever one exists.

    `samples` is the axis that counts them.

    Enough for what does not depend on the order of features, such as Gram matrices.
    """
    tensor = tensor.movedim(samples, 0)
    order = sorted(range(1, tensor.ndim), key=tensor.stride, reverse=True)
    return _full(tensor).permute(0, *order).flatten(1) if tensor.ndim > 1 else _full(tensor)[:, None]


def map_side(shape: Sequence[int], layout: Layout | None = None) -> Grid | None:
    """Return height and width of a feature map, or of the grid of patch tokens; None where none is known.

    Parameters
    ----------
    shape
        Of one sample's output.
    layout
        Of the output of a batch; by default the customary one.
    """
    layout = layout or usual(len(shape) + 1)
    if len(shape) != 3:
        return layout.grid if len(shape) == 2 else None
    axes = [axis for axis in range(4) if axis != layout.samples]
    height, width = (size for axis, size in zip(axes, shape, strict=True) if axis != layout.channels)
    return height, width


def positions(maps: torch.Tensor, layout: Layout, side: Grid | None = None) -> torch.Tensor:
    """Return a sample for every position, (n_samples × height × width, channels), averaged to `side` if given.

    Parameters
    ----------
    maps
        An output as `layout` arranges it: (n_samples, channels, height, width) or (n_samples, channels, tokens).
    layout
        Of the output.
    side
        Height and width.
    """
    if maps.ndim == 3 and layout.grid:
        maps = maps[:, :, layout.before : layout.before + math.prod(layout.grid)].unflatten(2, layout.grid)
    if maps.ndim != 4:
        raise CaptureError(
            "Expected feature maps or tokens of a known grid to take positions from, but got an output of shape "
            f"{tuple(maps.shape)} (images, channels first); leave such layers out, or use another reduction"
        )
    if side is not None and side != maps.shape[2:]:
        maps = nn.functional.adaptive_avg_pool2d(maps, side)
    return maps.movedim(1, 3).flatten(0, 2)


class CommonPositions(LayoutReduction):
    """The "positions" reduction with one resolution for all layers, so that they have the same samples.

    Parameters
    ----------
    sides
        Height and width of the output of every layer; all are averaged to the smallest.
    """

    def __init__(self, sides: Sequence[Grid]) -> None:
        heights, widths = zip(*sides, strict=True)
        self._side = min(heights), min(widths)
        self.per_sample: int = math.prod(self._side)
        """How many positions a sample has."""

    def __call__(self, output: torch.Tensor, layout: Layout | None = None) -> torch.Tensor:
        """Return a sample for every position."""
        return _Named(lambda maps, layout: positions(maps, layout, self._side))(output, layout)


def _full(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _flatten(maps: torch.Tensor, _layout: Layout) -> torch.Tensor:
    return maps.flatten(1)


def _mean(maps: torch.Tensor, _layout: Layout) -> torch.Tensor:
    return maps.flatten(2).mean(dim=2) if maps.ndim > 2 else maps


def _grid(maps: torch.Tensor, layout: Layout) -> torch.Tensor:
    return nn.functional.adaptive_avg_pool2d(maps, GRID).flatten(1) if maps.ndim == 4 else _mean(maps, layout)


def _class_token(tokens: torch.Tensor, layout: Layout) -> torch.Tensor:
    place = layout.class_token if tokens.ndim == 3 else None
    if place is None:
        raise CaptureError(
            f"Expected tokens with a class token, but got an output of shape {tuple(tokens.shape)} (images, channels "
            f"first) with {_before(layout)}, none known as a class token; leave such layers out, or use another "
            "reduction"
        )
    return tokens[:, :, place]


def _before(layout: Layout) -> str:
    """Say what lies before the patches."""
    if not layout.before:
        return "no token before its patches"
    return f"{layout.before} tokens before its patches, made from {', '.join(n or '?' for n in layout.made_from)}"


_REDUCTIONS = {
    "flatten": _flatten,
    "mean": _mean,
    "grid": _grid,
    "class_token": _class_token,
    "positions": positions,
}
