"""How often the host waits for the device: transfers to it and synchronisations, as the driver's tracer sees them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


class Trips(NamedTuple):
    """What was counted while something ran."""

    transfers: int
    """Copies from device to host."""
    waits: int
    """Calls that wait for the device, whoever makes them."""


def counted(function: Callable[[], Any]) -> Trips:
    """Run a function and count. Copies of CuPy count like those of torch: the tracer sees the whole process."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as traced:
        function()
        torch.cuda.synchronize()
    averages = traced.key_averages()
    transfers = sum(each.count for each in averages if "Memcpy DtoH" in each.key)
    return Trips(transfers, sum(each.count for each in averages if each.key in WAITS))


def in_each_batch(few: Trips, many: Trips, n_batches: int) -> Trips:
    """Return what each of `n_batches` more batches added."""
    return Trips(*((after - before) / n_batches for before, after in zip(few, many, strict=True)))
