"""What a worker has to have before it can carry out any unit: the images, and the device of the process that asks."""

import torch

from transferscope.arrays import backend
from transferscope.data.target import Target
from transferscope.errors import DeviceError, InputError
from transferscope.runtime.engines.units import RefusedError


def check_worker(target: Target, image: int, device: str) -> torch.device:
    """Return the device that units run on here.

    Parameters
    ----------
    target : Target
        The images.
    image : int
        Index of one that the process that asks has decoded.
    device : str
        What it runs on: "cpu", "cuda" for any GPU, "cuda:N" for that one.

    Raises
    ------
    RefusedError
        This worker does not see the image, or has no such device.
    """
    try:
        target.image(image)
    except InputError as error:
        raise RefusedError(
            f"it cannot see the images ({error}); they have to lie under the same path on every machine"
        ) from error
    try:
        return backend.resolve_device(device)
    except DeviceError as error:
        raise RefusedError(
            f"it has no {device!r}, which the process that asks runs on; give workers a GPU (slurm:gpus=1), or pass "
            "device 'cpu'"
        ) from error
