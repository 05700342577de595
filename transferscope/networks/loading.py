"""A zoo entry → a ready network with its transform: of a library, or of a factory of one's own."""

import hashlib
import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from transferscope.data.images import Transform
from transferscope.errors import InputError, SourceError
from transferscope.networks import adapters, from_open_clip, from_timm, from_transformers
from transferscope.networks.checkpoint_files import file_digest
from transferscope.networks.checkpoints import load_checkpoint
from transferscope.networks.factories import code_files, from_factory, said
from transferscope.networks.hub import is_download, nothing_fetched
from transferscope.networks.inputs import resolve_transform
from transferscope.networks.lookup import unknown_model
from transferscope.networks.zoo import Source
from transferscope.runtime.seeding import contained, seeded
from transferscope.runtime.trained import mark_untrained
from transferscope.runtime.wrappers import plain

_DISTRIBUTIONS = {
    "python": ("timm", "torchvision"), "transformers": ("transformers",), "open_clip": ("open_clip_torch", "timm"),
}  # fmt: skip
"""What decides what a loader builds, where that is not the package of its name."""


@dataclass
class Network:
    """A source network, ready to look at images.

    Attributes
    ----------
    name
        Of its source.
    module
        In evaluation mode, on the CPU, in float32, without wrappers; all its parameters require gradients.
    transform
        From an image to the network's input.
    source
        The zoo entry that it was made from.
    seed
        Of the weights that no file gives.
    """

    name: str
    module: nn.Module
    transform: Transform
    source: Source
    seed: int = 0


def load_network(source: Source, *, trust_code: bool = False, seed: int = 0) -> Network:
    """Build a source network, load its weights and find its transform.

    Parameters
    ----------
    source
        An entry of a zoo.
    trust_code
        Allow to run the code of a factory (loader ``python``).
    seed
        For weights that no file gives: a classifier of another width, a factory without a checkpoint. The
        global random state is left as it was.

    Raises
    ------
    InputError
        The source needs ``trust_code=True``.
    SourceError
        Anything else that goes wrong; the message names the source and says what to do.
    """
    check_trust(source, trust_code)
    with _blamed_on(source):
        pretrained = source.checkpoint is None and not source.is_random
        module = _build(source, pretrained=pretrained, seed=seed, trust_code=trust_code)
        if source.is_random:
            mark_untrained(module, "the weights of the network are drawn at random")
        elif source.checkpoint is not None:
            if load_checkpoint(module, source.checkpoint, source.checkpoint_key):
                mark_untrained(module, "the checkpoint has no classifier, and that of the network is drawn at random")
        elif source.loader == "timm" and _has_classifier_of_its_own(module):
            mark_untrained(module, "the classifier is of another width than timm's and is drawn at random")
        return Network(source.name, module, resolve_transform(source, module), source, seed)


def load_architecture(source: Source, *, trust_code: bool = False, seed: int = 0) -> Network:
    """Build a source network with freshly drawn weights, whatever its own: nothing is downloaded, no checkpoint read.

    Raises
    ------
    InputError, SourceError
        As for `load_network`.
    """
    with nothing_fetched():
        module = build_untrained(source, seed=seed, trust_code=trust_code)
        with _blamed_on(source):
            return Network(source.name, module, resolve_transform(source, module), source, seed)


def outline(source: Source, *, trust_code: bool = False) -> nn.Module:
    """Build a source's architecture without memory for its weights where that can be: names and shapes are right.

    Raises
    ------
    InputError, SourceError
        As for `load_network`; also when its transform is not known, or timm has no weights for it.
    """
    if source.loader == "python":
        return build_untrained(source, seed=0, trust_code=trust_code)
    with nothing_fetched():
        try:
            with contained(), torch.device("meta"):
                module = _from_library(source, pretrained=False, trust_code=trust_code)
        except Exception:  # some constructors compute with values
            module = build_untrained(source, seed=0, trust_code=trust_code)
        with _blamed_on(source):
            resolve_transform(source, module)
            if source.checkpoint is None and not source.is_random:
                _check_has_weights(source)
    return module


def build_untrained(source: Source, *, seed: int, trust_code: bool = False) -> nn.Module:
    """Build a source's architecture with freshly drawn weights: evaluation mode, CPU, float32.

    The global random state is left as it was. A factory that loads weights of its own is taken at its word.

    Raises
    ------
    InputError, SourceError
        As for `load_network`.
    """
    check_trust(source, trust_code)
    with _blamed_on(source):
        return _build(source, pretrained=False, seed=seed, trust_code=trust_code)


def source_transform(source: Source, module: nn.Module | None = None) -> Transform:
    """Return the transform of a source without loading its weights, running a factory or downloading weights.

    Parameters
    ----------
    source
        An entry of a zoo.
    module
        Its network where it is built already, whatever its weights; else a factory's is taken to see three channels,
        or as many as the mean of its transform has numbers.

    Raises
    ------
    SourceError
        The library does not know the architecture, or does not say how its images are prepared.
    """
    with _blamed_on(source):
        if module is None and source.loader == "timm":
            module = _build(source, pretrained=False, seed=0, trust_code=False)
        return resolve_transform(source, module)


def fingerprint(source: Source) -> str:
    """Return a SHA-256 of all that determines a source network's activations, without building it.

    That is: loader, model, kwargs, transform, the bytes of the checkpoint, its key and the settings of an adapter
    beside it, whether weights are random, the bytes of the factory file and of the files beside it that it imports,
    the function, and the versions of torch and the library (of timm
    and torchvision both for a factory). Neither names nor places of files count. Weights that a factory reads
    by itself go unseen: give them as ``checkpoint``.

    Raises
    ------
    SourceError
        A file is missing or cannot be read.
    """
    return _fingerprint(source, weights=source.checkpoint is None and not source.is_random)


def _fingerprint(source: Source, *, weights: bool) -> str:
    """Do so, with or without the library's own weights."""
    with _blamed_on(source):
        libraries = _DISTRIBUTIONS.get(source.loader, (source.loader,))
        facts = {
            "loader": source.loader,
            "model": _contents(source, weights=weights),
            "kwargs": _library_kwargs(source),
            "transform": source.transform.model_dump(),
            "checkpoint": file_digest(source.checkpoint) if source.checkpoint else None,
            "factory": list(code_files(source.factory_parts[0]).values()) if source.factory else None,
            "function": source.factory_parts[1] if source.factory else None,
            "versions": {name: version(name) for name in ("torch", *libraries)},
        }
        # What few sources have is left out of the others, whose fingerprints stay as they were.
        config = adapters.config_beside(source.checkpoint) if source.checkpoint else None
        more = {
            "checkpoint_key": source.checkpoint_key,
            "weights": "none" if source.is_random else None,
            "adapter_config": file_digest(config) if config else None,
        }
        facts |= {key: value for key, value in more.items() if value is not None}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def architecture(source: Source) -> str:
    """Return the fingerprint of a source without its weights: that of all sources which differ in nothing else.

    Raises
    ------
    SourceError
        As `fingerprint`.
    """
    update = {"checkpoint": None, "checkpoint_key": None, "weights": None, "kwargs": _library_kwargs(source)}
    return _fingerprint(source.model_copy(update=update), weights=False)


def identity(source: Source, seed: int = 0) -> list[Any]:
    """Return everything that decides the activations of `load_network(source, seed=seed)`, to name them by in a cache.

    Raises
    ------
    SourceError
        As `fingerprint`.
    """
    return [fingerprint(source), seed]


def check_trust(source: Source, trust_code: bool) -> None:
    """Raise `InputError` when `source` runs code that nobody has said to trust."""
    if source.loader == "python" and not trust_code:
        raise InputError(
            f"source {source.name!r} runs the code of {source.factory_parts[0]}: if you trust that file, "
            "allow it with --trust-code (in Python trust_code=True)"
        )


@contextmanager
def _blamed_on(source: Source) -> Iterator[None]:
    try:
        yield
    except SourceError as error:
        raise SourceError(f"source {source.name!r}: {error}") from error
    except MemoryError:  # says something about the machine, not about the source
        raise
    except Exception as error:
        raise SourceError(
            f"source {source.name!r}: {said(error)}; check its entry, its model and kwargs above all"
        ) from error


def _contents(source: Source, *, weights: bool) -> Any:
    """Return what the model of a source is known by: its name, or the contents of its folder."""
    of_library = {"timm": from_timm, "transformers": from_transformers, "open_clip": from_open_clip}.get(source.loader)
    return source.model if of_library is None else of_library.contents(source, weights=weights)


def _build(source: Source, *, pretrained: bool, seed: int, trust_code: bool) -> nn.Module:
    with contained(), seeded(seed):
        module = from_factory(source) if source.loader == "python" else _from_library(source, pretrained, trust_code)
    return plain(module).cpu().float().eval()


def _library_kwargs(source: Source) -> dict[str, Any]:
    """Return the arguments of the constructor, without timm's own way to ask for random weights."""
    return {key: value for key, value in source.kwargs.items() if not (source.loader == "timm" and key == "pretrained")}


def _has_classifier_of_its_own(module: nn.Module) -> bool:
    """Whether timm has drawn the classifier of a pretrained network, for another number of classes was asked for."""
    config = getattr(module, "pretrained_cfg", None) or {}
    classes = getattr(module, "num_classes", None)
    return bool(classes) and config.get("num_classes", classes) != classes


def _check_has_weights(source: Source) -> None:
    if source.loader == "timm":
        from_timm.check_has_weights(str(source.model))
    elif source.loader == "transformers":
        from_transformers.check_weights(source)
    elif source.loader == "open_clip":
        from_open_clip.check_weights(source)


def _from_library(source: Source, pretrained: bool, trust_code: bool) -> nn.Module:
    model, kwargs = str(source.model), _library_kwargs(source)
    if problem := unknown_model(source.loader, model):
        raise SourceError(problem)
    try:
        if source.loader == "transformers":
            return from_transformers.build(source, pretrained=pretrained, trust_code=trust_code)
        if source.loader == "open_clip":
            return from_open_clip.build(source, pretrained=pretrained)
        if source.loader == "timm":
            return from_timm.build(source, kwargs, pretrained=pretrained)
        import torchvision

        # Left to themselves, detection and segmentation models download the weights of their backbone.
        if "weights_backbone" in inspect.signature(torchvision.models.get_model_builder(model)).parameters:
            kwargs["weights_backbone"] = None
        kwargs["weights"] = "DEFAULT" if pretrained else None
        return torchvision.models.get_model(model, progress=False, **kwargs)
    except (SourceError, MemoryError):
        raise
    except Exception as error:
        if pretrained and is_download(error):
            text = f"the weights of {model!r} could not be downloaded ({said(error)})"
            raise SourceError(f"{text}; connect to the internet, or name a local file as its `checkpoint`") from error
        text = f"{source.loader} cannot build {model!r} with kwargs {source.kwargs} ({said(error)})"
        raise SourceError(f"{text}; correct model or kwargs") from error
