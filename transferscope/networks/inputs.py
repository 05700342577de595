"""What images a network takes: how its library, its entry and its own first layer say that they are prepared."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from transferscope.data.images import Transform
from transferscope.errors import SourceError
from transferscope.networks import from_open_clip, from_transformers
from transferscope.networks.zoo import Source
from transferscope.runtime.seeding import contained, seeded

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def resolve_transform(source: Source, module: nn.Module | None) -> Transform:
    """Return the transform of a source: what its entry says, else its library, for as many channels as it takes.

    Parameters
    ----------
    source
        An entry of a zoo.
    module
        Its network, of any weights; None only for loaders that say all without it.

    Raises
    ------
    SourceError
        Neither says it, or the entry has a mean for other channels than the network takes.
    """
    given = source.transform.model_dump(exclude_none=True)
    options = _library_options(source, module)
    if "size" in given:
        # Of a size of one's own as much of the image is used as can be, unless a resize goes with it.
        options.pop("resize", None)
    options |= given
    missing = [key for key in ("size", "mean", "std") if options.get(key) is None]
    if missing:
        raise SourceError(
            f"{source.loader} does not say how images are prepared for {source.model!r}; "
            f"give {', '.join(missing)} under transform:"
        )
    channels = _channels(source, module, given, options)
    for key in ("mean", "std"):
        options[key] = _for_channels(key, options[key], channels, given=key in given)
    return Transform(**options)


def _library_options(source: Source, module: nn.Module | None) -> dict[str, Any]:
    if source.loader == "timm":
        import timm

        config = timm.data.resolve_model_data_config(module)
        size = _size(source.kwargs.get("img_size", config["input_size"][1:]))
        sides = size if isinstance(size, tuple) else (size,)
        # crop_pct above 1 pads the image in timm; here the whole shorter side is used instead. Its other crop
        # modes, squash and border, become the central crop too.
        resize = _size([max(side, math.floor(side / config["crop_pct"])) for side in sides])
        return {"size": size, "resize": resize} | {key: config[key] for key in ("mean", "std", "interpolation")}
    if source.loader == "torchvision":
        import torchvision

        preset = torchvision.models.get_model_weights(source.model).DEFAULT.transforms()
        crop, resize = (getattr(preset, key, None) for key in ("crop_size", "resize_size"))
        interpolation = getattr(preset, "interpolation", None)
        options = {
            "size": crop and _size(crop),
            "resize": resize and _size(resize),
            "mean": getattr(preset, "mean", None),
            "std": getattr(preset, "std", None),
            "interpolation": interpolation and interpolation.value,
        }
        return {key: value for key, value in options.items() if value is not None}
    if source.loader == "transformers":
        return from_transformers.image_options(source)
    if source.loader == "open_clip":
        return from_open_clip.image_options(source)
    return {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}


def _size(sides: Any) -> Any:
    """Return the side of a square, or a tuple of height and width."""
    sides = tuple(sides) if isinstance(sides, list | tuple) else (sides,)
    return sides[0] if len(set(sides)) == 1 else sides


def _channels(source: Source, module: nn.Module | None, given: Mapping[str, Any], options: Mapping[str, Any]) -> int:
    """Return how many channels the images have that a source takes."""
    if source.loader == "timm":
        channels = source.kwargs.get("in_chans")
        return channels if isinstance(channels, int) else module.pretrained_cfg["input_size"][0]  # type: ignore
    if source.loader == "transformers":
        return from_transformers.channels(source)
    if source.loader in ("torchvision", "open_clip"):
        return 3
    # A list of one is for all channels, however many there are.
    likely = max((len(given[key]) for key in ("mean", "std") if len(given.get(key, ())) > 1), default=3)
    return likely if module is None else input_channels(module, options["size"], likely)


def input_channels(module: nn.Module, size: int | tuple[int, int], likely: int = 3) -> int:
    """Return how many channels the images have that a network takes: `likely` where nothing tells.

    The first convolution or batch norm that an image reaches tells it: by its own number where it gets the image as it
    is, and else, the network changes channels itself, by getting what it takes. Nothing behind that layer is run.

    Parameters
    ----------
    module
        In evaluation mode.
    size
        Side, or height and width, of its images.
    likely
        Number of channels that is tried first.
    """
    sides = size if isinstance(size, tuple) else (size, size)
    parameter = next(module.parameters(), None)
    device = None if parameter is None else parameter.device
    for channels in dict.fromkeys((likely, 1, 3)):
        reached = _first_layer(module, torch.zeros(1, channels, *sides, device=device))
        if reached is None:
            return likely
        got, own = reached
        if got == own:
            return channels
        if got == channels:
            return own
    return likely


def _first_layer(module: nn.Module, images: torch.Tensor) -> tuple[int, int] | None:
    """Return how many channels reach the first convolution or batch norm, and how many it has; None without one."""

    def stop(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        own = layer.in_channels if isinstance(layer, nn.Conv2d) else layer.num_features
        if inputs and isinstance(inputs[0], torch.Tensor) and inputs[0].ndim == 4 and isinstance(own, int) and own > 0:
            raise _Reached(inputs[0].shape[1], own)

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]
    hooks = [layer.register_forward_pre_hook(stop) for layer in layers]
    try:
        with torch.no_grad(), contained(), seeded(0):
            module(images)
    except _Reached as reached:
        return reached.channels
    except Exception:
        # Whatever is wrong with it shows where the network is run for its outputs.
        return None
    finally:
        for hook in hooks:
            hook.remove()
    return None


class _Reached(Exception):  # noqa: N818  # no error but a way out of a forward pass
    def __init__(self, got: int, own: int) -> None:
        self.channels = (got, own)


def _for_channels(key: str, numbers: Sequence[float], channels: int, *, given: bool) -> tuple[float, ...]:
    """Return the mean or std of each channel: as many numbers as there are, or one for all."""
    if len(numbers) == channels:
        return tuple(numbers)
    if len(numbers) == 1:
        return tuple(numbers) * channels
    if channels == 1 and not given:
        return (sum(numbers) / len(numbers),)  # the library's for colours; grey is one of them all
    wanted = "one number" if channels == 1 else f"{channels} numbers, or one for all,"
    raise SourceError(
        f"the network takes images of {channels} channel{'s' * (channels > 1)}, but {key} has {len(numbers)} numbers; "
        f"give {wanted} as {key} under transform:"
    )
