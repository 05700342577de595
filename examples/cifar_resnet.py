"""The CIFAR-10 residual networks of He et al. 2015 (arXiv 1512.03385, section 4.2), as a factory for a zoo.

Three stages of n blocks with 16, 32 and 64 channels; depth 6n + 2. Where a stage halves the resolution, the
shortcut has no parameters (the paper's option A): every second pixel is kept, missing channels are zero.
"""

from torch import Tensor, nn
from torch.nn import functional


class Subsample(nn.Module):
    """Keep every second pixel and pad the channels with zeros on both sides."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        extra = channels_out - channels_in
        self.padding = (extra // 2, extra - extra // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C + padding, H/2, W/2)."""
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, *self.padding))


class Block(nn.Module):
    """Two 3 × 3 convolutions with batch norm, beside a shortcut."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        narrowing = channels_in != channels_out
        stride = 2 if narrowing else 1
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut = Subsample(channels_in, channels_out) if narrowing else nn.Identity()
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels_in, H, W) to (N, channels_out, H, W); where it widens, H and W are halved."""
        inner = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(inner + self.shortcut(x))


class CifarResNet(nn.Module):
    """A ResNet for images of 32 × 32 pixels; other sizes work too, as features are averaged at the end."""

    def __init__(self, depth: int, num_classes: int) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6n + 2 (8, 14, 20, 26, …), got {depth}")
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = self._stage(16, 16, blocks)
        self.layer2 = self._stage(16, 32, blocks)
        self.layer3 = self._stage(32, 64, blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _stage(channels_in: int, channels_out: int, blocks: int) -> nn.Sequential:
        widths = [channels_in] + [channels_out] * blocks
        return nn.Sequential(*(Block(widths[i], widths[i + 1]) for i in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, num_classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.flatten(self.pool(x)))


def build(depth: int = 20, num_classes: int = 10) -> nn.Module:
    """Return an untrained network of this depth (6n + 2); the zoo's ``checkpoint`` brings the weights."""
    return CifarResNet(depth, num_classes)
