"""Images in whatever form a user has them, out as batches for one or two networks."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from transferscope.data.images import Transform
from transferscope.data.items import image_of
from transferscope.data.target import Target
from transferscope.errors import InputError
from transferscope.runtime.progress import Report, silent

FEWEST = 4
"""Unbiased HSIC needs as many samples in each batch (Song et al. 2012)."""

Pair = tuple[torch.Tensor, torch.Tensor]


def image_pairs(
    images: Any, batch_size: int, transforms: tuple[Transform, Transform], report: Report = silent
) -> Iterator[Pair]:
    """Yield the batch of each of two networks, of the same images; one tensor twice where nothing tells them apart.

    Batches of fewer than `FEWEST` images, a loader's too, are joined to others.

    Parameters
    ----------
    images : torch.Tensor, DataLoader, Dataset or Target
        A tensor (n_samples, C, H, W), a loader or a dataset of such images, or a target. Of batches and items that are
        tuples the first is taken, of dicts what is called ``image``, ``img`` or ``pixel_values``.
    batch_size : int
        Images at a time, where `images` is not a loader.
    transforms : pair of Transform
        What prepares the images of a target for each network.
    report : callable
        Told how many images of a target are prepared.

    Raises
    ------
    InputError
        When `images` is none of these, or does not give floating-point images (channels, height, width).
    """
    if isinstance(images, Target):
        one, other = transforms
        streams = [batches(images, one, batch_size, report)]
        if other != one:
            streams.append(batches(images, other, batch_size))
        pairs: Iterator[Pair] = ((batch[0], batch[-1]) for batch in zip(*streams, strict=True))
    else:
        pairs = ((batch, batch) for batch in _checked(_image_batches(images, batch_size)))
    return _joined(pairs)


def _image_batches(images: Any, batch_size: int) -> Iterator[torch.Tensor]:
    if isinstance(images, DataLoader):
        yield from map(_tensor, images)
    elif isinstance(images, torch.Tensor):
        yield from images.split(batch_size)
    elif hasattr(images, "__getitem__") and hasattr(images, "__len__"):
        for start in range(0, len(images), batch_size):
            yield torch.stack([_tensor(images[i]) for i in range(start, min(start + batch_size, len(images)))])
    else:
        raise InputError(
            "Expected `images` to be a tensor, a DataLoader, a target or a Dataset with a length, but got "
            f"{type(images).__name__}; put an iterable dataset into a DataLoader"
        )


def _checked(batches: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    for batch in batches:
        if batch.ndim != 4 or not batch.is_floating_point():
            raise InputError(
                "Expected `images` to be floating-point numbers of shape (n_samples, channels, height, width) but got "
                f"{batch.dtype} of shape {tuple(batch.shape)}; normalise and batch them as the networks expect"
            )
        yield batch


def _joined(pairs: Iterator[Pair]) -> Iterator[Pair]:
    """Join batches that are too small for unbiased HSIC to others; only all images together can still be too few."""
    ready: list[Pair] = []
    growing: list[Pair] = []
    for pair in pairs:
        growing.append(pair)
        if sum(len(batch) for batch, _ in growing) >= FEWEST:
            if ready:
                yield _cat(ready)
            ready, growing = growing, []
    if ready or growing:
        yield _cat(ready + growing)


def _cat(pairs: list[Pair]) -> Pair:
    if len(pairs) == 1:
        return pairs[0]
    x = torch.cat([x for x, _ in pairs])
    return x, x if all(x is y for x, y in pairs) else torch.cat([y for _, y in pairs])


def _tensor(item: Any) -> torch.Tensor:
    image = image_of(item, "an item of `images`")
    if not isinstance(image, torch.Tensor):
        raise InputError(
            "Expected `images` to give tensors, alone, first in a tuple or in a dict, but got "
            f"{type(image).__name__}; add a transform that makes tensors"
        )
    return image


def batches(target: Target, transform: Transform, batch_size: int, report: Report = silent) -> Iterator[torch.Tensor]:
    """Yield the images of `target`, in order, as tensors (n, channels, height, width), `batch_size` images at most."""
    for start in range(0, target.n_samples, batch_size):
        stop = min(start + batch_size, target.n_samples)
        yield torch.stack([transform(target.image(i)) for i in range(start, stop)])
        report(stop, target.n_samples)
