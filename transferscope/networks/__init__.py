"""From an entry of a zoo to a network."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transferscope.networks.compact import CompactResNet

__all__ = ["CompactResNet"]


def __getattr__(name: str) -> Any:
    # Zoo files are read without torch, which takes seconds to import.
    if name == "CompactResNet":
        from transferscope.networks.compact import CompactResNet

        return CompactResNet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
