"""A network and images in, pooled features of every stage out, from the cache where they are known."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from transferscope.activations.capture import Layers, collect, resolve_stages
from transferscope.activations.stages import Stage, classifier, first_tensor, trace
from transferscope.arrays import backend
from transferscope.data.batches import batches
from transferscope.data.images import Transform
from transferscope.data.target import Target
from transferscope.runtime.progress import Report
from transferscope.runtime.store import Store, digest
from transferscope.runtime.version import __version__

REDUCTION: Literal["mean"] = "mean"
"""Spatial means: the pooled features that a truncated network hands to its new head."""

_VERSION = 2
"""Goes up when what is kept of a network changes its meaning: since 2, its FLOPs have those of every attention."""
_PROBABILITIES = ".probabilities"
"""Beside the layers in the cache; no layer is called so, for no module's name begins with a dot."""


@dataclass(frozen=True)
class LayerFeatures:
    """Features of every stage of one network on one probe set."""

    key: str
    """Cache key: equal keys mean equal features."""
    stages: tuple[Stage, ...]
    arrays: dict[str, Any]
    """Layer name to (n_samples, n_features)."""
    probabilities: Any | None = None
    """What the network predicts for the classes it was trained on, (n_samples, n_source_classes); None when unknown."""
    no_probabilities: str = ""
    """Why they are unknown."""


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

    The class probabilities are the softmax of what the network puts out, taken in the same forward passes, where a
    linear layer (or a pointwise convolution) comes last and gives at least two numbers an image.

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
    versions = _VERSION, __version__, torch.__version__
    key = digest(*versions, device.type, identity, wanted, probe.hash, REDUCTION, _PROBABILITIES)
    if (entry := store.get("features", key)) is not None:
        arrays, record = entry
        stages = tuple(Stage(**{**stage, "shape": tuple(stage["shape"])}) for stage in record["stages"])
        moved = {name: backend.from_torch(torch.from_numpy(array).to(device)) for name, array in arrays.items()}
        probabilities = moved.pop(_PROBABILITIES, None)
        return LayerFeatures(key, stages, moved, probabilities, record["no_probabilities"])

    net, transform = build()
    net.to(device)
    sample = torch.zeros(1, 3, transform.size, transform.size, device=device)
    stages = resolve_stages(net, layers, sample, cuts_only=True)
    outputs = _Outputs(net, sample)
    with outputs.watched():
        images = batches(probe, transform, batch_size, report)
        arrays = collect(net, images, [stage.layer for stage in stages], reduce=REDUCTION, device=device)
    probabilities = outputs.probabilities(probe.n_samples)
    by_layer = {stage.layer: stage for stage in stages}
    stages = tuple(by_layer[layer] for layer in arrays)
    kept = arrays if probabilities is None else {**arrays, _PROBABILITIES: probabilities}
    store.put(
        "features",
        key,
        {name: backend.to_numpy(array) for name, array in kept.items()},
        {"stages": [asdict(stage) for stage in stages], "no_probabilities": outputs.lacking},
    )
    return LayerFeatures(key, stages, arrays, probabilities, outputs.lacking)


class _Outputs:
    """What a network puts out, batch by batch: the logits of the classes it was trained on, where it has a classifier.

    Parameters
    ----------
    net : torch.nn.Module
        In evaluation mode.
    sample : torch.Tensor
        An input of it.
    """

    def __init__(self, net: nn.Module, sample: torch.Tensor) -> None:
        self.lacking = "" if classifier(trace(net, sample)) else "the network ends in no classifier of its own"
        self._net = net
        self._parts: list[torch.Tensor] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Listen to every forward pass inside the `with` block."""
        handle = self._net.register_forward_hook(self._listen)
        try:
            yield
        finally:
            handle.remove()

    def _listen(self, _net: nn.Module, _args: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if self.lacking:
            return
        if tensor is None or tensor.ndim != 2 or tensor.shape[1] < 2:
            came = "no tensor" if tensor is None else f"{tuple(tensor.shape[1:])} for an image"
            self.lacking = f"the network puts out {came}, not a number for each of at least 2 classes"
            return
        self._parts.append(tensor.detach().float())

    def probabilities(self, n_samples: int) -> Any | None:
        """Return the probabilities of all images, (n_samples, n_source_classes), or None; then `lacking` says why."""
        if self.lacking:
            return None
        logits = torch.cat(self._parts)
        if len(logits) != n_samples or not bool(torch.isfinite(logits).all()):
            self.lacking = f"the network's outputs for {n_samples} images are {len(logits)} rows, or not finite"
            return None
        # A network that ends in a softmax has done it already.
        done = bool((logits >= 0).all() and ((logits.sum(dim=1) - 1).abs() < 1e-3).all())
        return backend.from_torch(logits if done else torch.softmax(logits, dim=1))
