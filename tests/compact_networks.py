"""Small networks with weights of their own, for the tests of parameter transferability."""

import torch

from transferscope.networks import CompactResNet


def network(seed=0, classes=3):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return CompactResNet(classes, width=4)
