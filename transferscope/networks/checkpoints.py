"""Weights in files: read without running code, unwrapped, and fitted into a network key by key."""

import hashlib
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from transferscope.errors import SourceError
from transferscope.networks.zoo import missing_file

SUFFIXES = (".safetensors", ".pt", ".pth", ".th", ".bin")

# In this order: plain weights before their moving average.
_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "state_dict_ema",
    "model_ema",
    "ema",
    "net",
    "network",
)
_PREFIXES = ("module.", "model.", "_orig_mod.")
_SHOWN = 3
_COUNTER = "num_batches_tracked"


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the named tensors of a checkpoint, on the CPU, in the precision they were stored in.

    Parameters
    ----------
    path
        A ``.safetensors`` file; or a ``.pt``, ``.pth``, ``.th`` or ``.bin`` file of ``torch.save``, which is
        always read with ``weights_only=True``. Wrappers such as ``{"state_dict": …}`` are unwrapped, and what
        is not a tensor is left out.

    Raises
    ------
    SourceError
        The file is missing, damaged, of another kind, would run code, or holds no named tensors.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise SourceError(
            f"checkpoint {path} must end in one of {' '.join(SUFFIXES)}; got {path.suffix or 'no suffix'}"
        )
    if not path.is_file():
        raise SourceError(f"checkpoint: {missing_file(path)}")
    return _unwrapped(_safetensors(path) if path.suffix.lower() == ".safetensors" else _pickled(path), path)


def load_checkpoint(module: nn.Module, path: Path) -> None:
    """Load a checkpoint into a network that has the same keys and shapes.

    Prefixes that all keys carry (``module.``, ``model.``, ``_orig_mod.``, and combinations) are removed where
    that makes them the network's own. Floating-point weights are converted to the network's precision. The
    batch counters of batch norms may be missing: no activation depends on them.

    Raises
    ------
    SourceError
        The file cannot be read (see `read_checkpoint`), or keys or shapes differ: the first are named.
    """
    net_state = {key: value for key, value in module.state_dict().items() if isinstance(value, Tensor)}
    state = without_prefix(read_checkpoint(path), net_state)
    state |= {key: value for key, value in net_state.items() if key.endswith(_COUNTER) and key not in state}
    missing = [key for key in net_state if key not in state]
    unexpected = [key for key in state if key not in net_state and not key.endswith(_COUNTER)]
    differing = [key for key in net_state if key in state and not _fits(state[key], net_state[key])]
    if missing or unexpected or differing:
        hint = "check that model and kwargs are those it was saved from"
        if not missing and not unexpected and (classes := _class_count(differing, state, net_state)):
            hint = f"for a classifier of {classes} outputs give kwargs: {{num_classes: {classes}}}"
        lists = [
            _listed(
                "differ", [f"{key}: network {_kind(net_state[key])}, file {_kind(state[key])}" for key in differing]
            ),
            _listed("are missing from the file", [f"{key}: {_kind(net_state[key])}" for key in missing]),
            _listed("are not in the network", [f"{key}: {_kind(state[key])}" for key in unexpected]),
        ]
        text = "; ".join(filter(None, lists))
        raise SourceError(f"checkpoint {path} does not fit the network of {len(net_state)} tensors: {text}; {hint}")
    # All is checked; strict would only ask for a module's extra state, which is not a tensor.
    module.load_state_dict({key: state[key] for key in net_state}, strict=False)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal; `SourceError` when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise SourceError(missing_file(path)) from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


def _safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _pickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about kinds of files that are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the unpickler raise nearly anything
        text = str(error)
        if "TorchScript" in text:
            raise _refused(path, "is a TorchScript archive, which is a program") from error
        unsupported = isinstance(error, UnpicklingError) and "unsupported" in text.lower()
        # Of a web page, say, the unpickler calls the first letter unsupported: pickles and archives begin otherwise.
        if unsupported and _first_byte(path) in (b"\x80", b"P"):
            culprit = re.search(r"GLOBAL (\S+)", text)
            what = f"holds a Python object ({culprit[1]})" if culprit else "holds Python objects"
            raise _refused(path, f"{what} besides weights, and unpickling it would run code") from error
        raise _damaged(path, error) from error


def _first_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1)


def _refused(path: Path, why: str) -> SourceError:
    return SourceError(
        f"checkpoint {path} {why}; if you trust it, load it yourself and save its weights alone: "
        "safetensors.torch.save_file(module.state_dict(), 'weights.safetensors'), or torch.save of the same"
    )


def _damaged(path: Path, error: Exception) -> SourceError:
    # Of torch's paragraphs of advice the first sentence says what happened.
    text = str(error).strip().partition("\n")[0].partition(". ")[0]
    reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return SourceError(f"checkpoint {path} is damaged or no checkpoint ({reason}); fetch or save it again")


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    mapping = content if isinstance(content, Mapping) else {}
    state = {key: value for key, value in mapping.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not state:
        what = f"a mapping with {', '.join(map(str, list(mapping)[:5]))}" if mapping else type(content).__name__
        wrappers = ", ".join(_WRAPPERS)
        raise SourceError(f"checkpoint {path} must hold named tensors, alone or under {wrappers}; got {what}")
    return state


def without_prefix(state: Mapping[str, Any], own: Collection[str]) -> dict[str, Any]:
    """Remove as many prefixes as make the most keys the network's own (whose keys may carry some too).

    Parameters
    ----------
    state
        Named weights, of which all keys may begin with ``module.``, ``model.``, ``_orig_mod.`` or several of them.
    own
        The network's keys.
    """
    keys = set(own)
    best, candidate = state, state
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in candidate)), None):
        candidate = {key.removeprefix(prefix): value for key, value in candidate.items()}
        if len(candidate.keys() & keys) >= len(best.keys() & keys):
            best = candidate
    return dict(best)


def _fits(stored: Tensor, expected: Tensor) -> bool:
    # load_state_dict would turn integers (quantised weights, say) into floats without a word.
    return stored.shape == expected.shape and stored.is_floating_point() == expected.is_floating_point()


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _listed(what: str, lines: Sequence[str]) -> str:
    more = f", and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return f"{len(lines)} {what} ({', '.join(lines[:_SHOWN])}{more})" if lines else ""


def _class_count(differing: Sequence[str], state: Mapping[str, Tensor], net_state: Mapping[str, Tensor]) -> int | None:
    """Return the checkpoint's number of outputs, if only that differs, in every key alike."""
    counts = {(len(state[key]), len(net_state[key])) for key in differing if state[key].ndim and net_state[key].ndim}
    alike = all(state[key].shape[1:] == net_state[key].shape[1:] for key in differing)
    return counts.pop()[0] if alike and len(counts) == 1 else None
