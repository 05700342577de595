"""Real transfers of one real network: what each protocol gives and costs; and a grid that is killed and goes on.

Needs TRANSFERSCOPE_REAL, a folder with `data/NAME.zip` and `zoo/*`; says so and stops without it.

    TRANSFERSCOPE_REAL=... python benchmarks/transfers.py OUT > benchmarks/results/transfers.md

OUT is a folder for the runs; what is there already is not run again. Their rows go to benchmarks/results/transfers.csv.
"""

import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import yaml

TARGETS = ("trashnet", "sign-digits")
SIZES, SEEDS, JOBS = (5, 20, 100), 3, 2
PROTOCOLS = ("truncate", "fne", "toptuning", "finetune", "scratch")
NAMES = {"truncate": "linear", "fne": "full-network embedding", "toptuning": "top-tuning"}
PIXELS = 64
RESULTS = Path(__file__).parents[1] / "results"
MEASURED = ["samples", "accuracy", "balanced_accuracy", "flops", "trials", "status"]
"""What does not depend on how fast or how busy the machine is."""


def command(target: Path, zoo: Path, out: Path, *options: str) -> list[str]:
    run = [sys.executable, "-m", "transferscope", "measure", "--target", str(target), "--sources", str(zoo)]
    return [*run, "-o", str(out), "--seeds", str(SEEDS), *options]


def write_zoo(folder: Path, networks: Path) -> Path:
    source = {
        "name": "mobilenetv2-imagenet",
        "loader": "timm",
        "model": "mobilenetv2_100",
        "checkpoint": str(networks / "mobilenetv2-imagenet.safetensors"),
        "kwargs": {"pad_type": "same", "num_classes": 1001},
        "transform": {"size": PIXELS, "mean": [0.5] * 3, "std": [0.5] * 3},
    }
    path = folder / "zoo.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "sources": [source]}))
    return path


def measure(real: Path, name: str, folder: Path, out: Path) -> pd.DataFrame:
    with zipfile.ZipFile(real / "data" / f"{name}.zip") as archive:
        archive.extractall(folder)
    options = [
        "--early-stopping", "--min-steps", "0", "--protocols", ",".join(PROTOCOLS),
        "--samples-per-class", ",".join(map(str, SIZES)), "--depths", "-1",
        "--test-samples", "600", "--jobs", str(JOBS), "--device", "cpu",
    ]  # fmt: skip
    subprocess.run(
        command(folder / name, write_zoo(folder, real / "zoo"), out / name, *options), check=True, stdout=sys.stderr
    )
    return pd.read_csv(out / name / "runs.csv", keep_default_na=False, na_values=[""])


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each number of images and protocol; of the embedding that of all layers."""
    shown = runs[(runs["protocol"] != "fne") | (runs["layer"] == "all")]
    cells = shown.groupby(["samples_per_class", "protocol"])
    found = cells.agg(
        accuracy=("accuracy", "mean"), error=("accuracy", "sem"), seconds=("seconds", "mean"), kwh=("kwh", "mean"),
        flops=("flops", "mean"),
    )  # fmt: skip
    return found.reindex(pd.MultiIndex.from_product([SIZES, PROTOCOLS], names=found.index.names))


def print_table(name: str, runs: pd.DataFrame) -> None:
    found = table(runs)
    print(f"\n### {name}\n")
    print("| images a class | protocol | accuracy | seconds | kWh | FLOPs | seconds of finetune / its own |")
    print("|---|---|---|---|---|---|---|")
    for (size, protocol), row in found.iterrows():
        ratio = found.loc[(size, "finetune"), "seconds"] / row["seconds"]
        print(
            f"| {size} | {NAMES.get(protocol, protocol)} | {row['accuracy']:.3f} ± {row['error']:.3f} "
            f"| {row['seconds']:.2f} | {row['kwh']:.2g} | {row['flops']:.2g} | {ratio:.3g} |"
        )
    print()
    for size in SIZES:
        tuned, fast = found.loc[(size, "finetune")], found.loc[(size, "toptuning")]
        points = 100 * (fast["accuracy"] - tuned["accuracy"])
        print(
            f"- {size} images a class: top-tuning is {tuned['seconds'] / fast['seconds']:.0f} times faster than "
            f"fine-tuning, and {abs(points):.1f} points {'better' if points > 0 else 'worse'}."
        )


def count_rows(folder: Path) -> int:
    path = folder / "runs.csv"
    return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0


def print_kills(folder: Path) -> None:
    """Kill a grid of small networks three times and compare its table with that of an undisturbed one."""
    demo = folder / "demo"
    subprocess.run([sys.executable, "-m", "transferscope", "demo", "-o", str(demo)], check=True, stdout=sys.stderr)
    options = ["--trust-code", "--protocols", "truncate,reinit,scratch", "--samples-per-class", "2,10"]
    options += ["--depths", "4,-1", "--epochs", "10", "--jobs", str(JOBS), "--device", "cpu"]
    whole = command(demo / "target", demo / "zoo.yaml", folder / "whole", *options)
    subprocess.run(whole, check=True, stdout=sys.stderr)
    count = count_rows(folder / "whole")
    disturbed = command(demo / "target", demo / "zoo.yaml", folder / "killed", *options)
    rows = []
    for share in (0.25, 0.5, 0.75):
        with subprocess.Popen(disturbed, stdout=sys.stderr) as process:
            while count_rows(folder / "killed") < share * count:
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
        rows.append(count_rows(folder / "killed"))
    subprocess.run(disturbed, check=True, stdout=sys.stderr)
    identity = ["source", "protocol", "depth", "layer", "samples_per_class", "seed"]
    tables = [
        pd.read_csv(folder / name / "runs.csv").set_index(identity).sort_index()[MEASURED]
        for name in ("whole", "killed")
    ]
    equal = tables[0].equals(tables[1])
    print("\n## Killed three times\n")
    print(
        f"A grid of {len(tables[0])} runs (`measure {' '.join(options)}`) was killed (SIGKILL) three times, with "
        f"{', '.join(map(str, rows))} rows in its table, and begun again. The columns {', '.join(MEASURED)} of its "
        f"final table are {'equal' if equal else '**not equal**'} to those of an undisturbed grid, bit by bit."
    )


def main() -> None:
    real = os.environ.get("TRANSFERSCOPE_REAL")
    if not real or len(sys.argv) != 2:
        sys.exit("Set TRANSFERSCOPE_REAL to the folder with real data and networks, and name a folder for the runs.")
    out = Path(sys.argv[1])
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in TARGETS:
            runs[name] = measure(Path(real), name, Path(folder), out)
        print("# What each protocol gives and costs\n")
        print(
            f"MobileNetV2 (ImageNet) at {PIXELS} px, all stages kept, {SEEDS} draws; `measure --jobs {JOBS}` on "
            f"{os.cpu_count()} cores, each run on one of them; {platform.machine()}, Python "
            f"{platform.python_version()}, torch {version('torch')}. Seconds are those of the transfer: features of "
            "the training images, search, training; not of decoding or testing. Energy is CodeCarbon's estimate. "
            "Accuracy ± standard error over draws."
        )
        for name, found in runs.items():
            print_table(name, found)
        print_kills(Path(folder))
    pd.concat(runs.values()).to_csv(RESULTS / "transfers.csv", index=False, float_format="%.6g", lineterminator="\n")
