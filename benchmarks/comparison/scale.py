"""Many samples of wide layers, fewer digits, smaller batches: what each costs and how far it is from the exact value.

Run by `similarity.py`; `python -m comparison.scale N P THREADS` is the process that it measures.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import transferscope as ts
from comparison.runs import Sizes, environment, number, table
from transferscope.activations.kept import KeptFeatures
from transferscope.arrays.linalg import center, sketched_svd
from transferscope.similarity import MinibatchCKA

MANTISSA = {"tf32": 10, "bfloat16": 7}
BATCHES = (25, 50, 125, 250)
SKETCH = 50


def wide(n: int, p: int) -> None:
    """Compare two layers (n, p) exactly, batch by batch, and by a sketch; print seconds, peaks and values."""
    rng = np.random.default_rng(0)
    maps = [rng.standard_normal((20, p), dtype=np.float32) for _ in range(2)]
    report: dict[str, Any] = {}
    step = 250
    with KeptFeatures() as kept:
        streamed = MinibatchCKA()
        for start in range(0, n, step):
            rows = min(step, n - start)
            shared = rng.standard_normal((rows, 20), dtype=np.float32)
            batch = [shared @ m + 5 * rng.standard_normal((rows, p), dtype=np.float32) for m in maps]
            for i, X in enumerate(batch):
                kept.add(i, X)
            streamed.update([batch[0]], [batch[1]])
        layers = kept.features([0, 1])
        start_time = time.perf_counter()
        exact = MinibatchCKA()
        exact.update([layers[0]], [layers[1]])
        report["exact"] = [float(exact.result()[0, 0]), float(exact.standard_error()[0, 0])]
        report["minibatch"] = [float(streamed.result()[0, 0]), float(streamed.standard_error()[0, 0])]
        report["exact_seconds"] = time.perf_counter() - start_time
        report["exact_peak"] = peak()
        start_time = time.perf_counter()
        sketch = sketched_svd(layers[0], SKETCH, seed=0)
        report["sketch_seconds"] = time.perf_counter() - start_time
        report["captured"] = float(sketch.captured)
        report["sketch_peak"] = peak()
    print(json.dumps(report))


def peak() -> float:
    """Return the largest resident set of this process so far, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def scale_section(sizes: Sizes, folder: Path, threads: int) -> str:
    """Return what exact linear CKA and the sketch cost on many samples of wide layers."""
    n, p = sizes.wide
    command = [sys.executable, "-m", "comparison.scale", str(n), str(p), str(threads)]
    started = environment(TMPDIR=str(folder))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=started)
    if done.returncode:
        return f"\n## Many samples of wide layers\n\nNot measured: {done.stderr.strip().splitlines()[-1]}\n"
    found = json.loads(done.stdout.splitlines()[-1])
    rows = [
        ["what", "seconds", "peak of the process", "result"],
        [
            "exact debiased CKA of the pair, features on disk",
            f"{found['exact_seconds']:.0f}",
            f"{found['exact_peak']:.0f} MiB",
            "{:.4f} ± {:.4f}".format(*found["exact"]),
        ],
        ["batches of 250 of the same", "", "", "{:.4f} ± {:.4f}".format(*found["minibatch"])],
        [
            f"sketched SVD of one, {SKETCH} directions",
            f"{found['sketch_seconds']:.0f}",
            f"{found['sketch_peak']:.0f} MiB",
            f"{found['captured']:.4f} of the variance",
        ],
    ]
    return (
        f"\n## Many samples of wide layers: n = {n}, two layers of {p} features, float32\n\n"
        "Target: within 4096 MiB. The peak is that of the whole process, imports and all; the second one includes what "
        "came before.\n\n" + table(rows)
    )


def rounded(X: np.ndarray, bits: int) -> np.ndarray:
    """Round float32 numbers to so many bits of mantissa, to nearest, as the factors of such products are."""
    drop = 23 - bits
    whole = X.view(np.uint32) + np.uint32(1 << (drop - 1))
    return (whole & ~np.uint32((1 << drop) - 1)).view(np.float32)


def precision_section(nets: list[Any], layers: list[str], images: torch.Tensor) -> str:
    """Return how far products of fewer digits move linear CKA, the rounding done in software."""
    features = []
    for net in nets:
        with ts.capture(net, layers, reduce="flatten") as activations:
            net(images)
        features.append([center(tensor.numpy()) for tensor in activations.values()])

    def values(bits: int | None) -> np.ndarray:
        cka = MinibatchCKA()
        cka.update(*([X if bits is None else rounded(X, bits) for X in side] for side in features))
        return cka.result()

    full = values(None)
    rows = [["factors", "bits of mantissa", "largest deviation", "mean deviation"]]
    for name, bits in MANTISSA.items():
        apart = np.abs(values(bits) - full)
        rows.append([name, str(bits), number(float(apart.max())), number(float(apart.mean()))])
    return (
        f"\n## Fewer digits: workload (a), one batch of {len(images)}\n\n"
        "Deviation of linear CKA from float32 products when the centred features are rounded first, as `precision=` "
        "has a GPU do it. Emulated: what it gains in time was not measured.\n\n" + table(rows)
    )


def estimator_section(nets: list[Any], layers: list[str], images: torch.Tensor) -> str:
    """Return how the estimate accumulated over batches compares with the exact one."""
    options = {"layers_x": layers, "layers_y": layers, "device": "cpu"}
    exact = ts.compare(*nets, images, estimator="exact", batch_size=100, **options)
    rows = [["images a batch", "largest difference", "in its standard errors", "mean standard error"]]
    for size in BATCHES:
        if size >= len(images):
            continue
        found = ts.compare(*nets, images, batch_size=size, **options)
        apart = np.abs(found.to_numpy() - exact.to_numpy())
        error = found["standard_error"].to_numpy()
        rows.append([str(size), f"{apart.max():.4f}", f"{(apart / error).max():.2f}", f"{error.mean():.4f}"])
    rows.append([f"exact ({len(images)})", "", "", f"{exact['standard_error'].to_numpy().mean():.4f}"])
    return (
        f"\n## Batches against all images at once: workload (b), {len(images)} images\n\n"
        f"Debiased linear CKA of {exact.size} pairs of layers, accumulated over batches and exact.\n\n" + table(rows)
    )


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    wide(int(sys.argv[1]), int(sys.argv[2]))
