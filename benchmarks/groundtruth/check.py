"""Checks that the maps are sound: nothing leaks, labels that mean nothing teach nothing, and runs repeat.

Needs TRANSFERSCOPE_REAL, a folder with `data/NAME.zip`; says so and stops without it.

    TRANSFERSCOPE_REAL=... python benchmarks/groundtruth/check.py [--out FOLDER]

looks for images that are in two parts (small/leaks.csv), runs 20 random cells of the small-network map twice more with
other draws of images (small/reruns.csv), some cells with early stopping (small/early-stopping.csv), which the map does
without, and some with four views behind a frozen prefix (small/views.csv) in place of 16. `analysis.py` prints all of
it.
"""

import itertools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from maps import CELL, options, read_runs
from small import TARGETS, TRAINING
from sources import IMAGES_OF, SOURCES, prepare, trained_on, unpack

from transferscope import load_target, measure
from transferscope.data.splits import hold_out
from transferscope.data.target import Target
from transferscope.verbs.measure.measure import prepare as plan
from transferscope.verbs.measure.request import MeasureRequest
from transferscope.verbs.running.executor import Executor
from transferscope.verbs.running.run import Run

CELLS, SEED = 20, 0
FIRST_SEEDS = (1000, 2000)
"""Of the two re-runs; the map has 0, 1 and 2."""
AGAIN, VIEWS = ("sign-digits", "trashnet"), 4
SETTINGS: dict[str, Any] = {
    "epochs": TRAINING["epochs"], "min_steps": TRAINING["min-steps"], "learning_rates": (TRAINING["learning-rates"],),
    "test_samples": TRAINING["test-samples"], "device": "cpu", "progress": False, "trust_code": True,
}  # fmt: skip


def digests(target: Target, indices: np.ndarray | None = None) -> set[bytes]:
    chosen = target if indices is None else target.subset(indices)
    return set(chosen.contents)


def leaks(real: Path) -> pd.DataFrame:
    """Count the images of each target's test part that its own training part, or a source's images, hold too."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        names = dict.fromkeys([*TARGETS, *(IMAGES_OF.get(name, name) for name in SOURCES)])
        sets = {name: load_target(unpack(real, name, Path(folder))) for name in names}
        seen = {name: digests(target, np.flatnonzero(trained_on(target))) for name, target in sets.items()}
        for name in TARGETS:
            pool, test = hold_out(sets[name], most=TRAINING["test-samples"])
            own, tested = digests(sets[name]), digests(sets[name], test)
            others = {IMAGES_OF.get(source, source) for source in SOURCES} - {name}
            rows[name] = {
                "test images": len(test),
                "to train on": len(pool),
                "in both": len(tested & digests(sets[name], pool)),
                "in a source's images": sum(len(own & seen[other]) for other in others),
            }
    return pd.DataFrame(rows).T.rename_axis("target")


def rerun(cells: pd.DataFrame, real: Path, zoo: list[dict[str, object]]) -> pd.DataFrame:
    """Run cells twice more, each time with as many draws as the map has of them."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, own in cells.groupby("target"):
            executor = _executor(unpack(real, str(name), Path(folder)), zoo, Path(folder) / f"out-{name}")
            for cell in own.itertuples():
                for again, first in enumerate(FIRST_SEEDS, 1):
                    for seed in range(first, first + cell.seeds):
                        run = Run(
                            cell.source, cell.target, cell.protocol, cell.depth, cell.depths, cell.layer,
                            cell.samples_per_class, seed,
                        )  # fmt: skip
                        (row,) = executor.execute([run])
                        rows.append(
                            {name: row[name] for name in (*CELL, "seed", "accuracy", "status")} | {"run": again}
                        )
    return pd.DataFrame(rows)


def _executor(target: Path, zoo: list[dict[str, object]], out: Path) -> Executor:
    """Return what `measure` would run the map with, for draws that are not the map's."""
    request = MeasureRequest(
        target=target, zoo=zoo, output=out, protocols=("truncate",), samples_per_class=("all",), seeds=1, **SETTINGS
    )  # fmt: skip
    setup = plan(request).executor.setup
    return Executor(replace(setup, drawn=setup.pool))


def stopped_early(real: Path, source: dict[str, object]) -> pd.DataFrame:
    """Run some cells of the map with a fifth of the images set aside to stop by."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in AGAIN:
            found = measure(
                unpack(real, name, Path(folder)), [source], Path(folder) / f"out-{name}",
                protocols=("finetune", "scratch"), samples_per_class=(10, 40), seeds=2, depths=(3, 6),
                early_stopping=True, **SETTINGS,
            )  # fmt: skip
            rows.append(found.runs[[*CELL, "seed", "accuracy", "seconds", "status"]])
    return pd.concat(rows, ignore_index=True)


def with_views(real: Path, source: dict[str, object]) -> pd.DataFrame:
    """Run some cells of the map with fewer views of the images behind a frozen prefix."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in AGAIN:
            executor = _executor(unpack(real, name, Path(folder)), [source], Path(folder) / f"out-{name}")
            setup = executor.setup
            recipes = {protocol: replace(recipe, views=VIEWS) for protocol, recipe in setup.recipes.items()}
            executor = Executor(replace(setup, recipes=recipes))
            layers = [stage.layer for stage in executor.stages(str(source["name"]))]
            for size, depth, seed in itertools.product((3, 10, 40), (1, 3, 5), (0, 1)):
                run = Run(str(source["name"]), name, "reinit", depth, len(layers), layers[depth - 1], size, seed)
                rows += executor.execute([run])
    return pd.DataFrame(rows)[[*CELL, "seed", "accuracy", "seconds", "status"]]


def main() -> None:
    real, out, _ = options("small")
    runs = read_runs(out).fillna({"layer": ""})
    every = runs.groupby([*CELL, "depths"], sort=True).agg(seeds=("seed", "nunique")).reset_index()
    every = every[every["protocol"] != "scratch"]
    zoo = prepare(real, out / "sources", SOURCES)
    leaks(real).to_csv(out / "leaks.csv", lineterminator="\n")
    again = rerun(every.sample(CELLS, random_state=SEED), real, zoo)
    again.to_csv(out / "reruns.csv", index=False, lineterminator="\n")
    with_views(real, zoo[0]).to_csv(out / "views.csv", index=False, lineterminator="\n")
    stopped_early(real, zoo[0]).to_csv(out / "early-stopping.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
