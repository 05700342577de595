"""What goes together in a zoo file: problems between keys that are right by themselves, each at its key."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transferscope.errors import SUGGESTED, near
from transferscope.networks.located_yaml import Problem, shown
from transferscope.networks.lookup import name_on_hub

PATHS = {
    "checkpoint": "for the library's own weights",
    "initial": "to redraw the weights that the source was trained from",
    "images": "to go without the distance between source and target",
}
"""The keys that hold paths, with what goes without them."""

# Weights that came in through these would escape both weights_only reading and the fingerprint.
_WEIGHT_ARGUMENTS = {
    "timm": ("pretrained", "checkpoint", "cache_dir"),
    "torchvision": ("weights", "pretrained"),
    "transformers": ("pretrained", "use_pretrained"),
    "open_clip": ("pretrained_", "timm_model_pretrained", "hf_"),
}
"""What they begin with."""
_MODELS = {
    "transformers": "model on the hub, or its folder",
    "open_clip": "architecture, the model on the hub (hf-hub:owner/name), or its folder",
}
"""What `model` is for the loaders for which it is more than an architecture."""


def contradictions(entry: Mapping[Any, Any]) -> Iterator[Problem]:
    """Yield the problems between the keys of one entry; tolerant of keys that are wrong themselves."""
    loader, model, kwargs, transform = (entry.get(key) for key in ("loader", "model", "kwargs", "transform"))
    options = transform if isinstance(transform, Mapping) else {}
    given = kwargs if isinstance(kwargs, Mapping) else {}
    for key, without in PATHS.items():
        if key in entry and entry[key] in (None, ""):
            yield (key,), f"is empty: give a path, or leave the key out {without}"
    yield from _weights(entry, given)
    if loader in ("timm", "torchvision", "transformers", "open_clip"):
        if model is None:
            yield ("model",), f"is missing: with loader {loader} it names the {_MODELS.get(loader, 'architecture')}"
        if loader == "timm" and ":" in str(model) and name_on_hub(str(model)) is None:
            text = "cannot be a folder or another place: name the architecture, and its weights as checkpoint"
            yield ("model",), f"{text}; or hf-hub:owner/name"
        if entry.get("factory") is not None:
            yield ("factory",), f"does not go with loader {loader}: remove it, or use loader python"
        for argument, value in given.items():
            chooses = str(argument).startswith(_WEIGHT_ARGUMENTS[loader])
            if chooses and not (argument == "pretrained" and value is False and loader == "timm"):
                yield ("kwargs", argument), _instead_of(argument, value)
    if loader == "python":
        if entry.get("factory") is None:
            yield ("factory",), "is missing: with loader python it says file.py:function"
        if model is not None:
            yield ("model",), "does not go with loader python: give what the factory needs as kwargs"
        if options.get("size") is None:
            yield ("transform", "size"), "is missing: a factory does not say how large its images are; add it"
    size, resize = options.get("size"), options.get("resize")
    lengths = {len(options[key]) for key in ("mean", "std") if isinstance(options.get(key), list | tuple)} - {0, 1}
    if len(lengths) > 1:
        yield ("transform", "std"), f"expected as many numbers as mean has, {len(options['mean'])}, or one for all"
    sides = zip(_sides(resize), _sides(size), strict=True)
    if any(resized < cropped for resized, cropped in sides):
        text = f"expected at least {size}, the size that is cut out of the resized image; got {resize}"
        yield ("transform", "resize"), text


def _sides(size: Any) -> tuple[float, float]:
    """Return height and width; of what is no size, which its own field tells, such as contradict nothing."""
    if isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(side, int) for side in size):
        return size[0], size[1]
    return (size, size) if isinstance(size, int) else (math.nan, math.nan)


def is_random(loader: Any, weights: Any, kwargs: Mapping[Any, Any]) -> bool:
    """Whether an entry asks for weights drawn at random: by `weights: none`, or as timm says it."""
    return weights == "none" or (loader == "timm" and kwargs.get("pretrained") is False)


def _weights(entry: Mapping[Any, Any], kwargs: Mapping[Any, Any]) -> Iterator[Problem]:
    """Problems of where an entry says that its weights come from."""
    loader, weights, checkpoint = (entry.get(key) for key in ("loader", "weights", "checkpoint"))
    if "weights" in entry and weights is None:
        yield ("weights",), "is empty: write none, as a word, for random weights, or leave the key out"
    if checkpoint and is_random(loader, weights, kwargs):
        where, what = (("weights",), "none") if weights == "none" else (("kwargs", "pretrained"), "false")
        yield where, f"{what} asks for weights drawn at random, and checkpoint names others: remove one of the two"
    if "checkpoint_key" in entry and not checkpoint:
        yield ("checkpoint_key",), "says where in a checkpoint the network lies: add the checkpoint, or remove it"


def _instead_of(argument: Any, value: Any) -> str:
    if argument == "pretrained" and value is True:
        return "is the default: remove it and use checkpoint for other weights, or say false for random ones"
    if value is None and argument == "weights":
        return "chooses weights: remove it; beside kwargs, weights: none gives random ones"
    return "chooses weights: remove it and use checkpoint instead"


def repeated_names(names: Sequence[Any]) -> Iterator[Problem]:
    """Yield a problem for each source whose name another has before it."""
    places: dict[str, int] = {}
    for index, name in enumerate(names):
        if isinstance(name, str) and (first := places.setdefault(name, index)) != index:
            yield ("sources", index, "name"), f"{name!r} is already taken by sources[{first}]; choose another"


def wrong_order(order: Any, names: Sequence[Any]) -> Iterator[Problem]:
    """Yield a problem for each name in `order` that no source has, or that comes twice."""
    known, places = {name for name in names if isinstance(name, str)}, dict[str, int]()
    strange = 0
    for index, name in enumerate(order if isinstance(order, list | tuple) else ()):
        if not isinstance(name, str) or name not in known:
            strange += 1
            hint = near(name, known) if strange <= SUGGESTED else ""
            yield ("order", index), f"no source is called {shown(name)}{hint}; correct or remove it"
        elif (first := places.setdefault(name, index)) != index:
            yield ("order", index), f"{name!r} comes twice, first as order[{first}]; remove one"
