"""The targets: image folders with train and test parts, unpacked once into a cache folder outside of the repository."""

import os
import shutil
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SEED = 0


@dataclass(frozen=True)
class Part:
    """Some classes of an image set, and how they are split."""

    archive: str
    """data/NAME.zip of the real data."""
    test_share: float
    """Of each class; as much as leaves the largest of `sizes` to train on."""
    sizes: tuple[int, ...]
    """Images of each class that transfers are trained on; as the last what there is, where that is below 80."""
    flips: bool
    """Whether a mirrored image is of the same class."""
    classes: int | Sequence[str] | None = None
    """All, those of these names, or so many drawn from the largest: of two numbers the smaller draw is part of the
    larger."""


TARGETS: Mapping[str, Part] = {
    "trashnet": Part("trashnet", 0.4, (5, 20, 80), True),
    "sign-digits": Part("sign-digits", 0.5, (5, 20, 80), False),
    "pacs-sketch": Part("pacs-sketch", 0.5, (5, 20, 80), True),
    "pacs-photo": Part("pacs-photo", 0.55, (5, 20, 80), True),
    "gtsrb": Part("gtsrb", 0.3, (5, 20, 80), False),
    "omniglot-30": Part("omniglot", 0.5, (5, 10), False, 30),
    "caltech-2": Part("caltech101", 0.5, (5, 20), True, ("ketch", "schooner")),
    "caltech-10": Part("caltech101", 0.5, (5, 20), True, 10),
    "caltech-30": Part("caltech101", 0.5, (5, 20), True, 30),
    "caltech-100": Part("caltech101", 0.5, (5, 20), True),
}
TEST_IMAGES = 2000
"""At most, class by class in proportion."""


def cache_folder() -> Path:
    """Return the folder that targets are unpacked into."""
    chosen = os.environ.get("TRANSFERSCOPE_GROUNDTRUTH")
    return Path(chosen) if chosen else Path.home() / ".cache" / "transferscope-groundtruth" / "v2"


def unpack(real: Path, name: str, cache: Path) -> Path:
    """Return the image folder of a target, made on first use; it is whole or not there."""
    folder = cache / name
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    part = TARGETS[name]
    with zipfile.ZipFile(real / "data" / f"{part.archive}.zip") as archive:
        places = split(archive.namelist(), part)
        unfinished = Path(tempfile.mkdtemp(dir=cache))
        for member, place in places.items():
            path = unfinished / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(member))
    try:
        unfinished.rename(folder)
    except OSError:  # another process was quicker
        shutil.rmtree(unfinished)
    return folder


def split(members: Sequence[str], part: Part) -> dict[str, Path]:
    """Say where in the folder of a target each file NAME/CLASS/FILE of an archive goes that belongs to it."""
    files = defaultdict(list)
    for member in sorted(members):
        if not member.endswith("/"):
            files[Path(member).parts[1]].append(member)
    places = {}
    for name in _chosen(files, part.classes):
        own = files[name]
        # Each class has random numbers of its own, so that those of one target are split as in another.
        order = np.random.default_rng([SEED, *name.encode()]).permutation(len(own))
        tested = set(order[: round(part.test_share * len(own))].tolist())
        for i, member in enumerate(own):
            places[member] = Path("test" if i in tested else "train", name, Path(member).name)
    return places


def _chosen(files: Mapping[str, Sequence[str]], classes: int | Sequence[str] | None) -> list[str]:
    if not isinstance(classes, int):
        return sorted(classes or files)
    # Those with the most images, so that there are many to test on.
    most = max(map(len, files.values()))
    largest = sorted(name for name, own in files.items() if len(own) == most)
    return sorted(np.random.default_rng(SEED).permutation(largest)[:classes].tolist())
