"""LoRA adapters: merged into the weights that they adapt, or refused by name."""

import json

import pytest
import torch
from torch import nn

from transferscope.errors import SourceError, TransferscopeWarning
from transferscope.networks.checkpoints import load_checkpoint


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.proj, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.proj(self.conv(x).mean((2, 3))))


@pytest.fixture
def saved():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def state(saved):
    """What PEFT saves of a network whose convolution and projection have adapters, and whose head was trained too."""
    own = saved.state_dict()
    named = {f"conv.base_layer.{key}": own[f"conv.{key}"] for key in ("weight", "bias")}
    named |= {f"proj.base_layer.{key}": own[f"proj.{key}"] for key in ("weight", "bias")}
    named |= {f"head.original_module.{key}": torch.zeros_like(own[f"head.{key}"]) for key in ("weight", "bias")}
    named |= {f"head.modules_to_save.default.{key}": own[f"head.{key}"] for key in ("weight", "bias")}
    named |= {
        "conv.lora_A.default.weight": torch.randn(2, 3, 3, 3),
        "conv.lora_B.default.weight": torch.randn(4, 2, 1, 1),
    }
    named |= {"proj.lora_A.default.weight": torch.randn(2, 4), "proj.lora_B.default.weight": torch.randn(6, 2)}
    return {f"base_model.model.{key}": value for key, value in named.items()}


@pytest.fixture
def load(tmp_path):
    def load(state, **config):
        torch.save(state, tmp_path / "w.pt")
        if config:
            (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        load_checkpoint(net := Net(), tmp_path / "w.pt")
        return net

    return load


@pytest.mark.parametrize(("rank_stabilised", "scale"), [(False, 8 / 2), (True, 8 / 2**0.5)])
def test_adapters_are_merged(load, saved, state, rank_stabilised, scale):
    with pytest.warns(TransferscopeWarning, match="its LoRA adapters of 2 layers are merged"):
        net = load(state, r=2, lora_alpha=8, use_rslora=rank_stabilised)
    x, hidden = torch.randn(5, 3, 6, 6), torch.randn(5, 4)
    part = {key.removeprefix("base_model.model."): value for key, value in state.items()}
    # As PEFT runs them beside each other: B (A x), of a convolution one after the other.
    conv = nn.functional.conv2d(x, part["conv.lora_A.default.weight"])
    expected = saved.conv(x) + scale * nn.functional.conv2d(conv, part["conv.lora_B.default.weight"])
    torch.testing.assert_close(net.conv(x), expected)
    low = hidden @ part["proj.lora_A.default.weight"].T @ part["proj.lora_B.default.weight"].T
    torch.testing.assert_close(net.proj(hidden), saved.proj(hidden) + scale * low)
    assert torch.equal(net.head.weight, saved.head.weight)


def test_without_its_settings_an_adapter_is_refused(load, state):
    with pytest.raises(SourceError, match=r"no adapter_config\.json beside it says how strongly.*merge_and_unload"):
        load(state)
    with pytest.raises(SourceError, match="does not give lora_alpha and r"):
        load(state, r=2)
    with pytest.raises(SourceError, match="use_dora, which are not merged here"):
        load(state, r=2, lora_alpha=8, use_dora=True)
    with pytest.raises(SourceError, match=r"other ranks than the 4 of adapter_config\.json"):
        load(state, r=4, lora_alpha=8)


def test_adapters_alone_of_several_names_or_of_another_kind_are_refused(load, state):
    prefix = "base_model.model."
    alone = {key: value for key, value in state.items() if "lora_" in key}
    with pytest.raises(SourceError, match=r"conv\.lora_A, …\) without the weights that they adapt"):
        load(alone, r=2, lora_alpha=8)
    second = {key.replace("default", "other"): value for key, value in alone.items()}
    with pytest.raises(SourceError, match=r"several adapters \(default, other\)"):
        load(state | second, r=2, lora_alpha=8)
    with pytest.raises(SourceError, match=r"of a kind that is not merged here .*lora_magnitude_vector"):
        load(state | {f"{prefix}proj.lora_magnitude_vector.default.weight": torch.ones(6)}, r=2, lora_alpha=8)
    half = {key: value for key, value in state.items() if "proj.lora_B" not in key}
    with pytest.raises(SourceError, match=r"one of the two factors of a LoRA adapter alone \(.*\.proj\)"):
        load(half, r=2, lora_alpha=8)


def test_a_network_that_has_adapters_of_its_own_takes_them_as_they_are(tmp_path):
    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            self.lora_A, self.head = nn.Linear(3, 2), nn.Linear(2, 2)

    torch.save((saved := Adapted()).state_dict(), tmp_path / "w.pt")
    load_checkpoint(loaded := Adapted(), tmp_path / "w.pt")
    assert torch.equal(loaded.lora_A.weight, saved.lora_A.weight)
