"""Whether `rank` orders networks as their transfers to several labels, or to numbers, turn out.

    TRANSFERSCOPE_REAL=... python benchmarks/task_transfers.py [--images 600] [--networks 7] [--side 96]

Needs TRANSFERSCOPE_REAL, a folder with `data/` and `zoo/`; says so and stops without it. Every target is a table of
files, as people have them: Omniglot, of which each drawing has its alphabet and the number of its character as labels;
TrashNet, a class each; the speed limits of GTSRB as numbers; the angle that pictures of sign-digits are turned by; and
their mean brightness. Of the networks, ranked on the images that are trained on, the first, the middle and the last are
cut where `rank` says and get a linear head by `measure`.
"""

import argparse
import os
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from transferability.real import zoo
from transferscope.data.splits import hold_out
from transferscope.data.target import Target, load_target
from transferscope.errors import TransferscopeWarning
from transferscope.networks.zoo import Source
from transferscope.runtime.metrics import metrics_of
from transferscope.verbs.measure.measure import measure
from transferscope.verbs.rank.rank import rank

FURTHEST = 60.0
"""Degrees, either way."""
LIMITS = {0: 20, 1: 30, 2: 50, 3: 60, 4: 70, 5: 80, 7: 100, 8: 120}
"""Classes of GTSRB, and the km/h on the sign."""
PROTOCOL = "truncate"


@dataclass(frozen=True)
class Table:
    """A target as a table."""

    name: str
    archive: str
    task: str
    columns: Callable[[Path, np.random.Generator], dict[str, Any]]
    """Of an image that was unpacked, which it may change: what the table says of it."""

    def written(self, folder: Path, real: Path, count: int, seed: int = 0) -> Target:
        """Unpack some of its images, write a CSV file beside them, and load that."""
        rng = np.random.default_rng(seed)
        with zipfile.ZipFile(real / "data" / f"{self.archive}.zip") as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            names = [name for name in names if self.name != "speed limits" or int(Path(name).parent.name) in LIMITS]
            chosen = sorted(names[place] for place in rng.permutation(len(names))[:count])
            archive.extractall(folder / self.name, chosen)
        rows = [{"path": name, **self.columns(folder / self.name / name, rng)} for name in chosen]
        table = folder / self.name / "table.csv"
        pd.DataFrame(rows).to_csv(table, index=False)
        labels = [name for name in rows[0] if name != "path"]
        return load_target(table, labels=labels, task=self.task)


def _drawing(path: Path, _rng: np.random.Generator) -> dict[str, Any]:
    alphabet, _, character = path.parent.name.rpartition("-")
    return {"labels": f"{alphabet}|{character}"}


def _turned(path: Path, rng: np.random.Generator) -> dict[str, Any]:
    angle = float(rng.uniform(-FURTHEST, FURTHEST))
    with Image.open(path) as image:
        turned = image.convert("RGB").rotate(angle, fillcolor=(128, 128, 128))
    turned.save(path)
    return {"angle": round(angle, 3)}


def _brightness(path: Path, _rng: np.random.Generator) -> dict[str, Any]:
    with Image.open(path) as image:
        return {"brightness": float(np.asarray(image.convert("RGB")).mean())}


TABLES = (
    Table("drawings", "omniglot", "multi-label", _drawing),
    Table("trash", "trashnet", "classification", lambda path, _: {"label": path.parent.name}),
    Table("speed limits", "gtsrb", "regression", lambda path, _: {"limit": LIMITS[int(path.parent.name)]}),
    Table("angle", "sign-digits", "regression", _turned),
    Table("brightness", "sign-digits", "regression", _brightness),
)


def ranked(sources: Sequence[Source], train: Target) -> pd.DataFrame:
    """Return the first, the middle and the last of the ranking, with what is expected of them."""
    found = rank(train, sources, protocol=PROTOCOL, samples=len(train), trust_code=True, progress=False)
    picks = [pick for pick in found.recommendations if pick.layer is not None]
    rows = [
        {
            "source": pick.source, "depth": pick.depth, "depths": pick.depths, "expected": pick.expected_accuracy,
            "lower": pick.interval[0], "upper": pick.interval[1],
        }
        for pick in picks
    ]  # fmt: skip
    return pd.DataFrame(rows).iloc[sorted({0, len(rows) // 2, len(rows) - 1})]


def transferred(target: Target, sources: Sequence[Source], picks: pd.DataFrame, output: Path) -> pd.DataFrame:
    """Return the picks with what `measure` found for each."""
    metric = metrics_of(target.task)[0]
    by_name = {source.name: source for source in sources}
    rows = []
    for pick in picks.to_dict("records"):
        found = measure(
            target, [by_name[pick["source"]]], output / pick["source"], protocols=(PROTOCOL,), depths=(pick["depth"],),
            samples_per_class=("all",), seeds=1, trust_code=True, progress=False,
        )  # fmt: skip
        row = found.runs.iloc[0]
        rows.append({**pick, "metric": metric.title, "measured": row[metric.column], "guess": found.settings["chance"]})
    return pd.DataFrame(rows)


def section(table: Table, target: Target, found: pd.DataFrame, n_test: int) -> str:
    """Return the lines on one target."""
    held = found["measured"].is_monotonic_decreasing
    lines = [
        f"## {table.name} ({table.task})",
        "",
        f"{len(target)} images, {target.learnt.counted}, {n_test} images tested on; the same "
        f"answer for all gives {found['guess'].iloc[0]:.3f}. The order {'held' if held else 'did not hold'}.",
        "",
        f"| network | cut after | expected {found['metric'].iloc[0]} | measured |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row.source} | {row.depth} of {row.depths} | {row.expected:.3f} [{row.lower:.3f}, {row.upper:.3f}] | "
        f"{row.measured:.3f} |"
        for row in found.itertuples()
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600, help="of each target")
    parser.add_argument("--networks", type=int, default=7, help="the first of those in the zoo")
    parser.add_argument("--side", type=int, default=96, help="pixels that the MobileNetV2 see")
    parser.add_argument("--only", help="names of targets, with commas between them")
    asked = parser.parse_args()
    if not (real := os.environ.get("TRANSFERSCOPE_REAL")):
        sys.exit("TRANSFERSCOPE_REAL names no folder with data/ and zoo/: nothing is measured")
    print(
        f"# Transfers to several labels and to numbers\n\n{asked.networks} networks (the MobileNetV2 see {asked.side} "
        f"px, others 32) are ranked by `rank` on the images that are trained on. The first, the middle and the last "
        "are cut where it says and get a linear head, which is measured on other images; beside it what was expected, "
        "with the 80 % interval.\n"
    )
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        os.environ["TRANSFERSCOPE_HOME"] = str(folder / "home")
        sources = zoo(folder, Path(real) / "zoo", asked.side)[: asked.networks]
        for table in TABLES:
            if asked.only and table.name not in asked.only.split(","):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", TransferscopeWarning)  # labels of one image
                target = table.written(folder, Path(real), asked.images)
                pool, test = hold_out(target)
                picks = ranked(sources, target.subset(pool))
                found = transferred(target, sources, picks, folder / "measured" / table.name)
            print(section(table, target, found, len(test)), flush=True)


if __name__ == "__main__":
    main()
