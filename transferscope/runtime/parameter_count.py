"""How many weights a module holds, also where they are no parameters that torch lists; or that it cannot be told."""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from transferscope.errors import TransferscopeWarning

_SHOWN = 3
_QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")
"""Layers from here keep their weights in modules that are none, though they have a `forward`."""


def _types(*beginnings: str) -> set[torch.dtype]:
    """Return the types of torch whose names begin so, of those that this version has."""
    return {getattr(torch, name) for name in dir(torch) if name.startswith(beginnings)}


_ONE_EACH = {torch.int8, *_types("float8_", "qint", "quint8")}
"""Types of low precision in which an element is a weight."""
_PACKED = {torch.uint8, *_types("float4_", "quint4", "quint2")}
"""Types in which an element may hold several weights."""


def own_parameters(module: nn.Module) -> dict[int, float]:
    """Count the weights that a module holds itself, apart from the layers in it.

    These are its parameters; what the quantised layers of `torch.ao` keep packed; and matrices of low precision
    (int8, float8) that quantised layers of other libraries keep as buffers. Other buffers are no parameters. What lists
    of parameters and other modules without a `forward` hold belongs to the module that they are in.

    Returns
    -------
    dict of int to float
        By the `id` of what holds them, so that shared weights can be counted once: integers, NaN where how many there
        are cannot be told (several weights to an element, packed objects of other libraries).
    """
    counts: dict[int, float] = {}
    for parameter in module.parameters(recurse=False):
        counts[id(parameter)] = math.nan if parameter.dtype in _PACKED else parameter.numel()
    for name, buffer in module.named_buffers(recurse=False):
        if buffer.ndim >= 2 and (buffer.dtype in _PACKED or name == "qweight"):
            counts[id(buffer)] = math.nan
        elif buffer.ndim >= 2 and buffer.dtype in _ONE_EACH:
            counts[id(buffer)] = buffer.numel()
    for packed in _packed_objects(vars(module).values()):
        counts[id(packed)] = _unpacked(packed)
    quantised = type(module).__module__.startswith(_QUANTISED)
    for child in module.children():
        if quantised or type(child).forward is nn.Module.forward:
            counts |= own_parameters(child)
    return counts


def total(counts: Mapping[int, float]) -> float:
    """Add up what `own_parameters` found: an integer, NaN when anything is unknown."""
    return sum(counts.values())


class ParameterCounter:
    """Counts the weights of the modules of a network as they are entered, shared ones once."""

    def __init__(self, net: nn.Module) -> None:
        self._listed = {id(parameter) for parameter in net.parameters()}
        self._counts: dict[int, float] = {}
        self._unknown: dict[str, str] = {}

    @property
    def total(self) -> float:
        """Weights so far: an integer, NaN when unknown."""
        return total(self._counts)

    @property
    def hidden(self) -> float:
        """Those among them that torch does not list as parameters, or not as so many."""
        hidden = {key: count for key, count in self._counts.items() if key not in self._listed or math.isnan(count)}
        return total(hidden)

    def enter(self, path: str, module: nn.Module) -> None:
        """Add what a module holds itself."""
        own = own_parameters(module)
        self._counts |= own
        if math.isnan(total(own)):
            self._unknown[path] = type(module).__name__

    def warn_of_unknown(self) -> None:
        """Say which modules hold weights that cannot be counted; nothing where there is none."""
        kinds = [f"{path or 'the network itself'} ({kind})" for path, kind in self._unknown.items()]
        if not kinds:
            return
        more = f" and {len(kinds) - _SHOWN} others" if len(kinds) > _SHOWN else ""
        warnings.warn(
            f"Parameters are unknown: how many weights {', '.join(kinds[:_SHOWN])}{more} holds cannot be told",
            TransferscopeWarning,
            stacklevel=3,
        )


def all_parameters(net: nn.Module) -> float:
    """Count the weights of a network, shared ones once: an integer, NaN when unknown."""
    counts: dict[int, float] = {}
    for module in net.modules():
        counts |= own_parameters(module)
    return total(counts)


def _packed_objects(values: Iterable[Any]) -> Iterator[torch.ScriptObject]:
    """Yield the packed objects among some values, in lists and tuples too."""
    for value in values:
        if isinstance(value, torch.ScriptObject):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _packed_objects(value)


def _unpacked(packed: Any) -> float:
    """Count the weights and biases of a packed object."""
    try:
        if hasattr(packed, "unpack"):
            parts = packed.unpack()
            tensors = [parts] if isinstance(parts, Tensor) else [part for part in parts if isinstance(part, Tensor)]
            return sum(tensor.numel() for tensor in tensors) if tensors else math.nan
        # Those of recurrent layers hold packed products, each with its bias, which the state lists once more.
        inner = list(_packed_objects([packed.__getstate__()]))
    except Exception:  # whatever a library's object does not know
        return math.nan
    return sum(map(_unpacked, inner)) if inner else math.nan
