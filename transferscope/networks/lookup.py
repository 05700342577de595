"""Library models and functions that a zoo names: are they there, and if not, which names look like them."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path

from transferscope.errors import near
from transferscope.runtime.lookup import missing_folder

EXTRAS = {"transformers": "transformers", "open_clip": "open-clip"}
"""Loaders whose library comes with an extra of this package, and what that is called."""
HUB = "hf-hub:"
"""What names on the hub begin with where the library has names of its own."""

_CONFIGS = {"transformers": "config.json", "open_clip": "open_clip_config.json"}
"""The file by which a folder is known as a model."""
_NAME_ON_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


def unknown_model(loader: str, model: str) -> str | None:
    """Say that a library knows no architecture of this name, with near names; None when it does.

    Names on a hub (``hf-hub:…``, and all names of transformers) are not looked up. Of a path it is said whether a model
    is there.
    """
    if loader in EXTRAS:
        if find_spec(loader) is None:
            return f"{loader} is not installed: pip install 'transferscope[{EXTRAS[loader]}]'"
        if (path := local_path(loader, model, Path.cwd())) is not None:
            return _no_model_in(path, _CONFIGS[loader])
    if loader == "timm":
        import timm

        names = [*timm.list_models(), *timm.list_models(pretrained=True)]
        # Deprecated names are not listed; is_model knows them, but would let any weights' tag through.
        if ":" in model or ("." not in model and timm.is_model(model)):
            return None
    elif loader == "torchvision":
        import torchvision

        names = torchvision.models.list_models()
    elif loader == "open_clip":
        import open_clip

        if model.startswith(HUB):
            return _no_name(model.removeprefix(HUB))
        names = open_clip.list_models()
    else:
        return _no_name(model) if loader == "transformers" else None
    if model in names:
        return None
    return f"{loader} has no model {model!r}{near(model, names) or '; see its list_models()'}"


def local_path(loader: str, model: str, folder: Path) -> Path | None:
    """Return where a model lies that is named by a path; None for a name on the hub or in the library.

    A path is what begins like one (``./``, ``../``, ``/``, ``~``); else what is a model there, be it a folder or, for
    open_clip, a file that describes an architecture.
    """
    path = folder / Path(model).expanduser()
    if model.startswith((".", "/", "~")) or (path / _CONFIGS[loader]).is_file():
        return path
    return path if path.suffix == ".json" and loader == "open_clip" else None


def is_on_hub(loader: str, model: str) -> bool:
    """Whether a model has to be fetched from a hub before anything is known of it."""
    if loader == "transformers":
        return local_path(loader, model, Path.cwd()) is None
    return ":" in model and not model.startswith("/")


def _no_model_in(path: Path, config: str) -> str | None:
    if path.suffix == ".json" and path.is_file():
        return None
    if not path.is_dir():
        return missing_folder(path, "a model")
    if (path / config).is_file():
        return None
    return f"the folder {path} is no model, for it has no {config}; correct the path"


def _no_name(model: str) -> str | None:
    if _NAME_ON_HUB.fullmatch(model):
        return None
    return f"{model!r} is no name on the Hugging Face hub: expected owner/name, or the path of a folder, ./ before it"


def missing_function(path: Path, function: str) -> str | None:
    """Say that a Python file defines no such function, with near names; None when it may. The file is not run."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return None  # running it gives the better message
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
