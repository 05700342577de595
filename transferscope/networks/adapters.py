"""Low-rank adapters (LoRA) beside the weights that they adapt: merged as PEFT merges them, or refused by name."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transferscope.errors import SourceError
from transferscope.runtime.regular import is_regular, read_regular

CONFIG = "adapter_config.json"
"""What PEFT writes beside an adapter: how strongly it counts."""

_MARK = re.compile(r"(^|[._])lora_|\.(original_module|modules_to_save|base_layer)\.")
_FACTOR = re.compile(r"(?P<layer>.+)\.lora_(?P<side>A|B)(\.(?P<adapter>[^.]+))?\.weight")
_SAVED = re.compile(r"(?P<module>.+)\.modules_to_save\.(?P<adapter>[^.]+)\.(?P<name>.+)")
# Settings of PEFT under which an adapter is more than lora_alpha / r times B A.
_BEYOND = (
    "use_dora",
    "fan_in_fan_out",
    "rank_pattern",
    "alpha_pattern",
    "lora_bias",
    "use_qalora",
    "alora_invocation_tokens",
)


def has_adapters(file: Mapping[str, Tensor]) -> bool:
    """Whether tensors of a file are called as those of adapters are."""
    return any(_MARK.search(name) for name in file)


def config_beside(path: Path) -> Path | None:
    """Return the file that says how an adapter in `path` is merged, if there is one."""
    config = path.parent / CONFIG
    return config if is_regular(config) else None


def merged(file: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Return a file's tensors with its adapters added to the weights that they adapt, and what has to be said of it.

    W + s B A, with s = lora_alpha / r (or lora_alpha / sqrt(r)) from what PEFT writes beside the file, see `CONFIG`.

    Raises
    ------
    SourceError
        The weights are not in the file, their adapters are several or of another kind, or s is not known.
    """
    plain = {re.sub(r"\.base_layer\.", ".", name): tensor for name, tensor in file.items() if not _is_adapter(name)}
    layers: dict[str, dict[str, Tensor]] = {}
    saved: dict[str, Tensor] = {}
    adapters = set()
    for name, tensor in file.items():
        if not _is_adapter(name) or ".original_module." in name:
            continue
        factor, whole = _FACTOR.fullmatch(name), _SAVED.fullmatch(name)
        if factor:
            layers.setdefault(factor["layer"], {})[factor["side"]] = tensor
            adapters.add(factor["adapter"] or "default")
        elif whole:
            saved[f"{whole['module']}.{whole['name']}"] = tensor
            adapters.add(whole["adapter"])
        else:
            raise _refused(path, f"holds an adapter of a kind that is not merged here ({name})")
    if len(adapters) > 1:
        raise _refused(path, f"holds several adapters ({', '.join(sorted(adapters))})")
    if without := [layer for layer in layers if f"{layer}.weight" not in plain]:
        raise _refused(path, f"holds LoRA adapters ({without[0]}.lora_A, …) without the weights that they adapt")
    if half := [layer for layer, sides in layers.items() if len(sides) != 2]:
        raise _refused(path, f"holds one of the two factors of a LoRA adapter alone ({half[0]})")
    config = _config(path) if layers else {}
    for layer, sides in layers.items():
        weight = plain[f"{layer}.weight"]
        plain[f"{layer}.weight"] = _sum(weight, sides["A"], sides["B"], config, layer, path)
    said = [f"checkpoint {path.name}: its LoRA adapters of {len(layers)} layers are merged into the weights"]
    return plain | saved, said if layers else []


def _is_adapter(name: str) -> bool:
    return bool(re.search(r"(^|[._])lora_|\.(original_module|modules_to_save)\.", name))


def _config(path: Path) -> dict[str, Any]:
    beside = config_beside(path)
    if beside is None:
        raise _refused(path, f"holds LoRA adapters, and no {CONFIG} beside it says how strongly they count")
    try:
        config = json.loads(read_regular(beside, 2**22))
        float(config["lora_alpha"]), int(config["r"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise _refused(path, f"holds LoRA adapters, and {beside} does not give lora_alpha and r") from error
    if other := [key for key in _BEYOND if config.get(key)]:
        raise _refused(path, f"holds LoRA adapters with {', '.join(other)}, which are not merged here")
    return dict(config)


def _sum(weight: Tensor, a: Tensor, b: Tensor, config: Mapping[str, Any], layer: str, path: Path) -> Tensor:
    rank = len(a)
    shapes = f"{layer}: weight {tuple(weight.shape)}, A {tuple(a.shape)}, B {tuple(b.shape)}"
    if rank != config["r"]:
        raise _refused(path, f"holds LoRA adapters of other ranks than the {config['r']} of {CONFIG} ({shapes})")
    scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
    # Of a convolution A holds its filters and B mixes them point by point.
    product = (b.flatten(1).double() @ a.flatten(1).double()).reshape(len(b), *a.shape[1:])
    if b.ndim != weight.ndim or product.shape != weight.shape or math.prod(b.shape[2:]) != 1:
        raise _refused(path, f"holds LoRA adapters that do not have the shape of their weights ({shapes})")
    return (weight.double() + scale * product).to(torch.promote_types(weight.dtype, a.dtype))


def _refused(path: Path, why: str) -> SourceError:
    return SourceError(
        f"checkpoint {path} {why}; merge its adapters into the weights (merge_and_unload() of PEFT) and save these"
    )
