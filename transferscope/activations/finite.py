"""Activations have to be finite: what is said of those that are not, and when it is looked at."""

import torch

from transferscope.errors import CaptureError


def check_finite(tensor: torch.Tensor, layer: str) -> None:
    """Raise CaptureError when `tensor`, the activation of `layer`, holds a NaN or an infinite value."""
    if not bool(torch.isfinite(tensor).all()):
        raise _not_finite(layer)


def _not_finite(layer: str) -> CaptureError:
    return CaptureError(
        f"The activations of layer {layer!r} are NaN or infinite, or too large for their squares; check the "
        "weights and the input normalisation of this network"
    )


class Finite:
    """Looks at activations batch by batch: on the host at once, on a GPU at the end.

    There each look would wait for everything that was asked of the GPU before.
    """

    def __init__(self) -> None:
        self._flags: dict[str, torch.Tensor] = {}

    def add(self, layer: str, tensor: torch.Tensor) -> None:
        """Look at one batch of a layer.

        Raises
        ------
        CaptureError
            When it is on the host, and not finite.
        """
        if tensor.device.type == "cpu":
            check_finite(tensor, layer)
            return
        flag = torch.isfinite(tensor).all()
        self._flags[layer] = flag & self._flags[layer] if layer in self._flags else flag

    def check(self) -> None:
        """Raise CaptureError for the first layer that was not finite in some batch."""
        for layer, flag in self._flags.items():
            if not bool(flag):
                raise _not_finite(layer)
