"""Which layers are asked for: names and globs of `named_modules()` paths, with what is near a name that is none."""

import difflib
import re
from collections.abc import Iterable, Sequence

from torch import nn

from transferscope.activations.calls import Trace
from transferscope.errors import CaptureError, InputError

Layers = str | Sequence[str]


def select_layers(net: nn.Module, layers: Layers) -> list[str]:
    """Resolve names and globs to layer names of `net`, each once, in the order in which they are asked for."""
    patterns = [layers] if isinstance(layers, str) else list(layers) if isinstance(layers, Sequence) else []
    if not patterns or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise InputError(
            f"Expected `layers` to be 'auto', a layer name or a sequence of names and globs, but got {layers!r}"
        )
    paths = [path for path, _ in net.named_modules() if path]
    selected: list[str] = []
    for pattern in patterns:
        if "*" in pattern:
            regex = _glob(pattern)
            matches = [path for path in paths if regex.fullmatch(path)]
        else:
            matches = [pattern] if path_of(pattern) in paths else []
        if not matches:
            raise CaptureError(
                f"No layer of {type(net).__name__} matches {pattern!r}{_suggestion(pattern, paths)}; "
                "`transferscope layers` lists them all"
            )
        selected += matches
    return list(dict.fromkeys(selected))


def _glob(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", pattern)
    return re.compile("".join({"**": ".*", "*": "[^.]*"}.get(part, re.escape(part)) for part in parts))


def path_of(layer: str) -> str:
    """Return the path of the module that a layer is a call of."""
    return re.sub(r":\d+$", "", layer)


def _suggestion(name: str, candidates: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(candidates), n=3, cutoff=0.4)
    return f" (near names: {', '.join(near)})" if near else ""


def listed(names: Iterable[str]) -> str:
    """Name some layers, and how many there are."""
    names = list(names)
    return ", ".join(names[:8]) + (f" … ({len(names)} in all)" if len(names) > 8 else "") or "nothing"


def check_fired(net: nn.Module, requested: Iterable[str], fired: Iterable[str], traced: Trace | None = None) -> None:
    """Raise CaptureError for the first of the `requested` layers that is not among those that `fired`."""
    silent = [name for name in requested if name not in fired]
    if silent and traced is not None and silent[0] in traced.without_tensor:
        raise CaptureError(
            f"Expected layer {silent[0]!r} to return a tensor, or something that holds one, but got "
            f"{traced.without_tensor[silent[0]]}; choose another layer"
        )
    if silent:
        others = [path for path, _ in net.named_modules() if path not in silent]
        raise CaptureError(
            f"Layer {silent[0]!r} exists but never fired during the forward pass"
            f"{_suggestion(silent[0], others)}; ask for a layer that the network runs through"
        )
