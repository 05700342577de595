"""Two controlled axes: domain gap with the classes fixed, and task similarity with the images fixed.

Needs TRANSFERSCOPE_REAL, a folder with `data/NAME.zip`; says so and stops without it.

    TRANSFERSCOPE_REAL=... python benchmarks/groundtruth/axes.py [--minutes N]

Domain: the four styles of PACS, each as source and as target of the others; they share their seven classes. Task:
sources trained on five classes of CIFAR-10's training images, moved to five classes of its test images, of which they
have seen five, some or none; after Gerace et al. (2024, arXiv 2303.01429), whose abstract alone was at hand. Networks
and training are those of the small-network map. Everything is in the folder axes/ beside this file.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from maps import Part, measure, options
from small import PROTOCOLS, TRAINING
from sources import ANIMALS, TASKS, VEHICLES, prepare, unpack

STYLES = ("pacs-photo", "pacs-art", "pacs-cartoon", "pacs-sketch")
PARTS = (Part("10,40", 2, PROTOCOLS, TRAINING),)


def classes_of(images: Path, classes: tuple[str, ...], folder: Path) -> Path:
    """Make a folder of some classes of the test images alone."""
    folder.mkdir()
    for name in classes:
        (images / "test" / name).rename(folder / name)
    return folder


def transfers(real: Path, out: Path, folder: Path) -> Iterator[tuple[str, Path, list[dict[str, object]]]]:
    """Yield each target: its name, its images, unpacked into `folder`, and the sources it may have."""
    zoo = prepare(real, out / "sources", (*STYLES, *TASKS))
    for style in STYLES:
        yield style, unpack(real, style, folder), [s for s in zoo if s["name"] in STYLES and s["name"] != style]
    images = unpack(real, "cifar10", folder)
    tasks = [source for source in zoo if source["name"] in TASKS]
    for name, classes in (("cifar10-animals", ANIMALS), ("cifar10-vehicles", VEHICLES)):
        yield name, classes_of(images, classes, folder / name), tasks


def main() -> None:
    real, out, clock = options("axes")
    with tempfile.TemporaryDirectory() as folder:
        for name, images, zoo in transfers(real, out, Path(folder)):
            measure(images, zoo, out / name, PARTS[0], clock)


if __name__ == "__main__":
    main()
