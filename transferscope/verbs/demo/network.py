"""The architecture of the demo's networks; its copy beside zoo.yaml is the factory that is named there."""

from torch import nn

from transferscope.networks import CompactResNet

NUMBERS = 16
"""That an image comes down to before the classes, as in networks whose embeddings are to be small."""


def build(classes: int) -> CompactResNet:
    """Return the untrained network, for small images."""
    net = CompactResNet(classes=classes, stem_stride=2)
    net.pool.append(nn.Linear(net.head.in_features, NUMBERS)).append(nn.BatchNorm1d(NUMBERS))
    net.head = nn.Linear(NUMBERS, classes)
    return net
