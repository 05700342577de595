"""The session's own random state left as it was: around random numbers from a seed, and around foreign code."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

CPU = torch.device("cpu")


@contextmanager
def seeded(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Seed all global generators; they are as before afterwards.

    These are torch's of the CPU and of `device`, and those of Python and NumPy, which some networks draw from.
    """
    on_gpu = device.type == "cuda"
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # networks draw from it
    with torch.random.fork_rng([device] if on_gpu else []):
        # torch.manual_seed would seed every GPU, those that are not forked too.
        torch.default_generator.manual_seed(int(seed))
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(int(seed))
        random.seed(int(seed))
        np.random.seed(int(seed) % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def generator_states(device: torch.device = CPU) -> tuple[object, ...]:
    """Return what tells whether anything was drawn from the generators that `seeded` seeds."""
    on_gpu = (torch.cuda.get_rng_state(device).numpy().tobytes(),) if device.type == "cuda" else ()
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return (
        torch.get_rng_state().numpy().tobytes(),
        *on_gpu,
        random.getstate(),
        name,
        np.asarray(keys).tobytes(),
        *rest,
    )


@contextmanager
def contained() -> Iterator[None]:
    """Undo what a network's own code changes in torch's global settings."""
    dtype, grad, threads = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
