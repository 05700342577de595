"""What is said of an error: the layer, what it was given, the library's own sentence, and what is certain."""

import pytest
import torch
from torch import nn

from transferscope.errors import SourceError
from transferscope.networks.compact import CompactResNet
from transferscope.runtime.failures import describe


class Late(nn.Module):
    """A network whose parts are called by keyword, and whose own code can go wrong."""

    def __init__(self, features=7):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(features, 2)

    def forward(self, x):
        x = self.stem(x)
        return self.head(input=x.mean((2, 3)))


class Views(Late):
    def forward(self, x):
        args = self.stem(x)
        return args.view(3, 5)


def said(net, *images, around=lambda net: net):
    try:
        around(net)(*images)
    except Exception as error:  # as verbs do
        return describe("a", error, 8)
    raise AssertionError("nothing failed")


def test_the_innermost_layer_is_named_with_what_it_was_given():
    text = said(Late(), torch.zeros(2, 3, 8, 8))
    assert text.startswith("layer 'head' (Linear), given 2×4: RuntimeError: mat1 and mat2 shapes cannot be multiplied")
    assert text.endswith("; it takes inputs of 7 features, not 4")
    assert "transform" not in text


def test_channels_of_images_are_known_where_the_layer_sees_the_images():
    text = said(CompactResNet(3), torch.zeros(1, 1, 16, 16))
    assert text.startswith("layer 'stem.0' (Conv2d), given 1×1×16×16: RuntimeError: Given groups=1, weight of size")
    assert text.endswith("; the network takes images of 3 channels, not 1")
    # What is computed from them is no image.
    net = nn.Sequential(nn.AvgPool2d(1), nn.Conv2d(1, 4, 3))
    assert said(net, torch.zeros(1, 3, 8, 8)).endswith("; it takes inputs of 1 channel, not 3")


def test_an_error_of_a_network_s_own_code_is_its_own():
    text = said(Views(), torch.zeros(2, 3, 8, 8))
    assert text.startswith("Views, given 2×3×8×8: RuntimeError: shape '[3, 5]' is invalid")
    assert ";" not in text


@pytest.mark.parametrize("hook", [True, False])
def test_hooks_and_containers_around_it_change_nothing(hook):
    net = nn.Sequential(nn.Identity(), Late())
    if hook:
        for module in net.modules():
            module.register_forward_hook(lambda *_args: None)
            module.register_forward_pre_hook(lambda *_args: None)
    with torch.inference_mode():
        assert said(net, torch.zeros(2, 3, 8, 8)).startswith("layer '1.head' (Linear), given 2×4: ")


def test_what_is_put_around_a_source_is_no_layer_of_it():
    class Around(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x)

    Around.__module__ = "transferscope.protocols.cutting.network"
    assert said(Late(), torch.zeros(2, 3, 8, 8), around=Around).startswith("layer 'head' (Linear), given 2×4: ")


def test_a_fitting_layer_gets_no_hint():
    text = said(nn.Sequential(nn.Conv2d(3, 4, 9)), torch.zeros(1, 3, 8, 8))
    assert text.startswith("layer '0' (Conv2d), given 1×3×8×8: RuntimeError: Calculated padded input size")
    assert "takes" not in text


def test_errors_outside_of_networks_memory_and_known_failures():
    assert said(lambda: [][1]) == "IndexError: list index out of range"
    assert describe("a", AssertionError(), 8) == "AssertionError"
    assert describe("a", SourceError("source 'a': no file"), 8) == "no file"
    assert describe("a", RuntimeError("CUDA out of memory. Tried"), 8) == (
        "Out of memory at batch size 8; try a smaller one with --batch-size"
    )
