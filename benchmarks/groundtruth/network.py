"""The factory of the small sources, in a file of its own: runs are known by its bytes."""

from transferscope.networks import CompactResNet


def build(classes: int, width: int) -> CompactResNet:
    """Return the untrained network."""
    return CompactResNet(classes, width=width)
