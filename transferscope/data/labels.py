"""What a label may be, wherever labels come from."""

from typing import Any

import numpy as np
import torch

from transferscope.data.arrays import as_numpy
from transferscope.errors import InputError
from transferscope.runtime.checks import check_labelled

WANTED = "labels must be whole numbers, bools or strings, one for each image"


def label_array(labels: Any) -> np.ndarray:
    """Return labels (n_samples,) as an array of whole numbers, bools or strings; `InputError` when they are not.

    A number that stands for a missing label, see :func:`transferscope.runtime.checks.check_labelled`, is none.
    """
    values = as_numpy(labels) if isinstance(labels, torch.Tensor) else np.asarray(labels)
    if values.dtype == object and all(isinstance(value, str) for value in values.flat):
        values = values.astype(str)
    if values.ndim != 1 or values.dtype.kind not in "biuU":
        hint = "; ask for task='regression' if they are numbers to be learnt" * (values.dtype.kind == "f")
        raise InputError(f"{WANTED}, but got {values.dtype} of shape {values.shape}{hint}")
    check_labelled(values, "images")
    return values
