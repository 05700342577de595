"""Library models and functions that a zoo names: are they there, and if not, which names look like them."""

import ast
import functools
import re
from importlib.util import find_spec
from pathlib import Path

from transferscope.errors import near
from transferscope.networks import timm_source
from transferscope.networks.located_yaml import shown
from transferscope.runtime.lookup import missing_folder
from transferscope.runtime.regular import expanded, is_folder, is_regular, read_regular

EXTRAS = {"transformers": "transformers", "open_clip": "open-clip"}
"""Loaders whose library comes with an extra of this package, and what that is called."""
HUB = "hf-hub:"
_ON_HUB = re.compile(r"hf[-_]hub:(\w[\w.-]*/\w[\w.-]*(@[\w.-]+)?)", re.ASCII)
"""What names on the hub begin with where the library has names of its own."""

_CONFIGS = {"transformers": "config.json", "open_clip": "open_clip_config.json"}
"""The file by which a folder is known as a model."""
_CODE = 4 * 2**20
"""Bytes of a file of code that is looked at."""
_NAME_ON_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


def unknown_model(loader: str, model: str, *, suggest: bool = True) -> str | None:
    """Say that a library knows no architecture of this name, with near names to `suggest`; None when it does.

    Names on a hub (``hf-hub:…``, and all names of transformers) are not looked up. Of a path it is said whether a model
    is there.
    """
    if loader in EXTRAS:
        if find_spec(loader) is None:
            return f"{loader} is not installed: pip install 'transferscope[{EXTRAS[loader]}]'"
        if (path := local_path(loader, model, Path.cwd())) is not None:
            return _no_model_in(path, _CONFIGS[loader])
    if loader == "timm":
        if timm_source.registers(model):
            return None
        import timm

        # Deprecated names are not listed; is_model knows them, but would let any weights' tag through.
        if name_on_hub(model) is not None or (re.fullmatch(r"\w+", model, re.ASCII) and timm.is_model(model)):
            return None
    elif loader == "open_clip":
        if model.startswith(HUB):
            return _no_name(model.removeprefix(HUB))
    elif loader != "torchvision":
        return _no_name(model) if loader == "transformers" else None
    names = _timm_models() if loader == "timm" else _models(loader)
    if model in names:
        return None
    hint = near(model, names) if suggest else ""
    return f"{loader} has no model {shown(model)}{hint or '; see its list_models()'}"


@functools.cache
def _timm_models() -> dict[str, None]:
    import timm

    return dict.fromkeys([*timm.list_models(), *timm.list_models(pretrained=True)])  # which takes its time


def _models(loader: str) -> list[str]:
    if loader == "torchvision":
        import torchvision

        return torchvision.models.list_models()
    import open_clip

    names: list[str] = open_clip.list_models()
    return names


def local_path(loader: str, model: str, folder: Path) -> Path | None:
    """Return where a model lies that is named by a path; None for a name on the hub or in the library.

    A path is what begins like one (``./``, ``../``, ``/``, ``~``); else what is a model there, be it a folder or, for
    open_clip, a file that describes an architecture.
    """
    path = folder / expanded(model, "model")
    if model.startswith((".", "/", "~")) or is_regular(path / _CONFIGS[loader]):
        return path
    return path if path.suffix == ".json" and loader == "open_clip" else None


def name_on_hub(model: str) -> str | None:
    """Return what a model of timm is called on the hub, ``owner/name`` or ``owner/name@revision``; None of others.

    Everything else with a colon in it may be a place that timm would take weights from.
    """
    found = _ON_HUB.fullmatch(model)
    return found[1] if found else None


def is_on_hub(loader: str, model: str) -> bool:
    """Whether a model has to be fetched from a hub before anything is known of it."""
    if loader == "transformers":
        return local_path(loader, model, Path.cwd()) is None
    return ":" in model and not model.startswith("/")


def _no_model_in(path: Path, config: str) -> str | None:
    if path.suffix == ".json" and is_regular(path):
        return None
    if not is_folder(path):
        return missing_folder(path, "a model")
    if is_regular(path / config):
        return None
    return f"the folder {path} is no model, for it has no {config}; correct the path"


def _no_name(model: str) -> str | None:
    if _NAME_ON_HUB.fullmatch(model):
        return None
    expected = "expected owner/name, or the path of a folder, ./ before it"
    return f"{shown(model)} is no name on the Hugging Face hub: {expected}"


def parsed(path: Path) -> ast.Module | None:
    """Return the code of a file; None of one that cannot be read, or is no Python, or nested too deeply for it."""
    try:
        return ast.parse(read_regular(path, _CODE))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def missing_function(path: Path, function: str) -> str | None:
    """Say that a Python file defines no such function, with near names; None when it may. The file is not run."""
    if (tree := parsed(path)) is None:
        return None  # running it gives the better message
    body = tree.body
    names: list[str] = []
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names += [alias.asname or alias.name for alias in node.names]
        elif not isinstance(node, ast.Expr):
            return None  # assignments and conditions may bring in the name as well
    if function in names or "*" in names:
        return None
    return f"{path} has no function {function!r}{near(function, names) or '; correct the name'}"
