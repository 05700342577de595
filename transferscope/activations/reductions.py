"""From a layer's output to features: what becomes of space, tokens and channels."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn

from transferscope.errors import CaptureError, InputError

Reduction = (
    Literal["flatten", "mean", "grid", "class_token", "positions"] | Callable[[torch.Tensor], torch.Tensor] | None
)

GRID = 2
"""Side of the spatial grid to which "grid" averages."""


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
        The first token, where there is one beside the square grid of patches.
    "positions"
        Every position of a feature map, or patch token, is a sample: (n_samples × height × width, channels).

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
    named = {"flatten": _flatten, "mean": _mean, "grid": _grid, "class_token": _class_token, "positions": positions}
    if reduce not in named:
        raise InputError(f"Expected `reduce` to be None, a callable or one of {list(named)}, but got {reduce!r}")
    return named[reduce]


def unordered(tensor: torch.Tensor) -> torch.Tensor:
    """Flatten to (n_samples, n_features) in whatever order the values lie in memory: a view wherever one exists.

    Enough for what does not depend on the order of features, such as Gram matrices.
    """
    order = sorted(range(1, tensor.ndim), key=tensor.stride, reverse=True)
    return _full(tensor).permute(0, *order).flatten(1) if tensor.ndim > 1 else _full(tensor)[:, None]


def map_side(shape: Sequence[int]) -> tuple[int, int] | None:
    """Return height and width of one sample's feature map, or of its grid of patch tokens; None without positions."""
    if len(shape) == 3:
        height, width = (d for axis, d in enumerate(shape, 1) if axis != channel_axis((1, *shape)))
        return height, width
    if len(shape) == 2:
        patches = shape[0] - has_class_token(shape)
        side = math.isqrt(patches)
        return (side, side) if side**2 == patches else None
    return None


def has_class_token(shape: Sequence[int]) -> bool:
    """Whether one sample's output (tokens, channels) is no square grid of patches, so that its first token is special.

    So are the registers and the like that may come after it; a network for images that are not square would be
    misread.
    """
    return len(shape) == 2 and shape[0] > 1 and math.isqrt(shape[0]) ** 2 != shape[0]


def positions(tensor: torch.Tensor, side: tuple[int, int] | None = None) -> torch.Tensor:
    """Return a sample for every position, (n_samples × height × width, channels), averaged to `side` if given."""
    height_width = map_side(tensor.shape[1:])
    if height_width is None:
        raise CaptureError(
            "Expected feature maps or a square grid of patch tokens to take positions from, but got an output of "
            f"shape {tuple(tensor.shape)}; leave such layers out, or use another reduction"
        )
    maps = _full(tensor)
    if maps.ndim == 3:
        maps = maps[:, maps.shape[1] - math.prod(height_width) :].unflatten(1, height_width).movedim(3, 1)
    else:
        maps = maps.movedim(channel_axis(maps.shape), 1)
    if side is not None and side != height_width:
        maps = nn.functional.adaptive_avg_pool2d(maps, side)
    rows = maps.movedim(1, 3).flatten(0, 2)
    return rows.clone() if rows.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr() else rows


class CommonPositions:
    """The "positions" reduction with one resolution for all layers, so that they have the same samples.

    Parameters
    ----------
    shapes
        Of one sample's output of every layer; all are averaged to the height and width of the smallest.
    """

    def __init__(self, shapes: Sequence[Sequence[int]]) -> None:
        heights, widths = zip(*(side for side in map(map_side, shapes) if side), strict=True)
        self._side = min(heights), min(widths)
        self.per_sample: int = math.prod(self._side)
        """How many positions a sample has."""

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a sample for every position."""
        return positions(tensor, self._side)


def channel_axis(shape: Sequence[int]) -> int:
    """Return the channel axis of a batch of feature maps or tokens of this shape, sample axis included.

    Feature maps (n, c, h, w) have channels at 1; channels-last networks (Swin and kin) give (n, h, w, c), which
    is told by the two equal spatial sides coming first. Tokens (n, t, c) have channels last.
    """
    if len(shape) == 4:
        return 3 if shape[1] == shape[2] != shape[3] else 1
    return len(shape) - 1 if len(shape) == 3 else 1


def _full(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _channels_first(tensor: torch.Tensor) -> torch.Tensor:
    return _full(tensor).movedim(channel_axis(tensor.shape), 1)


def _flatten(tensor: torch.Tensor) -> torch.Tensor:
    flat = _channels_first(tensor).flatten(1) if tensor.ndim > 1 else _full(tensor)[:, None]
    # A view would follow the activation when the next module overwrites it.
    return flat.clone() if flat.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr() else flat


def _mean(tensor: torch.Tensor) -> torch.Tensor:
    return _flatten(tensor) if tensor.ndim <= 2 else _channels_first(tensor).flatten(2).mean(dim=2)


def _grid(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.ndim != 4:
        return _mean(tensor)
    return nn.functional.adaptive_avg_pool2d(_channels_first(tensor), GRID).flatten(1)


def _class_token(tensor: torch.Tensor) -> torch.Tensor:
    if not has_class_token(tensor.shape[1:]):
        raise CaptureError(
            "Expected tokens with a class token before a square grid of patches, (n_samples, tokens, channels), but "
            f"got an output of shape {tuple(tensor.shape)}; leave such layers out, or use another reduction"
        )
    return _full(tensor[:, 0]).clone()
