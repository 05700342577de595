"""Where the rows run: on a GPU with CuPy, or on the CPU with NumPy in its place; and how large they are there."""

import platform
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from transferscope.arrays import backend


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    product: int = 8192
    copied: int = 2**30
    layers: int = 50
    widths: tuple[tuple[int, int], ...] = ((512, 16384), (4096, 4096), (50_000, 2048))
    """Numbers of samples, each with the number of features of every layer."""
    scored: tuple[int, int, int] = (1000, 1280, 10)
    """Samples, features and layers of SVCCA and the scores."""
    side: int = 224
    batch: int = 256
    batches: int = 4
    network_images: int = 512
    network_side: int = 64
    network_batch: int = 128
    per_class: int = 128
    models: tuple[str, ...] = ("resnet50", "vit_base_patch16_224")
    ranked: tuple[str, ...] = ("resnet50", "mobilenetv3_large_100")
    rounds: int = 5


FULL = Sizes()
SMALL = Sizes(
    product=128,
    copied=2**16,
    layers=4,
    widths=((32, 64), (48, 32), (64, 16)),
    scored=(60, 16, 2),
    side=32,
    batch=4,
    batches=2,
    network_images=16,
    network_side=32,
    network_batch=8,
    per_class=6,
    models=("test_resnet", "test_vit"),
    ranked=("test_resnet",),
    rounds=1,
)
"""To see that every line runs."""


class Machine:
    """A device, and how time passes on it.

    Parameters
    ----------
    device : "cuda" or "cpu"
        A GPU needs CuPy.
    sizes : Sizes
        How large everything is.
    """

    def __init__(self, device: str, sizes: Sizes) -> None:
        self.device = backend.resolve_device(device)
        self.sizes = sizes
        self.on_gpu = self.device.type == "cuda"
        if self.on_gpu and not backend.has_cupy():
            raise SystemExit("CuPy is not installed, or sees no GPU: install the extra 'cuda12' or 'cuda13'")

    def name(self) -> str:
        """Return what the device is called."""
        return torch.cuda.get_device_name(self.device) if self.on_gpu else platform.processor() or platform.machine()

    def synchronize(self) -> None:
        """Wait until everything that was asked for is done, by torch and by CuPy."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def stream(self) -> AbstractContextManager[Any]:
        """Make CuPy work on torch's stream."""
        return backend.stream_of(self.device)

    def random(self, *shape: int, seed: int = 0) -> torch.Tensor:
        """Return standard normal float32 numbers on the device."""
        draw = torch.Generator(device=self.device).manual_seed(seed)
        return torch.randn(shape, generator=draw, device=self.device)

    def array(self, tensor: torch.Tensor) -> Any:
        """Return a tensor as an array of CuPy, or of NumPy on the CPU."""
        return backend.from_torch(tensor)

    def seconds(self, function: Callable[[], Any], *, rounds: int | None = None, warm: bool = True) -> float:
        """Return the median seconds of a call, after one that warms up: kernels are compiled there."""
        if warm:
            function()
        taken = []
        for _ in range(rounds or self.sizes.rounds):
            self.synchronize()
            began = time.perf_counter()
            function()
            self.synchronize()
            taken.append(time.perf_counter() - began)
        return statistics.median(taken)

    def release(self) -> None:
        """Give unused memory back, of torch and of CuPy, for what comes next."""
        if self.on_gpu:
            import cupy

            cupy.get_default_memory_pool().free_all_blocks()
            torch.cuda.empty_cache()


def largest_difference(found: Any, expected: Any) -> float:
    """Return the largest absolute difference of two arrays, wherever they are."""
    return float(np.abs(backend.to_numpy(found) - backend.to_numpy(expected)).max())
