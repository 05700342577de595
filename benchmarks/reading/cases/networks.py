"""Networks that are easily misread: small, drawn at random, each with a twin or a count by hand to be judged by."""

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

CLASSES = 10
SIDE = 32
"""Of images, in pixels."""


def drawn(build: Callable[..., nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
    """Build a network with the same weights each time."""
    torch.manual_seed(0)
    return build(*args, **kwargs)


class _Attention(nn.Module):
    """A transformer block; its tokens come as (n, tokens, width), or as (tokens, n, width)."""

    def __init__(self, width: int, batch_first: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=batch_first)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm1(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        return tokens + self.mlp(self.norm2(tokens))


class Tower(nn.Module):
    """An image tower whose blocks put tokens first, as CLIP's did, or images first: the same numbers either way."""

    def __init__(self, batch_first: bool, width: int = 32, patch: int = 8, depth: int = 3) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, (SIDE // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(_Attention(width, batch_first) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 3, rows, columns) to logits."""
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), patches], 1) + self.position
        tokens = self.blocks(tokens) if self.batch_first else self.blocks(tokens.transpose(0, 1)).transpose(0, 1)
        return self.head(self.norm(tokens)[:, 0])


TOKENS = (SIDE // 8) ** 2 + 1


def sequence_first() -> nn.Module:
    return drawn(Tower, False)


def batch_first() -> nn.Module:
    return drawn(Tower, True)


def _step(before: int, after: int, stride: Any = 2) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after), nn.ReLU())


class Line(nn.Module):
    """A reader of lines of text: maps wider than high, one of them with as many channels as rows, then a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.wider = _step(3, 16, (2, 1)), _step(16, 24, 2)
        self.flat = nn.Flatten(2)
        self.sequence = nn.Sequential(nn.Conv1d(24, 40, 3, 2, 1), nn.ReLU())
        self.pool, self.out, self.head = nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(40, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 3, rows, columns) to logits."""
        sequence = self.sequence(self.flat(self.wider(self.wide(images))))
        return self.head(self.out(self.pool(sequence)))


def line() -> nn.Module:
    return drawn(Line)


class ChannelsLast(nn.Module):
    """Works on (n, rows, columns, channels) that are not square, and says so in `output_fmt` as timm does."""

    output_fmt = "NHWC"

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, (8, 4), (8, 4))
        self.blocks = nn.Sequential(*(_Channels(24) for _ in range(2)))
        self.head = nn.Linear(24, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 3, rows, columns) to logits."""
        return self.head(self.blocks(self.patches(images).permute(0, 2, 3, 1).contiguous()).mean((1, 2)))


class _Channels(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(width), nn.Sequential(nn.Linear(width, width), nn.GELU())

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.mlp(self.norm(maps))


def channels_last() -> nn.Module:
    return drawn(ChannelsLast)


@dataclass
class Output:
    """What `transformers` gives, much shortened."""

    auxiliary: Tensor
    logits: Tensor


Pair = namedtuple("Pair", "auxiliary logits")

OUTPUTS: dict[str, Callable[..., Any]] = {
    "tensor": lambda maps, logits, auxiliary: logits,
    "dict": lambda maps, logits, auxiliary: {"aux": auxiliary, "out": logits},
    "dict with a loss": lambda maps, logits, auxiliary: {"loss": None, "hidden_states": maps, "logits": logits},
    "dataclass": lambda maps, logits, auxiliary: Output(auxiliary, logits),
    "named tuple": lambda maps, logits, auxiliary: Pair(auxiliary, logits),
    "list of maps": lambda maps, logits, auxiliary: list(maps),
}


class Convolutional(nn.Module):
    """Three stages and a head, with an auxiliary head after the first; what it returns is its `output`."""

    def __init__(self, output: str = "tensor") -> None:
        super().__init__()
        self.output = output
        self.stage1, self.stage2, self.stage3 = _step(3, 16), _step(16, 24), _step(24, 32)
        self.pool, self.flat, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES)
        self.auxiliary = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES))

    def forward(self, images: Tensor) -> Any:
        """Map images (n, 3, rows, columns) to logits."""
        first = self.stage1(images)
        second = self.stage2(first)
        third = self.stage3(second)
        logits = self.head(self.flat(self.pool(third)))
        return OUTPUTS[self.output]((first, second, third), logits, self.auxiliary(first))


def convolutional(output: str = "tensor") -> nn.Module:
    return drawn(Convolutional, output)


class Checkpointed(nn.Module):
    """Residual blocks under gradient checkpointing: re-entrant (True), not (False), or none at all (None)."""

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.blocks = nn.ModuleList(_Residual(16) for _ in range(4))
        self.pool, self.flat, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 3, rows, columns) to logits."""
        maps = self.stem(images)
        for block in self.blocks:
            maps = block(maps) if self.reentrant is None else checkpoint(block, maps, use_reentrant=self.reentrant)
        return self.head(self.flat(self.pool(maps)))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(maps + self.second(torch.relu(self.first(maps))))


def checkpointed(reentrant: bool | None) -> nn.Module:
    return drawn(Checkpointed, reentrant)


class Detached(nn.Module):
    """A tower that runs without gradients inside `forward`, and a head that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = timm.create_model("test_resnet", num_classes=0)
        self.head = nn.Linear(self.tower.num_features, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 3, rows, columns) to logits."""
        with torch.no_grad():
            features = self.tower(images)
        return self.head(features)


def detached() -> nn.Module:
    return drawn(Detached)


class Dropping(Convolutional):
    """Dropout that nobody switches off: `nn.functional.dropout` drops unless it is told not to."""

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 3, rows, columns) to logits."""
        maps = nn.functional.dropout(self.stage1(images), 0.5)
        return self.head(self.flat(self.pool(self.stage3(self.stage2(maps)))))


def dropping() -> nn.Module:
    return drawn(Dropping)


class OfTheBatch(Convolutional):
    """Batch norms without running statistics: an image's features depend on those beside it."""

    def __init__(self) -> None:
        super().__init__()
        for stage, width in ((self.stage1, 16), (self.stage2, 24), (self.stage3, 32)):
            stage[1] = nn.BatchNorm2d(width, track_running_stats=False)


def of_the_batch() -> nn.Module:
    return drawn(OfTheBatch)


class NotANumber(Convolutional):
    """The logarithm of what may be negative, in the middle."""

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 3, rows, columns) to logits."""
        maps = torch.log(self.stage1[0](images))
        return self.head(self.flat(self.pool(self.stage3(self.stage2(maps)))))


def not_a_number() -> nn.Module:
    return drawn(NotANumber)


class Reader(nn.Module):
    """Two convolutions, then two recurrent layers over the columns."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.stem = nn.Sequential(_step(3, 16), _step(16, 16))
        recurrent = {"lstm": nn.LSTM, "gru": nn.GRU}[kind]
        self.first, self.second = recurrent(128, 96, batch_first=True), recurrent(96, 96, batch_first=True)
        self.head = nn.Linear(96, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 3, rows, columns) to logits."""
        columns = self.stem(images).permute(0, 3, 1, 2).flatten(2)  # 8 columns of 16 channels and 8 rows
        rows, _ = self.second(self.first(columns)[0])
        return self.head(rows[:, -1])


def reader(kind: str) -> nn.Module:
    return drawn(Reader, kind)


def recurrent_flops(kind: str) -> int:
    """Count by hand what the two recurrent layers cost: two for a multiply-add, in 8 steps, of each gate's matrices."""
    gates = {"lstm": 4, "gru": 3}[kind]
    return 2 * 8 * gates * ((128 * 96 + 96 * 96) + (96 * 96 + 96 * 96))


def recurrent_params(kind: str) -> int:
    """Count by hand their weights and their two biases."""
    gates = {"lstm": 4, "gru": 3}[kind]
    return gates * ((128 * 96 + 96 * 96 + 2 * 96) + (96 * 96 + 96 * 96 + 2 * 96))


def transformer() -> nn.Module:
    return drawn(timm.create_model, "test_vit", img_size=SIDE, num_classes=CLASSES)


def quantised() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(transformer().eval(), {nn.Linear}, dtype=torch.qint8)


def residual() -> nn.Module:
    return drawn(timm.create_model, "test_resnet", num_classes=CLASSES)


def compiled() -> nn.Module:
    return torch.compile(residual(), backend="eager")


def parallel() -> nn.Module:
    return nn.DataParallel(residual())


def averaged() -> nn.Module:
    return AveragedModel(residual())


def frozen() -> nn.Module:
    return residual().requires_grad_(False)


class Tied(nn.Module):
    """Blocks that share their first convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.blocks = nn.Sequential(*(_Residual(16) for _ in range(3)))
        for block in self.blocks[1:]:
            block.first.weight = self.blocks[0].first.weight
        self.pool, self.flat, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 3, rows, columns) to logits."""
        return self.head(self.flat(self.pool(self.blocks(torch.relu(self.stem(images))))))


def tied(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Tied()
