"""What timm's own source says of its models, read without importing timm, which takes seconds."""

import ast
import functools
import re
from importlib.util import find_spec
from pathlib import Path

_LARGEST = 4 * 2**20
"""Bytes of a file of timm's that is looked at."""
_REGISTERED = re.compile(r"^@register_model(?:\(\))?\s*\ndef (\w+)\(", re.MULTILINE)
_WHERE = ("url", "file", "hf_hub_id")
"""Arguments of a configuration that say where weights are."""


def registers(model: str) -> bool:
    """Whether the installed timm certainly has an architecture of this name; False where importing it has to tell."""
    return model in _registered()


def has_weights(model: str) -> bool:
    """Whether it certainly has weights for it, too; False where importing it has to tell.

    Its default weights are the first there are of an architecture, or those whose tag ends in an asterisk.
    """
    text = _registered().get(model)
    if text is None:
        return False
    found = {tag: _names_weights(text, end) for tag, end in _configurations(text, model)}
    return any(found.values()) and all(certain for tag, certain in found.items() if tag.endswith("*"))


@functools.cache
def _registered() -> dict[str, str]:
    """Return the architectures that are registered, each with the text of the file that does it."""
    spec = find_spec("timm")
    folders = [Path(place) / "models" for place in (spec and spec.submodule_search_locations) or ()]
    found: dict[str, str] = {}
    for path in (path for folder in folders for path in sorted(folder.glob("*.py"))):
        try:
            text = path.read_text(encoding="utf-8") if path.stat().st_size <= _LARGEST else ""
        except (OSError, UnicodeDecodeError):
            continue
        found |= dict.fromkeys(_REGISTERED.findall(text), text)
    return found


def _configurations(text: str, model: str) -> list[tuple[str, int]]:
    """Return the tag of each configuration of a model, and where the call that makes it begins."""
    keys = re.finditer(rf"^\s*(['\"]){model}(?:\.([^'\"\n]+))?\1\s*:\s*(?=\w+\()", text, re.MULTILINE)
    return [(key[2] or "", key.end()) for key in keys]


def _names_weights(text: str, start: int) -> bool:
    """Whether the call at `start` says in plain words where weights are."""
    end, depth = start, 0
    for end in range(text.index("(", start), len(text)):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        if not depth:
            break
    try:
        call = ast.parse(text[start : end + 1], mode="eval").body
    except SyntaxError:  # a bracket in a string
        return False
    given = [each.value for each in getattr(call, "keywords", ()) if each.arg in _WHERE]
    return any(isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value for value in given)
