"""Library models and functions that a zoo names: are they there, and if not, which names look like them."""

import ast
from pathlib import Path

from transferscope.errors import near


def unknown_model(loader: str, model: str) -> str | None:
    """Say that a library knows no architecture of this name, with near names; None when it does.

    Names on a hub (``hf-hub:…``) are not looked up.
    """
    if loader == "timm":
        import timm

        names = [*timm.list_models(), *timm.list_models(pretrained=True)]
        # Deprecated names are not listed; is_model knows them, but would let any weights' tag through.
        if ":" in model or ("." not in model and timm.is_model(model)):
            return None
    elif loader == "torchvision":
        import torchvision

        names = torchvision.models.list_models()
    else:
        return None
    if model in names:
        return None
    return f"{loader} has no model {model!r}{near(model, names) or '; see its list_models()'}"


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
