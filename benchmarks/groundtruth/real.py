"""The real-network map: three MobileNetV2 that differ in their source alone, and two CIFAR ResNets.

Needs TRANSFERSCOPE_REAL, a folder with `data/NAME.zip` and `zoo/*`; says so and stops without it.

    TRANSFERSCOPE_REAL=... python benchmarks/groundtruth/real.py [--minutes N]

runs what is missing of the map with `transferscope measure`, in the folder real/ beside this file: first what fits a
classifier to frozen features, at every stage; then what trains a network, in the order of `TRAINED`, as far as the time
allows: the rule is that order, not what looks good. Stop it whenever you like, or give it some minutes: the same
command goes on.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from maps import Part, measure, options
from sources import unpack

TARGETS = ("trashnet", "sign-digits", "pacs-art", "pacs-sketch", "fashion-mnist")
PIXELS = 96
OPTIONS = {"test-samples": 500, "epochs": 12, "min-steps": 150, "depths": "all"}
PARTS = (Part("5,20", 3, "truncate,toptuning,fne", OPTIONS), Part("80", 2, "truncate,toptuning,fne", OPTIONS))
WHOLE, SHORT = OPTIONS | {"depths": "-1"}, OPTIONS | {"depths": "-1,-7"}
TRAINED = (
    (("mobilenetv2-imagenet",), Part("20", 1, "finetune,scratch", WHOLE)),
    (("mobilenetv2-imagenet",), Part("5,80", 1, "finetune,scratch", WHOLE)),
    (None, Part("20", 1, "reinit,finetune", SHORT)),
    (None, Part("5", 2, "reinit,finetune,scratch", SHORT)),
)
"""All of the network and, of every source (None), six stages less."""


def sources(networks: Path) -> list[dict[str, object]]:
    """Return the zoo."""
    nets: list[dict[str, object]] = [
        {
            "name": f"mobilenetv2-{name}", "loader": "timm", "model": "mobilenetv2_100",
            "checkpoint": str((networks / f"mobilenetv2-{name}.safetensors").resolve()),
            "kwargs": {"pad_type": "same", "num_classes": classes},
            "transform": {"size": PIXELS, "mean": [0.5] * 3, "std": [0.5] * 3},
        }
        for name, classes in (("imagenet", 1001), ("inat-bird", 965), ("inat-insect", 1022))
    ]  # fmt: skip
    factory = Path(__file__).resolve().parents[2] / "examples" / "cifar_resnet.py"
    for depth, file in ((20, "resnet20-12fca82f.th"), (56, "resnet56-4bfd9763.th")):
        nets.append({
            "name": f"resnet{depth}-cifar10", "loader": "python", "factory": f"{factory}:build",
            "checkpoint": str((networks / file).resolve()), "kwargs": {"depth": depth}, "transform": {"size": 32},
        })  # fmt: skip
    return nets


def transfers(real: Path, _out: Path, folder: Path) -> Iterator[tuple[str, Path, list[dict[str, object]]]]:
    """Yield each target: its name, its images, unpacked into `folder`, and all sources."""
    zoo = sources(real / "zoo")
    for name in TARGETS:
        yield name, unpack(real, name, folder), zoo


def main() -> None:
    real, out, clock = options("real")
    parts = [(None, part) for part in PARTS] + list(TRAINED)
    with tempfile.TemporaryDirectory() as folder:
        targets = list(transfers(real, out, Path(folder)))
        for names, part in parts:
            for name, images, zoo in targets:
                chosen = [source for source in zoo if names is None or source["name"] in names]
                measure(images, chosen, out / name, part, clock)


if __name__ == "__main__":
    main()
