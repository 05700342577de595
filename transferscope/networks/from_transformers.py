"""Image models of transformers → networks: classifiers and image towers, by their name on the hub or from a folder."""

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from transferscope.errors import SourceError, near
from transferscope.networks import hub
from transferscope.networks.checkpoint_files import check_bounds
from transferscope.networks.expected import Expected
from transferscope.networks.lookup import local_path
from transferscope.networks.processors import processor_options
from transferscope.networks.quiet import quiet_transformers
from transferscope.networks.zoo import Source
from transferscope.runtime.regular import read_regular
from transferscope.runtime.trained import mark_untrained

_WEIGHTS = (re.compile(r"model(-\d+-of-\d+)?\.safetensors"), re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin"))
"""What save_pretrained calls files of weights, the kind that is read first at the front."""
_NO_SETTINGS = ("revision", "interpolate_pos_encoding")
"""Those of the kwargs that are none of a configuration: of the hub, and of what a network is called with."""
_BACKBONES = ("backbone", "use_timm_backbone", "backbone_config", "backbone_kwargs")
"""Settings by which a model takes in another one, from elsewhere."""
_PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class _Plan:
    """The class that a model is built by, and from what."""

    kind: Any
    config: Any
    options: Mapping[str, Any]
    """Of the constructor."""
    is_classifier: bool


def build(source: Source, *, pretrained: bool, trust_code: bool) -> nn.Module:
    """Return the network of a source, with its own weights or with such as are drawn by the global random state.

    A model whose saved class is a classifier is that classifier; of one of images and texts the image tower is taken,
    of any other its body without the head that it was trained by. What a tower puts out is its pooled output, where it
    pools by other than a dense layer of its own, else its tokens.

    Raises
    ------
    SourceError
        It is not there, no network for images, of another library, has other weights, or runs code of its own.
    """
    with quiet_transformers():
        folder = _folder(source, weights=pretrained)
        plan = _plan(source, folder, trust_code)
        module = _loaded(source, folder, plan) if pretrained else plan.kind(plan.config, **plan.options)
    if not plan.is_classifier:
        mark_untrained(module, "the network is an image tower without a classifier")
    if source.kwargs.get("interpolate_pos_encoding"):
        if "interpolate_pos_encoding" not in inspect.signature(plan.kind.forward).parameters:
            raise SourceError(
                f"{plan.kind.__name__} takes no interpolate_pos_encoding, which is among the kwargs; remove it"
            )
        module.register_forward_pre_hook(_interpolating, with_kwargs=True)
    return module


def _interpolating(_module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Do what a forward pre-hook does: have the embeddings of positions resampled for the size of the images."""
    return args, {**kwargs, "interpolate_pos_encoding": True}


def _loaded(source: Source, folder: Path, plan: _Plan) -> nn.Module:
    """Return the network with the weights of a folder: all of them, but for a classifier of another width."""
    for path in folder.iterdir():
        if any(kind.fullmatch(path.name) for kind in _WEIGHTS):
            check_bounds(path)
    module, info = plan.kind.from_pretrained(
        folder, config=plan.config, output_loading_info=True, ignore_mismatched_sizes=True, dtype=torch.float32,
        local_files_only=True, **plan.options,
    )  # fmt: skip
    drawn = [*info["missing_keys"], *(key if isinstance(key, str) else key[0] for key in info["mismatched_keys"])]
    classifier = Expected.of(module).classifier if plan.is_classifier else frozenset()
    if strange := sorted(set(drawn) - classifier):
        more = f" and {len(strange) - 3} more" if len(strange) > 3 else ""
        raise SourceError(
            f"the weights of {source.model!r} are not those of a {plan.kind.__name__} with kwargs {source.kwargs}: "
            f"{', '.join(strange[:3])}{more} are missing or of another shape; {_advice(strange)}"
        )
    if drawn:
        mark_untrained(module, "the classifier is not among the weights, or of another width, and is drawn at random")
    return module


def _advice(names: Sequence[str]) -> str:
    if all("position" in name for name in names):
        return "for images of another size give interpolate_pos_encoding: true as kwargs, and the size under transform"
    return "correct model or kwargs"


def image_options(source: Source) -> dict[str, Any]:
    """Return how its image processor prepares images: size, resize, mean, std and interpolation, as far as it says.

    A processor that squeezes images into a square is read as one that cuts out their centre.
    """
    with quiet_transformers():
        folder = _folder(source, weights=False)
        if not any((folder / name).is_file() for name in _PREPROCESSORS):
            return {}
        from transformers import AutoImageProcessor

        try:
            processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, ImportError):  # one that runs code of its own, or of what is no image
            return {}
        return processor_options(processor)


def channels(source: Source) -> int:
    """Return how many channels the images have that a source takes."""
    given = source.kwargs.get("num_channels")
    if isinstance(given, int):
        return given
    config = _json(_folder(source, weights=False) / "config.json")
    said = config.get("num_channels", (config.get("vision_config") or {}).get("num_channels"))
    return said if isinstance(said, int) else 3


def contents(source: Source, *, weights: bool) -> Any:
    """Return what a model is known by: its files, and those of its weights where they count."""
    on_hub = local_path("transformers", str(source.model), Path.cwd()) is None
    return hub.contents(_folder(source, weights=weights and on_hub), weights=weights)


def description(source: Source) -> dict[str, bytes]:
    """Return what a model is built from again, by file name: its configuration, and code of its own if it has any."""
    folder = _folder(source, weights=False)
    return {path.name: path.read_bytes() for path in (folder / "config.json", *sorted(folder.glob("*.py")))}


def check_weights(source: Source) -> None:
    """Raise `SourceError` unless the folder of a source holds weights."""
    if local_path("transformers", str(source.model), Path.cwd()) is not None:
        _folder(source, weights=True)


def _folder(source: Source, *, weights: bool) -> Path:
    def choose(names: Sequence[str]) -> list[str]:
        texts = [name for name in names if "/" not in name and name.endswith((".json", ".py"))]
        kinds = ([name for name in names if kind.fullmatch(name)] for kind in _WEIGHTS)
        return texts + (next(filter(None, kinds), []) if weights else [])

    def lacking(folder: Path) -> str:
        if not (folder / "config.json").is_file():
            return "no config.json"
        return _lacking_weights(folder) if weights else ""

    model = str(source.model)
    if (path := local_path("transformers", model, Path.cwd())) is None:
        revision = source.kwargs.get("revision")
        return hub.fetched(model, choose, lacking, None if revision is None else str(revision))
    if lack := lacking(path):
        raise SourceError(f"the folder {path} has {lack}; save the model with save_pretrained, or correct the path")
    return path


def _lacking_weights(folder: Path) -> str:
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (folder / index).is_file():
            parts = set(_json(folder / index).get("weight_map", {}).values())
            absent = sorted(part for part in parts if not (folder / part).is_file())
            return f"no {absent[0]}, which {index} names" if absent else ""
    there = any(kind.fullmatch(path.name) for kind in _WEIGHTS for path in folder.iterdir())
    return "" if there else "no weights for torch (model.safetensors or pytorch_model.bin)"


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_regular(path, 2**24))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path} cannot be read ({type(error).__name__}); save the model again") from error
    if not isinstance(found, dict):
        raise SourceError(f"{path} must hold a mapping, got {type(found).__name__}; save the model again")
    return found


def _plan(source: Source, folder: Path, trust_code: bool) -> _Plan:
    from transformers import CONFIG_MAPPING, AutoConfig

    said = _json(folder / "config.json")
    if "pretrained_cfg" in said:
        raise SourceError(f"{source.model!r} is a network of timm: use loader timm and model hf-hub:{source.model}")
    for part in (said, *(value for value in said.values() if isinstance(value, dict))):
        if part.get("backbone"):  # the library asks the hub about it, and some versions download its weights
            raise SourceError(
                f"the config.json of {source.model!r} is built around another model, {part['backbone']!r}, that is no "
                "part of it; choose an image classifier, or take that model itself as the source"
            )
    kind_of_model = said.get("model_type")
    native = kind_of_model in CONFIG_MAPPING
    code = said.get("auto_map") or {}
    if not native and not code:
        raise SourceError(
            f"transformers knows no model_type {kind_of_model!r}{near(kind_of_model, CONFIG_MAPPING)}, which the "
            f"config.json of {source.model!r} names; update transformers, or choose another model"
        )
    if not native and not trust_code:
        raise SourceError(
            f"the model {source.model!r} runs code of its own ({', '.join(sorted(map(str, code.values())))}): if you "
            "trust it, allow it with --trust-code (in Python trust_code=True)"
        )
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=not native)
    if native:
        kind, config, is_classifier = _class(source, config)
    else:
        kind, is_classifier = _own_class(folder, code)
    _override(source, config)
    with torch.device("meta"):
        options = _options(kind, config, said)
    return _Plan(kind, config, options, is_classifier)


def _class(source: Source, config: Any) -> tuple[Any, Any, bool]:
    """Return the class for a configuration, the configuration that it takes, and whether it is a classifier."""
    from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, MODEL_MAPPING

    names = config.architectures or []
    for kind in _classes(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, config):
        if kind.__name__ in names:
            return kind, config, True
    config = getattr(config, "vision_config", None) or config
    for kind in _classes(MODEL_MAPPING, config):
        if kind.main_input_name == "pixel_values":
            return kind, config, False
    raise SourceError(
        f"{source.model!r} ({config.model_type}) is no network for images; choose an image classifier or a model with "
        "an image tower"
    )


def _classes(mapping: Any, config: Any) -> Sequence[Any]:
    found = mapping.get(type(config), ())
    return found if isinstance(found, tuple | list) else (found,)


def _own_class(folder: Path, code: Mapping[str, Any]) -> tuple[Any, bool]:
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    for name, is_classifier in (("AutoModelForImageClassification", True), ("AutoModel", False)):
        if name in code:
            return get_class_from_dynamic_module(code[name], str(folder), local_files_only=True), is_classifier
    raise SourceError(f"its code is for {', '.join(code)}: no image classifier and no tower; choose another model")


def _override(source: Source, config: Any) -> None:
    """Put the kwargs of a source into a configuration."""
    known = {*config.to_dict(), "num_labels"}
    for key, value in source.kwargs.items():
        if key in _NO_SETTINGS:
            continue
        if key in _BACKBONES:
            raise SourceError(f"{key} among the kwargs takes another model in; name that model itself as the source")
        if key not in known:
            raise SourceError(
                f"{type(config).__name__} has no {key!r}{near(key, known)}, which is among the kwargs; these are "
                f"settings of the model's configuration, and {' and '.join(_NO_SETTINGS)}"
            )
        setattr(config, key, value)


def _options(kind: Any, config: Any, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return how to leave out a pooling layer that was never trained, or ends in a squashed dense layer."""
    if "add_pooling_layer" not in inspect.signature(kind.__init__).parameters:
        return {}
    pooler = getattr(kind(config), "pooler", None)
    has_weights = pooler is not None and any(True for _ in pooler.parameters())
    is_dense = pooler is not None and any(isinstance(part, nn.Linear) for part in pooler.modules())
    is_saved = kind.__name__ in (said.get("architectures") or [])
    return {"add_pooling_layer": False} if is_dense or (has_weights and not is_saved) else {}
