"""How networks are trained here: two learning rates, warm-up and cosine, weight decay, crops and flips.

The package's own recipes have one rate and shift images; this is a benchmark of its own for what people do.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transferscope.errors import SourceError
from transferscope.protocols.cutting.cut import CutNetwork
from transferscope.protocols.training.loop import deterministic_kernels
from transferscope.runtime.flops import count_flops
from transferscope.runtime.footprint import RunMeter
from transferscope.runtime.seeding import seeded


@dataclass(frozen=True)
class Recipe:
    """What all trained runs share; `pilot.csv` says what it was chosen among."""

    version: str = "1"
    epochs: int = 20
    least_steps: int = 600
    most_steps: int = 1000
    """Training takes so many epochs, but neither fewer nor more steps than these."""
    batch_size: int = 32
    """Less where there are fewer images."""
    new_rate: float = 3e-3
    """Of what was drawn anew; what is carried over learns at `carried` times as much."""
    carried: float = 0.1
    weight_decay: float = 0.05
    """AdamW's. Of weights, not of biases and norms."""
    warm_up: float = 0.1
    """Share of the steps in which the rates rise; then they fall to 0 along a cosine."""
    crop: float = 0.35
    """Smallest share of an image that a random crop may be, at 3/4 to 4/3 of its proportions."""
    views: int = 16
    """Augmented views of the images at most that are kept where a frozen prefix is run only once."""
    kept_bytes: int = 1536 * 2**20
    """Fewer where they would need more memory."""

    def steps(self, n_samples: int) -> int:
        """Return the number of steps with so many training images."""
        wanted = -(-self.epochs * n_samples // min(self.batch_size, n_samples))
        return min(max(wanted, self.least_steps), self.most_steps)

    def rate(self, step: int, steps: int) -> float:
        """Return the share of the learning rates that a step, from 0, of so many is made at."""
        warm = round(self.warm_up * steps)
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


RECIPE = Recipe()


def train(
    net: CutNetwork,
    source: Mapping[str, Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    recipe: Recipe,
    flips: bool,
    seed: int,
    device: torch.device,
    meter: RunMeter,
) -> None:
    """Train a cut network in place.

    Parameters
    ----------
    net : CutNetwork
        As `cut` makes it; left on `device`, in evaluation mode, with its last weights.
    source : mapping of str to torch.Tensor
        The weights it was cut from, which tell what is carried over.
    images : torch.Tensor
        (n_samples, 3, size, size) float32, normalised.
    labels : torch.Tensor
        (n_samples,) int64.
    recipe, seed, device, meter
        `seed` decides the order of the images, their crops and flips, and dropout.
    flips : bool
        Whether images may be mirrored.

    Raises
    ------
    SourceError
        When the loss is not finite.
    """
    memory_format, images = _memory_format(net), images.to(device)
    net.to(device).to(memory_format=memory_format)
    prefix, rest = net.divided()
    draw = torch.Generator().manual_seed(seed)
    views = None
    if prefix is not None:
        kept = _kept_views(prefix, images, recipe)
        with meter.phase("features"), torch.inference_mode():
            # Tensors made in inference mode may not enter autograd.
            views = torch.stack(
                [_through(prefix, images, recipe, flips, draw, memory_format) for _ in range(kept)]
            ).clone()
        meter.add_flops(prefix.flops * kept * len(images))
    optimiser = torch.optim.AdamW(_groups(rest, source, recipe), fused=True)
    size, steps = min(recipe.batch_size, len(images)), recipe.steps(len(images))
    with meter.phase("training"), seeded(seed, device), deterministic_kernels():
        (net if prefix is None else rest).train()
        for step, (epoch, chosen) in zip(range(steps), _batches(len(images), size, draw), strict=False):
            if views is None:
                inputs = augmented(images[chosen], recipe, flips, draw)
            else:
                inputs = views[torch.as_tensor(epoch) % len(views), chosen]
            if inputs.ndim == 4:
                inputs = inputs.contiguous(memory_format=memory_format)
            for group in optimiser.param_groups:
                group["lr"] = group["initial_lr"] * recipe.rate(step, steps)
            loss = nn.functional.cross_entropy(_logits(rest(inputs)), labels[chosen].to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        net.eval()
    if not math.isfinite(last := loss.item()):
        raise SourceError(f"Training diverged (loss {last})")
    example = images[:2] if views is None else views[0, :2]
    operations = count_flops(lambda: _logits(rest(example)).sum().backward()) / len(example)
    meter.add_flops(operations * steps * size)


def augmented(images: Tensor, recipe: Recipe, flips: bool, draw: torch.Generator) -> Tensor:
    """Crop each image (n, channels, height, width) at random and resize it back; mirror half of them with `flips`."""
    n = len(images)
    area, proportion, left, top, mirrored = torch.rand(5, n, generator=draw)
    share = torch.sqrt(recipe.crop + (1 - recipe.crop) * area)
    stretch = torch.exp((2 * proportion - 1) * math.log(4 / 3) / 2)
    width, height = (share * stretch).clamp(max=1), (share / stretch).clamp(max=1)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = torch.where(mirrored < 0.5, -width, width) if flips else width
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (1 - width) * (2 * left - 1)
    theta[:, 1, 2] = (1 - height) * (2 * top - 1)
    grid = nn.functional.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _batches(n: int, size: int, draw: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches without end: which time each image comes, from 0, and which one it is."""
    epochs, order = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    epoch = 0
    while True:
        while len(order) < size:
            order = torch.cat([order, torch.randperm(n, generator=draw)])
            epochs = torch.cat([epochs, torch.full((n,), epoch)])
            epoch += 1
        yield epochs[:size], order[:size]
        epochs, order = epochs[size:], order[size:]


def _kept_views(prefix: nn.Module, images: Tensor, recipe: Recipe) -> int:
    """Return how many views are kept: as often as an image comes, within the limits of the recipe."""
    with torch.inference_mode():
        size = prefix(images[:1]).nbytes * len(images)
    comes = -(-recipe.steps(len(images)) * min(recipe.batch_size, len(images)) // len(images))
    return max(1, min(comes, recipe.views, recipe.kept_bytes // size))


def _through(
    prefix: nn.Module,
    images: Tensor,
    recipe: Recipe,
    flips: bool,
    draw: torch.Generator,
    memory_format: torch.memory_format,
) -> Tensor:
    """Return what a frozen prefix makes of one view of the images."""
    parts = [
        prefix(augmented(batch, recipe, flips, draw).contiguous(memory_format=memory_format))
        for batch in images.split(64)
    ]
    return torch.cat(parts)


def carried_over(rest: nn.Module, source: Mapping[str, Tensor]) -> set[str]:
    """Return the names of the parameters that are still as in the source: all others were drawn anew."""
    names = set()
    for name, parameter in rest.named_parameters():
        # `rest` is the network itself, or has it under `rest` or `net`.
        original = source.get(name.removeprefix("rest.").removeprefix("net."))
        if original is not None and torch.equal(original, parameter.detach().cpu()):
            names.add(name)
    return names


def _groups(rest: nn.Module, source: Mapping[str, Tensor], recipe: Recipe) -> list[dict[str, object]]:
    """Return the parameters by learning rate and weight decay."""
    carried = carried_over(rest, source)
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in rest.named_parameters():
        rate = recipe.new_rate * (recipe.carried if name in carried else 1)
        groups.setdefault((rate, recipe.weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    return [
        {"params": members, "initial_lr": rate, "lr": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]


def _memory_format(net: nn.Module) -> torch.memory_format:
    """Lay out channels last what has depthwise convolutions, which are half as quick again so on a CPU."""
    depthwise = any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in net.modules())
    return torch.channels_last if depthwise else torch.contiguous_format


def _logits(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]
