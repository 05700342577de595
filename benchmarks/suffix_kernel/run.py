"""Seconds and memory of the tangent kernels of MobileNetV2, at every depth, beside a forward pass over the same images.

    python benchmarks/suffix_kernel/run.py [--images N] [--cuts N] [--device cuda] > benchmarks/results/suffix_kernel.md

Weights and images are random: time and memory do not depend on them. One seed; the kernel by the weights behind the cut
and the kernel by all weights come from the same pass.
"""

import argparse
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1]))
from suffix_kernel.kernels import WIDTH, tangent_kernels

from transferscope.networks.loading import Network, build_untrained, source_transform
from transferscope.networks.zoo import load_zoo
from transferscope.protocols.cutting.cut import cuts

MODEL, SIDE, BATCH, ROUNDS = "mobilenetv2_100", 96, 25, 3


def seconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--cuts", type=int, default=20, help="at most, evenly spaced, depth 0 among them")
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    zoo = {"version": 1, "sources": [{"name": "net", "loader": "timm", "model": MODEL, "transform": {"size": SIDE}}]}
    source = load_zoo(zoo)["net"]
    network = Network("net", build_untrained(source, seed=0), source_transform(source), source)
    images = torch.randn(chosen.images, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    found = cuts(network.module, "auto", images[:1])
    places = [(0, "none, all drawn anew"), *((place.depth, place.layer) for place in found)]
    count = min(chosen.cuts, len(places))
    places = [places[round(i * (len(places) - 1) / max(1, count - 1))] for i in range(count)]

    def forward() -> None:
        with torch.inference_mode():
            for batch in images.split(BATCH):
                net(batch.to(device))

    net = network.module.to(device)
    seconds(forward, device)
    once = statistics.median(seconds(forward, device) for _ in range(ROUNDS))
    net.cpu()
    print("# Cost of the tangent kernels\n")
    print(
        f"`benchmarks/suffix_kernel/run.py`; torch {torch.__version__} on {platform.machine()}"
        f"{f', {torch.cuda.get_device_name()}' if device.type == 'cuda' else ''}, {torch.get_num_threads()} threads. "
        f"{MODEL}, {chosen.images} images of {SIDE} px, one seed, gradients of a weight sketched to {WIDTH} entries. "
        f"A forward pass over the images, all in batches of {BATCH}: {once:.1f} s.\n"
    )
    print("| depth | layer | s | × a forward pass |\n|---:|---|---:|---:|")
    taken = []
    for depth, layer in places:
        taken.append(seconds(lambda depth=depth: tangent_kernels(
            network, depth, lambda: images.split(BATCH), device=device
        ), device))  # fmt: skip
        print(f"| {depth} | {layer} | {taken[-1]:.1f} | {taken[-1] / once:.1f} |", flush=True)
    # macOS counts bytes, Linux kibibytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    print(
        f"\nAll {len(taken)} cuts: {sum(taken) / 60:.1f} minutes, in the mean {sum(taken) / len(taken) / once:.1f} × a "
        f"forward pass; the process held {peak:.2f} GiB at most."
    )
    if device.type == "cuda":
        print(f"\nThe GPU held {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB at most.")


if __name__ == "__main__":
    main()
