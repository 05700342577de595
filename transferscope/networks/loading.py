"""A zoo entry → a ready network with its transform: timm, torchvision, or a factory of one's own."""

import ast
import hashlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from transferscope.data.images import Transform
from transferscope.errors import InputError, SourceError, near
from transferscope.networks.checkpoints import file_digest, load_checkpoint
from transferscope.networks.inputs import resolve_transform
from transferscope.networks.lookup import unknown_model
from transferscope.networks.zoo import Source
from transferscope.runtime.lookup import missing_file
from transferscope.runtime.seeding import contained, seeded

# What libraries for downloads raise beside OSError comes from these modules, whatever number ends their names: which
# one the model hub downloads by has changed from requests over httpx to httpx2.
_DOWNLOADERS = {"huggingface_hub", "httpx", "requests", "urllib", "http"}


@dataclass
class Network:
    """A source network, ready to look at images.

    Attributes
    ----------
    name
        Of its source.
    module
        In evaluation mode, on the CPU, in float32.
    transform
        From an image to the network's input.
    source
        The zoo entry that it was made from.
    seed
        Of the weights that no file gives.
    """

    name: str
    module: nn.Module
    transform: Transform
    source: Source
    seed: int = 0


def load_network(source: Source, *, trust_code: bool = False, seed: int = 0) -> Network:
    """Build a source network, load its weights and find its transform.

    Parameters
    ----------
    source
        An entry of a zoo.
    trust_code
        Allow to run the code of a factory (loader ``python``).
    seed
        For weights that no file gives: a classifier of another width, a factory without a checkpoint. The
        global random state is left as it was.

    Raises
    ------
    InputError
        The source needs ``trust_code=True``.
    SourceError
        Anything else that goes wrong; the message names the source and says what to do.
    """
    check_trust(source, trust_code)
    with _blamed_on(source):
        module = _build(source, pretrained=source.checkpoint is None, seed=seed)
        if source.checkpoint is not None:
            load_checkpoint(module, source.checkpoint)
        return Network(source.name, module, resolve_transform(source, module), source, seed)


def build_untrained(source: Source, *, seed: int, trust_code: bool = False) -> nn.Module:
    """Build a source's architecture with freshly drawn weights: evaluation mode, CPU, float32.

    The global random state is left as it was. A factory that loads weights of its own is taken at its word.

    Raises
    ------
    InputError, SourceError
        As for `load_network`.
    """
    check_trust(source, trust_code)
    with _blamed_on(source):
        return _build(source, pretrained=False, seed=seed)


def source_transform(source: Source, module: nn.Module | None = None) -> Transform:
    """Return the transform of a source without loading its weights, running a factory or downloading weights.

    Parameters
    ----------
    source
        An entry of a zoo.
    module
        Its network where it is built already, whatever its weights; else a factory's is taken to see three channels,
        or as many as the mean of its transform has numbers.

    Raises
    ------
    SourceError
        The library does not know the architecture, or does not say how its images are prepared.
    """
    with _blamed_on(source):
        if module is None and source.loader == "timm":
            module = _build(source, pretrained=False, seed=0)
        return resolve_transform(source, module)


def fingerprint(source: Source) -> str:
    """Return a SHA-256 of all that determines a source network's activations, without building it.

    That is: loader, model, kwargs, transform, the bytes of the checkpoint, the bytes of the factory file and
    of the files beside it that it imports, the function, and the versions of torch and the library (of timm
    and torchvision both for a factory). Neither names nor places of files count. Weights that a factory reads
    by itself go unseen: give them as ``checkpoint``.

    Raises
    ------
    SourceError
        A file is missing or cannot be read.
    """
    with _blamed_on(source):
        libraries = ["timm", "torchvision"] if source.loader == "python" else [source.loader]
        facts = {
            "loader": source.loader,
            "model": source.model,
            "kwargs": source.kwargs,
            "transform": source.transform.model_dump(),
            "checkpoint": file_digest(source.checkpoint) if source.checkpoint else None,
            "factory": _code_digests(source.factory_parts[0]) if source.factory else None,
            "function": source.factory_parts[1] if source.factory else None,
            "versions": {name: version(name) for name in ["torch", *libraries]},
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def identity(source: Source, seed: int = 0) -> list[Any]:
    """Return everything that decides the activations of `load_network(source, seed=seed)`, to name them by in a cache.

    Raises
    ------
    SourceError
        As `fingerprint`.
    """
    return [fingerprint(source), seed]


def check_trust(source: Source, trust_code: bool) -> None:
    """Raise `InputError` when `source` runs code that nobody has said to trust."""
    if source.loader == "python" and not trust_code:
        raise InputError(
            f"source {source.name!r} runs the code of {source.factory_parts[0]}: if you trust that file, "
            "allow it with --trust-code (in Python trust_code=True)"
        )


@contextmanager
def _blamed_on(source: Source) -> Iterator[None]:
    try:
        yield
    except SourceError as error:
        raise SourceError(f"source {source.name!r}: {error}") from error
    except MemoryError:  # says something about the machine, not about the source
        raise
    except Exception as error:
        raise SourceError(
            f"source {source.name!r}: {_said(error)}; check its entry, its model and kwargs above all"
        ) from error


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _build(source: Source, *, pretrained: bool, seed: int) -> nn.Module:
    with contained(), seeded(seed):
        module = _from_factory(source) if source.loader == "python" else _from_library(source, pretrained)
    return module.cpu().float().eval()


def _from_library(source: Source, pretrained: bool) -> nn.Module:
    model, kwargs = str(source.model), dict[str, Any](source.kwargs)
    if problem := unknown_model(source.loader, model):
        raise SourceError(problem)
    try:
        if source.loader == "timm":
            import timm

            return timm.create_model(model, pretrained=pretrained, **kwargs)
        import torchvision

        # Left to themselves, detection and segmentation models download the weights of their backbone.
        if "weights_backbone" in inspect.signature(torchvision.models.get_model_builder(model)).parameters:
            kwargs["weights_backbone"] = None
        kwargs["weights"] = "DEFAULT" if pretrained else None
        return torchvision.models.get_model(model, progress=False, **kwargs)
    except MemoryError:
        raise
    except Exception as error:
        if pretrained and _is_download(error):
            text = f"the weights of {model!r} could not be downloaded ({_said(error)})"
            raise SourceError(f"{text}; connect to the internet, or name a local file as its `checkpoint`") from error
        text = f"{source.loader} cannot build {model!r} with kwargs {source.kwargs} ({_said(error)})"
        raise SourceError(f"{text}; correct model or kwargs") from error


def _is_download(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0].rstrip("0123456789") in _DOWNLOADERS:
            return True
        error = error.__cause__ or error.__context__
    return False


def _from_factory(source: Source) -> nn.Module:
    path, name = source.factory_parts
    try:
        code = path.read_bytes()
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
            text = f"factory {path}:{name} with kwargs {source.kwargs} failed ({_said(error)})"
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
        exec(compile(code, path, "exec"), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


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


def _code_digests(factory: Path) -> list[str]:
    """Digest the factory file, then what it imports from its folder, directly or not, by path."""
    digests: dict[Path, str] = {}
    waiting = [factory]
    while waiting:
        path = waiting.pop()
        if path in digests:
            continue
        digests[path] = file_digest(path)
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # running it will tell
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                beside = factory.parent / name.partition(".")[0]
                waiting += [file for file in (beside.with_suffix(".py"), *beside.glob("**/*.py")) if file.is_file()]
    return [digests.pop(factory), *(digest for _, digest in sorted(digests.items()))]
