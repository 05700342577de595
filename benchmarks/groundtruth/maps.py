"""What the three maps share: a grid of `transferscope measure` for each target, run as far as the time allows."""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml
from sources import real_data

HERE = Path(__file__).parent
CELL = ["target", "source", "protocol", "depth", "layer", "samples_per_class"]


@dataclass(frozen=True)
class Part:
    """Some of the runs of a map, of one target or of each."""

    sizes: str
    """Images of each class."""
    seeds: int
    protocols: str
    options: dict[str, object]
    """Of `transferscope measure`."""


@dataclass(frozen=True)
class Clock:
    """The time that is left."""

    end: float

    @property
    def minutes(self) -> float:
        """Until the end."""
        return (self.end - time.monotonic()) / 60


def options(name: str) -> tuple[Path, Path, Clock]:
    """Read the command line: the folder with real data, that of the map, and the time there is."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=HERE / name, help="folder of the map")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no run after this time")
    chosen = parser.parse_args()
    return real_data(), chosen.out, Clock(time.monotonic() + 60 * chosen.minutes)


def measure(target: Path, zoo: Sequence[dict[str, object]], out: Path, part: Part, clock: Clock, jobs: int = 2) -> None:
    """Run what is missing of a part, with the sources of `zoo`."""
    if clock.minutes <= 0:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "zoo.yaml"
        path.write_text(yaml.safe_dump({"version": 1, "sources": list(zoo)}, sort_keys=False))
        command = [
            sys.executable, "-m", "transferscope", "measure", "--target", str(target), "--sources", str(path),
            "--protocols", part.protocols, "--samples-per-class", part.sizes, "--seeds", str(part.seeds),
            "--jobs", str(jobs), "--time-budget", f"{clock.minutes:.2f}", "--trust-code", "--device", "cpu",
            "-o", str(out), "-q", *(text for name, value in part.options.items() for text in (f"--{name}", str(value))),
        ]  # fmt: skip
        code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    if code not in (0, 3):  # 3: some runs failed; they are in the table, with the reason
        sys.exit(code)
    print(f"{out.name}, {part.protocols}, {part.sizes} a class: {clock.minutes:.1f} minutes left", flush=True)


def read_runs(folder: Path) -> pd.DataFrame:
    """Return the finished runs of a map."""
    tables = [pd.read_csv(path, keep_default_na=False, na_values=[""]) for path in sorted(folder.glob("*/runs.csv"))]
    if not tables:
        sys.exit(f"There are no runs in {folder}.")
    runs = pd.concat(tables, ignore_index=True)
    return runs[runs["status"] == "done"]


def averaged(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each cell of a map: the mean over draws, its standard error, and how many draws there are.

    `size` names the number of images of each class alike in all targets: the largest is "all" where a target has no
    more, which is a different number in each.
    """
    found = runs.fillna({"layer": ""}).groupby(CELL, sort=False).agg(
        accuracy=("accuracy", "mean"), error=("accuracy", "sem"), seeds=("seed", "nunique"),
        samples=("samples", "mean"), seconds=("seconds", "mean"), flops=("flops", "mean"), kwh=("kwh", "mean"),
    )  # fmt: skip
    found = found.reset_index()
    pairs = found[["samples_per_class", "target"]].drop_duplicates()
    shared = found["samples_per_class"].map(pairs["samples_per_class"].value_counts() > 1)
    found.insert(6, "size", found["samples_per_class"].astype(str).where(shared, "all"))
    return found


def print_table(table: pd.DataFrame, digits: int = 3) -> None:
    """Print as Markdown, the index first; what is not a number as it is."""
    names = [str(name) for name in table.index.names] if any(table.index.names) else [""] * table.index.nlevels
    print("| " + " | ".join([*names, *map(str, table.columns)]) + " |")
    print("|" + "---|" * (len(names) + len(table.columns)))
    for key, row in zip(table.index, table.itertuples(index=False), strict=True):
        values = [f"{value:.{digits}f}" if isinstance(value, float) else str(value) for value in row]
        print("| " + " | ".join([*map(str, key if isinstance(key, tuple) else (key,)), *values]) + " |")
    print()
