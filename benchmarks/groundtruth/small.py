"""The small-network map: real transfers of seven sources to six targets, at every depth and four numbers of images.

Needs TRANSFERSCOPE_REAL, a folder with `data/NAME.zip`; says so and stops without it.

    TRANSFERSCOPE_REAL=... python benchmarks/groundtruth/small.py [--minutes N]

trains the sources (see `sources.py`) and runs what is missing of the map with `transferscope measure`, all of it in the
folder small/ beside this file. Takes hours; stop it whenever you like, or give it some minutes: the same command goes
on.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from sources import IMAGES_OF, SOURCES, prepare, real_data, unpack

TARGETS = ("fashion-mnist", "trashnet", "sign-digits", "pacs-art", "pacs-cartoon", "pacs-photo")
PARTS = (("3,10", 3, 80), ("40", 2, 40), ("all", 2, 12))
"""Images of each class, from about 20 in all to all there are; draws; most epochs: about as many steps for each."""
RATE = 3e-3
"""Of AdamW. At the default rates few images are too few steps: a new head on frozen features (`reinit` at the deepest
cut) stays far below `truncate`, which is the same network fitted to the end."""
TEST, JOBS = 500, 2
HERE = Path(__file__).parent


def write_zoo(sources: Path, target: str) -> Path:
    """Write a zoo without the sources that have seen the target's own images."""
    zoo = yaml.safe_load((sources / "zoo.yaml").read_text())
    zoo["sources"] = [each for each in zoo["sources"] if IMAGES_OF.get(each["name"], each["name"]) != target]
    path = sources / f"zoo-for-{target}.yaml"
    path.write_text(yaml.safe_dump(zoo, sort_keys=False))
    return path


def measure(target: Path, zoo: Path, out: Path, sizes: str, seeds: int, epochs: int, minutes: float) -> None:
    command = [
        sys.executable, "-m", "transferscope", "measure", "--target", str(target), "--sources", str(zoo),
        "--protocols", "truncate,reinit,finetune,scratch", "--depths", "all", "--samples-per-class", sizes,
        "--seeds", str(seeds), "--epochs", str(epochs), "--learning-rates", str(RATE), "--test-samples", str(TEST),
        "--jobs", str(JOBS), "--time-budget", f"{minutes:.2f}", "--trust-code", "--device", "cpu", "-o", str(out), "-q",
    ]  # fmt: skip
    code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    if code not in (0, 3):  # 3: some runs failed; they are in the table, with the reason
        sys.exit(code)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=HERE / "small")
    parser.add_argument("--minutes", type=float, default=1e6)
    options = parser.parse_args()
    real = real_data()
    end = time.monotonic() + 60 * options.minutes
    sources = options.out / "sources"
    prepare(real, sources, SOURCES)
    with tempfile.TemporaryDirectory() as folder:
        for sizes, seeds, epochs in PARTS:
            for name in TARGETS:
                left = (end - time.monotonic()) / 60
                if left > 0:
                    target = unpack(real, name, Path(folder))
                    out = options.out / name / sizes.replace(",", "-")
                    measure(target, write_zoo(sources, name), out, sizes, seeds, epochs, left)
                    print(f"{name}, {sizes} a class: {(end - time.monotonic()) / 60:.1f} minutes left", flush=True)


if __name__ == "__main__":
    main()
