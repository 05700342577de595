"""What `transferscope rank` sees of each cell of the maps before any transfer: evidence.csv in the folder of each map.

Needs TRANSFERSCOPE_REAL, a folder with `data/NAME.zip` and `zoo/*`; says so and stops without it.

    TRANSFERSCOPE_REAL=... python benchmarks/groundtruth/evidence.py MAP [--out FOLDER] [--minutes N]

MAP is small, axes, real or weak. For each target and number of images, `rank` is run on draw 0, the very images that
the first transfer was trained on: a row for each source and depth, with all scores and similarities and the held-out
accuracy of its own network from scratch. What needs more images than a user would have is never looked at.
Goes on with what is missing.
"""

import sys
import tempfile
import warnings
from pathlib import Path
from types import ModuleType

import axes
import pandas as pd
import real
import small
import weak
from maps import options
from scores import groups

from transferscope import load_target, rank
from transferscope.data.target import Target
from transferscope.errors import TransferscopeWarning
from transferscope.results.labelled import score_names

MAPS: dict[str, ModuleType] = {"small": small, "axes": axes, "real": real, "weak": weak}
SAMPLES, SEED = 1000, 0
"""As many images as `rank` takes unless it is told otherwise."""
FILE = "evidence.csv"
GROUP = ["target", "samples_per_class"]


def evidence(images: Target, zoo: list[dict[str, object]]) -> pd.DataFrame:
    """Return what `rank` finds, a row for each source and depth."""
    ranking = rank(
        images, {"version": 1, "sources": zoo}, samples=SAMPLES, scores="all", seed=SEED, device="cpu",
        trust_code=True, progress=False,
    )  # fmt: skip
    assert not ranking.failed, ranking.failed
    reference = ranking.reference
    assert reference is not None
    found = ranking.scores
    table = found[["layer", "depth_fraction", "params", "flops", *score_names(found)]].to_dataframe().reset_index()
    table = table[table["layer"] != ""]
    known = {
        "classes": ranking.target.classes, "samples": len(images), "probe": found.attrs["n_samples"],
        "scratch_accuracy": reference.held_out_accuracy, "scratch_held_out": reference.held_out_samples,
    }  # fmt: skip
    return table.assign(**known)


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in MAPS:
        sys.exit(f"Name a map: {', '.join(MAPS)}.")
    name = sys.argv.pop(1)
    folder_of_real, out, clock = options(name)
    path = out / FILE
    table = pd.read_csv(path) if path.exists() else None
    done = set() if table is None else set(table[GROUP].itertuples(index=False, name=None))
    warnings.simplefilter("ignore", TransferscopeWarning)  # of few images; what cannot be computed is NaN
    with tempfile.TemporaryDirectory() as folder:
        for target, path_of_images, zoo in MAPS[name].transfers(folder_of_real, out, Path(folder)):
            for size, _, images, _ in groups(load_target(path_of_images), MAPS[name].PARTS):
                if (target, size) in done or clock.minutes <= 0:
                    continue
                before = clock.minutes
                rows = evidence(images, zoo)
                rows.insert(0, "target", target)
                rows.insert(1, "samples_per_class", size)
                table = rows if table is None else pd.concat([table, rows], ignore_index=True)
                table.to_csv(path.with_suffix(".new"), index=False, lineterminator="\n")
                path.with_suffix(".new").replace(path)
                print(f"{target}, {size} a class: {60 * (before - clock.minutes):.0f} s", flush=True)


if __name__ == "__main__":
    main()
