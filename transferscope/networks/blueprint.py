"""The architecture of a source, to be built again without the zoo, its weights or the internet: an entry and files."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transferscope.data.images import Transform
from transferscope.errors import InputError
from transferscope.networks import compact, from_open_clip, from_timm, from_transformers
from transferscope.networks.factories import code_files
from transferscope.networks.lookup import name_on_hub
from transferscope.networks.zoo import COMPACT, SCRATCH, Source

CODE, CONFIGURATION = "code", "architecture"
"""Folders beside the weights: of the files of a factory, and of a library's description of a model."""

_OF_WEIGHTS = ("pretrained", "revision")
"""Those of the kwargs of libraries that say which weights are taken."""


@dataclass(frozen=True)
class Blueprint:
    """How to build an architecture again.

    Attributes
    ----------
    entry : mapping
        JSON-like: loader, model or factory, kwargs. Paths are relative to the folder of the files.
    files : mapping of str to bytes
        What it needs beside the library, by relative path.
    """

    entry: Mapping[str, Any]
    files: Mapping[str, bytes]


def compact_source(classes: int, stem_stride: int, transform: Transform) -> Source:
    """Return the compact network, drawn at random, as an entry of a zoo called "scratch"."""
    kwargs = {"classes": classes, "stem_stride": stem_stride, "channels": len(transform.mean)}
    source = source_of({"loader": COMPACT, "kwargs": kwargs}, Path(), transform)
    return source.model_copy(update={"name": SCRATCH})


def is_compact(source: Source) -> bool:
    """Whether a source is the compact network of this package, whose code needs no trust."""
    return source.factory == _own_factory()


def blueprint(source: Source) -> Blueprint:
    """Return how to build the architecture of a source again.

    Raises
    ------
    SourceError
        A file of it cannot be read, or it can only be built where it is.
    """
    kwargs = {key: value for key, value in source.kwargs.items() if key not in _OF_WEIGHTS}
    if is_compact(source):
        return Blueprint({"loader": COMPACT, "kwargs": kwargs}, {})
    if source.loader == "python":
        file, function = source.factory_parts
        files = {f"{CODE}/{path.relative_to(file.parent).as_posix()}": path.read_bytes() for path in code_files(file)}
        entry = {"loader": "python", "factory": f"{CODE}/{file.name}:{function}", "kwargs": dict(source.kwargs)}
        return Blueprint(entry, files)
    if source.loader in ("transformers", "open_clip"):
        library = from_transformers if source.loader == "transformers" else from_open_clip
        files = {f"{CONFIGURATION}/{name}": content for name, content in library.description(source).items()}
        return Blueprint({"loader": source.loader, "model": CONFIGURATION, "kwargs": kwargs}, files)
    model = str(source.model)
    if source.loader == "timm" and name_on_hub(model) is not None:
        model, more = from_timm.description(model)
        kwargs = {**more, **kwargs}
    return Blueprint({"loader": source.loader, "model": model, "kwargs": kwargs}, {})


def source_of(entry: Mapping[str, Any], folder: Path, transform: Transform) -> Source:
    """Return the architecture that an entry describes as an entry of a zoo, for `loading.load_architecture`.

    Parameters
    ----------
    entry : mapping
        As in a `Blueprint`.
    folder : pathlib.Path
        Where the files are.
    transform : Transform
        Of the images that it takes.

    Raises
    ------
    InputError
        It describes none.
    """
    options = {key: value for key, value in asdict(transform).items() if value is not None}
    try:
        given: dict[str, Any] = {"name": "model", "transform": options, **entry}
        if entry["loader"] == COMPACT:
            given |= {"loader": "python", "factory": _own_factory()}
        elif entry["loader"] == "python":
            given["factory"] = str(folder.absolute() / entry["factory"])
        elif entry["loader"] in ("transformers", "open_clip"):
            given["model"] = str(folder.absolute() / entry["model"])
        return Source(**given)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"Expected the architecture of a network, but got {dict(entry)!r:.200} ({error})") from error


def _own_factory() -> str:
    return f"{Path(compact.__file__).absolute()}:{compact.CompactResNet.__name__}"
