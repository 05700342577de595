"""Factories of one's own: a function in a file → a network, and the digests of all code that it imports from there."""

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, ModuleType

from torch import nn

from transferscope.errors import SourceError, near
from transferscope.networks.checkpoint_files import file_digest
from transferscope.networks.lookup import parsed
from transferscope.networks.zoo import Source
from transferscope.runtime.lookup import missing_file
from transferscope.runtime.regular import is_regular, read_regular


def said(error: BaseException) -> str:
    """Return what an error says, with its kind, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def from_factory(source: Source) -> nn.Module:
    """Return what the factory of a source makes of its kwargs.

    Raises
    ------
    SourceError
        The file or the function is not there, it fails, or it returns something else.
    """
    path, name = source.factory_parts
    try:
        code = read_regular(path)
    except FileNotFoundError as error:
        raise SourceError(missing_file(path)) from error
    except OSError as error:
        raise SourceError(f"factory {path} cannot be read: {error.strerror}") from error
    with _importing_beside(path):
        try:
            namespace = _module(path, code)
            factory = getattr(namespace, name, None)
            if not callable(factory):
                functions = [key for key, value in vars(namespace).items() if callable(value)]
                raise SourceError(f"factory {path} has no function {name!r}{near(name, functions)}")
            module = factory(**source.kwargs)
        except (SourceError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            text = f"factory {path}:{name} with kwargs {source.kwargs} failed ({said(error)})"
            raise SourceError(f"{text}; correct it or its kwargs") from error
    if not isinstance(module, nn.Module):
        raise SourceError(f"factory {path}:{name} must return a torch.nn.Module, got {type(module).__name__}")
    return module


def _module(path: Path, code: bytes) -> ModuleType:
    """Import a file under a name of its own, from these very bytes: a stale byte code cache never counts."""
    name = f"transferscope_factory_{hashlib.sha256(bytes(path.absolute()) + code).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # the suffix is .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    try:
        exec(_compiled(path, code), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _compiled(path: Path, code: bytes) -> CodeType:
    try:
        return compile(code, path, "exec")
    except (RecursionError, MemoryError) as error:  # which here say something about the file, not about the machine
        raise SourceError(f"factory {path} is nested too deeply for Python; correct it") from error


@contextmanager
def _importing_beside(path: Path) -> Iterator[None]:
    """Let a factory import the files beside it, hidden from other factories with files of the same name."""
    folder = path.absolute().parent
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            module, root = sys.modules[name], folder / name.partition(".")[0]
            places = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", [])]
            # Only what was found through this folder: libraries in a virtual environment below it stay.
            if any(Path(place).is_relative_to(root) or Path(place) == root.with_suffix(".py") for place in places):
                del sys.modules[name]


def code_files(factory: Path) -> dict[Path, str]:
    """Digest the factory file, then what it imports from its folder, directly or not, by path.

    Raises
    ------
    SourceError
        A file cannot be read.
    """
    digests: dict[Path, str] = {}
    waiting = [factory]
    while waiting:
        path = waiting.pop()
        if path in digests:
            continue
        digests[path] = file_digest(path)
        if (tree := parsed(path)) is None:
            continue  # running it will tell
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                beside = factory.parent / name.partition(".")[0]
                waiting += [file for file in (beside.with_suffix(".py"), *beside.glob("**/*.py")) if is_regular(file)]
    return {factory: digests.pop(factory), **dict(sorted(digests.items()))}
