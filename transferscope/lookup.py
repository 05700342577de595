"""Is it there? Files, functions and library models that a zoo names, with near names for what is not."""

import ast
import difflib
from collections.abc import Iterable
from pathlib import Path


def missing_file(path: Path) -> str:
    """Say that a file is not there, with near names from its folder."""
    if path.is_dir():
        return f"expected a file, got the folder {path}"
    beside = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    return f"there is no file {path}{near(path.name, beside) or '; correct the path'}"


def unknown_model(loader: str, model: str) -> str | None:
    """Say that a library knows no architecture of this name, with near names; None when it does.

    Names on a hub (``hf-hub:…``) are not looked up.
    """
    if loader == "timm":
        import timm

        known = [*timm.list_models(), *timm.list_models(pretrained=True)]
        # Deprecated names are not listed; is_model knows them, but would let any weights' tag through.
        if ":" in model or ("." not in model and timm.is_model(model)):
            return None
    elif loader == "torchvision":
        import torchvision

        known = torchvision.models.list_models()
    else:
        return None
    if model in known:
        return None
    return f"{loader} has no model {model!r}{near(model, known) or '; see its list_models()'}"


def near(name: object, known: Iterable[str]) -> str:
    """Suggest the known names that look most like this one, in parentheses; nothing when none does."""
    close = difflib.get_close_matches(str(name), list(known), n=3)
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""


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
