"""How long a network takes to reach each of its stages: timed on noise, so that no image of a target runs for it."""

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch import nn

from transferscope.activations.capture import collect
from transferscope.activations.layout import Layout
from transferscope.activations.reductions import LayoutReduction, reducer
from transferscope.activations.stages import Stage
from transferscope.activations.tracing import trace

_MOST = 50
_SECONDS = 0.5
"""A pace is the mean of so many batches, or of those that take so long: power meters need some time to tell."""


def pace(
    net: nn.Module,
    stages: Sequence[Stage],
    shape: tuple[int, int, int],
    *,
    device: torch.device,
    batch_size: int,
    seconds: float | None = None,
) -> dict[str, float]:
    """Time `net` on batches of noise.

    Parameters
    ----------
    net : torch.nn.Module
        On `device`. Its mode is put back.
    stages : sequence of Stage
        As `capture.resolve_stages` gives them for `net`.
    shape : tuple of int
        Channels, height and width of the images that it takes.
    device : torch.device
        Where to run.
    batch_size : int
        Images at a time.
    seconds : float, optional
        After which no further batch is run; at least one is.

    Returns
    -------
    dict of str to float
        As `stage_seconds`.

    Raises
    ------
    CaptureError
        As `capture.collect`.
    """
    noise = torch.randn(batch_size, *shape, generator=torch.Generator().manual_seed(0))
    enough = _SECONDS if seconds is None else seconds

    def batches() -> Iterator[torch.Tensor]:
        began = time.perf_counter()
        for _ in range(_MOST):
            yield noise
            if time.perf_counter() - began >= enough:
                return

    return stage_seconds(net, stages, batches(), device=device)


def stage_seconds(
    net: nn.Module, stages: Sequence[Stage], batches: Iterable[torch.Tensor], *, device: torch.device
) -> dict[str, float]:
    """Run `net` over batches and return how long an image takes to each of `stages`, in firing order.

    The first batch runs twice and only its second pass counts, so that what is set up once (memory, the choice of
    kernels) is not charged. Preparing the images, moving them to the device and the spatial means of earlier stages
    are not charged either: the time of a stage is that of the network cut there.

    Parameters
    ----------
    net, stages, device
        As in `pace`.
    batches : iterable of torch.Tensor
        Each (n_samples, channels, height, width) float32, normalised.

    Returns
    -------
    dict of str to float
        Layer name to seconds that an image takes up to and with the spatial means of this stage; mean over all images.

    Raises
    ------
    CaptureError
        As `capture.collect`: an activation is not finite, a stage does not fire, there is no batch.
    """
    watch = _Stopwatch(device)
    mean: Any = reducer("mean")
    spent: list[np.ndarray] = []
    done = 0

    class Pooled(LayoutReduction):
        def __call__(self, output: torch.Tensor, layout: Layout | None = None) -> torch.Tensor:
            watch.mark()
            features: torch.Tensor = mean(output, layout)
            watch.mark()
            return features

    def watched(batches: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        nonlocal done
        for batch in batches:
            batch = batch.to(device)
            if not done:
                net(batch)
            watch.start()
            yield batch  # `collect` runs the network on it, and comes back for the next
            spent.append(_up_to_each_stage(watch.seconds()))
            done += len(batch)

    waiting = iter(batches)
    first = list(islice(waiting, 1))
    # Looking how the network works is not charged, either.
    traced = trace(net, first[0].to(device)) if first else None
    names = [stage.layer for stage in stages]
    layers = collect(net, watched(chain(first, waiting)), names, reduce=Pooled(), device=device, traced=traced)
    return {layer: float(seconds) / done for layer, seconds in zip(layers, np.sum(spent, axis=0), strict=True)}


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
