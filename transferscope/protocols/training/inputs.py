"""What a training run reads: images that are shifted anew in every epoch, or kept activations of a frozen prefix.

All that is random in an epoch follows from the run's seed and the epoch's number, so that a run can go on at any epoch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_SHARE_OF_GPU = 0.5
"""Of the free memory; inputs that need more stay on the host."""


@dataclass(frozen=True, eq=False)
class CachedViews:
    """What a frozen prefix made of several augmented views of the training images."""

    views: Tensor
    """(n_views, n_samples, …); epoch e uses view (e - 1) modulo n_views, as it is."""


Inputs = Tensor | CachedViews
"""Images (n_samples, channels, height, width), which are shifted; other tensors (n_samples, …) and views are not."""


def epoch_seeds(seed: int, epoch: int) -> tuple[int, int]:
    """Return two seeds for an epoch, of the inputs (order, shifts) and of the network (dropout)."""
    inputs, network = np.random.SeedSequence((seed, epoch)).generate_state(2, np.uint64)
    return int(inputs), int(network)


class Batches:
    """The inputs and labels of one run, on the device of its network if they fit there, and the order of an epoch.

    Parameters
    ----------
    inputs : torch.Tensor or CachedViews
        Of n_samples images. On a GPU they are kept in its memory where they need at most half of what is free, and
        otherwise are moved batch by batch.
    labels : torch.Tensor
        (n_samples,) int64.
    shift : float
        Largest shift of an image, as a share of its width.
    seed : int
        Decides order and shifts.
    device, dtype : torch.device, torch.dtype
        Where and in what precision the batches are.
    memory_format : torch.memory_format
        Of batches with four axes.
    """

    def __init__(
        self,
        inputs: Inputs,
        labels: Tensor,
        *,
        shift: float,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        memory_format: torch.memory_format,
    ) -> None:
        views = inputs.views if isinstance(inputs, CachedViews) else inputs[None]
        self._views = placed(views, device)
        self._labels = labels.to(device)
        images = not isinstance(inputs, CachedViews) and inputs.ndim == 4
        self._reach = round(shift * views.shape[-1]) if images else 0
        self._seed, self._device, self._dtype, self._memory_format = seed, device, dtype, memory_format
        self.begin(1)

    def begin(self, epoch: int) -> None:
        """Draw the order of the images in this epoch (from 1), and their shifts."""
        draw = torch.Generator().manual_seed(epoch_seeds(self._seed, epoch)[0])
        n_samples = len(self._labels)
        self._view = self._views[(epoch - 1) % len(self._views)]
        self._order = torch.randperm(n_samples, generator=draw).to(self._view.device)
        self._offsets = _offsets(n_samples, self._reach, draw).to(self._view.device)

    def batch(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return inputs and labels at these places of the epoch's order."""
        positions = self._order[start:stop]
        if self._reach:
            inputs = _gathered(self._view, positions, self._offsets[start:stop])
        else:
            inputs = self._view.index_select(0, positions)
        inputs = inputs.to(self._device, self._dtype)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=self._memory_format)
        return inputs, self._labels[positions.to(self._device)]


def shifted(images: Tensor, share: float, draw: torch.Generator) -> Tensor:
    """Shift each image by its own random offset; what moves in repeats the border.

    Parameters
    ----------
    images : torch.Tensor
        (n_samples, channels, height, width).
    share : float
        Largest shift in both directions, as a share of the width.
    draw : torch.Generator
        On the CPU; source of the offsets.
    """
    reach = round(share * images.shape[-1])
    if reach == 0:
        return images
    positions = torch.arange(len(images), device=images.device)
    return _gathered(images, positions, _offsets(len(images), reach, draw).to(images.device)).contiguous()


def _offsets(n_samples: int, reach: int, draw: torch.Generator) -> Tensor:
    """Draw down- and rightward offsets (n_samples, 2) from -reach to reach."""
    return torch.randint(0, 2 * reach + 1, (n_samples, 2), generator=draw) - reach


def _gathered(images: Tensor, positions: Tensor, offsets: Tensor) -> Tensor:
    """Return the images at `positions`, read from where `offsets` (n, 2) point and from the border beyond it."""
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) + offsets[:, :1]).clamp_(0, height - 1)
    columns = (torch.arange(width, device=images.device) + offsets[:, 1:]).clamp_(0, width - 1)
    # Channels last while indexing: one index moves all channels of a pixel, and networks are quicker in that format.
    pixels = images.permute(0, 2, 3, 1)[positions[:, None, None], rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2)


def placed(views: Tensor, device: torch.device) -> Tensor:
    """Return inputs on the device, or where they are if they need more than half of a GPU's free memory."""
    if device.type == "cuda" and views.nbytes > _SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0]:
        return views
    return views.to(device)
