"""GPUs of one machine divided among its workers: each sees one, by the variable that CUDA reads when it begins."""

import os

import torch

VARIABLE = "CUDA_VISIBLE_DEVICES"


def one_each(workers: int) -> list[str]:
    """Return the value of `VARIABLE` for each of so many workers: one after the other of the GPUs that are seen here.

    Parameters
    ----------
    workers : int
        How many; where there are more than GPUs, some share one.

    Returns
    -------
    list of str
        By worker: a number, or what the variable called that GPU here. Nothing where there are not several.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count < 2:
        return []
    named = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    seen = named or [str(index) for index in range(count)]
    return [seen[index % count] for index in range(workers)]
