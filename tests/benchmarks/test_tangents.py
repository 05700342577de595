"""Tangent features against gradients that torch takes image by image; sketches against what they estimate."""

import warnings

import pytest
import timm
import torch
from suffix_kernel.tangents import tangent_features
from timm.layers import ScaledStdConv2d, StdConv2d
from timm.models.beit import Beit
from timm.models.convnext import ConvNeXt
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations

from transferscope.errors import InputError, SourceError
from transferscope.networks import CompactResNet

WIDE = 10**9


class Odd(nn.Module):
    """What real networks have: in-place activations, strides, other paddings, a layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding="valid", bias=True)
        self.act = nn.ReLU(inplace=True)
        self.depthwise = nn.Conv2d(8, 8, 3, padding="same", groups=8, bias=False)
        self.grouped = nn.Conv2d(8, 12, 3, padding=2, dilation=2, groups=4, padding_mode="reflect")
        self.norm = nn.GroupNorm(3, 12)
        self.twice = nn.Linear(12, 12)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.layer_norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 2, bias=False)

    def forward(self, x):
        x = self.act(self.stem(x))
        x = self.act(self.norm(self.grouped(self.depthwise(x))))
        x = x.flatten(2).mT
        x = x + self.twice(self.twice(x).relu_())
        x = self.layer_norm(x + self.attention(x, x, x)[0])
        return self.head(x.mean(1))


class Weights(nn.Sequential):
    """Layers that look plain and make their weights from others."""

    def __init__(self):
        hooked = nn.Linear(5, 2)
        hooked.register_forward_hook(lambda module, given, output: output**2)
        super().__init__(
            StdConv2d(3, 4, 3, padding=0), nn.ReLU(),
            ScaledStdConv2d(4, 4, 3, padding=0), nn.ReLU(),
            parametrizations.weight_norm(nn.Conv2d(4, 4, 3)), nn.ReLU(),
            parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)), nn.ReLU(), nn.Flatten(),
            parametrizations.weight_norm(nn.Linear(16, 5)), nn.ReLU(), hooked,
        )  # fmt: skip


class OldWeightNorm(nn.Sequential):
    def __init__(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            normed = nn.utils.weight_norm(nn.Conv2d(3, 4, 3))
        super().__init__(normed, nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))


class OtherLayouts(nn.Module):
    """Images that are not along the first dimension: folded with windows into it, behind a sequence, or not there."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.windows = nn.Conv2d(3, 4, 3)
        self.norm = nn.LayerNorm(4)
        self.linear = nn.Linear(4, 4)
        self.positions = nn.Linear(2, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=kind != "behind")
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        n, size = len(x), 4
        if self.kind == "positions":
            # Computed from no image.
            added = self.positions(torch.stack([torch.arange(4.0), torch.arange(4.0) ** 2], 1))
        else:
            added = 0
        x = x.unflatten(3, (2, size)).permute(3, 0, 1, 2, 4) if self.kind == "windows first" else x.unflatten(3, (2, 4))
        x = x if self.kind == "windows first" else x.permute(0, 3, 1, 2, 4)
        x = self.windows(x.flatten(0, 1)).flatten(2).mT  # (2 n, positions, 4)
        x = self.linear(self.norm(x)) + (added.mean(0) if self.kind == "positions" else 0)
        if self.kind == "behind":
            x = x.transpose(0, 1)
            mask = torch.eye(len(x), dtype=torch.bool)
            return self.head(self.attention(x, x, x, attn_mask=mask)[0].mean(0).unflatten(0, (n, 2)).sum(1))
        x = self.attention(x, x, x, need_weights=False)[0].mean(1)
        x = x.unflatten(0, (2, n)).sum(0) if self.kind == "windows first" else x.unflatten(0, (n, 2)).sum(1)
        return self.head(x)


def timm_network(name, **kwargs):
    return lambda: timm.create_model(name, num_classes=2, **kwargs)


def beit():
    return Beit(img_size=16, patch_size=8, embed_dim=12, depth=1, num_heads=2, num_classes=2, init_values=0.1)


def swin():
    return SwinTransformer(
        img_size=16, patch_size=2, window_size=4, embed_dim=8, depths=(1, 1), num_heads=(1, 2), num_classes=2
    )


NETWORKS = {
    "odd": (Odd, 12),
    "compact": (lambda: CompactResNet(2, width=4), 16),
    "weights made from others": (Weights, 8),
    "weight norm as a hook": (OldWeightNorm, 6),
    **{kind: (lambda kind=kind: OtherLayouts(kind), 8) for kind in ("windows", "windows first", "behind", "positions")},
    "mobilenet": (timm_network("mobilenetv2_035", pad_type="same"), 32),
    "vit": (lambda: VisionTransformer(16, 8, 3, 2, embed_dim=12, depth=2, num_heads=2, init_values=0.1), 16),
    "beit": (beit, 16),
    "convnext": (lambda: ConvNeXt(num_classes=2, depths=(1,) * 4, dims=(4, 6, 6, 8), ls_init_value=0.5), 32),
    "swin": (swin, 16),
}
HELD = ("cls_token", "pos_embed", "gamma", "relative_position_bias_table")
"""Names of weights that modules with weighted children hold themselves."""


def built(build):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = build().eval()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    return net


def images(size, n=5):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=NETWORKS)
def case(request):
    build, size = NETWORKS[request.param]
    return built(build), images(size)


def plain(net, images):
    """Gradients by the weights, image by image, as torch.func takes them: (n_samples, n_weights) by name."""
    weights = {name: p.detach() for name, p in net.named_parameters() if name.rpartition(".")[2] not in HELD}

    def output(weights, image):
        return functional_call(net, weights, (image[None],))[0, 0]

    with sdpa_kernel(SDPBackend.MATH):
        found = vmap(grad(output), (None, 0), chunk_size=1)(weights, images)
    return {name: gradient.flatten(1).detach() for name, gradient in found.items()}


def grams(features):
    return sum(block.double() @ block.double().T for block in features.values())


def test_unsketched_they_have_the_inner_products_of_the_gradients(case):
    net, images = case
    found = tangent_features(net, images.split(3), width=WIDE)
    expected = grams(plain(net, images))
    torch.testing.assert_close(grams(found), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_sketched_they_have_them_in_expectation():
    """Signs on either side with m of them each add a variance of at most 2 / m ‖x‖²‖y‖² to an inner product."""
    net, x = built(Odd), images(12)
    exact = tangent_features(net, [x], width=WIDE)
    expected, draws = grams(exact), 100
    found = [tangent_features(net, [x], width=64, seed=seed) for seed in range(draws)]
    assert all(block.shape[1] <= 128 for block in found[0].values()), "of weight and bias"
    most = (1 + 2 / 8) ** 2 - 1  # 64 entries are of 8 rows and columns, or one side is whole
    norms = [block.double().square().sum(1) for block in exact.values()]
    error = torch.sqrt(most / draws * sum(norm[:, None] * norm for norm in norms))
    assert error.max() < 0.1 * expected.diagonal().max(), "tells enough"
    mean = torch.stack([grams(features) for features in found]).mean(0)
    assert ((mean - expected).abs() <= 4 * error).all()
    assert (grams(found[0]) - expected).abs().max() > 0.01 * expected.max(), "something was sketched"


def test_batches_do_not_matter_and_the_network_is_left_as_it_is(case):
    net, x = case
    given, before = x.clone(), {name: value.clone() for name, value in net.state_dict().items()}
    hooks = [len(module._forward_hooks) for module in net.modules()]
    whole = tangent_features(net, [x], width=32)
    for batches in (x.split(2), x.split([1, 4])):  # the second goes image by image
        parts = tangent_features(net, batches, width=32)
        assert list(parts) == list(whole)
        for name, block in whole.items():
            torch.testing.assert_close(parts[name], block, rtol=1e-3, atol=1e-4 * float(block.abs().max()))
            assert block.shape[0] == 5
            assert not block.requires_grad
    assert torch.equal(x, given)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    assert [len(module._forward_hooks) for module in net.modules()] == hooks
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("width", [32, WIDE])
def test_other_images_have_the_same_sketch(width):
    net, x = built(Odd), images(12)
    together = tangent_features(net, [x], width=width, seed=4)
    apart = [tangent_features(net, [part], width=width, seed=4) for part in x.split(3)]
    for name, block in together.items():
        torch.testing.assert_close(torch.cat([found[name] for found in apart]), block, rtol=1e-3, atol=1e-5)


def test_modules_are_named_as_in_the_network_and_frozen_ones_left_out():
    net = CompactResNet(3, width=4).eval()
    net.stem.requires_grad_(False)
    net.blocks[0].conv1.requires_grad_(False)
    net.head.weight.requires_grad_(False)
    found = tangent_features(net, [images(16)], width=WIDE)
    moving = {name.rpartition(".")[0] for name, p in net.named_parameters() if p.requires_grad}
    assert list(found) == [name for name, _ in net.named_modules() if name in moving]
    assert found["head"].shape == (5, 3), "its bias"


@pytest.mark.parametrize("output", [0, 2])
def test_the_gradients_are_those_of_one_output(output):
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    x = images(2)
    found = tangent_features(net, [x], width=WIDE, output=output)["1"]
    expected = torch.zeros(5, 3, 12)
    expected[:, output] = x.flatten(1)
    torch.testing.assert_close(found[:, :36], expected.flatten(1))
    torch.testing.assert_close(found[:, 36:], torch.eye(3)[output].expand(5, 3))


def test_modules_that_are_never_used_are_left_out():
    net = built(Odd)
    net.auxiliary = nn.Linear(3, 3).eval()
    assert "auxiliary" not in tangent_features(net, [images(12)], width=32)


def test_a_network_in_training_mode_is_refused():
    net = built(Odd)
    net.norm.train()
    with pytest.raises(InputError, match=r"in evaluation mode.*in training mode \(1 modules.*'norm'\); call net.eval"):
        tangent_features(net, [images(12)])
    with pytest.raises(InputError, match="'Odd'"):
        tangent_features(net.train(), [images(12)])


def test_no_images_are_refused():
    with pytest.raises(InputError, match="Expected `batches` to hold at least one batch of images, but there is none"):
        tangent_features(built(Odd), [])


def test_a_network_without_weights_to_move_is_a_source_error():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).requires_grad_(False).eval()
    with pytest.raises(SourceError, match="of Sequential to depend on weights that require gradients, but it does not"):
        tangent_features(net, [images(2)])
