"""The three pilot cells that the recipe was chosen on: pilot.csv, a row for each candidate and transfer.

    TRANSFERSCOPE_REAL=... python benchmarks/groundtruth/v2/pilot.py

goes on with what is missing. The draw of images is none of the map's.
"""

import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1]))
from groundtruth.sources import real_data  # noqa: E402
from groundtruth.v2 import rows  # noqa: E402
from groundtruth.v2.cells import trainer  # noqa: E402
from groundtruth.v2.design import Cell  # noqa: E402
from groundtruth.v2.targets import cache_folder, unpack  # noqa: E402
from groundtruth.v2.training import Recipe  # noqa: E402

FILE = HERE / "pilot.csv"
SEED = 9
CELLS = (
    ("mobilenetv2-imagenet", "trashnet", 20, (("truncate", 1.0), ("reinit", 1.0), ("defrost", 0.0))),
    ("efficientnet-lite0", "sign-digits", 5, (("truncate", 1.0), ("reinit", 1.0), ("finetune", 0.5))),
    ("mobilenetv2-inat-bird", "caltech-10", 20, (("truncate", 1.0), ("reinit", 1.0), ("reinit", 0.5))),
)
CANDIDATES = {
    f"{steps} steps, rate {rate}": Recipe(least_steps=steps, new_rate=rate)
    for steps, rate in ((300, 3e-3), (300, 1e-3), (300, 1e-2), (600, 3e-3))
}


def main() -> None:
    torch.set_num_threads(1)
    real = real_data()
    known = rows.read([FILE] if FILE.exists() else [])
    done = {(row.source, row.protocol, row.depth == row.depths, row.recipe) for row in known.itertuples()}
    for name, recipe in CANDIDATES.items():
        for source, target, size, transfers in CELLS:
            runner = None
            for protocol, share in transfers:
                label = "" if protocol == "truncate" else name
                if (source, protocol, share == 1, label) in done:
                    continue
                runner = runner or trainer(real, unpack(real, target, cache_folder()), recipe, "cpu")
                row = runner.row_of(Cell(source, target, protocol, share, size, SEED))
                rows.append(FILE, [row | {rows.RECIPE: label}])
                done.add((source, protocol, share == 1, label))
                print(name, source, protocol, share, row.get("accuracy"), row["status"], flush=True)


if __name__ == "__main__":
    main()
