"""Models of timm: what comes from the hub is fetched here first, without the long retries of its own library."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from transferscope.errors import SourceError
from transferscope.networks import hub
from transferscope.networks.checkpoint_files import check_bounds
from transferscope.networks.lookup import name_on_hub
from transferscope.networks.zoo import Source

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_SAFE = {"open_clip_pytorch_model.bin": "open_clip_model.safetensors"}
"""What timm looks for before the file that it names."""
_DESCRIBED = ("num_classes", "in_chans", "global_pool")
"""What timm takes from the description of a model on the hub, where kwargs do not say it."""


def build(source: Source, kwargs: dict[str, Any], *, pretrained: bool) -> nn.Module:
    """Return the network of a source, with its own weights or with such as are drawn by the global random state.

    Raises
    ------
    SourceError
        It is not on this machine and cannot be fetched, or timm has no weights for it.
    """
    import timm

    model = str(source.model)
    if name_on_hub(model) is not None:
        _folder(model, weights=pretrained)
    elif pretrained:
        check_has_weights(model)
        _fetch_weights(model)
    with hub.offline():
        module: nn.Module = timm.create_model(model, pretrained=pretrained, **kwargs)
    return module


def contents(source: Source, *, weights: bool) -> Any:
    """Return what a model is known by: of one on the hub its files, else its name."""
    model = str(source.model)
    return hub.contents(_folder(model, weights=weights), weights=weights) if name_on_hub(model) is not None else model


def description(model: str) -> tuple[str, dict[str, Any]]:
    """Return the architecture that timm knows a model on the hub by, and the arguments that make it that model.

    Raises
    ------
    SourceError
        It is not on this machine and cannot be fetched.
    """
    import timm

    _folder(model, weights=False)
    with hub.offline():
        config, name, options = timm.models.load_model_config_from_hf(str(name_on_hub(model)))
    return str(name), {**{key: config[key] for key in _DESCRIBED if key in config}, **(options or {})}


def check_has_weights(model: str) -> None:
    """Raise `SourceError` where timm knows an architecture and no weights for it."""
    import timm

    config = None if name_on_hub(model) is not None else timm.get_pretrained_cfg(model)
    if config is not None and not config.has_weights:
        raise SourceError(
            f"timm has no weights for {model!r}; name a file as `checkpoint`, or say `weights: none` for random ones"
        )


def _fetch_weights(model: str) -> None:
    """Have the weights that timm names for an architecture on this machine, where they come from the hub."""
    import timm

    config = timm.get_pretrained_cfg(model)
    place = str(getattr(config, "hf_hub_id", None) or "")
    if place:
        name = getattr(config, "hf_hub_filename", None)
        files = (_SAFE.get(name, f"{name.rpartition('.')[0]}.safetensors"), name) if name else _WEIGHTS
        _fetched(place, files, described=False)


def _folder(model: str, *, weights: bool) -> Path:
    return _fetched(str(name_on_hub(model)), _WEIGHTS if weights else (), described=True)


def _fetched(place: str, files: Sequence[str], *, described: bool) -> Path:
    """Return the folder of a model on the hub with the first of these files, and with its description."""

    def choose(names: Sequence[str]) -> list[str]:
        return [name for name in names if name == "config.json"] + [name for name in files if name in names][:1]

    def lacking(folder: Path) -> str:
        if described and not (folder / "config.json").is_file():
            return "no config.json"
        return "" if not files or any((folder / name).is_file() for name in files) else f"no {files[0]}"

    name, _, revision = place.partition("@")
    folder = hub.fetched(name, choose, lacking, revision or None, instead="name a local file as its `checkpoint`")
    for path in (folder / file for file in files):
        if path.is_file() and path.suffix != ".npz":
            check_bounds(path)
    return folder
