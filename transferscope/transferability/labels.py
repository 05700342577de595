"""Class labels of any kind as integer codes on the host, and their one-hot matrix beside the features."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from transferscope.arrays.backend import Array, from_numpy, to_numpy
from transferscope.errors import InputError


def encode_labels(labels: Any, n_samples: int) -> np.ndarray:
    """Return each sample's class, (n_samples,) int64, the classes numbered 0 … C - 1 in sorted order.

    Parameters
    ----------
    labels
        One label per sample: integers, booleans or strings, as a sequence or a one-dimensional array.
    n_samples
        How many labels there have to be.

    Raises
    ------
    InputError
        When `labels` are of another kind or length, or name fewer than two classes.
    """
    host = to_numpy(labels) if array_api_compat.is_array_api_obj(labels) else np.asarray(labels)
    if host.shape != (n_samples,):
        raise InputError(
            f"Expected `labels` to have shape ({n_samples},), one per row of the features, but got {host.shape}"
        )
    if host.dtype.kind == "O" and all(isinstance(label, str) for label in host):
        host = host.astype(np.str_)
    if host.dtype.kind not in "biuUT":
        raise InputError(
            f"Expected `labels` to be integers, booleans or strings but got dtype {host.dtype} "
            f"(the first is {host[0]!r}); name or number the classes"
        )
    classes, codes = np.unique(host, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"Expected `labels` to name at least 2 classes but got only {classes[0].item()!r}")
    return codes.astype(np.int64)


def one_hot(codes: np.ndarray, *, like: Array) -> Array:
    """Return the targets (n_samples, n_classes) in float64, in the namespace and on the device of `like`.

    Raises
    ------
    InputError
        When `codes` are not what `encode_labels` gives for the rows of `like`.
    """
    if codes.shape != (like.shape[0],) or codes.dtype.kind not in "iu" or np.min(codes) < 0:
        raise InputError(
            f"Expected `codes` to be {like.shape[0]} integers from 0 but got {codes.dtype} of shape "
            f"{codes.shape}; use encode_labels"
        )
    counts = np.bincount(codes)
    if len(counts) < 2 or np.min(counts) == 0:
        raise InputError(
            f"Expected `codes` to number at least 2 classes without gaps but {np.count_nonzero(counts)} of "
            f"{len(counts)} occur; use encode_labels"
        )
    return from_numpy(np.eye(len(counts))[codes], like=like)
