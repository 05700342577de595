"""Checkpoints that their library itself converts as it loads them: positions for another size, the names in files."""

import inspect
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from transferscope.networks.expected import Expected
from transferscope.networks.matching import Match, common_prefix, fitting, matches
from transferscope.networks.quiet import quiet_transformers

# What may change its shape: tables over positions. A filter of another size is another architecture.
_POSITIONS = ("pos_embed", "rel_pos", "relative_position", "attention_bias", "position")
_TRIED = 8


def converted(
    module: nn.Module, expected: Expected, file: Mapping[str, Tensor], path: Path
) -> tuple[list[Match], list[str]]:
    """Return the matches that fit once a library has converted a file for its module, and what has to be said of it.

    None when `module` is of no such library, when that has no conversion for it, or when it does not make the file fit.
    """
    convert = _conversion(module)
    if convert is None:
        return [], []
    # Of several networks each is converted, so that the right one can be chosen; what lies beside them stays.
    for prefixes in (_likely(expected, file), [common_prefix(file)]):
        whole, said, changed = dict(file), list[str](), False
        for prefix in prefixes:
            part = {key.removeprefix(prefix): tensor for key, tensor in whole.items() if key.startswith(prefix)}
            result = _applied(convert, module, part)
            if result is None:
                continue
            whole = {key: tensor for key, tensor in whole.items() if not key.startswith(prefix)}
            whole |= {prefix + key: tensor for key, tensor in result.items()}
            said, changed = said or _said(part, result, path, _library(module)), True
        if changed and (fits := fitting(expected, whole)):
            return fits, said
    return [], []


def _applied(convert: Any, module: nn.Module, part: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return a converted network, or None where the conversion is not made for it or changes more than positions."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about the library's code
            result = convert(dict(part), module)
    except Exception:  # made for files of certain layouts, of which this is none
        return None
    tensors = {key: value for key, value in result.items() if isinstance(value, Tensor)}
    if all(any(word in key for word in _POSITIONS) for key in _resized(part, tensors)):
        return tensors
    return None


def _resized(part: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    return [key for key in tensors if key in part and tensors[key].shape != part[key].shape]


def _conversion(module: nn.Module) -> Any:
    """Return what the library of an architecture applies to weights: a function of these and the module."""
    if (library := _library(module)) in _READERS:
        return _READERS[library]
    home = type(module).__module__
    if not home.startswith("timm.models."):
        return None
    # By convention a function in the file of the architecture.
    names = ("checkpoint_filter_fn", "_checkpoint_filter_fn")
    return next((getattr(sys.modules[home], name) for name in names if hasattr(sys.modules[home], name)), None)


def _names_in_memory(part: Mapping[str, Tensor], module: Any) -> dict[str, Tensor]:
    """Return the weights of a file by the names that transformers gives them in a network."""
    takes = inspect.signature(type(module).__init__).parameters
    without_pooler = "add_pooling_layer" in takes and getattr(module, "pooler", None) is None
    options = {"add_pooling_layer": False} if without_pooler else {}
    with quiet_transformers():
        read, info = type(module).from_pretrained(
            None, config=module.config, state_dict=dict(part), output_loading_info=True, **options
        )
    return {key: tensor for key, tensor in read.state_dict().items() if key not in info["missing_keys"]}


def _for_tower(part: Mapping[str, Tensor], tower: nn.Module) -> dict[str, Tensor]:
    """Return the weights of an image tower of open_clip, by its own names and for the size of its images."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import resize_pos_embed

    class Whole(nn.Module):
        visual = tower

    outer = ("visual.", "image_encoder.")
    named = {key if key.startswith(outer) else f"visual.{key}": tensor for key, tensor in part.items()}
    named = convert_state_dict(Whole(), named)
    resize_pos_embed(named, Whole())
    return {key.removeprefix("visual."): tensor for key, tensor in named.items()}


_READERS = {"transformers": _names_in_memory, "open_clip": _for_tower}


def _library(module: nn.Module) -> str:
    return type(module).__module__.partition(".")[0]


def _likely(expected: Expected, file: Mapping[str, Tensor]) -> list[str]:
    """Return the prefixes under which a file has most of the network's names."""
    ranked = matches(expected, file)[:_TRIED]
    most = max((len(match.taken) for match in ranked), default=0)
    return list(dict.fromkeys(match.naming.prefix for match in ranked if 2 * len(match.taken) > most))


def _said(part: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path, library: str) -> list[str]:
    said = []
    if resized := _resized(part, tensors):
        first = resized[0]
        more = f" and {len(resized) - 1} more" if len(resized) > 1 else ""
        said.append(
            f"checkpoint {path.name}: {first}{more}, learnt for images of another size, "
            f"{'are' if more else 'is'} resampled as {library} does it, from {tuple(part[first].shape)} "
            f"to {tuple(tensors[first].shape)}"
        )
    # In files transformers and open_clip call weights otherwise than in memory.
    if library == "timm" and (renamed := [key for key in tensors if key not in part]):
        said.append(
            f"checkpoint {path.name}: names of another library are read as timm reads them, {renamed[0]} for example"
        )
    return said
