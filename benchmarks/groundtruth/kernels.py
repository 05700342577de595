"""What tangent kernels say of each cell of the small-network map before any transfer: small-kernels.csv in its folder.

Needs TRANSFERSCOPE_REAL, a folder with `data/NAME.zip`; says so and stops without it.

    TRANSFERSCOPE_REAL=... python benchmarks/groundtruth/kernels.py [--out FOLDER] [--minutes N]

For each target and number of images, on draw 0, the very images that the first transfer was trained on: a row for each
source and depth, and one from scratch, as all sources have one architecture. `suffix_…` is of the kernel by the weights
behind the cut, drawn anew (`reinit`), `whole_…` of that by all weights (`finetune`, `scratch`); `…_error` and
`…_accuracy` are those of kernel ridge regression when each image is left out. Kernels are means over two seeds and of
at most 300 images; of a draw with more, `…_extrapolated` is the error on a straight line, in the logarithm of the
number of images, through that of the 300 and the mean over their ten tenths. Goes on with what is missing.
"""

import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

# Last, for the step `scores` of this folder is meant below, and not the command of that name beside the folder.
sys.path.append(str(Path(__file__).parents[1]))
from maps import options
from scores import groups
from small import transfers
from suffix_kernel.kernels import tangent_kernels
from suffix_kernel.leave_one_out import extrapolate, fit_kernel

from transferscope import load_target, load_zoo
from transferscope.data.target import Target
from transferscope.errors import TransferscopeWarning
from transferscope.networks.loading import load_network
from transferscope.protocols.cutting.cut import cuts
from transferscope.protocols.scratch import load_images
from transferscope.transferability import encode_labels

PROBE, TENTHS, BATCH, SEEDS = 300, 10, 50, (0, 1)
FILE = "small-kernels.csv"
GROUP = ["target", "samples_per_class", "seed"]


def tenths(labels: np.ndarray) -> list[np.ndarray]:
    """Divide images into parts, in each of which every class has its share as nearly as can be."""
    names = pd.Series(labels)
    place = (names.groupby(names).cumcount() + 0.5) / names.groupby(names).transform("size")
    return np.array_split(np.argsort(place.to_numpy(), kind="stable"), TENTHS)


def errors(kernel: np.ndarray, labels: np.ndarray, samples: int, name: str) -> dict[str, float]:
    """Return the columns of one kernel; `samples` is the number of images that its error is extrapolated to."""
    fit = fit_kernel(kernel, encode_labels(labels, len(labels)))
    far = fit.squared_error
    if samples > len(labels):
        parts = tenths(labels)
        few = [fit_kernel(kernel[np.ix_(i, i)], encode_labels(labels[i], len(i))).squared_error for i in parts]
        far = extrapolate([float(np.mean(few)), far], [len(labels) // TENTHS, len(labels)], samples)
    return {f"{name}_error": fit.squared_error, f"{name}_accuracy": fit.accuracy, f"{name}_extrapolated": far}


def kernels(drawn: Target, zoo: list[dict[str, object]]) -> pd.DataFrame:
    """Return a row for each source and depth, and one from scratch."""
    probe = drawn.probe(PROBE) if len(drawn) > PROBE else drawn
    networks = [load_network(source, trust_code=True) for source in load_zoo({"version": 1, "sources": zoo}).sources]
    images, codes = load_images(probe, networks[0].transform)  # all sources have one
    labels = codes.numpy()
    places = [(networks[0], "scratch", 0, "")]
    for network in networks:
        for place in cuts(network.module, network.source.layers, images[:1]):
            places.append((network, network.name, place.depth, place.layer))
    rows = []
    for network, name, depth, layer in places:
        found = tangent_kernels(network, depth, lambda: images.split(BATCH), seeds=SEEDS, trust_code=True)
        row = {"source": name, "depth": depth, "layer": layer, "samples": len(drawn), "probe": len(labels)}
        suffix = errors(found.suffix, labels, len(drawn), "suffix")
        rows.append(row | suffix | errors(found.whole, labels, len(drawn), "whole"))
    return pd.DataFrame(rows)


def main() -> None:
    real, out, clock = options("small")
    path = out / FILE
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=GROUP)
    done = set(table[GROUP].itertuples(index=False, name=None))
    warnings.simplefilter("ignore", TransferscopeWarning)
    with tempfile.TemporaryDirectory() as folder:
        for name, images, zoo in transfers(real, out, Path(folder)):
            for size, seed, drawn, _ in groups(load_target(images)):
                if (name, size, seed) in done or clock.minutes <= 0:
                    continue
                before = clock.minutes
                rows = kernels(drawn, zoo)
                rows = rows.assign(target=name, samples_per_class=size, seed=seed)[[*GROUP, *rows.columns]]
                table = pd.concat([table, rows], ignore_index=True) if len(table) else rows
                table.to_csv(path.with_suffix(".new"), index=False)
                path.with_suffix(".new").replace(path)
                print(f"{name}, {size} a class: {60 * (before - clock.minutes):.0f} s", flush=True)


if __name__ == "__main__":
    main()
