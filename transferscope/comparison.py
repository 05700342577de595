"""Two networks and the same images in, the similarity of every layer of one with every layer of the other out."""

from collections.abc import Iterator
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import nn
from torch.utils.data import DataLoader

from transferscope import backend, scoring, similarity
from transferscope.activations import Activations, Layers, Reduction, capture, check_finite, resolve_stages
from transferscope.data import Target
from transferscope.errors import InputError
from transferscope.features import batches
from transferscope.images import Transform
from transferscope.models import IMAGENET_MEAN, IMAGENET_STD

IMAGENET = Transform(size=224, mean=IMAGENET_MEAN, std=IMAGENET_STD)

Measure = Literal["linear_cka", "svcca"]

_FEWEST = 4
"""Unbiased HSIC needs as many samples in each batch (Song et al. 2012)."""


def compare(
    net_x: nn.Module,
    net_y: nn.Module,
    images: Any,
    *,
    measure: Measure = "linear_cka",
    layers_x: Layers = "auto",
    layers_y: Layers = "auto",
    reduce: Reduction = "flatten",
    transform: Transform = IMAGENET,
    batch_size: int = 64,
    device: str = "auto",
) -> xr.DataArray:
    """Compare every layer of `net_x` with every layer of `net_y` in one pass over the images.

    Both networks see the same batch tensors, and each batch's activations are released when their Gram matrices
    are formed. Linear CKA is debiased and accumulated over batches (Nguyen et al. 2021): sums of unbiased HSIC
    estimates, divided once at the end; it can be slightly negative. SVCCA (Raghu et al. 2017) keeps the features
    of all images, so use `reduce="mean"` with it for wide layers.

    Parameters
    ----------
    net_x, net_y : torch.nn.Module
        May be the same network, which then runs once.
    images : torch.Tensor, DataLoader, Dataset or Target
        A tensor (n_samples, channels, height, width), already normalised for both networks; or a loader or
        dataset of such images, alone or first in a tuple; or a target, whose images `transform` prepares.
    measure : "linear_cka" or "svcca"
        What to compute.
    layers_x, layers_y, reduce
        As in `capture`. "flatten", the default, compares feature maps position by position, as Kornblith et al.
        (2019) do.
    transform : Transform
        Only for a target: 224 px and ImageNet's mean and deviation by default.
    batch_size : int
        Images in one forward pass, where `images` is not a loader. Batches of fewer than 4, of a loader too, are
        joined to others.
    device : str
        "auto", "cpu", "cuda" or "cuda:N"; the networks are moved there.

    Returns
    -------
    xarray.DataArray
        Dimensions `layer_x` and `layer_y` with layer names as coordinates, in firing order; float64. 1 means
        equal up to rotation and scale (linear CKA) or up to any linear map (SVCCA).

    Raises
    ------
    InputError
        When an argument is not as described or there are fewer than 4 images.
    CaptureError
        When a layer does not exist, does not fire, or has NaN or infinite activations.
    """
    if measure not in ("linear_cka", "svcca"):
        raise InputError(f"Expected `measure` to be 'linear_cka' or 'svcca', but got {measure!r}.")
    if batch_size < _FEWEST:
        raise InputError(f"Expected `batch_size` to be at least {_FEWEST}, but got {batch_size}.")
    where = backend.resolve_device(device)
    net_x.to(where)
    net_y.to(where)
    stream = _joined(_checked(_image_batches(images, batch_size, transform)))
    first = next(stream, torch.empty(0))
    if len(first) < _FEWEST:
        raise InputError(f"Expected `images` to hold at least {_FEWEST} images, but got {len(first)}.")
    names_x = _names(net_x, layers_x, first.to(where))
    names_y = _names(net_y, layers_y, first.to(where))

    cka = similarity.MinibatchCKA(debiased=True)
    kept_x: dict[str, list[torch.Tensor]] = {name: [] for name in names_x}
    kept_y: dict[str, list[torch.Tensor]] = {name: [] for name in names_y}
    n_samples = 0
    with capture(net_x, names_x, reduce=reduce) as x, capture(net_y, names_y, reduce=reduce) as y:
        for batch in chain([first], stream):
            on_device = batch.to(where)
            n_samples += len(batch)
            # A copy: a network that starts with an in-place operation must not change what the other one sees.
            net_x(on_device.clone())
            if net_y is not net_x:
                net_y(on_device)
            if measure == "linear_cka":
                cka.update(_arrays(x), _arrays(y))
            else:
                for kept, activations in ((kept_x, x), (kept_y, y)):
                    for name, tensor in activations.items():
                        check_finite(tensor, name)
                        kept[name].append(tensor)
    if measure == "linear_cka":
        values = backend.to_numpy(cka.result())
    else:
        values = backend.to_numpy(similarity.svcca_matrix(_subspaces(kept_x), _subspaces(kept_y)))
    return scoring.similarity_array(
        np.asarray(values), names_x, names_y, measure=measure, n_samples=n_samples, reduce=str(reduce)
    )


def _names(net: nn.Module, layers: Layers, batch: torch.Tensor) -> list[str]:
    return [stage.layer for stage in resolve_stages(net, layers, batch)]


def _arrays(activations: Activations) -> list[Any]:
    for name, tensor in activations.items():
        check_finite(tensor, name)
    return [backend.from_torch(tensor) for tensor in activations.values()]


def _subspaces(kept: dict[str, list[torch.Tensor]]) -> list[Any]:
    return [similarity.svcca_subspace(backend.from_torch(torch.cat(tensors))) for tensors in kept.values()]


def _image_batches(images: Any, batch_size: int, transform: Transform) -> Iterator[torch.Tensor]:
    if isinstance(images, Target):
        yield from batches(images, transform, batch_size)
    elif isinstance(images, DataLoader):
        yield from map(_tensor, images)
    elif isinstance(images, torch.Tensor):
        yield from images.split(batch_size)
    elif hasattr(images, "__getitem__") and hasattr(images, "__len__"):
        for start in range(0, len(images), batch_size):
            yield torch.stack([_tensor(images[i]) for i in range(start, min(start + batch_size, len(images)))])
    else:
        raise InputError(
            "Expected `images` to be a tensor, a DataLoader, a target or a Dataset with a length, but got "
            f"{type(images).__name__}; put an iterable dataset into a DataLoader."
        )


def _checked(batches: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    for batch in batches:
        if batch.ndim != 4 or not batch.is_floating_point():
            raise InputError(
                "Expected `images` to be floating-point numbers of shape (n_samples, channels, height, width) but got "
                f"{batch.dtype} of shape {tuple(batch.shape)}; normalise and batch them as the networks expect."
            )
        yield batch


def _joined(batches: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Join batches that are too small for unbiased HSIC to others; only all images together can still be too few."""
    ready: list[torch.Tensor] = []
    growing: list[torch.Tensor] = []
    for batch in batches:
        growing.append(batch)
        if sum(map(len, growing)) >= _FEWEST:
            if ready:
                yield torch.cat(ready)
            ready, growing = growing, []
    if ready or growing:
        yield torch.cat(ready + growing)


def _tensor(item: Any) -> torch.Tensor:
    if isinstance(item, (tuple, list)):
        item = item[0]
    if not isinstance(item, torch.Tensor):
        raise InputError(
            f"Expected `images` to give tensors, alone or first in a tuple, but got {type(item).__name__}; add a "
            "transform that makes tensors."
        )
    return item
