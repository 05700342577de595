"""Axes and outputs: which axis counts images, channels and tokens, and which tensor of several stands for a network."""

from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

import transferscope as ts
from reading.cases import networks
from reading.cases.asking import images, layers, made_by, rank, zoo
from reading.cases.case import Case, Found
from transferscope.errors import CaptureError

KIND = "Axes and outputs"


def _features(net: torch.nn.Module, layer: str, reduce: Any, batch: torch.Tensor) -> torch.Tensor:
    with ts.capture(net.eval(), [layer], reduce=reduce) as activations:
        net(batch)
    return activations[layer]


def _sequence_first(count: int, batch: int, folder: Path) -> Found:
    path = zoo(folder, first=made_by("sequence_first"), second=made_by("batch_first"))
    answer = rank(folder, path, batch_size=batch, samples=count)
    if answer.scores is None or len(answer.picks) < 2:
        return Found(answer.said[-1], False)
    one, other = (answer.scores["logme"].sel(source=source).to_numpy() for source in ("first", "second"))
    furthest = np.nanmax(np.abs(one - other))
    return Found(f"LogME differs by {furthest:.2g} at most", furthest < 1e-3)


def _sequence_first_positions(folder: Path) -> Found:
    batch = images(5)
    got, right = (
        _features(net, "blocks.1", "positions", batch) for net in (networks.sequence_first(), networks.batch_first())
    )
    return _rows(got, right)


def _rows(got: torch.Tensor, right: torch.Tensor) -> Found:
    equal = got.shape == right.shape and bool(torch.allclose(got, right, atol=1e-5))
    same = (
        "the right ones" if equal else f"{tuple(right.shape)} would be right" if got.shape != right.shape else "wrong"
    )
    return Found(f"features {tuple(got.shape)}: {same}", equal)


def _line(layer: str, folder: Path) -> Found:
    net = networks.line()
    raw = _features(net, layer, None, images())
    return _rows(_features(net, layer, "mean", images()), raw.flatten(2).mean(2))


def _channels_last(folder: Path) -> Found:
    net = networks.channels_last()
    raw = _features(net, "blocks.0", None, images())
    return _rows(_features(net, "blocks.0", "mean", images()), raw.mean((1, 2)))


def _swin(folder: Path) -> Found:
    kwargs = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 4}
    size = (32, 64)
    net = networks.drawn(timm.create_model, "swin_tiny_patch4_window7_224", img_size=size, num_classes=10, **kwargs)
    batch = images(3, *size)
    with torch.inference_mode():
        maps = net.eval().forward_intermediates(batch, output_fmt="NCHW", intermediates_only=True)
    return _rows(_features(net, "layers.1", "positions", batch), maps[1].permute(0, 2, 3, 1).flatten(0, 2))


def _vit(size: Any, prefix: int, folder: Path, **kwargs: Any) -> Found:
    settings = {"embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": 8, "num_classes": 10} | kwargs
    model = settings.pop("model", "vit_tiny_patch16_224")
    net = networks.drawn(timm.create_model, model, img_size=size, **settings).eval()
    height, width = (size, size) if isinstance(size, int) else size
    batch = images(3, height, width)
    raw = _features(net, "blocks.1", None, batch)
    try:
        got = _features(net, "blocks.1", "positions", batch)
    except CaptureError as error:
        return Found(f"error: {error}", False)
    found = _rows(got, raw[:, prefix:].flatten(0, 1))
    try:
        token = _features(net, "blocks.1", "class_token", batch)
    except CaptureError:
        has, right = "no class token", not net.has_class_token
    else:
        right = net.has_class_token and torch.equal(token, raw[:, 0])
        has = "the class token" if right else "a class token that is none"
    return Found(f"{found.now}; {has}", found.right and right)


def _output(kind: str, last: str, folder: Path) -> Found:
    path = zoo(folder, plain=made_by("convolutional"), other=made_by("convolutional", output=kind))
    right, got = ([stage["layer"] for stage in layers(path, name)] for name in ("plain", "other"))
    if kind == "list of maps":  # it ends with the third, before the pooling
        right = ["stage1.2", "stage2.2", "stage3.2"]
    return Found(f"stages {', '.join(got) or 'none'}", got == right)


def _features_only(folder: Path) -> Found:
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", features_only=True)
    torch.save(net.state_dict(), folder / "maps.pt")
    entry = {"loader": "timm", "model": "test_resnet", "checkpoint": "maps.pt", "kwargs": {"features_only": True}}
    stages = layers(zoo(folder, maps=entry | {"transform": {"size": 32}}), "maps")
    deepest = net.feature_info.module_name()[-1]
    last = stages[-1]["layer"] if stages else "none"
    return Found(f"{len(stages)} stages, the last is {last}", last.replace("_", ".").startswith(deepest))


CASES = (
    Case(
        "A CLIP-like tower whose blocks work on (tokens, images, width); as many images in a batch as tokens",
        "the scores of the same tower with images first",
        lambda folder: _sequence_first(51, networks.TOKENS, folder),
    ),
    Case(
        "The same, in batches of another size and a remainder",
        "the same",
        lambda folder: _sequence_first(51, 20, folder),
    ),
    Case('The same, with `reduce="positions"`', "the patches of each image", _sequence_first_positions),
    Case(
        "Maps wider than high, with as many channels as rows (16, 16, 32)",
        "means over rows and columns",
        lambda folder: _line("wide", folder),
    ),
    Case("Maps wider than high (24, 8, 16)", "the same", lambda folder: _line("wider", folder)),
    Case(
        "A sequence (channels, length), of a 1-d convolution",
        "means over the length",
        lambda folder: _line("sequence", folder),
    ),
    Case("Channels-last maps that are not square, by the module's `output_fmt`", "means of channels", _channels_last),
    Case('A Swin transformer for 32 × 64 pixels, `reduce="positions"`', "timm's own maps", _swin),
    Case(
        "A vision transformer with a class token",
        "16 patches an image, and the class token",
        lambda folder: _vit(32, 1, folder),
    ),
    Case(
        "A vision transformer with a class token and four registers",
        "16 patches an image, and the class token",
        lambda folder: _vit(32, 5, folder, reg_tokens=4),
    ),
    Case(
        "A vision transformer with nine registers and no class token, a square number in all",
        "16 patches an image, no class token",
        lambda folder: _vit(32, 9, folder, reg_tokens=9, class_token=False, global_pool="avg"),
    ),
    Case(
        "A vision transformer without a class token for 32 × 64 pixels",
        "32 patches an image, no class token",
        lambda folder: _vit((32, 64), 0, folder, class_token=False, global_pool="avg"),
    ),
    Case(
        "A vision transformer with a class token for 24 × 64 pixels, 25 tokens",
        "24 patches an image, and the class token",
        lambda folder: _vit((24, 64), 1, folder),
    ),
    Case(
        "A distilled vision transformer, two special tokens",
        "16 patches an image, and the class token",
        lambda folder: _vit(32, 2, folder, model="deit_tiny_distilled_patch16_224"),
    ),
    *(
        Case(f"A network that returns a {kind}", wanted, lambda folder, kind=kind: _output(kind, "", folder))
        for kind, wanted in {
            "dict": "the stages of the same network with a tensor",
            "dict with a loss": "the same",
            "dataclass": "the same",
            "named tuple": "the same",
            "list of maps": "the stages up to the deepest map",
        }.items()
    ),
    Case("timm's `features_only`, five maps", "stages up to the fifth map", _features_only),
)
