"""The small-network map: real transfers of seven sources to six targets, at every depth and four numbers of images.

Needs TRANSFERSCOPE_REAL, a folder with `data/NAME.zip`; says so and stops without it.

    TRANSFERSCOPE_REAL=... python benchmarks/groundtruth/small.py [--minutes N]

trains the sources (see `sources.py`) and runs what is missing of the map with `transferscope measure`, all of it in the
folder small/ beside this file. Stop it whenever you like, or give it some minutes: the same command goes on.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maps import Part, measure, options
from sources import IMAGES_OF, SOURCES, prepare, unpack

TARGETS = ("fashion-mnist", "trashnet", "sign-digits", "pacs-art", "pacs-cartoon", "pacs-photo")
PROTOCOLS = "truncate,reinit,finetune,scratch"
TRAINING: dict[str, Any] = {"depths": "all", "epochs": 8, "min-steps": 300, "learning-rates": 3e-3, "test-samples": 500}
"""AdamW. The schedule is counted in steps: 300, or 8 epochs where they are more."""
PARTS = (Part("3,10", 3, PROTOCOLS, TRAINING), Part("40,all", 2, PROTOCOLS, TRAINING))
"""Images of each class, from about 20 in all to all there are, and draws."""


def transfers(real: Path, out: Path, folder: Path) -> Iterator[tuple[str, Path, list[dict[str, object]]]]:
    """Yield each target: its name, its images, unpacked into `folder`, and the sources it may have."""
    zoo = prepare(real, out / "sources", SOURCES)
    for name in TARGETS:
        # Never what has seen the target's own images.
        yield name, unpack(real, name, folder), [s for s in zoo if IMAGES_OF.get(str(s["name"]), s["name"]) != name]


def main() -> None:
    real, out, clock = options("small")
    with tempfile.TemporaryDirectory() as folder:
        targets = list(transfers(real, out, Path(folder)))
        for part in PARTS:
            for name, images, zoo in targets:
                measure(images, zoo, out / name, part, clock)


if __name__ == "__main__":
    main()
