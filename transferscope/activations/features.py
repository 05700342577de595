"""A network and images in, pooled features of every stage out: an image runs through a network once, whoever asks."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from transferscope.activations.calls import Trace
from transferscope.activations.capture import collect, resolve_stages
from transferscope.activations.faster import WORTH, sped_up
from transferscope.activations.outputs import tensor_at
from transferscope.activations.repeatability import LOOKED_AT, Repeatability, repeatability
from transferscope.activations.selecting import Layers
from transferscope.activations.stages import Stage, classifiers
from transferscope.activations.tracing import trace
from transferscope.arrays import backend
from transferscope.data.images import Transform
from transferscope.data.shared import SharedPixels
from transferscope.data.target import Target
from transferscope.errors import TransferscopeWarning
from transferscope.runtime.progress import Report, silent
from transferscope.runtime.rows import Part, read_rows, write_rows
from transferscope.runtime.seeding import seeded
from transferscope.runtime.store import Store, digest
from transferscope.runtime.trained import untrained
from transferscope.runtime.version import __version__

REDUCTION: Literal["mean"] = "mean"
"""Spatial means: the pooled features that a truncated network hands to its new head."""

_VERSION = 6
"""Goes up when what is kept of a network changes its meaning: since 3, axes of outputs are known and not guessed, and
what a classifier that nobody trained puts out does not count; since 4, windows of images are no stages; since 5, a
linear layer that blocks follow is no classifier, and embeddings of patches and positions are one stage; since 6, batch
norms may have been folded, which changes the sixth digit."""
_OUTPUTS = ".outputs"
"""Beside the layers in the cache; no layer is called so, for no module's name begins with a dot."""


@dataclass(frozen=True)
class LayerFeatures:
    """Features of every stage of one network on one set of images."""

    key: str
    """Equal keys mean equal features, of images with equal labels."""
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
    images: Target,
    *,
    store: Store,
    device: torch.device,
    batch_size: int,
    report: Report = silent,
    prepare: Callable[[np.ndarray], Iterable[torch.Tensor]] | None = None,
    pixels: SharedPixels | None = None,
    part: slice | None = None,
) -> LayerFeatures:
    """Return the features of a network on `images`; only the images that the cache does not know are run, each once.

    The cache knows an image by its content: whichever target it is in, and whichever verb asks. The class probabilities
    are the softmax of what the network puts out, taken in the same forward passes, where a linear layer (or a pointwise
    convolution) comes last and gives at least two numbers an image.

    A network that is no function of one image is named in a warning. One that draws random numbers runs image by image,
    with seeds that depend on the image and the network alone, so that its features, too, are the same whichever images
    the cache knew.

    Parameters
    ----------
    build : callable
        Returns the network, in evaluation mode, and its transform; called only when there are images to run.
    identity : JSON-like
        Everything that decides what `build` returns.
    layers : "auto", a name, or a sequence of names and globs
        As in `capture`.
    images : Target
        The images.
    store, device, batch_size, report
        Cache, where to run, how many images at a time, and whom to tell.
    prepare : callable, optional
        Gives the images at some indices of `images` in batches, as the transform makes them; by default they are
        decoded for it.
    pixels : SharedPixels, optional
        Of `images`, where other networks take them too.
    part : slice, optional
        Of the images of different content, those that are wanted. Where parts are of whole batches, all of them
        together give the same numbers as one call for all.

    Raises
    ------
    SourceError, CaptureError
        As `build` and `capture.collect` do.
    """
    wanted = layers if isinstance(layers, str) else list(layers)
    network = digest(_VERSION, __version__, torch.__version__, device.type, identity, wanted, REDUCTION, _OUTPUTS)
    everyone = images.contents
    first: dict[bytes, int] = {}
    for index, content in enumerate(everyone):
        first.setdefault(content, index)
    contents = every = list(first)
    if part is not None:
        everyone = contents = every[part]

    def run(missing: np.ndarray) -> Part:
        chosen = np.array([first[contents[place]] for place in missing], dtype=np.int64)
        net, transform = build()
        shared = SharedPixels(images, 0) if pixels is None else pixels
        given = shared.batches(chosen, transform, batch_size, report) if prepare is None else prepare(chosen)
        seeds = [int(digest(network, contents[place].hex())[:12], 16) for place in missing]
        looked_at = None
        if part is not None:  # what is found out by looking, all parts find out by looking at the same images
            beginning = np.array([first[content] for content in every[:LOOKED_AT]], dtype=np.int64)
            looked_at = torch.cat(list(shared.batches(beginning, transform, LOOKED_AT)))
        many = (len(missing) if part is None else len(every)) >= WORTH
        arrays, record = _run(net, transform, layers, given, seeds, device, many=many, looked_at=looked_at)
        write_rows(store, "features", network, [contents[place] for place in missing], arrays, record)
        return Part(missing, arrays, record)

    parts, missing = _known(store, network, contents)
    if len(missing) or not parts:
        # Of processes that are asked the same, one runs the network.
        with store.lease("features", digest(network, [contents[place].hex() for place in missing])) as waited:
            if waited:
                parts, missing = _known(store, network, contents)
            if len(missing) or not parts:
                parts.append(run(missing))

    for note in dict.fromkeys(filter(None, (part.record["repeatability"] for part in parts))):
        warnings.warn(note, TransferscopeWarning, stacklevel=2)
    place_of = {content: place for place, content in enumerate(contents)}
    order = np.array([place_of[content] for content in everyone])
    stages = tuple(Stage(**{**stage, "shape": tuple(stage["shape"])}) for stage in parts[0].record["stages"])
    joined = {stage.layer: _joined(parts, stage.layer, len(contents))[order].to(device) for stage in stages}
    probabilities, lacking = None, next(filter(None, (part.record["no_outputs"] for part in parts)), "")
    if not lacking:
        probabilities, lacking = _probabilities(_joined(parts, _OUTPUTS, len(contents))[order].to(device))
    return LayerFeatures(
        digest(network, images.hash) if part is None else digest(network, [content.hex() for content in contents]),
        stages,
        {layer: backend.from_torch(rows) for layer, rows in joined.items()},
        None if probabilities is None else backend.from_torch(probabilities),
        lacking,
    )


def _known(store: Store, network: str, contents: Sequence[bytes]) -> tuple[list[Part], np.ndarray]:
    """Return what the cache knows of these images, and the places of those that it does not know."""
    parts = read_rows(store, "features", network, contents)
    cached = {place for part in parts for place in part.places.tolist()}
    return parts, np.array([place for place in range(len(contents)) if place not in cached], dtype=np.int64)


def _run(
    net: nn.Module,
    transform: Transform,
    layers: Layers,
    images: Iterable[torch.Tensor],
    seeds: Sequence[int],
    device: torch.device,
    *,
    many: bool,
    looked_at: torch.Tensor | None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return features, and outputs where there are any, with a record of the stages and why there are no outputs.

    `seeds` are one for each image, from which a network draws that draws random numbers. Whether it does, and what
    makes it faster, is found out by the first few images, or those that are given; the latter where there are `many`.
    """
    net.to(device)
    sample = transform.blank(device=device)
    traced = trace(net, sample)
    stages = {stage.layer: stage for stage in resolve_stages(net, layers, traced, cuts_only=True)}
    first, images = _looked_at(images) if looked_at is None else (looked_at, images)
    nature = Repeatability() if first is None else repeatability(net, first.to(device), list(stages), traced)
    if nature.random is not None:
        images = _one_by_one(images, seeds, device)
    outputs = _Outputs(net, traced)
    faster: AbstractContextManager[Any] = nullcontext()
    if first is not None and many and not str(nature):
        faster = sped_up(net, first.to(device), list(stages), traced)
    with faster, outputs.watched():
        arrays = collect(net, images, list(stages), reduce=REDUCTION, device=device, traced=traced)
    record = {"stages": [asdict(stages[layer]) for layer in arrays], "repeatability": str(nature)}
    logits = outputs.rows(len(seeds))
    tensors = arrays if logits is None else {**arrays, _OUTPUTS: backend.from_torch(logits)}
    return {name: backend.to_numpy(array) for name, array in tensors.items()}, record | {"no_outputs": outputs.lacking}


def _looked_at(batches: Iterable[torch.Tensor]) -> tuple[torch.Tensor | None, Iterable[torch.Tensor]]:
    """Return the first few images, if there are any, and all batches with these as they were."""
    waiting = iter(batches)
    first: list[torch.Tensor] = []
    while sum(map(len, first)) < LOOKED_AT and (batch := list(islice(waiting, 1))):
        first += batch
    return torch.cat(first)[:LOOKED_AT] if first else None, chain(first, waiting)


def _one_by_one(batches: Iterable[torch.Tensor], seeds: Sequence[int], device: torch.device) -> Iterator[torch.Tensor]:
    """Yield the images alone, each while random numbers are drawn from a seed of its own."""
    images = (batch[i : i + 1] for batch in batches for i in range(len(batch)))
    for image, seed in zip(images, seeds, strict=True):
        with seeded(seed, device):
            yield image


def _joined(parts: list[Part], name: str, n_rows: int) -> torch.Tensor:
    """Put the rows of all parts in their places."""
    one = parts[0].arrays[name]
    rows = np.empty((n_rows, *one.shape[1:]), dtype=one.dtype)
    for part in parts:
        rows[part.places] = part.arrays[name]
    return torch.from_numpy(rows)


def _probabilities(logits: torch.Tensor) -> tuple[torch.Tensor | None, str]:
    """Return the probabilities of all images, (n_samples, n_source_classes), or None and why."""
    if not bool(torch.isfinite(logits).all()):
        return None, "the network's outputs are not finite"
    # A network that ends in a softmax has done it already.
    done = bool((logits >= 0).all() and ((logits.sum(dim=1) - 1).abs() < 1e-3).all())
    return logits if done else torch.softmax(logits, dim=1), ""


class _Outputs:
    """What a network puts out, batch by batch: the logits of the classes it was trained on, where it has a classifier.

    Parameters
    ----------
    net : torch.nn.Module
        In evaluation mode.
    traced : Trace
        What `tracing.trace` found of it.
    """

    def __init__(self, net: nn.Module, traced: Trace) -> None:
        self.lacking = untrained(net)
        if not self.lacking and not classifiers(traced):
            self.lacking = "the network ends in no classifier of its own"
        self._net = net
        self._way = traced.output.way
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
        tensor = tensor_at(output, self._way)
        if self.lacking:
            return
        if tensor is None or tensor.ndim != 2 or tensor.shape[1] < 2:
            came = "no tensor" if tensor is None else f"{tuple(tensor.shape[1:])} for an image"
            self.lacking = f"the network returns {came}, not a number for each of at least 2 classes"
            return
        self._parts.append(tensor.detach().float())

    def rows(self, n_samples: int) -> torch.Tensor | None:
        """Return the outputs of all images, (n_samples, n_source_classes), or None; then `lacking` says why."""
        if self.lacking:
            return None
        if (n_rows := sum(map(len, self._parts))) != n_samples:
            self.lacking = f"the network's outputs for {n_samples} images are {n_rows} rows"
            return None
        return torch.cat(self._parts)
