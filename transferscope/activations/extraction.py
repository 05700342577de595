"""Pooled features of every stage of a network in one pass, and the time that each stage takes to reach."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from transferscope.activations.capture import collect
from transferscope.activations.reductions import reducer
from transferscope.activations.stages import Stage
from transferscope.arrays import backend
from transferscope.errors import InputError
from transferscope.runtime.progress import Report, silent


@dataclass(frozen=True)
class Extracted:
    """What one pass over the images gives."""

    stages: tuple[Stage, ...]
    """In firing order, with the operations that an image costs up to each."""
    features: dict[str, np.ndarray]
    """Layer name to (n_samples, n_features): spatial means, float32 from a network in single precision."""
    seconds: dict[str, float]
    """Layer name to seconds that an image takes up to and with the spatial means of this stage."""


def extract(
    net: nn.Module,
    stages: Sequence[Stage],
    images: torch.Tensor | Iterable[torch.Tensor],
    *,
    device: torch.device,
    batch_size: int,
    report: Report = silent,
) -> Extracted:
    """Run `net` over `images`; return the features of `stages` and how long each takes to reach.

    The first batch runs twice and only its second pass counts, so that what is set up once (memory, the choice of
    kernels) is not charged. Preparing the images, moving them to the device and the spatial means of earlier stages
    are not charged either: the time of a stage is that of the network cut there.

    Parameters
    ----------
    net : torch.nn.Module
        On `device`. Its mode is put back.
    stages : sequence of Stage
        As `activations.resolve_stages` gives them for `net`.
    images : torch.Tensor or iterable of torch.Tensor
        (n_samples, 3, height, width) float32, normalised; or batches of such images.
    device : torch.device
        Where to run.
    batch_size : int
        Images at a time, where `images` is a tensor.
    report : callable
        Called as `report(done, total)`, where `images` is a tensor.

    Raises
    ------
    CaptureError
        As `activations.collect`: an activation is not finite, a stage does not fire, there is no batch.
    InputError
        When `images` is an empty tensor.
    """
    if isinstance(images, torch.Tensor) and not len(images):
        raise InputError(f"Expected `images` to hold at least one image, but got the shape {tuple(images.shape)}")
    total = len(images) if isinstance(images, torch.Tensor) else None
    batches = images.split(batch_size) if isinstance(images, torch.Tensor) else images
    watch = _Stopwatch(device)
    mean = reducer("mean")
    spent: list[np.ndarray] = []
    done = 0

    def pooled(tensor: torch.Tensor) -> torch.Tensor:
        watch.mark()
        features = mean(tensor)
        watch.mark()
        return features

    def watched() -> Iterator[torch.Tensor]:
        nonlocal done
        for batch in batches:
            batch = batch.to(device)
            if not done:
                net(batch)
            watch.start()
            yield batch  # `collect` runs the network on it, and comes back for the next
            spent.append(_up_to_each_stage(watch.seconds()))
            done += len(batch)
            if total is not None:
                report(done, total)

    arrays = collect(net, watched(), [stage.layer for stage in stages], reduce=pooled, device=device)
    by_layer = {stage.layer: stage for stage in stages}
    return Extracted(
        tuple(by_layer[layer] for layer in arrays),
        {layer: backend.to_numpy(array) for layer, array in arrays.items()},
        {layer: float(seconds) / done for layer, seconds in zip(arrays, np.sum(spent, axis=0), strict=True)},
    )


def _up_to_each_stage(marks: np.ndarray) -> np.ndarray:
    """Turn the times since the start at which each stage was reached and pooled, in turn, into the time of each."""
    reached, done = marks[0::2], marks[1::2]
    pooling = done - reached
    return done - (np.cumsum(pooling) - pooling)


class _Stopwatch:
    """Times since a start; on a GPU of the work in its stream, which the host does not wait for in between."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._marks: list[Any] = []

    def start(self) -> None:
        self._marks = []
        self.mark()

    def mark(self) -> None:
        if self._stream is None:
            self._marks.append(time.perf_counter())
        else:
            event = torch.cuda.Event(enable_timing=True)
            event.record(self._stream)
            self._marks.append(event)

    def seconds(self) -> np.ndarray:
        """Return the seconds from the start to every later mark, in order."""
        first, *later = self._marks
        if self._stream is None:
            return np.array([mark - first for mark in later])
        self._stream.synchronize()
        return np.array([first.elapsed_time(mark) / 1000 for mark in later])
