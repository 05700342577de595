"""Checkpoint files → the tensors that they hold by name, read without running code."""

import hashlib
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from transferscope.errors import SourceError
from transferscope.networks.checkpoint_bounds import (
    DEEPEST,
    TENSORS,
    too_large,
    too_much_pickled,
    too_much_safetensors,
)
from transferscope.networks.other_files import what_else
from transferscope.runtime.lookup import missing_file
from transferscope.runtime.regular import is_regular, open_regular

SUFFIXES = (".safetensors", ".pt", ".pth", ".th", ".bin", ".ckpt", ".pt.tar", ".pth.tar")

# Settings and records that training code saves beside the weights: whole names, and what names of modules begin with.
# What is called so is neither imported nor run: an empty object stands for it.
_INERT = {
    "argparse.Namespace", "types.SimpleNamespace", "uuid.UUID", "typing.Any", "collections.defaultdict",
    *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "set", "str", "tuple")),
}  # fmt: skip
_INERT_MODULES = (
    "pathlib.", "datetime.", "numpy.", "omegaconf.", "yacs.config.", "addict.", "easydict.", "ml_collections.",
    "lightning.", "lightning_fabric.", "pytorch_lightning.", "mmengine.", "mmcv.",
)  # fmt: skip


class _Record:
    """Stands for an object with attributes or items: torch's unpickler fills no other mappings than its own kinds."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Any:
        return OrderedDict()


class _Value:
    """Stands for a number or an array of NumPy, and forgets it."""

    def __init__(self, *_args: Any) -> None: ...

    def __setstate__(self, _state: Any) -> None: ...

    def __new__(cls, *_args: Any) -> "_Value":
        return super().__new__(cls)


def check_suffix(path: Path) -> None:
    """Raise `SourceError` unless the name of a checkpoint ends as those that are read do."""
    if not path.name.lower().endswith(SUFFIXES):
        raise SourceError(
            f"checkpoint {path} must end in one of {' '.join(SUFFIXES)}; got {path.suffix or 'no suffix'}"
        )


def read_checkpoint(path: Path, *, mapped: bool = False) -> dict[str, Tensor]:
    """Read the named tensors of a checkpoint, on the CPU, in the precision they were stored in.

    Parameters
    ----------
    path
        A ``.safetensors`` file; or a file of ``torch.save`` (``.pt``, ``.pth``, ``.th``, ``.bin``, ``.ckpt``,
        ``.pth.tar``), which is always read with ``weights_only=True``. Settings that training code saves beside the
        weights (``argparse.Namespace`` and the like) are left out, without running any code for them.
    mapped
        Look at names and shapes: values are read from the disk only where they are used, and not checked for damage.

    Returns
    -------
    dict
        Every tensor that the file holds in mappings, however deep, by the keys that lead to it joined with dots:
        ``{"state_dict": {"conv.weight": …}}`` gives ``state_dict.conv.weight``. A tensor that safetensors keeps
        once for several names is there under all of them.

    Raises
    ------
    SourceError
        The file is missing, damaged, of another kind, would run code, or holds no named tensors.
    """
    check_suffix(path)
    check_bounds(path)
    content = _safetensors(path) if _is_safetensors(path) else _pickled(path, mapped)
    state: dict[str, Tensor] = {}
    for steps, (name, tensor) in enumerate(_named(content, "", [])):
        if steps >= TENSORS or name is None:
            raise SourceError(
                f"checkpoint {path} holds mappings that hold themselves, over {DEEPEST} in each other or over "
                f"{TENSORS} tensors; save the weights alone"
            )
        if tensor is None:
            continue
        if name in state:
            raise SourceError(f"checkpoint {path} holds two tensors that are called {name}; save it again with one")
        if too_large(tensor, path):
            raise SourceError(
                f"checkpoint {path} holds too little for {name} of shape {tuple(tensor.shape)}, which repeats or lacks "
                "its numbers; save the weights themselves"
            )
        state[name] = tensor
    if not state:
        raise SourceError(
            f"checkpoint {path} must hold named tensors, alone or in nested mappings; got {_kind(content)}"
        )
    return state


def _is_safetensors(path: Path) -> bool:
    return path.name.lower().endswith(".safetensors")


def check_bounds(path: Path) -> None:
    """Raise `SourceError` unless a checkpoint is a file, and one that asks for no more than its size allows."""
    if not is_regular(path):
        raise SourceError(f"checkpoint: {missing_file(path)}")
    try:
        too_much = too_much_safetensors(path) if _is_safetensors(path) else too_much_pickled(path)
    except OSError as error:
        raise SourceError(f"checkpoint {path} cannot be read: {error.strerror}") from error
    if too_much is not None:
        raise SourceError(f"checkpoint {path} {too_much}")


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal; `SourceError` when it cannot be read."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise SourceError(missing_file(path)) from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


def _named(content: Any, prefix: str, around: list[int]) -> Iterator[tuple[str | None, Tensor | None]]:
    """Yield the tensors by name; a name alone for each mapping, and nothing for what holds itself or lies too deep."""
    if isinstance(content, list | tuple):  # of tensors in lists nothing tells what they are
        content = {index: item for index, item in enumerate(content) if not isinstance(item, Tensor)}
    if not isinstance(content, Mapping):
        return
    yield prefix, None
    if id(content) in around or len(around) > DEEPEST:
        yield None, None
        return
    around.append(id(content))
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        else:
            yield from _named(value, f"{prefix}{key}.", around)
    around.pop()


def _kind(content: Any) -> str:
    if not isinstance(content, Mapping) or not content:
        return type(content).__name__
    arrays = any(isinstance(value, _Value) for value in content.values())
    return f"a mapping with {', '.join(map(str, list(content)[:5]))}{' (values of NumPy)' if arrays else ''}"


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        state: dict[str, Tensor] = load_file(path)
        with safe_open(path, "pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    # safetensors.torch.save_model notes the names that it left out, each with the one that it kept.
    return state | {name: state[kept] for name, kept in metadata.items() if kept in state and name not in state}


def _pickled(path: Path, mapped: bool) -> Any:
    stand_ins: list[Any] = []
    while True:
        try:
            with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
                warnings.simplefilter("ignore")  # about kinds of files that are refused below
                # Only archives can be mapped, not what versions before 1.6 wrote.
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and _begins(path, b"P"))
        except Exception as error:  # a damaged file makes the unpickler raise nearly anything
            culprit = _unknown_object(path, error)
            if not culprit or not _is_inert(culprit) or any(culprit == name for _, name in stand_ins):
                raise _unreadable(path, error, culprit) from error
            stand_ins.append((_Value if culprit.startswith("numpy.") else _Record, culprit))


def _is_inert(name: str) -> bool:
    return name in _INERT or name.startswith(_INERT_MODULES)


def _unknown_object(path: Path, error: Exception) -> str | None:
    """Return the name of the Python object that the unpickler refused, "" where it does not say; None of other errors.

    Of a web page, say, the unpickler calls the first letter unsupported: pickles and archives begin otherwise.
    """
    unsupported = isinstance(error, UnpicklingError) and "unsupported" in str(error).lower()
    if not unsupported or not _begins(path, b"\x80", b"P"):
        return None
    named = re.search(r"GLOBAL (\S+)", str(error))
    if not named:
        return ""
    return named[1] if "." in named[1] else f"builtins.{named[1]}"  # which the message leaves out


def _begins(path: Path, *first: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(1) in first


def _unreadable(path: Path, error: Exception, culprit: str | None) -> SourceError:
    if "TorchScript" in str(error):
        return _refused(path, "is a TorchScript archive, which is a program")
    if culprit is not None:
        what = f"holds a Python object ({culprit})" if culprit else "holds Python objects"
        return _refused(path, f"{what} besides weights, and unpickling it would run code")
    return _damaged(path, error)


def _refused(path: Path, why: str) -> SourceError:
    return SourceError(
        f"checkpoint {path} {why}; if you trust it, load it yourself and save its weights alone: "
        "safetensors.torch.save_file(module.state_dict(), 'weights.safetensors'), or torch.save of the same"
    )


def _damaged(path: Path, error: Exception) -> SourceError:
    if (other := what_else(path)) is not None:
        return SourceError(f"checkpoint {path} {other}")
    # Of torch's paragraphs of advice the first sentence says what happened.
    text = str(error).strip().partition("\n")[0].partition(". ")[0]
    reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return SourceError(f"checkpoint {path} is damaged or no checkpoint ({reason}); fetch or save it again")
