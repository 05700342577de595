"""Which cells are trained, and in which order: drawn by seed, balanced, and committed as design.csv.

    python benchmarks/groundtruth/v2/design.py

writes the file anew, which must not change: cells that were run are known by what it says.
"""

import csv
import itertools
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
FILE = HERE / "design.csv"
CELLS, SEED = 600, 0
SECOND_DRAW = 3
"""Every third cell is run with a second draw, right after the first."""
CHECKED = 20
"""After so many cells comes a pair that checks the map: `finetune` of one stage, and the same network from scratch."""
SHARES = {
    "reinit": (0.25, 0.5, 0.75, 0.875, 1.0),
    "finetune": (0.25, 0.5, 0.75, 0.875),
    "defrost": (0.0, 0.25, 0.5, 0.75, 0.875, 1.0),
}
"""Of the stages that are kept, or frozen. `finetune` of all stages is `defrost` of none."""
BALANCED = (
    ("source",), ("target",), ("samples",), ("protocol",), ("protocol", "share"),
    ("target", "samples"), ("source", "target"), ("source", "protocol"), ("target", "protocol"),
    ("target", "samples", "protocol"),
)  # fmt: skip
"""What is balanced: each of these factors and combinations takes each of its values about equally often."""


@dataclass(frozen=True)
class Cell:
    """One transfer that trains a network."""

    source: str
    target: str
    protocol: str
    share: float
    """Of the stages that are kept or frozen."""
    samples_per_class: int
    seed: int
    """Of the draw of images and of everything random."""

    def depth(self, stages: int) -> int:
        """Return the number of stages that are kept or frozen."""
        depth = int(self.share * stages)
        return max(1, depth) if self.protocol in ("reinit", "finetune") else depth


def read() -> list[Cell]:
    """Return the cells of design.csv in their order."""
    with FILE.open(newline="") as file:
        return [
            Cell(row["source"], row["target"], row["protocol"], float(row["share"]), int(row["samples_per_class"]),
                 int(row["seed"]))
            for row in csv.DictReader(file)
        ]  # fmt: skip


def draw(sources: Sequence[str], compact: str, targets: dict[str, tuple[int, ...]]) -> list[Cell]:
    """Draw the design.

    Parameters
    ----------
    sources : sequence of str
        The pretrained networks.
    compact : str
        The network that is only trained from scratch.
    targets : mapping of str to tuple of int
        Images of each class there can be trained on, the few first.
    """
    rng = np.random.default_rng(SEED)
    groups = [(target, size) for target, sizes in targets.items() for size in sizes]
    levels = [(protocol, share) for protocol, shares in SHARES.items() for share in shares]
    possible = [
        *(Cell(s, t, p, share, n, 0) for s, (t, n), (p, share) in itertools.product(sources, groups, levels)),
        *(Cell(compact, t, "scratch", 0.0, n, 0) for t, n in groups),
    ]
    chosen = _balanced(possible, CELLS, rng)
    pairs = iter(rng.permutation([(s, t, n) for s, (t, n) in itertools.product(sources, groups)]).tolist())
    cells: list[Cell] = []
    for i, cell in enumerate(chosen):
        cells.append(cell)
        if i % SECOND_DRAW == 0:
            cells.append(Cell(*astuple(cell)[:-1], 1))
        if i % CHECKED == CHECKED - 1:
            source, target, size = next(pairs)
            cells += [Cell(source, target, protocol, 0.0, int(size), 0) for protocol in ("finetune", "scratch")]
    return cells


def _balanced(possible: Sequence[Cell], count: int, rng: np.random.Generator) -> list[Cell]:
    """Draw cells one by one, each among those whose values were drawn least so far."""
    columns = []
    for factor in BALANCED:
        values = [repr([_value(cell, name) for name in factor]) for cell in possible]
        columns.append(np.unique(np.array(values), return_inverse=True)[1])
    drawn = [np.zeros(codes.max() + 1) for codes in columns]
    left = np.ones(len(possible), dtype=bool)
    chosen = []
    for _ in range(count):
        # A value of few is drawn more often than one of many: each counts as a share of what is to be expected.
        cost = sum(counts[codes] * len(counts) for codes, counts in zip(columns, drawn, strict=True))
        cost = np.where(left, cost, np.inf)
        best = int(rng.choice(np.flatnonzero(cost == cost.min())))
        left[best] = False
        chosen.append(possible[best])
        for codes, counts in zip(columns, drawn, strict=True):
            counts[codes[best]] += 1
    return chosen


def _value(cell: Cell, name: str) -> object:
    """Return the value of a factor; the largest number of images is one of three, whatever it comes to."""
    if name == "samples":
        return {5: "few", 80: "many"}.get(cell.samples_per_class, "some")
    return "any" if name == "source" and cell.protocol == "scratch" else getattr(cell, name)


def main() -> None:
    from groundtruth.v2 import zoo
    from groundtruth.v2.targets import TARGETS

    sources = [entry["name"] for entry in zoo.sources(Path())]
    cells = draw(sources, zoo.COMPACT, {name: part.sizes for name, part in TARGETS.items()})
    with FILE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Cell)])
        writer.writerows(astuple(cell) for cell in cells)
    print(f"{len(cells)} runs in {FILE}")


if __name__ == "__main__":
    sys.path.append(str(HERE.parents[1]))
    main()
