"""The compact residual network that is trained from scratch on the target as its own reference."""

import torch
from torch import nn

WIDTH = 16
"""Channels of the first stage; the later ones have two and four times as many."""


class Pointwise(nn.Conv2d):
    """A 1 × 1 convolution of every so manieth pixel, which as a strided one torch cannot train channels last."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, 1, bias=False)
        self.every = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map feature maps (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        return super().forward(x[..., :: self.every, :: self.every])


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions around a skip connection (He et al. 2015)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(Pointwise(inputs, outputs, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map feature maps (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        out = self.act1(self.bn1(self.conv1(x)))
        return self.act2(self.bn2(self.conv2(out)) + self.shortcut(x))


class CompactResNet(nn.Module):
    """A residual network of a stem, six basic blocks, a pooled output and a linear head.

    Parameters
    ----------
    classes : int
        Outputs of the head.
    width : int
        Channels of the stem and of the first two blocks.
    stem_stride : int
        1 for images of about 32 px, 2 for about 64 px.
    channels : int
        Of the images.
    """

    def __init__(self, classes: int, *, width: int = WIDTH, stem_stride: int = 1, channels: int = 3) -> None:
        super().__init__()
        first = nn.Conv2d(channels, width, 3, stem_stride, 1, bias=False)
        self.stem = nn.Sequential(first, nn.BatchNorm2d(width), nn.ReLU())
        widths = [width, width, 2 * width, 2 * width, 4 * width, 4 * width]
        strides = [1, 1, 2, 1, 2, 1]
        self.blocks = nn.Sequential(
            *(BasicBlock(i, o, s) for i, o, s in zip([width, *widths[:-1]], widths, strides, strict=True))
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, channels, h, w) to logits (n, classes)."""
        return self.head(self.pool(self.blocks(self.stem(x))))
