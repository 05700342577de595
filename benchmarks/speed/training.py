"""Training runs per minute: one after the other, in two processes, and several networks stacked into one.

    python benchmarks/training.py > benchmarks/results/training.md

Small networks (six blocks, 32 px) learn 200 of scikit-learn's digits for a fixed number of epochs: a whole network
from scratch, and what follows a frozen prefix on its kept activations. `--quick` shrinks everything, to see that it
runs.
"""

import argparse
import functools
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack

import torch
from sklearn.datasets import load_digits
from torch import nn

from transferscope.networks import CompactResNet
from transferscope.protocols.training.inputs import CachedViews, shifted
from transferscope.protocols.training.loop import Member
from transferscope.protocols.training.recipe import Recipe
from transferscope.protocols.training.single import fit
from transferscope.protocols.training.together import fit_together
from transferscope.runtime.seeding import seeded

N_SAMPLES, SIDE, CLASSES, PREFIX_BLOCKS = 200, 32, 10, 3
VIEWS, STACKS = 4, (2, 4, 8)
WORKLOADS = ("scratch", "reinit after 3 of 6 blocks")
ALONE = "one after the other"


@functools.cache
def inputs(workload: str, device: str) -> tuple[torch.Tensor | CachedViews, torch.Tensor]:
    """Return enlarged digits, or four views of them behind a frozen prefix, and the labels."""
    digits = load_digits()
    small = torch.from_numpy(digits.images[:N_SAMPLES]).float().div(8).sub(1)[:, None]
    images = nn.functional.interpolate(small, size=(SIDE, SIDE), mode="bicubic").expand(-1, 3, -1, -1)
    labels = torch.from_numpy(digits.target[:N_SAMPLES])
    if workload == "scratch":
        return images.to(device), labels
    source = network(0).eval().to(device)
    prefix = nn.Sequential(source.stem, *source.blocks[:PREFIX_BLOCKS])
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        views = [prefix(shifted(images, Recipe.shift, draw).to(device)) for _ in range(VIEWS)]
    return CachedViews(torch.stack(views)), labels


def network(seed: int) -> CompactResNet:
    with seeded(seed):
        return CompactResNet(CLASSES)


def member(workload: str, device: str, seed: int) -> Member:
    whole = network(seed)
    behind = nn.Sequential(*whole.blocks[PREFIX_BLOCKS:], whole.pool, whole.head)
    net = whole if workload == "scratch" else behind
    return Member(net.to(device), *inputs(workload, device), None, seed)


def train_alone(workload: str, device: str, epochs: int, runs: int) -> None:
    for seed in range(runs):
        one = member(workload, device, seed)
        fit(one.net, one.inputs, one.labels, None, recipe=Recipe(epochs=epochs), seed=seed)


def train_stacked(workload: str, device: str, epochs: int, runs: int) -> None:
    fit_together([member(workload, device, seed) for seed in range(runs)], recipe=Recipe(epochs=epochs))


def train_in_processes(pools: list[ProcessPoolExecutor], workload: str, device: str, epochs: int, runs: int) -> None:
    for future in [pool.submit(train_alone, workload, device, epochs, runs // len(pools)) for pool in pools]:
        future.result()


def rates(workload: str, device: str, epochs: int, rounds: int, pools: list[ProcessPoolExecutor]) -> dict[str, float]:
    """Return the runs per minute of each way to train, the median of rounds in which all take turns."""
    ways: dict[str, tuple[Callable[[str, str, int, int], None], int]] = {
        ALONE: (train_alone, 2),
        "two processes": (functools.partial(train_in_processes, pools), 2),
        **{f"stacked by {k}": (train_stacked, k) for k in STACKS},
    }
    for train, runs in ways.values():
        train(workload, device, 1, runs)
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, (train, runs) in ways.items():
            started = time.perf_counter()
            # Every run ends with reading its last loss, so that a GPU has finished too.
            train(workload, device, epochs, runs)
            found[way].append(60 * runs / (time.perf_counter() - started))
            print(f"{device}, {workload}, {way}: {found[way][-1]:.2f} runs/min", file=sys.stderr)
    return {way: statistics.median(values) for way, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    epochs, rounds = (1, 1) if options.quick else (options.epochs, options.rounds)
    torch.set_num_threads(2)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    gpu = f", {torch.cuda.get_device_name()}" if len(devices) > 1 else ""
    with ExitStack() as stack:
        spawn = multiprocessing.get_context("spawn")
        pools = [
            stack.enter_context(
                ProcessPoolExecutor(1, mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,))
            )
            for _ in range(2)
        ]
        print("# Training runs per minute\n")
        print(
            f"`benchmarks/training.py`; torch {torch.__version__} on {platform.machine()}{gpu}; two threads, in two "
            f"processes one each. CompactResNet (width 16), {CLASSES} classes, {N_SAMPLES} images of {SIDE} px, "
            f"{epochs} epochs, batches of {Recipe.batch_size}, no validation; float32 on the CPU, bfloat16 on a GPU. "
            f"Median of {rounds} rounds in which all take turns.\n"
        )
        print(f"| device | run | how | runs/min | × {ALONE} |")
        print("|---|---|---|---:|---:|")
        for device in devices:
            for workload in WORKLOADS:
                measured = rates(workload, device, epochs, rounds, pools)
                for way, rate in measured.items():
                    print(f"| {device} | {workload} | {way} | {rate:.2f} | {rate / measured[ALONE]:.2f} |", flush=True)
