"""The factories of the sources that are trained here, in a file of their own: runs are known by its bytes."""

import torch
from torch import nn

from transferscope.networks.compact import BasicBlock, CompactResNet


class SmallResNet(nn.Module):
    """A residual network of six stages, a stem and five basic blocks, for images of 32 px."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        widths, strides = (width, 2 * width, 2 * width, 4 * width, 4 * width), (1, 2, 1, 2, 1)
        self.blocks = nn.Sequential(
            *(BasicBlock(i, o, stride) for i, o, stride in zip((width, *widths), widths, strides, strict=False))
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, 3, 32, 32) to logits (n, classes)."""
        return self.head(self.pool(self.blocks(self.stem(x))))


def small(classes: int, width: int) -> SmallResNet:
    """Return the untrained network of the small-network map."""
    return SmallResNet(classes, width)


def compact(classes: int, width: int) -> CompactResNet:
    """Return the untrained network of `benchmarks/parameters.py`."""
    return CompactResNet(classes, width=width)
