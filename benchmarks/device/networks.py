"""Rows of networks: extraction, comparing beside other tools, round trips to the host, `rank` end to end."""

import itertools
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from comparison.peers import OURS, TOOLS, Work
from torch import nn

import transferscope as ts
from device import roundtrips
from device.machine import Machine, largest_difference
from transferscope import transferability
from transferscope.activations.capture import collect
from transferscope.activations.features import REDUCTION
from transferscope.activations.tracing import trace
from transferscope.arrays import backend

WAYS = ("float32", "TF32", "bfloat16")
DEVIATING = [name for name, score in transferability.SCORES.items() if score.needs == "features"]


def extraction(model: str, way: str) -> Any:
    """Return the row of a network's features of every stage: images a second, beside the bare passes."""

    def row(machine: Machine, record: dict[str, Any]) -> dict[str, Any]:
        sizes = machine.sizes
        net = _network(model).to(machine.device)
        side = net.default_cfg["input_size"][-1] if sizes.side < 100 else sizes.side
        host = [torch.randn(sizes.batch, 3, side, side) for _ in range(sizes.batches)]
        count = sizes.batch * sizes.batches
        traced = trace(net, host[0][:1].to(machine.device))

        def bare() -> None:
            with torch.inference_mode():
                for batch in host:
                    net(backend.to_device(batch, machine.device))

        def features() -> dict[str, Any]:
            with machine.stream():
                return collect(net, host, "auto", reduce=REDUCTION, device=machine.device, traced=traced)

        with _precision(machine, way):
            passes, taken = machine.seconds(bare), machine.seconds(features)
            found = {layer: backend.to_numpy(array) for layer, array in features().items()}
        rates = {"images/s": count / taken, "images/s, bare": count / passes, "÷ bare": taken / passes}
        labels = np.arange(count) % min(10, count // 2)
        last = list(found)[-1]
        scores = {name: transferability.SCORES[name].function(found[last], labels) for name in DEVIATING}
        full = record.get(f"extraction: {model}, {WAYS[0]}", {}).get("scores", scores)
        apart = {name: abs(scores[name] - full[name]) / max(1.0, abs(full[name])) for name in scores}
        worst = max(apart, key=lambda name: apart[name] if np.isfinite(apart[name]) else -1.0)
        return {**rates, "largest deviation of a score": apart[worst], "of": worst, "scores": scores, "apart": apart}

    return row


def _network(model: str) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(model, pretrained=False).eval()


def _precision(machine: Machine, way: str) -> ExitStack:
    """Let products and convolutions multiply in float32 or TF32, or everything that can be run in bfloat16."""
    stack = ExitStack()
    for part in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):
        stack.callback(setattr, part, "fp32_precision", part.fp32_precision)
        part.fp32_precision = "ieee" if way == "float32" else "tf32"
    stack.enter_context(torch.autocast(machine.device.type, torch.bfloat16) if way == "bfloat16" else nullcontext())
    return stack


def _pair(machine: Machine) -> Work:
    """Return workload (a) of `similarity.py`: two ResNet-18, their convolutions and batch norms, ready batches."""
    nets = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        nets.append(torchvision.models.resnet18(weights=None).eval().to(machine.device))
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    named = nets[0].named_modules()
    layers = [name for name, module in named if isinstance(module, kinds) and "downsample" not in name]
    sizes = machine.sizes
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(sizes.network_images, 3, sizes.network_side, sizes.network_side, generator=draw)
    return Work(nets[0], nets[1], layers, list(images.split(sizes.network_batch)), machine.device.type)


def bare_passes(machine: Machine, _record: dict[str, Any]) -> dict[str, Any]:
    """Run both networks over all batches, and nothing else."""
    work = _pair(machine)

    def run() -> None:
        with torch.inference_mode():
            for batch, net in itertools.product(work.batches, (work.net_x, work.net_y)):
                net(batch.to(machine.device))

    return {"seconds": machine.seconds(run)}


def comparing(tool: str) -> Any:
    """Return the row of one tool comparing all layers of two networks."""

    def row(machine: Machine, record: dict[str, Any]) -> dict[str, Any]:
        entry = TOOLS[tool]
        if not any(distributions(name=entry.package)):
            return {"note": "not installed"}
        entry.load()
        work = _pair(machine)

        def run() -> None:
            entry.networks(work)
            for net in (work.net_x, work.net_y):
                for module in net.modules():
                    # Hooks that a tool leaves behind would make the next round slower.
                    module._forward_hooks.clear()

        seconds = machine.seconds(run, rounds=None if tool == OURS else 2)
        bare = record.get("comparing: bare passes", {}).get("seconds", float("nan"))
        return {"seconds": seconds, "÷ bare": seconds / bare}

    return row


def round_trips(machine: Machine, _record: dict[str, Any]) -> dict[str, Any]:
    """Count what each further batch costs in transfers to the host and in waiting for the device."""
    if not machine.on_gpu:
        return {"note": "there is none to count on the CPU"}
    import cupy

    seen = roundtrips.counted(lambda: [cupy.ones(1).get() for _ in range(3)] + [torch.ones(1, device="cuda").cpu()])
    work = _pair(machine)
    options: dict[str, Any] = {"layers_x": work.layers, "layers_y": work.layers, "device": "cuda"}
    batches = [work.batches[0]] * 6
    net = work.net_x

    def compare(n: int) -> Callable[[], Any]:
        return lambda: ts.compare(net, work.net_y, torch.cat(batches[:n]), batch_size=len(batches[0]), **options)

    def features(n: int) -> Callable[[], Any]:
        return lambda: collect(net, batches[:n], work.layers, device=machine.device)

    found: dict[str, Any] = {"control: transfers seen of 4": seen.transfers}
    for name, function in (("compare", compare), ("features", features)):
        function(2)()
        each = roundtrips.in_each_batch(*(roundtrips.counted(function(n)) for n in (2, 6)), n_batches=4)
        found |= {f"{name}: transfers a batch": each.transfers, f"{name}: waits a batch": each.waits}
    return found


def ranking(machine: Machine, _record: dict[str, Any]) -> dict[str, Any]:
    """Rank networks that were drawn at random for made-up images, from an empty cache and again from a full one."""
    sizes = machine.sizes
    rng = np.random.default_rng(0)
    labels = np.arange(4 * sizes.per_class) % 4
    pixels = rng.integers(0, 120, (len(labels), sizes.side, sizes.side, 3), dtype=np.uint8)
    pixels += (30 * labels[:, None, None, None]).astype(np.uint8)
    zoo = [{"name": name, "loader": "timm", "model": name, "weights": "none"} for name in sizes.ranked]
    options: dict[str, Any] = {"recipe": ts.Recipe(epochs=2), "batch_size": sizes.batch, "progress": False}
    found: dict[str, Any] = {}
    before = os.environ.get("TRANSFERSCOPE_HOME")
    with tempfile.TemporaryDirectory() as home:
        os.environ["TRANSFERSCOPE_HOME"] = str(Path(home) / "cache")
        try:
            for turn in ("seconds", "from the cache"):
                began = time.perf_counter()
                ranked = ts.rank((pixels, labels), zoo, device=machine.device.type, **options)
                found[turn] = time.perf_counter() - began
                if turn == "seconds":
                    found |= {f"{part}, s": seconds for part, seconds in ranked.timings.items()}
        finally:
            os.environ.pop("TRANSFERSCOPE_HOME")
            if before is not None:
                os.environ["TRANSFERSCOPE_HOME"] = before
    return found


def agreement(machine: Machine, _record: dict[str, Any]) -> dict[str, Any]:
    """Compare two networks here and on the CPU, by linear CKA of every pair of layers."""
    work = _pair(machine)
    images = torch.cat(work.batches)[: 2 * machine.sizes.network_batch]

    def compare(device: str, layers: Sequence[str]) -> Any:
        options: dict[str, Any] = {"layers_x": layers, "layers_y": layers, "batch_size": machine.sizes.network_batch}
        return ts.compare(work.net_x, work.net_y, images, device=device, **options).to_numpy()

    layers = work.layers[::4]
    with _precision(machine, "float32"):
        here = compare(machine.device.type, layers)
    return {"largest difference of CKA from the CPU": largest_difference(here, compare("cpu", layers))}
