"""Rank real networks for real targets: the answer, its time and its memory.

Needs TRANSFERSCOPE_REAL, a folder with `data/NAME.zip` and `zoo/*`; says so and stops without it.

    TRANSFERSCOPE_REAL=... python benchmarks/spine.py > benchmarks/results/spine.md
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib.metadata import version
from pathlib import Path

import xarray as xr
import yaml
from report.screenshot import screenshot

TARGETS = ("trashnet", "pacs-sketch")
SAMPLES, FEWER = 600, 300
BATCH_SIZE = 64
RESULTS = Path(__file__).parents[1] / "results"
STAGES = [f"blocks.{i}" for i in range(7)] + ["bn2"]
# Leave-one-out ridge accuracies that an independent implementation gave on another draw of 600 images.
FIRST_FIGURES = {
    "mobilenetv2-imagenet": [0.433, 0.542, 0.635, 0.657, 0.718, 0.720, 0.708, 0.720],
    "mobilenetv2-inat-bird": [0.540, 0.598, 0.603, 0.663, 0.707, 0.623, 0.550, 0.557],
    "mobilenetv2-inat-insect": [0.460, 0.550, 0.578, 0.683, 0.712, 0.710, 0.610, 0.590],
}


def write_zoo(folder: Path, networks: Path, layers: object) -> Path:
    """Write the zoo of three MobileNetV2 at 96 px and, with automatic layers, ResNet-20 at 32 px."""
    half = {"mean": [0.5] * 3, "std": [0.5] * 3}
    sources: list[dict[str, object]] = [
        {
            "name": name,
            "loader": "timm",
            "model": "mobilenetv2_100",
            "checkpoint": str(networks / f"{name}.safetensors"),
            "kwargs": {"pad_type": "same", "num_classes": outputs},
            "transform": {"size": 96, **half},
            "layers": layers,
        }
        for name, outputs in zip(FIRST_FIGURES, (1001, 965, 1022), strict=True)
    ]
    if layers == "auto":
        sources.append(
            {
                "name": "resnet20-cifar10",
                "loader": "python",
                "factory": str(Path(__file__).parents[2] / "examples" / "cifar_resnet.py") + ":build",
                "checkpoint": str(networks / "resnet20-12fca82f.th"),
                "transform": {"size": 32},
            }
        )
    path = folder / f"zoo-{'auto' if layers == 'auto' else 'stages'}.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "sources": sources}, sort_keys=False))
    return path


def run_rank(
    target: Path, zoo: Path, out: Path, home: Path, samples: int
) -> tuple[bytes, float, float, dict[str, float]]:
    """Run `transferscope rank` in a process of its own; return its JSON, seconds, peak GB and parts."""
    command = [sys.executable, "-c", "from transferscope.cli import main; main()", "rank"]
    command += ["--target", str(target), "--sources", str(zoo), "--trust-code", "--samples", str(samples)]
    command += ["--batch-size", str(BATCH_SIZE), "--format", "json", "-v", "-o", str(out)]
    started = time.perf_counter()
    with (
        (out.parent / "stdout").open("wb") as stdout,
        (out.parent / "stderr").open("wb") as stderr,
        subprocess.Popen(
            command, stdout=stdout, stderr=stderr, env={**os.environ, "TRANSFERSCOPE_HOME": str(home)}
        ) as process,
    ):
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    messages = (out.parent / "stderr").read_text()
    if process.returncode != 0:
        raise RuntimeError(messages)
    parts = {name: float(value) for name, value in re.findall(r"^(\w+): ([\d.]+) s$", messages, re.MULTILINE)}
    return (out.parent / "stdout").read_bytes(), seconds, usage.ru_maxrss / 2**20, parts


def report_target(name: str, folder: Path, networks: Path) -> None:
    """Print the section of one target."""
    work = folder / f"work-{name}"
    work.mkdir()
    home, out = work / "home", work / "out"
    zoo = write_zoo(work, networks, "auto")
    output, seconds, memory, parts = run_rank(folder / name, zoo, out, home, SAMPLES)
    again, seconds_again, _, _ = run_rank(folder / name, zoo, out, home, SAMPLES)
    fewer = json.loads(run_rank(folder / name, zoo, work / "fewer", home, FEWER)[0])
    answer = json.loads(output)

    for picture in ("depth_curves", "pareto"):
        shutil.copy(out / f"{picture}.png", RESULTS / f"{name}-{picture.replace('_', '-')}.png")
    if name == TARGETS[0] and shutil.which("chromium"):
        screenshot(out / "report.html", RESULTS / f"{name}-report.png")
        screenshot(out / "report.html", RESULTS / f"{name}-report-phone.png", width=390, height=2000, dark=True)
    print(f"\n## {name}, {SAMPLES} images\n")
    print(f"![Expected accuracy over the depth of the cut]({name}-depth-curves.png)\n")
    columns = ["rank", "source", "protocol", "cut after", "depth", "expected accuracy", "80 % interval"]
    columns += ["at its last layer", "linear CKA"]
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    with xr.open_dataset(out / "scores.nc", engine="h5netcdf") as scores:
        for row in answer["ranking"]:
            interval = "–".join(f"{value:.3f}" for value in row["interval"])
            if row["layer"] is None:
                rest = ["scratch", "", "", f"{row['expected_accuracy']:.3f}", interval, "", ""]
            else:
                last = scores["expected_accuracy"].sel(
                    source=row["source"], depth=row["depths"], protocol=row["protocol"]
                )
                last = last.item()
                rest = [row["protocol"], row["layer"], f"{row['depth']}/{row['depths']}"]
                rest += [f"{row['expected_accuracy']:.3f}", interval]
                rest += [f"{last:.3f}", f"{row['scores']['linear_cka_to_scratch']:.3f}"]
            print(f"| {row['rank']} | {row['source']} | " + " | ".join(rest) + " |")
    reference = answer["reference"]
    print(
        f"\nScratch reference: {reference['trained_on']} training images, {reference['epochs']} epochs, accuracy "
        f"{reference['held_out_accuracy']:.3f} on {reference['held_out_samples']} held-out images. Best source of "
        f"{FEWER} images: {fewer['ranking'][0]['source']}; of {SAMPLES}: {answer['ranking'][0]['source']}.\n"
    )
    print("| what | measured |\n|---|---|")
    print(f"| whole `rank` | {seconds:.1f} s |")
    for part, value in parts.items():
        print(f"| … {part} | {value:.1f} s |")
    print(f"| peak memory | {memory:.2f} GB |")
    print(f"| second identical `rank` | {seconds_again:.1f} s, JSON {'identical' if again == output else 'DIFFERS'} |")


def report_stages(folder: Path, networks: Path) -> None:
    """Print the leave-one-out accuracies at the coarse stages beside the first figures."""
    work = folder / "work-stages"
    work.mkdir()
    zoo = write_zoo(work, networks, STAGES)
    run_rank(folder / "trashnet", zoo, work / "out", folder / "work-trashnet" / "home", SAMPLES)
    print(f"\n## trashnet, {SAMPLES} images, MobileNetV2 stages: leave-one-out ridge accuracy\n")
    print("| source | " + " | ".join(STAGES) + " |\n|---|" + "---|" * len(STAGES))
    with xr.open_dataset(work / "out" / "scores.nc", engine="h5netcdf") as scores:
        for source, first in FIRST_FIGURES.items():
            ours = scores["ridge"].sel(source=source).to_numpy()
            print(f"| {source} | " + " | ".join(f"{value:.3f}" for value in ours) + " |")
            print("| … first figures | " + " | ".join(f"{value:.3f}" for value in first) + " |")


def main() -> None:
    """Print the whole report."""
    real = os.environ.get("TRANSFERSCOPE_REAL")
    if not real:
        print("skipped: set TRANSFERSCOPE_REAL to a folder with data/ and zoo/", file=sys.stderr)
        return
    print("# `rank` on real images and real networks\n")
    print("Made by `python benchmarks/spine.py`; every `rank` ran in a process and, first, with a cache of its own.")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "numpy", "transferscope"))
        + "."
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in TARGETS:
            with zipfile.ZipFile(Path(real) / "data" / f"{name}.zip") as archive:
                archive.extractall(folder)
            report_target(name, folder, Path(real) / "zoo")
        report_stages(folder, Path(real) / "zoo")
