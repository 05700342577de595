"""A delivered network as a file that runs without this package: ONNX or TorchScript, checked against the network."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transferscope.errors import InputError, SourceError, near
from transferscope.protocols.delivery.network import DeliveredNetwork

FORMATS = {"onnx": "model.onnx", "torchscript": "model.torchscript.pt"}
"""By name, with the file that each writes."""
TOLERANCE = 1e-4
"""How far a probability may be from that of the network."""
_BATCHES = (1, 3)
"""Numbers of images that a file is tried with, since some ways to export keep the number they saw."""


def check_formats(names: Sequence[str]) -> tuple[str, ...]:
    """Return the argument `export` as a tuple; raise InputError for what is no format, or cannot be written here."""
    names = tuple(dict.fromkeys((names,) if isinstance(names, str) else names))
    for name in names:
        if name not in FORMATS:
            raise InputError(
                f"Expected `export` to be among {', '.join(FORMATS)}, but got {name!r}{near(name, FORMATS)}"
            )
    if "onnx" in names:
        try:
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise InputError(f"`export` to onnx needs {error.name}: pip install 'transferscope[onnx]'") from error
    return names


def export(network: DeliveredNetwork, name: str, images: Tensor) -> bytes:
    """Return the bytes of a file that maps images, as the transform makes them, to probabilities.

    It takes any number of images as ``images`` (n, channels, height, width) float32, and gives ``probabilities``
    (n, n_classes) float32, or under that name numbers, where the network predicts these. It was run on `images` and
    gave what the network gives, up to `TOLERANCE`.

    Parameters
    ----------
    network : DeliveredNetwork
        On the CPU.
    name : {"onnx", "torchscript"}
        The format.
    images : torch.Tensor
        At least three, to try it with.

    Raises
    ------
    SourceError
        The network cannot be exported so, or the file gives something else.
    """
    whole = _Probabilities(network).eval()
    with torch.no_grad():
        wanted = [whole(images[:count]).numpy() for count in _BATCHES]
    problems = []
    for write in _WRITERS[name]:
        try:
            with torch.no_grad(), _quiet():
                data = write(whole, images[:2])
                run = _READERS[name](data)
                found = [run(images[:count].numpy()) for count in _BATCHES]
        except Exception as error:  # exporters raise nearly anything
            problems.append(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
            continue
        if not (problem := _difference(found, wanted)):
            return data
        problems.append(problem)
    raise SourceError(
        f"the network cannot be exported to {name} ({problems[0]}), so no such file is written; use the other "
        "format, or the network itself"
    )


def _difference(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> str:
    """Say how far probabilities are from those of the network; nothing where they agree."""
    if any(ours.shape != theirs.shape for ours, theirs in zip(found, wanted, strict=True)):
        return "the file gives another number of probabilities than the network"
    apart = max(float(np.abs(ours - theirs).max()) for ours, theirs in zip(found, wanted, strict=True))
    largest = max(1.0, *(float(np.abs(theirs).max()) for theirs in wanted))  # of numbers, which have any unit
    return (
        ""
        if apart <= TOLERANCE * largest
        else f"the file's probabilities differ from the network's by up to {apart:.2g}"
    )


class _Probabilities(nn.Module):
    def __init__(self, network: DeliveredNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.answers(self.network(images))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep exporters from telling how they work, and from warning that their ways are old."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _onnx(whole: nn.Module, images: Tensor) -> bytes:
    # By the older of torch's ways: the newer one takes no network that is stopped at a cut.
    buffer: Any = io.BytesIO()
    torch.onnx.export(
        whole, (images,), buffer, input_names=["images"], output_names=["probabilities"], dynamo=False,
        dynamic_axes={"images": {0: "n"}, "probabilities": {0: "n"}},
    )  # fmt: skip
    return bytes(buffer.getvalue())


def _onnx_by_export(whole: nn.Module, images: Tensor) -> bytes:
    program = torch.onnx.export(
        whole, (images,), input_names=["images"], output_names=["probabilities"], dynamo=True, verbose=False,
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
    )  # fmt: skip
    assert program is not None  # as it is returned where no file is named
    return program.model_proto.SerializeToString()


def _torchscript(whole: nn.Module, images: Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(whole, images, check_trace=False), buffer)
    return buffer.getvalue()


def _run_onnx(data: bytes) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["probabilities"], {"images": images})[0]


def _run_torchscript(data: bytes) -> Callable[[np.ndarray], np.ndarray]:
    module = torch.jit.load(io.BytesIO(data))
    return lambda images: module(torch.from_numpy(images)).numpy()


_WRITERS: dict[str, tuple[Callable[[nn.Module, Tensor], bytes], ...]] = {
    "onnx": (_onnx, _onnx_by_export),
    "torchscript": (_torchscript,),
}
"""The first that works is taken."""
_READERS: dict[str, Callable[[bytes], Callable[[np.ndarray], np.ndarray]]] = {
    "onnx": _run_onnx,
    "torchscript": _run_torchscript,
}
