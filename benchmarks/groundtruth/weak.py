"""The map of weak sources: networks without weights or trained on random labels, by the package's own recipe.

Needs TRANSFERSCOPE_REAL, a folder with `data/NAME.zip` and `zoo/*`; says so and stops without it.

    TRANSFERSCOPE_REAL=... python benchmarks/groundtruth/weak.py [--minutes N]

runs what is missing with `transferscope measure`, in the folder weak/ beside this file. The other maps have sources
that are all of some use; what is expected of one that is of none has to be told by this one. Two good networks stand
beside them, as a user's zoo would have them.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maps import Part, measure, options

sys.path.append(str(Path(__file__).resolve().parents[1]))
from groundtruth.v2 import zoo as v2_zoo
from groundtruth.v2.targets import cache_folder, unpack

TARGETS = ("trashnet", "sign-digits", "pacs-photo", "caltech-10")
GOOD = ("mobilenetv2-imagenet", "efficientnet-lite0")
UNTRAINED = ("mobilenetv2-imagenet", "resnet56-cifar10", "small-cifar10")
"""Whose architectures are transferred without their weights."""
SIZES = "5,20"
FROZEN: dict[str, Any] = {"depths": "all", "test-samples": 2000}
PARTS = (Part(SIZES, 1, "truncate", FROZEN),)
TRAINED = {
    "small": Part(SIZES, 1, "reinit,finetune", FROZEN | {"depths": "2,4,-1"}),
    "large": Part(SIZES, 1, "reinit,finetune", FROZEN | {"depths": "10,-1"}),
}
"""Depths are counted in stages: of 6 and of 19 to 29."""


def weak(real: Path) -> list[dict[str, object]]:
    """Return the weak sources: three without weights, and a small one trained on random labels."""
    entries = {str(entry["name"]): entry for entry in v2_zoo.sources(real)}
    found = [
        {key: value for key, value in entries[name].items() if key != "checkpoint"}
        | {"name": f"untrained-{name.partition('-')[0]}", "weights": "none"}
        for name in UNTRAINED
    ]
    labels = Path(__file__).resolve().parent / "small" / "sources" / "random-labels.safetensors"
    return [*found, entries["small-cifar10"] | {"name": "small-random-labels", "checkpoint": str(labels)}]


def transfers(real: Path, _out: Path, _folder: Path) -> Iterator[tuple[str, Path, list[dict[str, object]]]]:
    """Yield each target: its name, its images, and the sources that `rank` looks at."""
    good = [entry for entry in v2_zoo.sources(real) if entry["name"] in GOOD]
    for name in TARGETS:
        yield name, unpack(real, name, cache_folder()), [*good, *weak(real)]


def main() -> None:
    real, out, clock = options("weak")
    for size in TRAINED:
        for name, images, zoo in transfers(real, out, out):
            sources = [entry for entry in zoo if str(entry["name"]) not in GOOD]
            chosen = [entry for entry in sources if ("small" in str(entry["name"])) == (size == "small")]
            measure(images, chosen, out / name, TRAINED[size], clock)
    for name, images, zoo in transfers(real, out, out):
        measure(images, zoo, out / name, PARTS[0], clock)


if __name__ == "__main__":
    main()
