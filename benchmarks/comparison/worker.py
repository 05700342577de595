"""One tool in one process: answers the requests of `similarity.py`, a line of JSON each, on standard input.

Not for direct use, and Linux only (`/proc`). `python -m comparison.worker TOOL DEVICE THREADS`, where TOOL is a name of
`comparison.peers.TOOLS`, "bare" (the forward passes alone) or "reference" (plain float64).
"""

import copy
import ctypes
import gc
import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn

from comparison.peers import TOOLS, Work, all_activations
from transferscope.networks.loading import load_network
from transferscope.networks.zoo import load_zoo

MEMORY_SHARE = 0.8
"""Of the memory that is free at the start: above it allocations fail in the worker, instead of the machine."""
MIB = 2**20


class Tapped(nn.Module):
    """A layer whose output goes on unchanged, while tools read a copy of it, at `.tap`, that nothing overwrites."""

    def __init__(self, layer: nn.Module, offset: float | None, rows: bool) -> None:
        super().__init__()
        self.layer, self.tap = layer, Tap(offset, rows)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the layer, and show its output to the tap."""
        output = self.layer(x)
        self.tap(output)
        return output


class Tap(nn.Module):
    """Adds a constant (None: no copy is made); with `rows`, gives (1, n, p)."""

    def __init__(self, offset: float | None, rows: bool) -> None:
        super().__init__()
        self.offset, self.rows = offset, rows

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the shifted activations."""
        shifted = x if self.offset is None else x + self.offset
        return shifted.flatten(1)[None] if self.rows else shifted


def deviations(net: nn.Module, work: Work) -> list[float]:
    """Return the standard deviation of each layer's activations over the first batch."""
    first = Work(net, net, work.layers, work.batches[:1], work.device)
    return [float(values.double().std()) for values in all_activations(net, first)]


def tapped(work: Work, offset: float | None, rows: bool) -> Work:
    """Return the same work on copies of the networks with taps; `offset` in standard deviations of each layer."""
    nets = []
    for original in (work.net_x, work.net_y):
        scales = deviations(original, work) if offset else [0.0] * len(work.layers)
        net = copy.deepcopy(original)
        for layer, scale in zip(work.layers, scales, strict=True):
            parent, _, name = layer.rpartition(".")
            owner = net.get_submodule(parent)
            constant = None if offset is None else offset * scale
            setattr(owner, name, Tapped(getattr(owner, name), constant, rows))
        nets.append(net.eval())
    return Work(nets[0], nets[1], [f"{layer}.tap" for layer in work.layers], work.batches, work.device)


def forward_only(work: Work) -> None:
    """Run both networks over all batches."""
    with torch.inference_mode():
        for batch in work.batches:
            on_device = batch.to(work.device)
            work.net_x(on_device)
            work.net_y(on_device)


def reference(kernels_x: list[np.ndarray], kernels_y: list[np.ndarray], batch: int) -> dict[str, Any]:
    """Return CKA of all pairs by every estimator that some tool claims, from centred float64 Gram matrices."""
    n = len(kernels_x[0])
    blocks = [slice(start, start + batch) for start in range(0, n, batch)]
    per_batch = [hsic([K[b, b] for K in kernels_x], [K[b, b] for K in kernels_y]) for b in blocks]
    whole = per_batch[0] if len(blocks) == 1 else hsic(kernels_x, kernels_y)
    left, right = (np.stack([K.ravel() for K in kernels]) for kernels in (kernels_x, kernels_y))
    biased = left @ right.T, (left**2).sum(1), (right**2).sum(1)
    sums = tuple(sum(parts) for parts in zip(*per_batch, strict=True))
    named = {"debiased": whole, "minibatch debiased": sums, "last batch debiased": per_batch[-1], "biased": biased}
    return {name: (xy / np.sqrt(np.outer(xx, yy))).tolist() for name, (xy, xx, yy) in named.items()}


def hsic(kernels_x: list[np.ndarray], kernels_y: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return n (n - 3) times the unbiased HSIC of Song et al. (2012): of all pairs, of each X and of each Y."""
    n = len(kernels_x[0])
    left, right = (np.stack([(K - np.diag(np.diag(K))).ravel() for K in kernels]) for kernels in (kernels_x, kernels_y))
    rows_x, rows_y = (flat.reshape(-1, n, n).sum(2) for flat in (left, right))

    def combine(products: np.ndarray, rows: np.ndarray, totals: np.ndarray) -> np.ndarray:
        return products + totals / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows

    totals_x, totals_y = rows_x.sum(1), rows_y.sum(1)
    pairs = combine(left @ right.T, rows_x @ rows_y.T, np.outer(totals_x, totals_y))
    own_x = combine((left**2).sum(1), (rows_x**2).sum(1), totals_x**2)
    own_y = combine((right**2).sum(1), (rows_y**2).sum(1), totals_y**2)
    return pairs, own_x, own_y


def kernel(activations: torch.Tensor) -> np.ndarray:
    """Return the Gram matrix of the centred activations, all in float64."""
    centred = activations.double()
    centred -= centred.mean(dim=0)
    return (centred @ centred.T).cpu().numpy()


class Worker:
    """Holds the tool and the open workload; each public method answers a request of that name."""

    def __init__(self, tool: str, device: str) -> None:
        self.name, self.device = tool, device
        self.tool = TOOLS.get(tool)
        self.work: Work | None = None
        self.arrays: tuple[list[torch.Tensor], list[torch.Tensor]] | None = None
        self.baseline = 0.0

    def open(self, workload: dict[str, Any]) -> dict[str, Any]:
        """Build networks and batches, or read activations; memory counts from here on."""
        if self.tool is not None:
            self.tool.load()
        self.work = self.arrays = None
        if workload["kind"] == "arrays":
            both = np.load(workload["path"], mmap_mode="r")
            both[:, : workload["layers"]].sum()  # its pages belong to the baseline
            xs, ys = ([torch.from_numpy(side[i]) for i in range(workload["layers"])] for side in both)
            self.arrays = [x.to(self.device) for x in xs], [y.to(self.device) for y in ys]
        else:
            images = torch.from_numpy(np.load(workload["images"]))
            nets = [net.eval().to(self.device) for net in build(workload)]
            batches = list(images.split(workload["batch"]))
            self.work = Work(nets[0], nets[1], workload["layers"], batches, self.device)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what an earlier workload left in the heap is no part of the baseline
        self.baseline = self._resident()
        return {"baseline": self.baseline}

    def warm(self) -> dict[str, Any]:
        """Run on the first batch only; for a tool that wants rows, say first how it fares without them."""
        work = self.work
        assert work is not None
        first = Work(work.net_x, work.net_y, work.layers, work.batches[:1], work.device)
        note = None
        if self.tool is not None and self.tool.rows:
            try:
                few = Work(work.net_x, work.net_y, work.layers, [work.batches[0][:8]], work.device)
                self.tool.networks(few)
            except Exception as error:  # any failure of a peer is a result
                note = one_line(error)
            self._unhook(work)
        answer = self._measure(self._task(first))
        return {**answer, "note": note}

    def round(self) -> dict[str, Any]:
        """Run once over everything."""
        if self.arrays is not None:
            xs, ys = self.arrays
            assert self.tool is not None
            arrays = self.tool.arrays
            return self._measure(lambda: arrays(xs, ys))
        assert self.work is not None
        return self._measure(self._task(self.work))

    def in_turn(self, tools: list[str], rounds: int) -> dict[str, list[float]]:
        """Run several tools in this process, a round each in turn after one that warms up; return their seconds."""
        assert self.work is not None
        seconds: dict[str, list[float]] = {name: [] for name in tools}
        for number in range(rounds + 1):
            for name in tools:
                self.tool = TOOLS.get(name)
                if self.tool is not None:
                    self.tool.load()
                answer = self._measure(self._task(self.work), values=False)
                seconds[name] += [answer["seconds"]] * (number > 0)
        return seconds

    def values(self, offset: float = 0.0) -> dict[str, Any]:
        """Return what the tool makes of activations that nothing overwrites, shifted by `offset` deviations."""
        if self.name == "reference":
            return {"values": self._reference(offset)}
        assert self.tool is not None
        assert self.work is not None
        work = tapped(self.work, offset, self.tool.rows)
        if self.tool.last_batch:
            work.batches = work.batches[-1:]
        return {"values": as_lists(self.tool.networks(work), len(work.layers))}

    def ceilings(self) -> dict[str, float]:
        """Measure what this GPU gives a large product and a copy, and what the Gram stage makes of it."""
        import cupy

        size, layers, n, p = 8192, 20, 1024, 65536
        a = torch.randn(size, size, device="cuda")
        gemm = {}
        for name, allowed in (("float32", False), ("TF32", True)):
            torch.backends.cuda.matmul.allow_tf32 = allowed
            gemm[name] = 2 * size**3 / self._best(lambda: a @ a)
        block = torch.empty(2**30, device="cuda")
        copied = 2 * block.nbytes / self._best(block.clone)
        xs = [cupy.asarray(torch.randn(n, p, device="cuda")) for _ in range(layers)]
        assert self.tool is not None
        accumulator = self.tool.parts["root"].similarity.MinibatchCKA
        seconds = self._best(lambda: accumulator().update(xs))
        done, read = layers * 2 * n * n * p / seconds, layers * n * p * 4 / seconds
        return {
            "float32 GEMM, TFLOP/s": gemm["float32"] / 1e12,
            "TF32 GEMM, TFLOP/s": gemm["TF32"] / 1e12,
            "device copy, GB/s": copied / 1e9,
            "Gram stage, TFLOP/s (2 n² p a layer)": done / 1e12,
            "Gram stage, GB/s (activations read once)": read / 1e9,
            "fraction of the float32 GEMM": done / gemm["float32"],
            "fraction of the TF32 GEMM": done / gemm["TF32"],
            "fraction of the copy's bandwidth": read / copied,
        }

    def _best(self, function: Callable[[], Any]) -> float:
        function()
        return min(self._measure(function, values=False)["seconds"] for _ in range(5))

    def _reference(self, offset: float) -> dict[str, Any]:
        if self.arrays is not None:
            xs, ys = self.arrays
            return reference([kernel(x) for x in xs], [kernel(y) for y in ys], len(xs[0]))
        assert self.work is not None
        work = tapped(self.work, offset, False)
        kernels = [[kernel(x) for x in all_activations(net, work)] for net in (work.net_x, work.net_y)]
        return reference(kernels[0], kernels[1], len(work.batches[0]))

    def _task(self, work: Work) -> Callable[[], Any]:
        if self.tool is None:
            return lambda: forward_only(work)
        ready = tapped(work, None, True) if self.tool.rows else work
        networks = self.tool.networks
        return lambda: networks(ready)

    def _measure(self, function: Callable[[], Any], values: bool = True) -> dict[str, Any]:
        gc.collect()
        self._reset_peak()
        self._synchronize()
        started = time.perf_counter()
        result = function()
        self._synchronize()
        seconds = time.perf_counter() - started
        answer: dict[str, Any] = {"seconds": seconds, "peak": self._peak()}
        if values and result is not None:
            layers = len(self.work.layers) if self.work is not None else len(self.arrays[0]) if self.arrays else 0
            answer["values"] = as_lists(result, layers)
        if self.work is not None:
            self._unhook(self.work)
        return answer

    def _unhook(self, work: Work) -> None:
        """Take away the hooks that some tools leave behind, which would make the next round slower."""
        for net in (work.net_x, work.net_y):
            for module in net.modules():
                module._forward_hooks.clear()

    def _synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _reset_peak(self) -> None:
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def _peak(self) -> float:
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated() / MIB + self._cupy_pool()
        return status("VmHWM")

    def _resident(self) -> float:
        if self.device == "cuda":
            return torch.cuda.memory_allocated() / MIB + self._cupy_pool()
        return status("VmRSS")

    def _cupy_pool(self) -> float:
        cupy = sys.modules.get("cupy")
        return 0.0 if cupy is None else cupy.get_default_memory_pool().total_bytes() / MIB


def as_lists(result: Any, layers: int) -> list[list[float]]:
    """Return a tool's answer as JSON takes it."""
    array = np.asarray(torch.as_tensor(result).cpu(), dtype=float)
    if array.shape != (layers, layers):
        raise ValueError(f"gave {array.shape} for {layers} layers")
    return array.tolist()


def build(workload: dict[str, Any]) -> list[nn.Module]:
    """Return the two networks of a workload."""
    if workload["kind"] == "zoo":
        return [load_network(source).module for source in load_zoo(Path(workload["zoo"]))]
    nets: list[nn.Module] = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        nets.append(torchvision.models.resnet18(weights=None))
    return nets


def status(key: str) -> float:
    """Return a memory figure of this process in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def one_line(error: BaseException) -> str:
    """Return the first line of an error."""
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error):
        return "out of memory"
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}"[:160]


def main() -> None:
    """Answer requests until standard input ends."""
    name, device, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a tool prints
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    if device == "cpu":
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        resource.setrlimit(resource.RLIMIT_DATA, (int(MEMORY_SHARE * free), resource.RLIM_INFINITY))
    worker = Worker(name, device)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # any failure of a peer is a result
            answer = {"error": one_line(error)}
            error.__traceback__ = None
        replies.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
