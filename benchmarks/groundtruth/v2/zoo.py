"""The sources, as entries of a zoo file.

    TRANSFERSCOPE_REAL=... python benchmarks/groundtruth/v2/zoo.py > zoo.yaml

prints the file, for any verb of transferscope.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
PIXELS = 96
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
SMALL = ("cifar10", "mnist")
"""Small networks of ground truth v1, trained on images that no target has."""
COMPACT = "compact-64"
"""The network without weights that `rank` trains from scratch; only ever trained from scratch."""

Entry = dict[str, Any]


def sources(real: Path) -> list[Entry]:
    """Return the pretrained networks: seven for images of 96 px, three for small ones."""
    networks = (real / "zoo").resolve()
    lite = [
        {
            "name": f"efficientnet-{size}", "loader": "timm", "model": f"tf_efficientnet_{size}",
            "checkpoint": str(networks / f"tf_efficientnet_{size}.safetensors"),
            "transform": {"size": PIXELS, **HALF},
        }
        for size in ("lite0", "lite2")
    ]  # fmt: skip
    torchvision = {
        "name": "mobilenetv2-torchvision", "loader": "torchvision", "model": "mobilenet_v2",
        "checkpoint": str(networks / "mobilenet_v2-b0353104.pth"), "transform": {"size": PIXELS, **IMAGENET},
    }  # fmt: skip
    mobile = [
        {
            "name": f"mobilenetv2-{name}", "loader": "timm", "model": "mobilenetv2_100",
            "checkpoint": str(networks / f"mobilenetv2-{name}.safetensors"),
            "kwargs": {"pad_type": "same", "num_classes": classes}, "transform": {"size": PIXELS, **HALF},
        }
        for name, classes in (("imagenet", 1001), ("inat-bird", 965), ("inat-insect", 1022))
    ]  # fmt: skip
    resnet = {
        "name": "resnet56-cifar10", "loader": "python",
        "factory": f"{HERE.parents[2] / 'examples' / 'cifar_resnet.py'}:build",
        "checkpoint": str(networks / "resnet56-4bfd9763.th"), "kwargs": {"depth": 56}, "transform": {"size": 32},
    }  # fmt: skip
    small = [
        {
            "name": f"small-{name}", "loader": "python", "factory": f"{HERE.parent / 'network.py'}:small",
            "checkpoint": str(HERE.parent / "small" / "sources" / f"{name}.safetensors"),
            "kwargs": {"classes": 136, "width": 8},
            "transform": {"size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}, "layers": ["stem", "blocks.*"],
        }
        for name in SMALL
    ]  # fmt: skip
    return [*lite, torchvision, *mobile, resnet, *small]


def compact() -> Entry:
    """Return the compact network, without weights."""
    return {
        "name": COMPACT, "loader": "python", "factory": f"{HERE / 'compact.py'}:build",
        "kwargs": {"classes": 10}, "transform": {"size": 64, "mean": [0.5] * 3, "std": [0.25] * 3},
        "layers": ["stem", "blocks.*"],
    }  # fmt: skip


if __name__ == "__main__":
    sys.path.append(str(HERE.parents[1]))
    from groundtruth.sources import real_data

    print(yaml.safe_dump({"version": 1, "sources": sources(real_data())}, sort_keys=False), end="")
