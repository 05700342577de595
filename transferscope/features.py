"""A network and images in, pooled features of every stage out, from the cache where they are known."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from transferscope import __version__, backend
from transferscope.activations import Layers, collect, resolve_stages
from transferscope.data import Target
from transferscope.images import Transform
from transferscope.progress import Report, silent
from transferscope.stages import Stage
from transferscope.store import Store, digest

REDUCTION: Literal["mean"] = "mean"
"""Spatial means: the pooled features that a truncated network hands to its new head."""


@dataclass(frozen=True)
class LayerFeatures:
    """Features of every stage of one network on one probe set."""

    key: str
    """Cache key: equal keys mean equal features."""
    stages: tuple[Stage, ...]
    arrays: dict[str, Any]
    """Layer name to (n_samples, n_features)."""


def batches(target: Target, transform: Transform, batch_size: int, report: Report = silent) -> Iterator[torch.Tensor]:
    """Yield the images of `target`, in order, as tensors (n, 3, size, size) of `batch_size` images at most."""
    for start in range(0, target.n_samples, batch_size):
        stop = min(start + batch_size, target.n_samples)
        yield torch.stack([transform(target.image(i)) for i in range(start, stop)])
        report(stop, target.n_samples)


def layer_features(
    build: Callable[[], tuple[nn.Module, Transform]],
    identity: Any,
    layers: Layers,
    probe: Target,
    *,
    store: Store,
    device: torch.device,
    batch_size: int,
    report: Report,
) -> LayerFeatures:
    """Return the features of a network on `probe`; it is built and run only when the cache does not have them.

    Parameters
    ----------
    build : callable
        Returns the network, in evaluation mode, and its transform.
    identity : JSON-like
        Everything that decides what `build` returns.
    layers : "auto", a name, or a sequence of names and globs
        As in `capture`.
    probe : Target
        The images.
    store, device, batch_size, report
        Cache, where to run, how many images at a time, and whom to tell.

    Raises
    ------
    SourceError, CaptureError
        As `build` and `capture.collect` do.
    """
    wanted = layers if isinstance(layers, str) else list(layers)
    key = digest(__version__, torch.__version__, device.type, identity, wanted, probe.hash, REDUCTION)
    if (entry := store.get("features", key)) is not None:
        arrays, record = entry
        stages = tuple(Stage(**{**stage, "shape": tuple(stage["shape"])}) for stage in record["stages"])
        moved = {name: backend.from_torch(torch.from_numpy(array).to(device)) for name, array in arrays.items()}
        return LayerFeatures(key, stages, moved)

    net, transform = build()
    net.to(device)
    sample = torch.zeros(1, 3, transform.size, transform.size, device=device)
    stages = resolve_stages(net, layers, sample, cuts_only=True)
    images = batches(probe, transform, batch_size, report)
    arrays = collect(net, images, [stage.layer for stage in stages], reduce=REDUCTION, device=device)
    by_layer = {stage.layer: stage for stage in stages}
    stages = tuple(by_layer[layer] for layer in arrays)
    store.put(
        "features",
        key,
        {name: backend.to_numpy(array) for name, array in arrays.items()},
        {"stages": [asdict(stage) for stage in stages]},
    )
    return LayerFeatures(key, stages, arrays)
