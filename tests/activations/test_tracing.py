"""What is known of a network from running it: axes of outputs, which of several outputs counts, where it can be cut."""

import copy
from collections import namedtuple
from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils.checkpoint import checkpoint

import transferscope as ts
from transferscope.activations.capture import capture, resolve_stages
from transferscope.activations.stages import classifiers, natural_stages
from transferscope.activations.tracing import trace
from transferscope.errors import CaptureError, TransferscopeWarning

pytestmark = pytest.mark.bounds


def drawn(factory, *args, **options):
    torch.manual_seed(0)
    return factory(*args, **options).eval()


def images(n, size=32, channels=3):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(0))


def captured(net, layers, x, reduce="mean"):
    with capture(net, layers, reduce=reduce) as activations:
        net(x)
    return dict(activations)


# --- which axis counts images -------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, width, heads, batch_first):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=batch_first)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        h = self.first(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.mlp(self.second(x))


class Tower(nn.Module):
    """A vision transformer whose blocks take tokens first, as CLIP's do, or images first."""

    def __init__(self, batch_first):
        super().__init__()
        self.batch_first = batch_first
        self.patches = nn.Conv2d(3, 24, 8, 8)
        self.class_embedding = nn.Parameter(torch.randn(24))
        self.positions = nn.Parameter(torch.randn(17, 24))
        self.blocks = nn.Sequential(*(Block(24, 4, batch_first) for _ in range(3)))
        self.head = nn.Linear(24, 5, bias=False)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positions
        x = self.blocks(x) if self.batch_first else self.blocks(x.permute(1, 0, 2)).permute(1, 0, 2)
        return self.head(x[:, 0])


@pytest.mark.parametrize("n", [4, 17])  # 17 tokens: as many images tell nothing
@pytest.mark.parametrize("reduce", ["mean", "flatten", "class_token", "positions"])
def test_tokens_first_give_the_numbers_of_images_first(n, reduce):
    ours, usual = drawn(Tower, False), drawn(Tower, True)
    layers = [f"blocks.{i}" for i in range(3)]
    found, expected = (captured(net, layers, images(n), reduce) for net in (ours, usual))
    for layer in layers:
        torch.testing.assert_close(found[layer], expected[layer])
    assert [stage.shape for stage in resolve_stages(ours, layers, images(2))] == [(17, 24)] * 3


@pytest.mark.parametrize("measure", ["linear_cka", "procrustes"])
def test_tokens_first_compare_as_images_first(measure):
    ours, usual = drawn(Tower, False), drawn(Tower, True)
    layers = [f"blocks.{i}" for i in range(3)]
    options = {"layers_x": layers, "layers_y": layers, "batch_size": 17, "device": "cpu", "measure": measure}
    found, expected = (ts.compare(net, usual, images(34), **options) for net in (ours, usual))
    torch.testing.assert_close(torch.tensor(found.to_numpy()), torch.tensor(expected.to_numpy()), atol=1e-5, rtol=0)


class Lonely(nn.Module):
    """Squeezes every axis of length one, that of a lone image, too."""

    def __init__(self):
        super().__init__()
        self.conv, self.squeeze, self.head = nn.Conv2d(3, 6, 3), nn.Identity(), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.squeeze(self.conv(x).mean(dim=(2, 3), keepdim=True).squeeze()))


def test_a_network_that_loses_the_axis_of_a_lone_image_is_read_right():
    net, x = drawn(Lonely), images(5)
    torch.testing.assert_close(captured(net, "squeeze", x)["squeeze"], net.conv(x).mean(dim=(2, 3)).detach())


# --- which axis the channels are ----------------------------------------------------------------------------------


class TextLine(nn.Module):
    """16 channels of 16 × 32, then of 32 positions: lengths would tell it wrong."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Sequential(nn.Conv2d(3, 16, 3, (2, 1), 1), nn.BatchNorm2d(16), nn.ReLU())
        self.line = nn.Flatten(2)
        self.conv = nn.Conv1d(16, 40, 3, 2, 1)
        self.head = nn.Linear(40, 5)

    def forward(self, x):
        return self.head(self.conv(self.line(self.maps(x))).mean(2))


def test_channels_are_those_of_the_layer_that_made_them():
    net, x = drawn(TextLine), images(6)
    layers = ["maps", "line", "conv"]
    raw = captured(net, layers, x, None)
    for layer, found in captured(net, layers, x).items():
        torch.testing.assert_close(found, raw[layer].flatten(2).mean(2))
    assert captured(net, "maps", x, "positions")["maps"].shape == (6 * 16 * 32, 16)


class ChannelsLast(nn.Module):
    def __init__(self, embed):
        super().__init__()
        self.embed = nn.Conv2d(3, embed, 4, 4)
        self.norm, self.mix = nn.LayerNorm(embed), nn.Linear(embed, embed)

    def forward(self, x):
        x = self.embed(x).permute(0, 2, 3, 1)
        return x + self.mix(self.norm(x))


@pytest.mark.parametrize("embed", [7, 8, 9])  # as many channels as rows, one less, one more
def test_maps_with_channels_last_are_told_by_how_they_were_made(embed):
    net, x = drawn(ChannelsLast, embed), images(3)
    block = nn.Sequential(net)
    torch.testing.assert_close(captured(block, "0", x)["0"], net(x).mean(dim=(1, 2)).detach())
    assert captured(block, "0", x, "positions")["0"].shape == (3 * 64, embed)


@pytest.mark.parametrize(
    ("name", "layer", "options"),
    [
        ("swin_tiny_patch4_window7_224", "layers.{}", {"img_size": 64, "window_size": 2, "embed_dim": 24}),
        ("convnext_atto", "stages.{}", {}),
        ("test_vit", "blocks.{}", {"img_size": 64}),
    ],
)
def test_means_are_those_of_the_maps_that_timm_gives(name, layer, options):
    net, x = drawn(timm.create_model, name, **options), images(2, 64)
    with torch.no_grad():
        maps = net.forward_intermediates(x, norm=False, output_fmt="NCHW", intermediates_only=True)
    places = range(6 if name == "test_vit" else 4)
    maps = maps[-len(places) :]  # some versions of timm begin with the stem
    found = captured(net, [layer.format(i) for i in places], x, "positions")
    for i in places:
        torch.testing.assert_close(found[layer.format(i)], maps[i].permute(0, 2, 3, 1).flatten(0, 2))


class Unknown(nn.Module):
    def forward(self, x):
        index = torch.arange(x.shape[1]).flip(0)
        return torch.as_strided(x, x.shape, x.stride()) + index.sum() * 0


def test_an_assumed_axis_is_said():
    net = nn.Sequential(Unknown())
    with pytest.warns(
        TransferscopeWarning,
        match=r"Layer '0' does not say which axis of its output, .* holds the channels; axis 1 is assumed",
    ):
        found = captured(net, "0", images(2))
    torch.testing.assert_close(found["0"], images(2).mean(dim=(2, 3)))


# --- tokens -------------------------------------------------------------------------------------------------------


class Tokens(nn.Module):
    """Patches of a map that is not square, after the tokens asked for; a block follows."""

    def __init__(self, before, last=False):
        super().__init__()
        self.patches = nn.Conv2d(3, 12, (8, 4), (8, 4))
        self.names, self.last = list(before), last
        for name, count in before.items():
            self.register_parameter(name, nn.Parameter(torch.randn(1, count, 12)))
        self.block = Block(12, 3, batch_first=True)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        tokens = [getattr(self, name).expand(len(x), -1, -1) for name in self.names]
        return self.block(torch.cat([x, *tokens] if self.last else [*tokens, x], 1))


@pytest.mark.parametrize(
    ("before", "last", "class_token"),
    [
        ({"cls_token": 1}, False, 0),
        ({"cls_token": 1, "reg_token": 4}, False, 0),
        ({"register_tokens": 3, "cls_token": 1}, False, 3),
        ({"cls_token": 1, "dist_token": 1}, False, 0),
        ({"reg_token": 1}, False, None),
        ({"reg_token": 5}, False, None),
        ({}, False, None),
        ({"cls_token": 1}, True, None),
    ],
)
def test_patches_are_found_among_other_tokens(before, last, class_token):
    net, x = drawn(Tokens, before, last), images(3)
    tokens = captured(net, "block", x, None)["block"]
    start = 0 if last else sum(before.values())
    rows = captured(net, "block", x, "positions")["block"]
    assert torch.equal(rows, tokens[:, start : start + 32].reshape(-1, 12))
    assert trace(net, x).find("block").layout.grid == (4, 8)
    if class_token is None:
        with pytest.raises(CaptureError, match="class token"):
            captured(net, "block", x, "class_token")
    else:
        assert torch.equal(captured(net, "block", x, "class_token")["block"], tokens[:, class_token])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {}),
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}),
        ("vit_tiny_patch16_224", {"reg_tokens": 4}),
        ("vit_tiny_patch16_224", {"class_token": False, "reg_tokens": 1, "global_pool": "avg"}),
        ("deit_tiny_distilled_patch16_224", {}),
        ("beit_base_patch16_224", {}),
        ("eva02_tiny_patch14_224", {"patch_size": 16}),
        ("xcit_nano_12_p16_224", {}),
    ],
)
def test_tokens_of_timm_are_what_it_says_they_are(name, options):
    if "embed_dim" not in options and name.startswith(("beit", "vit")):
        options = options | {"embed_dim": 24, "num_heads": 3, "depth": 2}
    net = drawn(timm.create_model, name, img_size=64, **options)
    x = images(2, 64)
    layer = "blocks.1"
    layout = trace(net, x).find(layer).layout
    tokens = captured(net, layer, x, None)[layer]
    prefix = getattr(net, "num_prefix_tokens", 0) if not name.startswith("xcit") else 0
    assert (layout.grid, layout.before) == ((4, 4), prefix)
    assert torch.equal(captured(net, layer, x, "positions")[layer], tokens[:, prefix:].reshape(32, -1))
    if prefix and getattr(net, "has_class_token", True):
        assert torch.equal(captured(net, layer, x, "class_token")[layer], tokens[:, 0])
    else:
        with pytest.raises(CaptureError, match="class token"):
            captured(net, layer, x, "class_token")


def test_torchvision_has_a_class_token_first():
    net = drawn(torchvision.models.VisionTransformer, 64, 16, 2, 3, 24, 48)
    layer = "encoder.layers.encoder_layer_1"
    tokens = captured(net, layer, images(2, 64), None)[layer]
    assert torch.equal(captured(net, layer, images(2, 64), "class_token")[layer], tokens[:, 0])
    assert torch.equal(captured(net, layer, images(2, 64), "positions")[layer], tokens[:, 1:].reshape(32, 24))


# --- outputs of several tensors -----------------------------------------------------------------------------------


@dataclass
class Output:
    logits: torch.Tensor
    features: torch.Tensor


Pair = namedtuple("Pair", "aux logits")


class Several(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.s1, self.s2, self.s3 = (
            nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.ReLU()) for i, o in ((3, 8), (8, 12), (12, 16))
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head, self.twin = nn.Linear(16, 5), nn.Linear(16, 4)
        self.aux = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))

    def forward(self, x):
        a = self.s1(x)
        b = self.s2(a)
        c = self.s3(b)
        f = self.pool(c)
        logits, aux = self.head(f), self.aux(a)
        return {
            "plain": lambda: logits,
            "aux first": lambda: {"aux": aux, "logits": logits},
            "dataclass": lambda: Output(logits, f),
            "namedtuple": lambda: Pair(aux, logits),
            "hidden": lambda: {"loss": None, "hidden": (a, b, c), "logits": logits, "class": logits.argmax(1)},
            "with loss": lambda: {"logits": logits, "loss": logits.logsumexp(1).mean()},
            "maps": lambda: [a, b, c],
            "equal": lambda: {"species": logits, "colour": self.twin(f)},
        }[self.kind]()


@pytest.mark.parametrize("kind", ["plain", "aux first", "dataclass", "namedtuple", "hidden", "with loss"])
def test_the_deepest_of_several_outputs_stands_for_the_network(kind):
    net = drawn(Several, kind)
    traced = trace(net, images(1))
    assert [stage.layer for stage in natural_stages(net, traced)] == ["s1.1", "s2.1", "pool.1"]
    assert [call.layer for call in classifiers(traced)] == ["head"]


def test_a_list_of_maps_has_a_stage_for_each():
    net = drawn(Several, "maps")
    assert [stage.layer for stage in natural_stages(net, trace(net, images(1)))] == ["s1.1", "s2.1", "s3.1"]
    features = drawn(timm.create_model, "test_resnet", features_only=True)
    stages = natural_stages(features, trace(features, images(1, 64)))
    sizes = [tensor.shape[1:] for tensor in features(images(1, 64))]
    assert stages[-1].shape == sizes[-1]
    assert len(stages) >= len(sizes) - 1


def test_outputs_that_lie_equally_deep_are_refused_by_name():
    net = drawn(Several, "equal")
    with pytest.raises(CaptureError, match="species, colour at the same depth"):
        resolve_stages(net, "auto", images(1))
    # What both depend on can still be named.
    assert [stage.layer for stage in resolve_stages(net, ["s2", "pool"], images(1), cuts_only=True)] == ["s2", "pool"]


# --- where gradients do not flow ----------------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.b(torch.relu(self.a(x))))


class Hidden(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.blocks = nn.ModuleList(Residual() for _ in range(3))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        with nullcontext() if "checkpoint" in self.how else torch.set_grad_enabled(self.how != "no_grad"):
            for block in self.blocks:
                if self.how.startswith("checkpoint"):
                    x = checkpoint(block, x, use_reentrant="re-entrant" in self.how)
                else:
                    x = block(x.detach() if self.how == "detach" else x)
        return self.head(x.mean(dim=(2, 3)))


@pytest.mark.parametrize("how", ["checkpoint", "checkpoint re-entrant", "no_grad", "detach"])
def test_stages_are_those_of_the_same_network_with_gradients(how):
    plain, net = drawn(Hidden, "plain"), drawn(Hidden, how)
    expected = natural_stages(plain, trace(plain, images(1)))
    assert natural_stages(net, trace(net, images(1))) == expected
    assert [stage.layer for stage in expected] == ["stem", "blocks.0", "blocks.1", "blocks.2"]
    assert expected[-1].params == sum(p.numel() for p in plain.parameters()) - 45
    torch.testing.assert_close(captured(net, "auto", images(4)), captured(plain, "auto", images(4)))


class PastTorch(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(3, 8, 3, 2, 1), Residual(), nn.Linear(8, 5)

    def forward(self, x):
        x = self.block(self.stem(x)).mean(dim=(2, 3))
        return self.head(torch.tensor(x.tolist()))


def test_stages_end_where_the_input_is_left_and_that_is_said():
    net = drawn(PastTorch)
    with pytest.warns(TransferscopeWarning, match=r"PastTorch.* the last layer that does is 'block'"):
        stages = natural_stages(net, trace(net, images(1)))
    assert [stage.layer for stage in stages] == ["stem", "block"]


class InPlace(nn.Module):
    """Writes results into memory made beforehand, and through views."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.join, self.head = nn.Identity(), nn.Linear(8, 2)

    def forward(self, x):
        whole = x.new_empty(len(x), 8, *x.shape[2:])
        whole[:, :4] = self.left(x)
        whole[:, 4:].copy_(self.right(x))
        whole[:, 2:6].relu_()
        return self.head(self.join(whole).mean(dim=(2, 3)))


def test_a_copy_has_the_node_of_what_it_is_a_copy_of_until_it_is_changed():
    class Copied(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.drop, self.act = nn.Conv2d(3, 4, 1), nn.Dropout(0.5), nn.ReLU(inplace=True)

        def forward(self, x):
            x = self.drop(self.conv(x))
            return x + self.act(x.clone())

    calls = {call.layer: call for call in trace(drawn(Copied), images(1))}
    assert calls["conv"].node == calls["drop"].node != calls["act"].node
    assert calls["drop"].is_cut
    assert not calls["act"].is_cut


def test_what_is_written_in_place_is_followed():
    net = drawn(InPlace)
    calls = {call.layer: call for call in trace(net, images(1))}
    assert calls["join"].is_cut
    assert not calls["left"].is_cut
    assert not calls["right"].is_cut
    assert calls["join"].params == 2 * (3 * 4 + 4)


class Indices(nn.Module):
    """Keeps what it made of the first image's size, in an attribute and in a buffer (as ConViT does)."""

    def __init__(self):
        super().__init__()
        self.conv, self.scale, self.head = nn.Conv2d(3, 4, 1), nn.Linear(1, 1), nn.Linear(4, 2)
        self.kept = None
        self.register_buffer("count", torch.zeros(1), persistent=False)

    def forward(self, x):
        if self.kept is None:
            self.kept, self.count = torch.ones(1, 1), self.count + 1
        return self.head(self.conv(x).mean(dim=(2, 3))) * self.scale(self.kept) * self.count


def test_what_a_network_keeps_can_be_trained_with():
    net = drawn(Indices)
    captured(net, "conv", images(2))
    net(images(2)).sum().backward()
    assert net.scale.weight.grad is not None


def test_a_trace_leaves_the_network_as_it_was():
    net = drawn(Hidden, "checkpoint")
    before = copy.deepcopy(net.state_dict())
    net.train()
    trace(net, images(2))
    assert all(module.training for module in net.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not torch.is_inference_mode_enabled()
    assert torch.backends.mha.get_fastpath_enabled()
