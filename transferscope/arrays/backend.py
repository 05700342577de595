"""NumPy or CuPy for the array rooms, torch devices, and every move of an array between host and device.

CuPy is never imported unless the caller already uses it or a CUDA tensor comes in.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import array_api_compat
import numpy as np

from transferscope.errors import DeviceError, InputError

if TYPE_CHECKING:
    import torch

Array: TypeAlias = Any
"""A NumPy or CuPy array (or any other that speaks the array API)."""

Precision: TypeAlias = Literal["float32", "tf32", "bfloat16"]

logger = logging.getLogger("transferscope")


@functools.cache
def _say_once(message: str) -> None:
    logger.info(message)


def array_namespace(*arrays: Array) -> Any:
    """Return the one array-API namespace that all `arrays` live in.

    Raises
    ------
    InputError
        When something is not an array, or the arrays come from different libraries or devices.
    """
    kinds = ", ".join(f"{type(array).__module__}.{type(array).__qualname__}" for array in arrays)
    if any(array_api_compat.is_torch_array(array) for array in arrays):
        raise InputError(
            f"Expected NumPy or CuPy arrays but got {kinds}; convert tensors with "
            "transferscope.arrays.backend.from_torch"
        )
    for array in arrays:
        _check_plain(array)
    if not all(array_api_compat.is_array_api_obj(array) for array in arrays):
        raise InputError(f"Expected NumPy or CuPy arrays but got {kinds}; convert with numpy.asarray first")
    try:
        namespace = array_api_compat.array_namespace(*arrays)
    except TypeError as error:
        raise InputError(
            f"Expected all arrays to come from one library but got {kinds}; bring them together with "
            "transferscope.arrays.backend.to_numpy"
        ) from error
    devices = [array_api_compat.device(array) for array in arrays]
    if any(device != devices[0] for device in devices[1:]):
        raise InputError(
            f"Expected all arrays on one device but got {', '.join(map(str, devices))}; move them to one of these"
        )
    return namespace


def resolve_device(device: str) -> torch.device:
    """Turn ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"`` into a torch device.

    ``"auto"`` takes CUDA where there is one and else the CPU, which it says once per process (logger
    ``transferscope``, level INFO).

    Raises
    ------
    InputError
        When `device` is none of these words.
    DeviceError
        When a CUDA device is asked for that does not exist.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", device) if isinstance(device, str) else None
    if match is None:
        raise InputError(f"Expected `device` to be 'auto', 'cpu', 'cuda' or 'cuda:N' but got {device!r}")
    import torch

    if device == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        if device == "auto":
            _say_once("device 'auto': torch sees no CUDA device, everything runs on the CPU")
            return torch.device("cpu")
        raise DeviceError(
            f"`device` is {device!r} but torch {torch.__version__} sees no CUDA device, only 'cpu'; "
            "pass 'cpu' or 'auto', or install a GPU driver and a CUDA build of torch"
        )
    index = int(match[1]) if match[1] else torch.cuda.current_device()
    if index >= count:
        there = ", ".join(f"'cuda:{i}'" for i in range(count))
        raise DeviceError(f"`device` is {device!r} but torch sees only {there}; pass one of these, 'cpu' or 'auto'")
    return torch.device("cuda", index)


def from_torch(tensor: torch.Tensor) -> Array:
    """View a torch tensor as an array: NumPy for a CPU tensor, CuPy for a CUDA tensor.

    Nothing is copied, except that bfloat16 and float16 become float32. CuPy's current stream is made to wait
    for torch's current stream. Without CuPy a CUDA tensor is copied to a NumPy array, which is said once per
    process (logger ``transferscope``, level INFO).
    """
    import torch

    tensor = tensor.detach()
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.to(torch.float32)
    if not tensor.is_cuda:
        return tensor.numpy()
    try:
        import cupy
    except ImportError:
        _say_once(
            "CuPy is not installed: activations are scored on the CPU although the network runs on CUDA; "
            "install the extra 'cuda12' or 'cuda13' to keep them on the GPU"
        )
        return tensor.cpu().numpy()
    with cupy.cuda.Device(tensor.device.index):
        return cupy.from_dlpack(tensor)


@functools.cache
def has_cupy() -> bool:
    """Whether CuPy is installed and sees a GPU."""
    try:
        import cupy

        return cupy.cuda.runtime.getDeviceCount() > 0
    except Exception:  # A CuPy without driver, or for another CUDA, fails in ways of its own.
        return False


def stream_of(device: torch.device) -> AbstractContextManager[Any]:
    """Make CuPy work on torch's current stream of `device`: in order with the network, without waiting for it."""
    if device.type != "cuda" or not has_cupy():
        return nullcontext()
    import cupy
    import torch

    pointer = torch.cuda.current_stream(device).cuda_stream
    stack = ExitStack()
    stack.enter_context(cupy.cuda.Device(device.index))
    stack.enter_context(cupy.cuda.ExternalStream(pointer) if pointer else cupy.cuda.Stream.null)
    return stack


@contextmanager
def product_precision(precision: Precision, device: torch.device) -> Iterator[None]:
    """Round the factors of CuPy's float32 matrix products to fewer digits, for speed; sums stay in float32.

    TF32 keeps 10 bits of the mantissa, bfloat16 seven, float32 all 23. The CPU knows no such products: there
    nothing changes, which is said once (logger ``transferscope``, level INFO).

    Raises
    ------
    InputError
        When `precision` is none of the three.
    DeviceError
        When this CuPy has no such switch.
    """
    if precision not in ("float32", "tf32", "bfloat16"):
        raise InputError(f"Expected `precision` to be 'float32', 'tf32' or 'bfloat16' but got {precision!r}")
    if precision == "float32":
        yield
        return
    if device.type != "cuda" or not has_cupy():
        _say_once(f"precision {precision!r} needs CuPy on a GPU: products are in float32")
        yield
        return
    get, change, kinds = _compute_types()
    before = get("f")
    change("f", kinds[precision])
    try:
        yield
    finally:
        change("f", before)


def _compute_types() -> tuple[Callable[[str], int], Callable[[str, int], None], dict[str, int]]:
    """Return what reads and what sets the type that CuPy multiplies float32 in, and the types by our names.

    They are private to CuPy, which shares them in public through the variable CUPY_TF32 alone: that holds from its
    import on, for everything, and knows no bfloat16.
    """
    try:
        from cupy._core import _routines_linalg as linalg

        kinds = {"tf32": linalg.COMPUTE_TYPE_TF32, "bfloat16": linalg.COMPUTE_TYPE_BF16}
        return linalg.get_compute_type, linalg.set_compute_type, kinds
    except (ImportError, AttributeError) as error:
        raise DeviceError(
            f"Expected CuPy to let the precision of its products be set, but this version has changed that ({error}); "
            "pass precision 'float32', or install another CuPy"
        ) from error


def from_numpy(array: np.ndarray, *, like: Array) -> Array:
    """Bring a NumPy array into the namespace and onto the device of the array `like`."""
    namespace = array_namespace(like)
    return namespace.asarray(array, device=array_api_compat.device(like))


def to_numpy(array: Array) -> np.ndarray:
    """Bring an array or a torch tensor to the host as a NumPy array; no copy where it is there already."""
    if array_api_compat.is_torch_array(array):
        return from_torch(array.cpu())
    if array_api_compat.is_cupy_array(array):
        return array.get()
    _check_plain(array)
    return np.asarray(array)


def _check_plain(array: Array) -> None:
    """Raise InputError for kinds of NumPy arrays that multiply otherwise, or lack values."""
    if isinstance(array, np.ma.MaskedArray):
        raise InputError(
            f"Expected plain arrays but got a masked one, with {np.ma.count_masked(array)} values missing; leave the "
            "samples out, or fill it in with .filled(value)"
        )
    if isinstance(array, np.matrix):
        raise InputError("Expected plain arrays but got a numpy.matrix; convert it with numpy.asarray")
