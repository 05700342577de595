"""What the axes of a layer's output are: which one counts images, which channels, where the tokens of the image lie."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from transferscope.activations.axes import (
    CHANNELS,
    HEIGHT,
    MADE_FROM,
    SAMPLES,
    WIDTH,
    Axes,
    Axis,
    is_position,
    length,
    roles,
)

Grid = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """The axes of one layer's output."""

    samples: int = 0
    """The axis that counts images; 1 in a transformer whose tokens come first."""
    channels: int = 1
    """Of an output with one axis the same as `samples`."""
    assumed: bool = False
    """Whether nothing but custom says which axis the channels are."""
    grid: Grid | None = None
    """Height and width of the grid of patches, where one axis goes over tokens and that is known."""
    before: int = 0
    """Tokens before the grid: class, distillation and register tokens."""
    made_from: tuple[str, ...] = ()
    """For each of them the parameters it was made from, by name, with spaces in between; empty when not known."""
    has_class_token: bool | None = None
    """What the network itself says; None when it says nothing."""

    def arranged(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a view with images first, then channels, then positions: (n, c), (n, c, tokens), (n, c, h, w)."""
        if tensor.ndim < 2:
            return tensor[:, None] if tensor.ndim else tensor[None, None]
        return tensor.movedim((self.samples, self.channels), (0, 1))

    def images_first(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a view with images first and the other axes as they are."""
        return tensor.movedim(self.samples, 0) if self.samples else tensor

    def images_back(self, tensor: torch.Tensor) -> torch.Tensor:
        """Undo `images_first`."""
        return tensor.movedim(0, self.samples) if self.samples else tensor

    @property
    def with_images_first(self) -> "Layout":
        """The layout of what `images_first` gives."""
        return replace(self, samples=0, channels=self.channels + (self.channels < self.samples))

    @property
    def class_token(self) -> int | None:
        """Place of the class token among the tokens; None when there is none, or none that can be told."""
        if self.has_class_token is False:
            return None
        called = [place for place, names in enumerate(self.made_from) if _is_class(names)]
        if called:
            return called[0]
        others = [names for names in self.made_from if _is_other(names)]
        alone = self.before == 1 and not others
        return 0 if self.before and (self.has_class_token or alone) else None


USUAL = Layout()
"""Images, then channels: maps (n, c, h, w) and vectors (n, c)."""


def usual(n_axes: int) -> Layout:
    """Return what is customary for so many axes: maps (n, c, h, w), tokens (n, tokens, c), vectors (n, c)."""
    return Layout(channels={1: 0, 3: 2}.get(n_axes, 1))


def layout_of(
    axes: Axes, shape: Sequence[int], samples: int | None, module: nn.Module, has_class_token: bool | None = None
) -> Layout:
    """Return the layout of an output.

    Parameters
    ----------
    axes
        What is known of its axes from how it was made.
    shape
        Of the output of one batch.
    samples
        The axis that grows with the number of images, where batches of two sizes told.
    module
        What put it out; asked where the axes say nothing.
    has_class_token
        What the network says of itself, if anything.
    """
    places = range(len(shape))
    known = [roles(axis) for axis in axes]
    if samples is None:
        samples = next((place for place in places if known[place] == {SAMPLES}), 0)
    others = [place for place in places if place != samples]
    if len(others) <= 1:
        return Layout(samples, others[0] if others else samples)
    called = [place for place in others if known[place] == {CHANNELS}]
    left = [place for place in others if not is_position(axes[place])]
    if len(called) == 1 or len(left) == 1:
        layout = Layout(samples, (called if len(called) == 1 else left)[0])
    else:
        layout = _by_module(module, samples, others)
    positions = [place for place in others if place != layout.channels]
    return _with_tokens(layout, axes[positions[0]], has_class_token) if len(positions) == 1 else layout


def _by_module(module: nn.Module, samples: int, others: Sequence[int]) -> Layout:
    if isinstance(module, nn.Linear):
        return Layout(samples, others[-1])
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and len(module.normalized_shape) == 1:
        return Layout(samples, others[-1])
    if hasattr(module, "kernel_size") or hasattr(module, "num_features"):
        return Layout(samples, others[0])
    return Layout(samples, others[-1] if len(others) == 2 else others[0], assumed=True)


def _with_tokens(layout: Layout, axis: Axis, has_class_token: bool | None) -> Layout:
    parts = axis[0].parts if len(axis) == 1 and axis[0].parts else (axis,)
    grids = [place for place, part in enumerate(parts) if roles(part) == {HEIGHT, WIDTH}]
    if len(grids) != 1:
        return layout
    names: list[str] = []
    for part in parts[: grids[0]]:
        label = part[0].label
        names += [label.removeprefix(MADE_FROM) if label.startswith(MADE_FROM) else ""] * length(part)
    return replace(
        layout,
        grid=_sides(parts[grids[0]]),
        before=len(names),
        made_from=tuple(names),
        has_class_token=has_class_token,
    )


def _sides(axis: Axis) -> Grid | None:
    """Return height and width of tokens that run along rows."""
    atoms = [(roles((atom,)), atom.size) for atom in axis if atom.size > 1]
    across = next((place for place, (role, _) in enumerate(atoms) if role == {WIDTH}), len(atoms))
    if any(role != {HEIGHT} for role, _ in atoms[:across]) or any(role != {WIDTH} for role, _ in atoms[across:]):
        return None
    height = 1
    for _, size in atoms[:across]:
        height *= size
    return height, length(axis) // height


def _is_class(names: str) -> bool:
    return re.search(r"cls|class(?!if)", names.lower()) is not None


def _is_other(names: str) -> bool:
    return re.search(r"reg|dist|storage|prompt|mem", names.lower()) is not None
