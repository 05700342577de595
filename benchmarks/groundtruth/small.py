"""The small-network map: real transfers of seven sources to six targets, at every depth and four numbers of images.

Needs TRANSFERSCOPE_REAL, a folder with `data/NAME.zip`; says so and stops without it.

    TRANSFERSCOPE_REAL=... python benchmarks/groundtruth/small.py [--minutes N]

trains the sources (see `sources.py`) and runs what is missing of the map with `transferscope measure`, all of it in the
folder small/ beside this file. Stop it whenever you like, or give it some minutes: the same command goes on.
"""

import tempfile
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


def main() -> None:
    real, out, clock = options("small")
    zoo = prepare(real, out / "sources", SOURCES)
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            for name in TARGETS:
                target = unpack(real, name, Path(folder))
                # Never what has seen the target's own images.
                others = [source for source in zoo if IMAGES_OF.get(str(source["name"]), source["name"]) != name]
                measure(target, others, out / name, part, clock)


if __name__ == "__main__":
    main()
