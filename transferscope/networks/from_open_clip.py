"""Image towers of open_clip → networks: of a named architecture, of a model on the hub, or from a folder or file."""

import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from transferscope.errors import SourceError, TransferscopeWarning, near
from transferscope.networks import hub
from transferscope.networks.checkpoint_files import file_digest
from transferscope.networks.checkpoints import find_weights
from transferscope.networks.lookup import HUB, local_path
from transferscope.networks.zoo import Source
from transferscope.runtime.regular import read_regular
from transferscope.runtime.trained import mark_untrained

CONFIG = "open_clip_config.json"
_WEIGHTS = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin",
)  # fmt: skip
"""What open_clip calls files of weights, in its own order of preference."""
_OF_WEIGHTS = ("pretrained", "revision")
"""Those of the kwargs that say which weights are taken."""
_TEXT = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}
"""The least of a text tower, for an architecture has one and nothing of it is used."""


@dataclass(frozen=True)
class _Model:
    """What is known of a model before it is built."""

    architecture: Mapping[str, Any]
    preparation: Mapping[str, Any]
    folder: Path | None = None
    """Where its weights lie; None for those that go with an architecture."""


def build(source: Source, *, pretrained: bool) -> nn.Module:
    """Return the image tower of a source, with its own weights or with such as are drawn by the global random state.

    The text tower is neither built nor read.

    Raises
    ------
    SourceError
        There is no such model, it has no weights, or kwargs are no settings of a tower.
    """
    model = _model(source, weights=pretrained)
    tower = _tower(source, model.architecture)
    if pretrained:
        for text in _load(tower, _file_of(source, model)):
            warnings.warn(text, TransferscopeWarning, stacklevel=2)
    resize = getattr(tower, "set_input_size", None)  # of towers of timm, which are built for images of their own size
    if "image_size" in source.kwargs and callable(resize):
        resize(source.kwargs["image_size"])
    mark_untrained(tower, "the network is an image tower without a classifier")
    return tower


def image_options(source: Source) -> dict[str, Any]:
    """Return how open_clip prepares images for a model: size, mean, std and interpolation.

    One that squeezes images into a square is read as one that cuts out their centre.
    """
    from open_clip.transform import PreprocessCfg

    model = _model(source, weights=False)
    prepared = dataclasses.asdict(PreprocessCfg()) | dict(model.preparation)
    prepared["size"] = source.kwargs.get("image_size", model.architecture["vision_cfg"].get("image_size", 224))
    return {key: prepared[key] for key in ("size", "mean", "std", "interpolation")}


def contents(source: Source, *, weights: bool) -> Any:
    """Return what a model is known by: its files where it is a folder, a file or on the hub, else its name."""
    path = local_path("open_clip", str(source.model), Path.cwd())
    if path is None and not str(source.model).startswith(HUB):
        return source.model
    if path is None:
        path = _fetched(str(source.model).removeprefix(HUB), source, weights=weights)
    return file_digest(path) if path.is_file() else hub.contents(path, weights=weights)


def description(source: Source) -> dict[str, bytes]:
    """Return what a tower is built from again, by file name, whether open_clip knows the model by its name or not."""
    model = _model(source, weights=False)
    said = {"model_cfg": dict(model.architecture), "preprocess_cfg": dict(model.preparation)}
    return {CONFIG: json.dumps(said, indent=1).encode()}


def check_weights(source: Source) -> None:
    """Raise `SourceError` unless it is known where the weights of a source come from; nothing is downloaded."""
    if local_path("open_clip", str(source.model), Path.cwd()) is None:
        _tag(source)
    else:
        _file_of(source, _model(source, weights=True))


def _model(source: Source, *, weights: bool) -> _Model:
    import open_clip

    name = str(source.model)
    path = local_path("open_clip", name, Path.cwd())
    if path is not None and path.is_file():
        return _Model(_architecture(_json(path), path), {})
    if path is None and not name.startswith(HUB):
        architecture, tag = open_clip.get_model_config(name), {}
        if "pretrained" in source.kwargs:
            tag = _tag(source)
            architecture["quick_gelu"] = tag.get("quick_gelu", False)  # what the weights were trained with
        return _Model(architecture, {key: tag[key] for key in ("mean", "std", "interpolation") if key in tag})
    if path is None:
        path = _fetched(name.removeprefix(HUB), source, weights=weights)
    said = _json(path / CONFIG)
    return _Model(_architecture(said.get("model_cfg", said), path / CONFIG), said.get("preprocess_cfg") or {}, path)


def _architecture(said: Any, path: Path) -> dict[str, Any]:
    if not isinstance(said, dict) or "embed_dim" not in said or not isinstance(said.get("vision_cfg"), dict):
        raise SourceError(
            f"{path} describes no model of open_clip: expected embed_dim and vision_cfg; correct the path"
        )
    return said


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_regular(path, 2**24))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path} cannot be read ({type(error).__name__}); correct it, or save it again") from error
    return found if isinstance(found, dict) else {}


def _fetched(name: str, source: Source, *, weights: bool, files: Sequence[str] = _WEIGHTS) -> Path:
    """Return the folder of a model on the hub, with a file of weights if they are asked for."""

    def choose(names: Sequence[str]) -> list[str]:
        return [each for each in (CONFIG,) if each in names] + [each for each in files if weights and each in names][:1]

    def lacking(folder: Path) -> str:
        there = [each for each in files if (folder / each).is_file()]
        return "no weights of open_clip" if weights and not there else ""

    revision = source.kwargs.get("revision")
    return hub.fetched(name, choose, lacking, None if revision is None else str(revision))


def _tower(source: Source, architecture: Mapping[str, Any]) -> nn.Module:
    import open_clip

    known = {field.name for field in dataclasses.fields(open_clip.CLIPVisionCfg)}
    given = {key: value for key, value in source.kwargs.items() if key not in _OF_WEIGHTS}
    if strange := sorted(given.keys() - known):
        raise SourceError(
            f"open_clip knows no setting {strange[0]!r} of an image tower{near(strange[0], known)}, which is among the "
            f"kwargs; they are those of its CLIPVisionCfg, and {' and '.join(_OF_WEIGHTS)}"
        )
    vision = {**architecture["vision_cfg"], **given, "timm_model_pretrained": False}
    if ":" in str(vision.get("timm_model_name") or ""):
        raise SourceError(f"timm_model_name must be an architecture of timm, but is {vision['timm_model_name']!r}")
    whole = open_clip.CLIP(architecture["embed_dim"], vision, _TEXT, quick_gelu=architecture.get("quick_gelu", False))
    return whole.visual


def _tag(source: Source) -> dict[str, Any]:
    """Return what open_clip says of the weights that kwargs name."""
    import open_clip

    name, tag = str(source.model), source.kwargs.get("pretrained")
    tags = open_clip.list_pretrained_tags_by_model(name)
    listed = f"there are {', '.join(tags)}" if tags else "it has none: name a file as `checkpoint`"
    if tag is None:
        raise SourceError(
            f"it is not said which weights of {name!r} to take: name them as kwargs, pretrained; {listed}"
        )
    if not open_clip.is_pretrained_cfg(name, str(tag)):
        raise SourceError(f"open_clip has no weights {tag!r} of {name!r}{near(tag, tags)}; {listed}")
    return open_clip.get_pretrained_cfg(name, str(tag))


def _file_of(source: Source, model: _Model) -> Path:
    """Return the file of a model's weights, downloaded if need be."""
    folder, names = model.folder, tuple[str, ...](_WEIGHTS)
    if folder is None and str(source.model).endswith(".json"):
        raise SourceError(
            f"{source.model} describes an architecture: name its weights as `checkpoint`, or say `weights: none`"
        )
    if folder is None:
        owner, _, file = str(_tag(source)["hf_hub"]).rpartition("/")
        names = (file,) if file else _WEIGHTS
        folder = _fetched(owner, source, weights=True, files=names)
    there = [folder / name for name in names if (folder / name).is_file()]
    if not there:
        raise SourceError(f"the folder {folder} has no weights of open_clip ({_WEIGHTS[0]}); name them as `checkpoint`")
    return there[0]


def _load(tower: nn.Module, path: Path) -> list[str]:
    """Load the part of a file that is the image tower's, and return what is to be said of it."""
    try:
        match, said = find_weights(tower, path, "visual")
    except SourceError:  # not open_clip's own names, or an error that is said better of the whole
        match, said = find_weights(tower, path)
    if match.drawn:  # what looks like a classifier is part of the tower
        raise SourceError(
            f"the weights in {path} have no {match.drawn[0]}, which the tower has; correct model or kwargs"
        )
    tower.load_state_dict(match.taken, strict=False)
    return said
