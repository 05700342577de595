"""The factory of the compact network, in a file of its own: runs are known by its bytes."""

from torch import nn

from transferscope.data.images import Transform
from transferscope.protocols.scratch import LARGE, compact_network


def build(classes: int) -> nn.Module:
    """Return the untrained network that `rank` trains from scratch, for colour images of 64 px."""
    return compact_network(classes, Transform(size=LARGE, mean=(0.5,) * 3, std=(0.25,) * 3))
