"""Two controlled axes: domain gap with the classes fixed, and task similarity with the images fixed.

Needs TRANSFERSCOPE_REAL, a folder with `data/NAME.zip`; says so and stops without it.

    TRANSFERSCOPE_REAL=... python benchmarks/groundtruth/axes.py [--minutes N]

Domain: the four styles of PACS, each as source and as target of the others; they share their seven classes. Task:
sources trained on five classes of CIFAR-10's training images, moved to five classes of its test images, of which they
have seen five, some or none; after Gerace et al. (2024, arXiv 2303.01429), whose abstract alone was at hand. Networks
and training are those of the small-network map. Everything is in the folder axes/ beside this file.
"""

import tempfile
from pathlib import Path

from maps import Part, measure, options
from small import PROTOCOLS, TRAINING
from sources import ANIMALS, TASKS, VEHICLES, prepare, unpack

STYLES = ("pacs-photo", "pacs-art", "pacs-cartoon", "pacs-sketch")
PART = Part("10,40", 2, PROTOCOLS, TRAINING)


def classes_of(images: Path, classes: tuple[str, ...], folder: Path) -> Path:
    """Make a folder of some classes of the test images alone."""
    folder.mkdir()
    for name in classes:
        (images / "test" / name).rename(folder / name)
    return folder


def main() -> None:
    real, out, clock = options("axes")
    zoo = prepare(real, out / "sources", (*STYLES, *TASKS))
    with tempfile.TemporaryDirectory() as folder:
        for style in STYLES:
            others = [source for source in zoo if source["name"] in STYLES and source["name"] != style]
            measure(unpack(real, style, Path(folder)), others, out / style, PART, clock)
        images = unpack(real, "cifar10", Path(folder))
        tasks = [source for source in zoo if source["name"] in TASKS]
        for name, classes in (("cifar10-animals", ANIMALS), ("cifar10-vehicles", VEHICLES)):
            measure(classes_of(images, classes, Path(folder) / name), tasks, out / name, PART, clock)


if __name__ == "__main__":
    main()
