"""NumPy or CuPy for the array rooms, torch devices, and every move of an array between host and device.

CuPy is never imported unless the caller already uses it or a CUDA tensor comes in.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

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
    if arrays and all(type(array) is np.ndarray for array in arrays):
        return _numpy()  # at once: it is asked some thousand times for a comparison of a hundred layers
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


@functools.cache
def _numpy() -> Any:
    return array_api_compat.array_namespace(np.empty(0))


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


_product_precision: ContextVar[Precision] = ContextVar("product_precision", default="float32")


@contextmanager
def product_precision(precision: Precision, device: torch.device) -> Iterator[None]:
    """Let `row_products` round the factors of float32 products on a GPU to fewer digits; sums stay in float32.

    TF32 keeps 10 bits of the mantissa, bfloat16 seven, float32 all 23. Nothing else changes, neither other products nor
    the networks themselves. The CPU knows no such products: there nothing changes at all, which is said once (logger
    ``transferscope``, level INFO).

    Raises
    ------
    InputError
        When `precision` is none of the three.
    """
    if precision not in get_args(Precision):
        raise InputError(f"Expected `precision` to be 'float32', 'tf32' or 'bfloat16' but got {precision!r}")
    if precision != "float32" and (device.type != "cuda" or not has_cupy()):
        _say_once(f"precision {precision!r} needs CuPy on a GPU: products are in float32")
        precision = "float32"
    token = _product_precision.set(precision)
    try:
        yield
    finally:
        _product_precision.reset(token)


def row_products(X: Array, Y: Array) -> Array:
    """Return ``X @ Y.T``, (n_samples, n_samples of Y), of matrices with the same features.

    In the precision of `X`; on a GPU with factors of as many digits as `product_precision` says.
    """
    precision = _product_precision.get()
    if precision == "float32" or not array_api_compat.is_cupy_array(X) or X.dtype != np.float32:
        return X @ Y.T
    import torch

    # CuPy shares no such switch in public; torch does, and both work on the same memory and stream.
    return from_torch(_rounded_products(torch.from_dlpack(X), torch.from_dlpack(Y), precision))


def _rounded_products(x: torch.Tensor, y: torch.Tensor, precision: Precision) -> torch.Tensor:
    import torch

    if precision == "bfloat16":
        x, y = x.to(torch.bfloat16), y.to(torch.bfloat16)
        # A CPU, which stands in for a GPU in tests, has no products of mixed types.
        return torch.mm(x, y.mT, out_dtype=torch.float32) if x.is_cuda else x.float() @ y.float().mT
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        return x @ y.mT
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def to_device(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Return `tensor` on `device`; to a GPU by way of pinned memory, so that nothing waits for the copy."""
    import torch

    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def memory_of_device(like: Array) -> int:
    """Bytes of memory of the GPU that the array `like` is on; 0 for one on the host."""
    if not array_api_compat.is_cupy_array(like):
        return 0
    _, total = like.device.mem_info
    return int(total)


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
