"""A network that is sped up gives what it gave, at every layer that is captured, and is itself again afterwards."""

import numpy as np
import pytest
import torch
from torch import nn

from transferscope.activations.capture import collect
from transferscope.activations.faster import sped_up
from transferscope.activations.tracing import trace

FOLDED, BOTH, ORDER = "batch norms folded", "batch norms folded, channels last", "channels last"
IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def drawn(net):
    """Give batch norms statistics and weights that show a mistake."""
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                if module.affine:
                    nn.init.normal_(module.weight)
                    nn.init.normal_(module.bias)
            elif isinstance(module, nn.Conv2d):
                module.reset_parameters()
    return net.eval()


def plain(**options):
    return drawn(
        nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, **options), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3),
            nn.BatchNorm2d(5, affine=False), nn.ReLU(), nn.Conv2d(5, 6, 1),
        )
    )  # fmt: skip


def speed_up(net, layers, images=IMAGES):
    """Return what was done, and the features of the layers before, meanwhile and afterwards."""
    traced = trace(net, images[:1])
    before = collect(net, [images], layers, traced=traced)
    with sped_up(net, images, layers, traced) as said:
        meanwhile = collect(net, [images], layers, traced=traced)
    return said, before, meanwhile, collect(net, [images], layers, traced=traced)


def state(net):
    return [(name, id(value), value.stride(), value.clone()) for name, value in net.named_parameters()]


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_folded_and_then_as_before(bias):
    net = plain(bias=bias)
    before_state, layers = state(net), ["1", "2", "4", "5", "6"]
    said, before, meanwhile, after = speed_up(net, layers)
    assert said == BOTH
    for layer in layers:
        np.testing.assert_allclose(meanwhile[layer], before[layer], atol=1e-5 * np.abs(before[layer]).max())
        np.testing.assert_array_equal(after[layer], before[layer])
    for (name, key, stride, value), (name_now, key_now, stride_now, value_now) in zip(
        before_state, state(net), strict=True
    ):
        assert (name, key, stride) == (name_now, key_now, stride_now)
        assert torch.equal(value, value_now)
    assert "forward" not in vars(net[1])


def test_a_convolution_that_is_captured_keeps_its_own_output():
    said, before, meanwhile, _ = speed_up(plain(), ["0", "1", "3"])
    assert said == ""
    for layer, features in before.items():
        np.testing.assert_allclose(meanwhile[layer], features, atol=1e-5 * np.abs(features).max())


class Branches(nn.Module):
    """What the convolution gives is needed beside the batch norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        x = self.conv(x)
        return self.bn(x) + x


class Twice(nn.Module):
    """One convolution before two batch norms."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.other = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.bn(self.conv(x)) + self.other(self.conv(x.flip(3)))


class Standardised(nn.Conv2d):
    """Weights without a scale of their own: a folded one would be lost."""

    def forward(self, x):
        weight = self.weight / self.weight.flatten(1).norm(dim=1)[:, None, None, None]
        return nn.functional.conv2d(x, weight, self.bias)


@pytest.mark.parametrize(
    ("net", "layers", "said"),
    [
        (Branches(), ["bn"], ORDER),
        (Twice(), ["bn"], ""),
        (nn.Sequential(Standardised(3, 3, 3), nn.BatchNorm2d(3)), ["1"], ""),
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)), ["1"], ""),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), ["1"], ""),
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).double(), ["1"], ""),
        (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1)), nn.ReLU()), ["1"], ""),
    ],
)
def test_where_something_would_change_nothing_is_done(net, layers, said):
    net = drawn(net)
    images = IMAGES.double() if next(net.parameters()).dtype == torch.float64 else IMAGES
    found, before, meanwhile, after = speed_up(net, layers, images)
    assert found == said
    for layer in layers:
        np.testing.assert_allclose(meanwhile[layer], before[layer], atol=1e-5 * np.abs(before[layer]).max())
        np.testing.assert_array_equal(after[layer], before[layer])


class Views(nn.Module):
    """It takes for granted how outputs lie in memory."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.bn(self.conv(x)).view(len(x), -1)


def test_a_network_that_fails_in_another_order_is_folded_alone():
    said, before, meanwhile, _ = speed_up(drawn(Views()), ["bn"])
    assert said == FOLDED
    np.testing.assert_allclose(meanwhile["bn"], before["bn"], atol=1e-5 * np.abs(before["bn"]).max())


@pytest.mark.parametrize(("layers", "said"), [(["1", "3"], BOTH), (["0", "1", "2"], ORDER)])
def test_grouped_convolutions_are_reordered(layers, said):
    net = drawn(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6)))
    found, before, meanwhile, after = speed_up(net, layers)
    assert found == said
    for layer in layers:
        np.testing.assert_allclose(meanwhile[layer], before[layer], atol=1e-5 * np.abs(before[layer]).max())
        np.testing.assert_array_equal(after[layer], before[layer])


def test_an_error_inside_puts_everything_back():
    net = plain()
    before = state(net)
    traced = trace(net, IMAGES[:1])
    with pytest.raises(ValueError, match="inside"), sped_up(net, IMAGES, ["1"], traced):
        raise ValueError("inside")
    assert [entry[:3] for entry in state(net)] == [entry[:3] for entry in before]
    assert "forward" not in vars(net[1])


def test_batch_norms_of_timm_keep_their_activation():
    from timm.layers import BatchNormAct2d

    net = drawn(nn.Sequential(nn.Conv2d(3, 4, 3), BatchNormAct2d(4), nn.Conv2d(4, 2, 1)))
    said, before, meanwhile, _ = speed_up(net, ["1", "2"])
    assert said == BOTH
    for layer, features in before.items():
        np.testing.assert_allclose(meanwhile[layer], features, atol=1e-5 * np.abs(features).max())
    assert before["1"].min() >= 0
