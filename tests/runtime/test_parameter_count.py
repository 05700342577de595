"""How many weights there are: those of quantised layers are those of the layers that they were made from."""

import math

import pytest
import timm
import torch
from torch import nn

from transferscope.activations.tracing import trace
from transferscope.errors import TransferscopeWarning
from transferscope.runtime.parameter_count import ParameterCounter, all_parameters, own_parameters

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:torch.ao.quantization", "ignore:torch.quantize_per_tensor"
)


def listed(net):
    return sum(parameter.numel() for parameter in net.parameters())


def quantised(net, *kinds, dtype=torch.qint8):
    return torch.ao.quantization.quantize_dynamic(net.eval(), set(kinds), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
def test_dynamic_quantisation_leaves_the_number_of_weights(dtype):
    net = nn.Sequential(
        nn.LSTM(5, 6, bidirectional=True, num_layers=2), nn.GRU(4, 3), nn.GRUCell(3, 4), nn.Linear(12, 3, bias=False),
        nn.LayerNorm(3),
    )  # fmt: skip
    small = quantised(net, nn.LSTM, nn.GRU, nn.GRUCell, nn.Linear, dtype=dtype)
    assert listed(small) == 6  # which is what torch says of it
    assert all_parameters(small) == all_parameters(net) == listed(net)


def test_static_quantisation_too():
    net = nn.Sequential(torch.ao.quantization.QuantStub(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2)).eval()
    net.qconfig = torch.ao.quantization.default_qconfig
    prepared = torch.ao.quantization.prepare(net)
    prepared(torch.randn(2, 3, 3, 3))
    packed = torch.ao.quantization.convert(prepared)
    assert listed(packed) == 0
    assert all_parameters(packed) == listed(net) == 3 * 4 * 9 + 4 + 4 * 2 + 2


def test_a_trace_counts_them_where_they_come():
    net = timm.create_model("test_vit", img_size=32, num_classes=10)
    image = torch.zeros(1, 3, 32, 32)
    whole = trace(net, image)[-1].params
    with pytest.warns(TransferscopeWarning, match="FLOPs are unknown"):
        calls = trace(quantised(net, nn.Linear), image)
    assert calls[-1].params == whole == listed(net)
    by_layer = {call.layer: call.params for call in calls}
    mlp = net.blocks[0].mlp
    assert by_layer["blocks.0.mlp.fc1"] - by_layer["blocks.0.norm2"] == listed(mlp.fc1)


class Holder(nn.Module):
    def __init__(self, **buffers):
        super().__init__()
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor)


@pytest.mark.parametrize(
    ("buffers", "count"),
    [
        ({"weight": torch.zeros(4, 5, dtype=torch.int8), "scale": torch.ones(4)}, 20),
        ({"weight": torch.zeros(4, 5, dtype=torch.float8_e4m3fn)}, 20),
        ({"weight": torch.zeros(4, 5, dtype=torch.uint8)}, math.nan),
        ({"qweight": torch.zeros(4, 5, dtype=torch.int32)}, math.nan),
        # Tables and averages are none.
        ({"index": torch.zeros(4, 5, dtype=torch.int64), "mask": torch.ones(4, 4), "mean": torch.ones(4)}, 0),
    ],
)
def test_weights_in_buffers(buffers, count):
    assert all_parameters(Holder(**buffers)) == pytest.approx(count, nan_ok=True)


def test_shared_weights_count_once():
    layer = nn.Linear(3, 3)
    other = nn.Linear(3, 3)
    other.weight = layer.weight
    assert all_parameters(nn.Sequential(layer, layer, other)) == 9 + 3 + 3
    assert set(own_parameters(layer)) & set(own_parameters(other)) == {id(layer.weight)}


def test_what_cannot_be_counted_is_named_once():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    net[1].register_buffer("packed", torch.zeros(4, 4, dtype=torch.uint8))
    with pytest.warns(TransferscopeWarning, match=r"Parameters are unknown: .* 1 \(ReLU\) holds cannot be told"):
        calls = trace(net, torch.zeros(1, 3, 8, 8))
    assert [call.params for call in calls] == pytest.approx([112, math.nan, math.nan], nan_ok=True)
    counter = ParameterCounter(net)
    for name in "abcde":
        counter.enter(name, net[1])
    with pytest.warns(TransferscopeWarning, match=r"a \(ReLU\), b \(ReLU\), c \(ReLU\) and 2 others"):
        counter.warn_of_unknown()
