"""Comparing networks, side by side with the tools that people use today: time, memory, and distance from the truth.

    TRANSFERSCOPE_REAL=... python benchmarks/similarity.py [--workload a|together|b|c|growth|scale|all] [--rounds 5]

Writes similarity.md into `--output`. Peers are run where they are installed (`pip install --group peers`), each in a
process of its own (`comparison/worker.py`), in turn, a round each; nothing is installed here. Workload b needs
TRANSFERSCOPE_REAL, a folder with `data/trashnet.zip` and `zoo/`. `--quick` shrinks everything, to see that it runs.
"""

import argparse
import os
import platform
import statistics
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
import yaml
from torch import nn

import transferscope as ts
from comparison.kernels import growth_section, kernel_section, write_activations
from comparison.peers import OURS, TOOLS
from comparison.runs import (
    OFFSET,
    QUICK,
    Result,
    Sizes,
    Worker,
    claimed,
    deviation,
    number,
    present,
    run_networks,
    table,
)
from comparison.scale import estimator_section, precision_section, scale_section
from comparison.worker import build
from transferscope.data.batches import batches
from transferscope.data.target import load_target
from transferscope.networks.loading import load_network
from transferscope.networks.zoo import load_zoo

WORKLOADS = ("a", "together", "b", "c", "growth", "scale")


def network_section(title: str, results: dict[str, Result], references: Any) -> str:
    """Return the section of one workload over networks: time and memory, deviations, targets."""
    bare, ours = results["bare"], results[OURS]
    rows = [["tool", "rounds", "total", "÷ bare", "similarity part", "÷ ours", "peak above baseline", "peak"]]
    for name, result in results.items():
        if not result.seconds:
            rows.append([name, "0", f"{result.error}", *[""] * 5])
            continue
        mark = "≈ " if result.extrapolated else ""
        part = result.above(bare)
        relative = f"{part / ours.above(bare):.1f} ×" if ours.seconds and ours.above(bare) > 0 else ""
        cells = [mark + f"{result.median:.2f} s", f"{result.median / bare.median:.2f} ×", f"{part:.2f} s", relative]
        if name == "bare":
            cells[2:] = ["", ""]
        count = "one batch" if result.extrapolated else str(len(result.seconds))
        memory = [f"{result.peak - result.baseline:.0f} MiB", f"{result.peak:.0f} MiB"]
        rows.append(["bare forward passes" if name == "bare" else name, count, *cells, *memory])
    text = f"\n## {title}\n\n{table(rows)}\n"
    header = ["tool", "estimator", "as run", "nothing overwritten", f"+ {OFFSET:.0f} standard deviations"]
    rows = [[*header, "from the exact debiased value"]]
    for name, result in results.items():
        if result.clean is None:
            continue
        key = claimed(name, result, references[0])
        cells = ["" if result.matrix is None else number(deviation(result.matrix, references[0][key]))]
        for values, truth in ((result.clean, references[0]), (result.shifted, references[1])):
            cells.append(values if isinstance(values, str) else number(deviation(values, truth[key])))
        rows.append([name, key, *cells, number(deviation(result.clean, references[0]["debiased"]))])
    text += table(rows)
    for name, result in results.items():
        if result.note:
            text += f"\n{name} on the layers' outputs as they are: `{result.note}`.\n"
    return text + "\n" + targets(results, references)


def targets(results: dict[str, Result], references: Any) -> str:
    """Return the targets of this workload, met or missed, in numbers."""
    ours, bare = results[OURS], results["bare"]
    if not ours.seconds or not bare.seconds:
        return f"No target can be judged: {ours.error or bare.error}.\n"
    part = ours.above(bare)
    rows = [["target", "measured", ""]]

    def judge(what: str, measured: float, limit: float) -> None:
        rows.append([what.format(f"{limit:g}"), f"{measured:.3g}", "met" if measured <= limit else "**missed**"])

    for peer, limit in (("pytorch-cka", 0.7), ("torch_cka", 0.05), ("ckatorch", 0.05), ("cka-pytorch", 0.05)):
        theirs = results[peer].above(bare) if peer in results and results[peer].seconds else None
        if theirs is not None and min(part, theirs) <= 0:
            rows.append([f"similarity part at most {limit:g} × {peer}'s", "", "not told: within the noise"])
        elif theirs is not None:
            judge(f"similarity part at most {{}} × {peer}'s", part / theirs, limit)
    judge("total at most {} × the bare forward passes", ours.median / bare.median, 1.2)
    others = [r.peak - r.baseline for name, r in results.items() if name not in ("bare", OURS) and r.seconds]
    if others:
        judge("peak memory at most {} × the least of the peers'", (ours.peak - ours.baseline) / min(others), 1.0)
    key = claimed(OURS, ours, references[0])
    judge("deviation at most {}", deviation(ours.clean, references[0][key]), 1e-5)
    judge("deviation at most {}, with the offset", deviation(ours.shifted, references[1][key]), 1e-5)
    return table(rows)


def resnet(sizes: Sizes, folder: Path) -> dict[str, Any]:
    """Return workload a: all convolutions and batch norms of ResNet-18 but those of the three shortcuts, 17 + 17."""
    path = folder / "random-images.npy"
    shape = (sizes.images, 3, sizes.side, sizes.side)
    np.save(path, np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    modules = torchvision.models.resnet18(weights=None).named_modules()
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    layers = [name for name, module in modules if isinstance(module, kinds) and "downsample" not in name]
    return {"kind": "resnet", "images": str(path), "layers": layers, "batch": sizes.batch, "samples": sizes.images}


def mobilenets(sizes: Sizes, folder: Path, real: Path) -> dict[str, Any]:
    """Return workload b: all blocks of two trained MobileNetV2 on photographs."""
    with zipfile.ZipFile(real / "data" / "trashnet.zip") as archive:
        archive.extractall(folder)
    sources = [
        {
            "name": name,
            "loader": "timm",
            "model": "mobilenetv2_100",
            "checkpoint": str(real / "zoo" / f"{name}.safetensors"),
            "kwargs": {"pad_type": "same", "num_classes": outputs},
            "transform": {"size": 96, "mean": [0.5] * 3, "std": [0.5] * 3},
        }
        for name, outputs in (("mobilenetv2-imagenet", 1001), ("mobilenetv2-inat-insect", 1022))
    ]
    zoo = folder / "zoo.yaml"
    zoo.write_text(yaml.safe_dump({"version": 1, "sources": sources}))
    network = load_network(next(iter(load_zoo(zoo))))
    probe = load_target(folder / "trashnet").probe(sizes.real_images, 0)
    images = torch.cat(list(batches(probe, network.transform, sizes.real_batch)))
    with ts.capture(network.module, "auto") as activations:
        network.module(images[:1])
    layers = [name for name in activations if name.startswith("blocks.")]
    path = folder / "photographs.npy"
    np.save(path, images.numpy())
    common = {"images": str(path), "layers": layers, "batch": sizes.real_batch, "samples": len(images)}
    return {"kind": "zoo", "zoo": str(zoo), **common}


def main() -> None:
    """Run what is asked for and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=(*WORKLOADS, "all"), default="all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything runs")
    options = parser.parse_args()
    sizes = QUICK if options.quick else Sizes()
    here = options.rounds, "cpu", options.threads
    wanted = set(WORKLOADS) if options.workload == "all" else {options.workload}
    text = heading(options)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "a" in wanted:
            first = resnet(sizes, folder)
            title = f"(a) ResNet-18, {len(first['layers'])} convolutions and batch norms, two random initialisations: "
            title += f"{sizes.images} images of {sizes.side} px, batches of {sizes.batch}"
            text += network_section(title, *run_networks(first, *here))
        if "together" in wanted:
            text += together_section(resnet(sizes, folder), *here)
        if "b" in wanted:
            if real := os.environ.get("TRANSFERSCOPE_REAL"):
                second = mobilenets(sizes, folder, Path(real))
                title = f"(b) MobileNetV2, ImageNet against insects, {len(second['layers'])} blocks: "
                title += f"{sizes.real_images} photographs of 96 px, batches of {sizes.real_batch}"
                text += network_section(title, *run_networks(second, *here))
            else:
                text += "\n## (b) MobileNetV2\n\nSkipped: TRANSFERSCOPE_REAL names no folder with data/ and zoo/.\n"
        if "c" in wanted:
            text += kernel_section(sizes, folder, *here)
        if "growth" in wanted:
            text += growth_section(sizes, folder, *here)
        if "scale" in wanted:
            torch.set_num_threads(options.threads)
            text += scale_section(sizes, folder, options.threads)
            first = resnet(sizes, folder)
            images = torch.from_numpy(np.load(first["images"]))[: sizes.batch]
            text += precision_section(build(first), first["layers"], images)
            if real := os.environ.get("TRANSFERSCOPE_REAL"):
                second = mobilenets(sizes, folder, Path(real))
                images = torch.from_numpy(np.load(second["images"]))
                text += estimator_section(build(second), second["layers"], images)
        if torch.cuda.is_available():
            text += gpu_section(sizes, folder, options.rounds, options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "similarity.md").write_text(text)
    print(text)


def together_section(workload: dict[str, Any], rounds: int, device: str, threads: int) -> str:
    """Return the seconds of the tools that take no minutes, in one process in place of one each."""
    tools = ["bare", *(name for name in (OURS, "pytorch-cka", "cka-pytorch") if name in present())]
    worker = Worker("bare", device, threads)
    worker.ask("open", workload=workload)
    seconds = worker.ask("in_turn", tools=tools, rounds=rounds)
    worker.close()
    if "error" in seconds:
        return f"\n## (a) in one process\n\nNot measured: {seconds['error']}.\n"
    rows = [["tool", "total", "÷ bare", "similarity part"]]
    for name, taken in seconds.items():
        pairs = list(zip(taken, seconds["bare"], strict=True))
        ratio, part = (statistics.median(each) for each in zip(*((a / b, a - b) for a, b in pairs), strict=True))
        rows.append([name, f"{statistics.median(taken):.2f} s", f"{ratio:.2f} ×", f"{part:.2f} s"])
    return f"\n## (a) in one process, in turn, {rounds} rounds after one that warms up\n\n{table(rows)}"


def gpu_section(sizes: Sizes, folder: Path, rounds: int, threads: int) -> str:
    """Return workloads a and c on the GPU, and how near the Gram stage comes to what the GPU can do."""
    first = resnet(sizes, folder)
    text = network_section("On the GPU, memory too: (a)", *run_networks(first, rounds, "cuda", threads))
    text += kernel_section(sizes, folder, rounds, "cuda", threads).replace("## (c)", "## On the GPU, memory too: (c)")
    worker = Worker(OURS, "cuda", threads)
    path = write_activations(folder / "activations.npy", 2, 64, 64)
    worker.ask("open", workload={"kind": "arrays", "path": path, "layers": 2})
    answer = worker.ask("ceilings")
    worker.close()
    if "error" in answer:
        return f"{text}\nCeilings not measured: {answer['error']}.\n"
    rows = [["what", "measured"], *([name, f"{value:.3g}"] for name, value in answer.items())]
    return f"{text}\n## On the GPU: ceilings\n\n{table(rows)}"


def heading(options: argparse.Namespace) -> str:
    """Return what was run, where, and what each tool computes."""
    names = ("torch", "torchvision", "timm", "numpy")
    installed = present()
    versions = ", ".join(f"{name} {version(name)}" for name in [*names, *(TOOLS[n].package for n in installed)])
    absent = ", ".join(name for name in TOOLS if name not in installed) or "none"
    rows = [["tool", "what it computes"], *([name, TOOLS[name].computes] for name in installed)]
    return (
        "# Comparing networks, side by side\n\n"
        "Made by `python benchmarks/similarity.py`"
        f"{' --quick' if options.quick else ''}. {platform.machine()}, {os.cpu_count()} cores, {options.threads} "
        f"threads, Python {platform.python_version()}, {versions}. Peers not installed: {absent}.\n\n"
        "Each tool runs in a process of its own, over the same networks, layers and ready-made batches, in turn, a "
        "round each; medians. The similarity part is the total less the bare forward passes of the same round. "
        "Memory is the peak resident set, above what the process held with everything imported and built.\n\n"
        "Deviation is the largest absolute difference from a plain float64 reference of the estimator that the tool "
        "claims, over the same float32 activations. *As run*: the networks as they are, whose in-place ReLUs and "
        "additions overwrite what a tool has not copied. *Nothing overwritten*: every compared layer hands a copy of "
        "its output to a module beside the path, whose output is the layer that the tool is told to capture. "
        f"*+ {OFFSET:.0f} standard deviations*: that module adds a constant, which no later layer of the network "
        "sees.\n\n" + table(rows)
    )
