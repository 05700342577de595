"""`rank` against what one would write instead: a loop of forward passes, and logistic regression on the last layer.

    TRANSFERSCOPE_REAL=... python benchmarks/speed.py [--rounds 5] [--minutes M] [--output benchmarks/results] [--quick]

Writes speed.md and speed.json after each round; what is measured is not measured again, so that the command can be
stopped. Every run is a process of its own with a cache of its own; the naive loop, `rank` and `rank` without training
its reference take turns. Needs TRANSFERSCOPE_REAL, a folder with `data/*.zip` and `zoo/*`, and an idle machine.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import yaml

BENCHMARKS = Path(__file__).parents[1]
NAIVE, RANK, GIVEN = "naive loop", "rank", "rank, reference given"
WAYS = (NAIVE, RANK, GIVEN)
MOBILENETS = {"mobilenetv2-imagenet": 1001, "mobilenetv2-inat-bird": 965, "mobilenetv2-inat-insect": 1022}
RESNETS = {"resnet20": "resnet20-12fca82f.th", "resnet32": "resnet32-d509ac18.th", "resnet44": "resnet44-014dd654.th"}
AIMS = {RANK: 1.0, GIVEN: 0.75}
MOST_GB = 1.5


class Workload(NamedTuple):
    """Images, and the networks that are ranked for them."""

    title: str
    data: str
    side: int
    images: int
    sources: int
    first: int = 0
    """Position of the first source."""
    stages: int = 0
    """Of a single source."""


WORKLOADS = {
    "a": Workload("TrashNet, six real sources", "trashnet", 96, 600, 6),
    "b": Workload("Caltech-101, six real sources", "caltech101", 96, 1000, 6),
    "c": Workload("small images, three real sources", "cifar10", 64, 5000, 3),
}
GROWTH = {
    "images": [WORKLOADS["a"]._replace(images=n) for n in (300, 600, 1200)],
    "networks": [WORKLOADS["a"]._replace(sources=n) for n in (1, 2, 3, 6)],
    "stages": [WORKLOADS["a"]._replace(sources=1, first=i, stages=n) for i, n in ((3, 11), (4, 17), (5, 23))],
}
"""Stages are those of a ResNet each, whose forward passes grow with them."""
ATTRIBUTES = {"images": "images", "networks": "sources", "stages": "stages"}


def write_zoo(folder: Path, networks: Path, workload: Workload) -> Path:
    """Write the zoo of a workload: MobileNetV2 at the side of the images, ResNets of CIFAR-10 at 32 px."""
    half = {"mean": [0.5] * 3, "std": [0.5] * 3}
    sources: list[dict[str, Any]] = [
        {
            "name": name, "loader": "timm", "model": "mobilenetv2_100",
            "checkpoint": str(networks / f"{name}.safetensors"), "kwargs": {"pad_type": "same", "num_classes": outputs},
            "transform": {"size": workload.side, **half},
        }
        for name, outputs in MOBILENETS.items()
    ]  # fmt: skip
    sources += [
        {
            "name": name, "loader": "python", "checkpoint": str(networks / file), "kwargs": {"depth": int(name[6:])},
            "factory": str(BENCHMARKS.parent / "examples" / "cifar_resnet.py") + ":build", "transform": {"size": 32},
        }
        for name, file in RESNETS.items()
    ]  # fmt: skip
    path = folder / "zoo.yaml"
    path.write_text(
        yaml.safe_dump({"version": 1, "sources": sources[workload.first :][: workload.sources]}, sort_keys=False)
    )
    return path


def naive(target: Path, zoo: Path, images: int, _reference: Path) -> None:
    """Do without the package whatever can be: decode, run every network, fit logistic regression to its last features.

    The same images, networks and batches; read and built by the package, for timm's own loading is no part of it.
    """
    import numpy as np
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    from transferscope import load_target, load_zoo
    from transferscope.activations.stages import classifiers
    from transferscope.activations.tracing import trace
    from transferscope.networks.loading import load_network

    probe = load_target(target).probe(images, 0)
    for source in load_zoo(zoo):
        network = load_network(source, trust_code=True)
        kept: list[torch.Tensor] = []
        [head] = classifiers(trace(network.module, network.transform.blank()))
        handle = head.module.register_forward_pre_hook(lambda _module, args, kept=kept: kept.append(args[0].flatten(1)))
        with torch.inference_mode():
            for start in range(0, images, 64):
                part = range(start, min(start + 64, probe.n_samples))
                if part:
                    network.module(torch.stack([network.transform(probe.image(i)) for i in part]))
        handle.remove()
        features = torch.cat(kept).numpy()
        features = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-6)
        print(source.name, cross_val_score(LogisticRegression(max_iter=200), features, probe.labels, cv=3).mean())


def ranked(target: Path, zoo: Path, images: int, reference: Path | None) -> None:
    """Rank; with a checkpoint of the reference network where one is given."""
    import transferscope as ts

    options = {} if reference is None else {"reference": str(reference)}
    found = ts.rank(target, zoo, samples=images, trust_code=True, progress=False, **options)
    print(json.dumps(found.timings))


def reference_checkpoint(target: Path, path: Path) -> Path:
    """Save an untrained compact network, which costs what a trained one does to look at."""
    from safetensors.torch import save_file

    from transferscope import load_target
    from transferscope.networks import CompactResNet

    save_file(CompactResNet(len(load_target(target).classes)).state_dict(), path)
    return path


def work(way: str, target: str, zoo: str, images: str, reference: str) -> None:
    """Do one run, in this process."""
    run: Callable[[Path, Path, int, Any], None] = naive if way == NAIVE else ranked
    run(Path(target), Path(zoo), int(images), Path(reference) if way == GIVEN else None)


def measured(way: str, target: Path, zoo: Path, images: int, reference: Path, home: Path) -> dict[str, Any]:
    """Run one way in a process of its own, from an empty cache; return seconds, those of its parts, and peak GB."""
    path = os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "speed.naive", way, str(target), str(zoo), str(images), str(reference)]
    began = time.perf_counter()
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path, "TRANSFERSCOPE_HOME": str(home)}, stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        printed = running.stdout.read()
        _, status, usage = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {running.returncode}")
    took = {"seconds": time.perf_counter() - began, "GB": usage.ru_maxrss / 2**20}
    return took if way == NAIVE else took | {"parts": json.loads(printed)}


def one_round(name: str, workload: Workload, real: Path, record: Path, number: int) -> None:
    """Measure what the record lacks of a round of a workload: all ways in turn."""
    content: dict[str, Any] = json.loads(record.read_text()) if record.exists() else {}
    missing = [way for way in WAYS if f"{name} | {way} | {number}" not in content]
    if not missing:
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with zipfile.ZipFile(real / "data" / f"{workload.data}.zip") as archive:
            archive.extractall(folder)
        target = folder / workload.data
        zoo = write_zoo(folder, real / "zoo", workload)
        reference = reference_checkpoint(target, folder / "reference.safetensors")
        for way in missing:
            key = f"{name} | {way} | {number}"
            print(key, file=sys.stderr, flush=True)
            content[key] = measured(way, target, zoo, workload.images, reference, folder / f"home-{WAYS.index(way)}")
            record.write_text(json.dumps(content, indent=1))


def medians(content: dict[str, Any], name: str, way: str, what: str) -> list[float]:
    """Return what all rounds of a workload gave, in their order."""
    found = {key.split(" | ")[2]: row[what] for key, row in content.items() if key.startswith(f"{name} | {way} | ")}
    return [found[number] for number in sorted(found, key=int)]


def page(content: dict[str, Any], workloads: dict[str, Workload], growth: dict[str, list[Workload]]) -> str:
    """Return the page of what was measured."""
    text = (
        "# `rank` against a loop of forward passes\n\n"
        "Made by `python benchmarks/speed.py`: processes with a cache of their own, in turns, medians of their rounds; "
        "ratios are medians of those of each round. The naive loop decodes the same images, runs every network over "
        "them and cross-validates logistic regression on the features of its last layer. *Reference given*: without "
        f"training the reference. {platform.machine()}, {os.cpu_count()} cores, "
        f"{', '.join(f'{name} {version(name)}' for name in ('torch', 'timm', 'numpy', 'transferscope'))}.\n"
    )
    for name, workload in workloads.items():
        bare = medians(content, name, NAIVE, "seconds")
        if not bare:
            continue
        rounds = "1 round" if len(bare) == 1 else f"{len(bare)} rounds"
        text += f"\n## ({name}) {workload.title}: {workload.images} images of {workload.side} px, {rounds}\n\n"
        text += "| | seconds | ÷ naive | aim | | peak memory |\n|---|---|---|---|---|---|\n"
        for way in WAYS:
            taken = medians(content, name, way, "seconds")
            ratio = statistics.median(a / b for a, b in zip(taken, bare, strict=False))
            memory = max(medians(content, name, way, "GB"))
            aim = AIMS.get(way)
            kept = "" if aim is None else "met" if ratio <= aim and memory <= MOST_GB else "**missed**"
            cells = f"{statistics.median(taken):.1f} | {ratio:.2f} | {'' if aim is None else f'≤ {aim:g}'} | {kept}"
            text += f"| {way} | {cells} | {memory:.2f} GB |\n"
        text += _parts(content, name)
    for what, series in growth.items():
        text += _growth(content, what, series)
    return text


def _parts(content: dict[str, Any], name: str) -> str:
    """Say where the time of `rank` goes: medians of each part of it, and what is left for imports and writing."""
    found = [row for key, row in content.items() if key.startswith(f"{name} | {RANK} | ") and "parts" in row]
    if not found:
        return ""
    parts = {part: statistics.median(row["parts"][part] for row in found) for part in found[0]["parts"]}
    parts["the rest"] = statistics.median(row["seconds"] - sum(row["parts"].values()) for row in found)
    shared = sum(parts.get(part, 0.0) for part in ("data", "features", "the rest"))
    loop = statistics.median(medians(content, name, NAIVE, "seconds"))
    return (
        "\nSeconds of `rank`: " + ", ".join(f"{part} {taken:.1f}" for part, taken in parts.items()) + ". What the loop "
        f"does as well (data, features, and the rest: imports and writing) takes {shared / loop:.2f} of its time; the "
        "others are what only `rank` does.\n"
    )


def _growth(content: dict[str, Any], what: str, series: list[Workload]) -> str:
    import numpy as np

    sizes = [getattr(each, ATTRIBUTES[what]) for each in series]
    rows = []
    for way in WAYS:
        found = [medians(content, f"{what} {size}", way, "seconds") for size in sizes]
        if all(found):
            seconds = [statistics.median(each) for each in found]
            exponent = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
            rows.append(f"| {way} | " + " | ".join(f"{each:.1f}" for each in seconds) + f" | {exponent:.2f} |\n")
    if not rows:
        return ""
    header = f"| seconds at … {what} | " + " | ".join(map(str, sizes)) + " | exponent |\n"
    return f"\n## Growth in {what}\n\n{header}|---|{'---|' * (len(sizes) + 1)}\n" + "".join(rows)


def main() -> None:
    """Measure what is not measured yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no round after this time")
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "results")
    parser.add_argument("--quick", action="store_true", help="a few images and one round, to see that it runs")
    options = parser.parse_args()
    real = os.environ.get("TRANSFERSCOPE_REAL")
    if not real:
        raise SystemExit("skipped: set TRANSFERSCOPE_REAL to a folder with data/ and zoo/")
    workloads, growth, rounds = WORKLOADS, GROWTH, options.rounds
    if options.quick:
        workloads = {"a": WORKLOADS["a"]._replace(images=60, side=32, sources=1)}
        growth, rounds = {}, 1
    options.output.mkdir(parents=True, exist_ok=True)
    record = options.output / "speed.json"
    named = {f"{what} {getattr(each, ATTRIBUTES[what])}": each for what, series in growth.items() for each in series}
    plan = [(name, each, 0) for name, each in [*workloads.items(), *named.items()]]
    plan += [(name, each, number) for number in range(1, rounds) for name, each in workloads.items()]
    end = time.monotonic() + 60 * options.minutes
    for name, workload, number in plan:
        if time.monotonic() < end:
            one_round(name, workload, Path(real), record, number)
            (options.output / "speed.md").write_text(page(json.loads(record.read_text()), workloads, growth))
    print((options.output / "speed.md").read_text())


if __name__ == "__main__":
    work(*sys.argv[1:])
