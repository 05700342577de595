"""In which layer of a network an error arose, and what that layer was given: read off the traceback of the error."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from torch import Tensor, nn

from transferscope.runtime.trees import flattened

_AROUND = "transferscope.protocols."
"""Modules of these files are put around a network, and are none of its layers."""

# Layers that expect a number of channels, and how many axes come after that of the channels.
_OF_CHANNELS: tuple[tuple[tuple[type[nn.Module], ...], str, int], ...] = (
    ((nn.Conv1d, nn.ConvTranspose1d), "in_channels", 1),
    ((nn.Conv2d, nn.ConvTranspose2d), "in_channels", 2),
    ((nn.Conv3d, nn.ConvTranspose3d), "in_channels", 3),
    ((nn.BatchNorm2d,), "num_features", 2),
    ((nn.BatchNorm3d,), "num_features", 3),
)


@dataclass(frozen=True)
class FailingLayer:
    """The innermost module whose forward pass an error came out of."""

    path: str
    """Its `named_modules()` path in the network; empty for the network itself."""
    module: nn.Module
    shapes: tuple[tuple[int, ...], ...]
    """Of the tensors that it was called with, where they are known."""
    takes_images: bool
    """Whether it was called with the very tensor that the network was called with."""

    def __str__(self) -> str:
        kind = type(self.module).__name__
        given = " and ".join("×".join(map(str, shape)) or "a number" for shape in self.shapes)
        return (f"layer {self.path!r} ({kind})" if self.path else kind) + (f", given {given}" if given else "")

    @property
    def mismatch(self) -> str:
        """What the layer takes and did not get, in words; empty where that is not certain."""
        module = self.module
        if len(self.shapes) != 1:
            return ""
        if isinstance(module, nn.Linear):
            return self._other("feature", module.in_features, -1)
        for kinds, attribute, after in _OF_CHANNELS:
            if isinstance(module, kinds) and len(self.shapes[0]) >= after + 1:
                return self._other("channel", getattr(module, attribute), -after - 1)
        return ""

    def _other(self, what: str, wanted: int, axis: int) -> str:
        got = self.shapes[0][axis] if self.shapes[0] else 0
        if got == wanted:
            return ""
        who = "the network takes images" if self.takes_images and what == "channel" else "it takes inputs"
        return f"{who} of {wanted} {what}{'' if wanted == 1 else 's'}, not {got}"


def failing_layer(error: BaseException) -> FailingLayer | None:
    """Return where in a forward pass an error arose; None when it was in none."""
    steps = [step for step in _steps(error) if not type(step[0]).__module__.startswith(_AROUND)]
    if not steps:
        return None
    net, module = steps[0][0], steps[-1][0]
    given: dict[int, tuple[Tensor, ...]] = {}
    for each, tensors in steps:
        if tensors:
            given.setdefault(id(each), tensors)
    mine, images = given.get(id(module), ()), given.get(id(net), ())
    return FailingLayer(
        next((path for path, each in net.named_modules() if each is module), ""),
        module,
        tuple(tuple(tensor.shape) for tensor in mine),
        bool(mine and images) and mine[0] is images[0],
    )


def _steps(error: BaseException) -> Iterator[tuple[nn.Module, tuple[Tensor, ...]]]:
    """Yield the modules in whose code an error arose, from the outermost in, with what they were called with."""
    trace = error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_locals.get("self")
        if isinstance(module, nn.Module):
            yield module, _arguments(trace.tb_frame)
        trace = trace.tb_next


def _arguments(frame: FrameType) -> tuple[Tensor, ...]:
    """Return the tensors that a module was called with, where this is the frame of its `__call__`.

    That takes whatever it is given and hands it on unchanged; the variables of a `forward` may hold something else.
    """
    arguments: Any = frame.f_locals.get("args")
    if not isinstance(arguments, tuple) or frame.f_code.co_filename != _CALL.co_filename:
        return ()
    leaves, _ = flattened((arguments, frame.f_locals.get("kwargs")))
    return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))


_CALL = nn.Module.__call__.__code__
