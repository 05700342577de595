"""Checkpoints that timm itself converts as it loads them: embeddings of positions for another size, older names."""

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from transferscope.networks.expected import Expected
from transferscope.networks.matching import Match, common_prefix, fitting, matches

# What may change its shape: tables over positions. A filter of another size is another architecture.
_POSITIONS = ("pos_embed", "rel_pos", "relative_position", "attention_bias", "position")
_TRIED = 8


def converted(
    module: nn.Module, expected: Expected, file: Mapping[str, Tensor], path: Path
) -> tuple[list[Match], list[str]]:
    """Return the matches that fit once timm has converted a file for its own module, and what has to be said of it.

    None when `module` is not of timm, when timm has no conversion for it, or when that does not make the file fit.
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
            said, changed = said or _said(part, result, path), True
        if changed and (fits := fitting(expected, whole)):
            return fits, said
    return [], []


def _applied(convert: Any, module: nn.Module, part: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return a converted network, or None where the conversion is not made for it or changes more than positions."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about timm's code
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
    """Return what timm applies to the weights of an architecture, by convention a function in the latter's file."""
    home = type(module).__module__
    if not home.startswith("timm.models."):
        return None
    names = ("checkpoint_filter_fn", "_checkpoint_filter_fn")
    return next((getattr(sys.modules[home], name) for name in names if hasattr(sys.modules[home], name)), None)


def _likely(expected: Expected, file: Mapping[str, Tensor]) -> list[str]:
    """Return the prefixes under which a file has most of the network's names."""
    ranked = matches(expected, file)[:_TRIED]
    most = max((len(match.taken) for match in ranked), default=0)
    return list(dict.fromkeys(match.naming.prefix for match in ranked if 2 * len(match.taken) > most))


def _said(part: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path) -> list[str]:
    said = []
    if resized := _resized(part, tensors):
        first = resized[0]
        more = f" and {len(resized) - 1} more" if len(resized) > 1 else ""
        said.append(
            f"checkpoint {path.name}: {first}{more}, learnt for images of another size, "
            f"{'are' if more else 'is'} resampled as timm does it, from {tuple(part[first].shape)} "
            f"to {tuple(tensors[first].shape)}"
        )
    if renamed := [key for key in tensors if key not in part]:
        said.append(
            f"checkpoint {path.name}: names of another library are read as timm reads them, {renamed[0]} for example"
        )
    return said
