"""What a module puts out, be it nested in lists, tuples, mappings or dataclasses: its tensors by the way to them."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch

Way = tuple[Any, ...]
"""Keys, fields and places that lead to a tensor in an output; () is the output itself."""


def tensors_in(output: Any, way: Way = ()) -> Iterator[tuple[Way, torch.Tensor]]:
    """Yield the tensors of an output, each with the way to it, in order."""
    if isinstance(output, torch.Tensor):
        yield way, output
    else:
        for key, value in _items(output):
            yield from tensors_in(value, (*way, key))


def tensor_at(output: Any, way: Way) -> torch.Tensor | None:
    """Return the tensor to which a way leads; None when there is none."""
    for key in way:
        output = next((value for name, value in _items(output) if name == key), None)
    return output if isinstance(output, torch.Tensor) else None


def tensor_for(output: Any, way: Way) -> torch.Tensor | None:
    """Return the tensor to which a way leads, or else the first one: in training some networks put out more."""
    found = tensor_at(output, way)
    return next((tensor for _, tensor in tensors_in(output)), None) if found is None else found


def with_tensor_at(output: Any, way: Way, tensor: torch.Tensor) -> Any:
    """Return a copy of an output with another tensor at the end of a way; TypeError when it cannot be made again."""
    if not way:
        return tensor
    key, *rest = way
    inner = dict(_items(output))
    inner[key] = with_tensor_at(inner[key], tuple(rest), tensor)
    # Mappings of transformers are dataclasses, too.
    if is_dataclass(output) or hasattr(output, "_fields"):
        return type(output)(**inner)
    return type(output)(inner if isinstance(output, Mapping) else inner.values())


def named(way: Way) -> str:
    """Name a way in a message: "hidden_states.0"."""
    return ".".join(map(str, way))


def _items(output: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(output, Mapping):
        yield from output.items()
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        yield from zip(output._fields, output, strict=True)
    elif isinstance(output, (list, tuple)):
        yield from enumerate(output)
    elif is_dataclass(output) and not isinstance(output, type):
        for field in fields(output):
            yield field.name, getattr(output, field.name)
