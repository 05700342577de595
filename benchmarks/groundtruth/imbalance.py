"""Information imbalance between sources and the scratch network: small-imbalance.csv in the folder of the small map.

Needs TRANSFERSCOPE_REAL, a folder with `data/NAME.zip`; says so and stops without it.

    TRANSFERSCOPE_REAL=... python benchmarks/groundtruth/imbalance.py [--out FOLDER] [--minutes N]

For each target and number of images, on draw 0, the very images that the first transfer was trained on: a row for each
source and depth. `from_source` is the imbalance from the source's layer to that layer of the scratch network that it
tells most about, `from_scratch` the other way round; low is alike (Glielmo et al. 2022). Goes on with what is missing.
"""

import tempfile
import warnings
from pathlib import Path

import pandas as pd
from maps import options
from scores import groups
from small import PARTS, transfers

from transferscope import compare_sources, load_target
from transferscope.data.target import Target
from transferscope.errors import TransferscopeWarning

FILE = "small-imbalance.csv"
GROUP = ["target", "samples_per_class"]
MEASURE = "information_imbalance"


def imbalances(images: Target, zoo: list[dict[str, object]]) -> pd.DataFrame:
    """Return a row for each source and depth."""
    found = []
    for source in (str(entry["name"]) for entry in zoo):
        pair = [
            compare_sources(
                x, y, images, {"version": 1, "sources": zoo}, measures=MEASURE, reduce="mean", device="cpu",
                trust_code=True, progress=False,
            ).results[MEASURE]
            for x, y in ((source, "scratch"), ("scratch", source))
        ]  # fmt: skip
        from_source, from_scratch = pair[0].min("layer_y"), pair[1].min("layer_x")
        columns = {"from_source": from_source.to_numpy(), "from_scratch": from_scratch.to_numpy()}
        found.append(pd.DataFrame({"source": source, "depth": range(1, pair[0].sizes["layer_x"] + 1), **columns}))
    return pd.concat(found)


def main() -> None:
    real, out, clock = options("small")
    path = out / FILE
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=GROUP)
    done = set(table[GROUP].itertuples(index=False, name=None))
    warnings.simplefilter("ignore", TransferscopeWarning)
    with tempfile.TemporaryDirectory() as folder:
        for name, target, zoo in transfers(real, out, Path(folder)):
            for size, _, images, _ in groups(load_target(target), PARTS):
                if (name, size) in done or clock.minutes <= 0:
                    continue
                before = clock.minutes
                rows = imbalances(images, zoo).assign(target=name, samples_per_class=size)
                rows = rows[[*GROUP, "source", "depth", "from_source", "from_scratch"]]
                table = pd.concat([table, rows], ignore_index=True) if len(table) else rows
                table.to_csv(path.with_suffix(".new"), index=False, lineterminator="\n")
                path.with_suffix(".new").replace(path)
                print(f"{name}, {size} a class: {60 * (before - clock.minutes):.0f} s", flush=True)


if __name__ == "__main__":
    main()
