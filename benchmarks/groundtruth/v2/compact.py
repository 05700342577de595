"""The factory of the compact network, in a file of its own: runs are known by its bytes."""

from torch import nn

from transferscope.protocols.scratch import LARGE, compact_network


def build(classes: int) -> nn.Module:
    """Return the untrained network that `rank` trains from scratch, for images of 64 px."""
    return compact_network(classes, LARGE)
