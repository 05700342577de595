"""What the measured maps say, as benchmarks/results/groundtruth.md with its pictures.

    python benchmarks/groundtruth/analysis.py [FOLDER]

FOLDER holds the maps small/, axes/ and real/; without it they are those beside this file.
"""

import contextlib
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import axes_report
import checks_report
import depths_report
import matplotlib as mpl
import pandas as pd
import real_report
import scores_report
from maps import HERE, averaged, read_runs

RESULTS = HERE.parent / "results"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    mpl.use("agg")
    small, axes, real = (read_runs(folder / name) for name in ("small", "axes", "real"))
    figures = {}
    with (RESULTS / "groundtruth.md").open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        print("# Measured transfers, and what they say\n")
        print(
            f"Made by `benchmarks/groundtruth/analysis.py` from {len(small)} runs of small networks, {len(axes)} on "
            f"two controlled axes and {len(real)} of real networks (see benchmarks/groundtruth/README.md); "
            f"{platform.machine()}, two cores beside other work, Python {platform.python_version()}, torch "
            f"{version('torch')}, scikit-learn {version('scikit-learn')}. Accuracies are on at most 500 held-out "
            "images. Targets are few: intervals over targets are rough, and the best of several noisy accuracies is "
            "flattered.\n"
        )
        figures |= depths_report.report(small)
        figures |= scores_report.report(averaged(small), pd.read_csv(folder / "small" / "small-scores.csv"))
        figures |= axes_report.report(axes)
        figures |= real_report.report(real)
        checks_report.report(
            small,
            pd.read_csv(folder / "small" / "leaks.csv", index_col="target"),
            pd.read_csv(folder / "small" / "reruns.csv"),
            pd.read_csv(folder / "small" / "early-stopping.csv"),
            pd.read_csv(folder / "small" / "views.csv"),
        )
        print("## Pictures\n")
        for name in figures:
            print(f"![{name}](groundtruth-{name}.png)")
    for name, figure in figures.items():
        figure.savefig(RESULTS / f"groundtruth-{name}.png", dpi=150)


if __name__ == "__main__":
    main()
