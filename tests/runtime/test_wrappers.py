"""Networks without what is put around them: the same layers, the same outputs."""

import pytest
import torch
from torch import nn
from wrappers import WRAPPERS

from transferscope.errors import SourceError
from transferscope.networks.compact import CompactResNet
from transferscope.runtime.wrappers import is_compiled, plain, unwrapped


class Adapted(nn.Module):
    """A linear layer with an adapter, as PEFT has them."""

    def __init__(self, base):
        super().__init__()
        self.base_layer = base
        self.delta = nn.Parameter(torch.ones_like(base.weight))

    def get_base_layer(self):
        return self.base_layer

    def merge(self):
        self.base_layer.weight.data += self.delta.data

    def forward(self, x):
        return self.base_layer(x) + x @ self.delta.T


class Model(nn.Module):
    """What PEFT puts around a network; with `merges` false as for prompts, which are no weights."""

    def __init__(self, net, merges=True):
        super().__init__()
        self.base_model = net
        if merges:
            self.merge_and_unload = self._merge_and_unload

    def get_base_model(self):
        return self.base_model

    def _merge_and_unload(self):
        return plain(self.base_model)

    def forward(self, x):
        return self.base_model(x)


# PEFT is recognised by where its classes come from.
Adapted.__module__, Model.__module__ = "peft.tuners.lora.layer", "peft.peft_model"


@pytest.fixture
def images():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def names(net):
    return [path for path, _ in net.named_modules()]


@pytest.mark.parametrize("made", [unwrapped, plain])
@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("outer", [None, *WRAPPERS])
def test_a_wrapper_in_a_wrapper_is_seen_through(made, wrap, outer, one_process):
    net = CompactResNet(3).eval()
    wrapped = WRAPPERS[wrap](net)
    if outer and outer != wrap:  # of a compiled network torch.compile makes a function
        wrapped = WRAPPERS[outer](wrapped)
    inner = made(wrapped)
    assert type(inner) is CompactResNet
    assert names(inner) == names(net)


def test_a_network_without_wrappers_is_itself():
    net = CompactResNet(3)
    assert unwrapped(net) is net
    assert plain(net) is net


def test_compiled_parts_have_the_names_that_they_were_given(images):
    net = CompactResNet(3).eval()
    expected, before = net(images), names(net)
    for i in range(len(net.blocks)):
        net.blocks[i] = torch.compile(net.blocks[i], backend="eager")
    assert names(net) != before
    assert names(plain(net)) == before
    assert not any(map(is_compiled, net.modules()))
    torch.testing.assert_close(net(images), expected)


def test_what_is_compiled_in_place_runs_as_it_is_written(images):
    def broken(*_args):
        raise AssertionError("compiled")

    net = CompactResNet(3).eval()
    net.compile(backend=broken)
    net.blocks.compile(backend=broken)
    with pytest.raises(Exception, match="compiled"):
        net(images)
    assert plain(net)(images).shape == (2, 3)


def test_adapters_are_merged(images):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4), nn.ReLU(), nn.Linear(4, 2))
    net[1] = Adapted(net[1])
    expected = net(images)
    assert unwrapped(Model(net)) is net  # a network of someone else is left alone
    assert isinstance(net[1], Adapted)
    merged = plain(Model(net))
    assert [type(module) for module in merged] == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]
    torch.testing.assert_close(merged(images), expected, atol=1e-4, rtol=1e-4)


def test_adapters_that_cannot_be_merged_are_refused():
    with pytest.raises(SourceError, match=r"PEFT model .* cannot be merged into its weights; give the network"):
        plain(Model(CompactResNet(3), merges=False))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_torchscript_is_refused_by_name():
    part = torch.jit.script(nn.Conv2d(3, 4, 3))
    with pytest.raises(SourceError, match="it is compiled to TorchScript, so that its layers cannot be seen"):
        plain(part)
    with pytest.raises(SourceError, match="its part '0' is compiled to TorchScript"):
        plain(nn.Sequential(part, nn.ReLU()))


def test_frozen_parameters_can_be_trained_again():
    net = CompactResNet(3).requires_grad_(False)
    assert all(parameter.requires_grad for parameter in plain(net).parameters())
