import pytest
import timm
import torch
import torchvision
from torch import nn

from transferscope.activations.capture import resolve_stages
from transferscope.activations.stages import classifiers, natural_stages
from transferscope.activations.tracing import trace
from transferscope.errors import CaptureError, TransferscopeWarning
from transferscope.networks.compact import CompactResNet

pytestmark = pytest.mark.bounds


def stages_of(net, size=32):
    return natural_stages(net, trace(net, torch.zeros(1, 3, size, size)))


def names_of(net, size=32):
    return [stage.layer for stage in stages_of(net, size)]


class TestNaturalStages:
    def test_mobilenetv2_has_its_stem_17_inverted_residuals_and_the_pooled_output(self):
        names = names_of(timm.create_model("mobilenetv2_100", pretrained=False), 64)
        per_group = [1, 2, 3, 4, 3, 3, 1]
        blocks = [f"blocks.{i}.{j}" for i, count in enumerate(per_group) for j in range(count)]
        assert names == ["bn1", *blocks, "global_pool"]

    def test_resnet18_has_its_stem_8_residual_blocks_and_the_pooled_output(self):
        names = names_of(torchvision.models.resnet18(weights=None), 64)
        blocks = [f"layer{i}.{j}" for i in range(1, 5) for j in range(2)]
        assert names == ["maxpool", *blocks, "avgpool"]

    def test_vision_transformer_has_its_embedding_its_blocks_and_the_pooled_output(self):
        names = names_of(timm.create_model("test_vit", pretrained=False), 160)
        assert names == ["pos_drop", *(f"blocks.{i}" for i in range(6)), "fc_norm"]

    def test_block_with_squeeze_and_excitation_and_no_skip_is_one_stage(self):
        names = names_of(timm.create_model("efficientnet_b0", pretrained=False), 64)
        assert "blocks.0.0" in names
        assert not [name for name in names if name.endswith(".se")]

    def test_classifier_inside_a_head_module_is_left_out_and_its_pooling_kept(self):
        names = names_of(timm.create_model("convnext_atto", pretrained=False), 64)
        assert names[-1] == "head.flatten"
        assert "stages.2.blocks.5" in names

    def test_dense_and_inception_blocks_are_cut_as_wholes(self):
        names = names_of(torchvision.models.densenet121(weights=None), 64)
        assert [name for name in names if "block" in name] == [f"features.denseblock{i}" for i in range(1, 5)]

    def test_plain_chain_is_cut_after_each_weight_layer_with_its_activation(self):
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3), nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 2),
        )  # fmt: skip
        assert names_of(net) == ["2", "6", "8"]

    def test_network_without_a_classifier_ends_in_its_own_output(self):
        names = names_of(timm.create_model("test_resnet", pretrained=False, num_classes=0), 64)
        assert names[-1] == "global_pool"

    def test_without_a_cut_explicit_names_are_asked_for(self):
        class Whole(nn.Module):
            def forward(self, x):
                return x.mean(dim=(2, 3))

        with pytest.raises(CaptureError, match="name the layers explicitly"):
            stages_of(Whole())


class TestTrace:
    def test_calls_come_in_firing_order_not_in_registration_order(self):
        class Reversed(nn.Module):
            def __init__(self):
                super().__init__()
                self.second = nn.Conv2d(4, 4, 1)
                self.first = nn.Conv2d(3, 4, 1)

            def forward(self, x):
                return self.second(self.first(x))

        assert [call.layer for call in trace(Reversed(), torch.zeros(1, 3, 8, 8))] == ["first", "second", ""]

    def test_a_branch_that_is_skipped_around_is_no_cut(self):
        net = CompactResNet(3)
        cuts = {call.layer for call in trace(net, torch.zeros(1, 3, 32, 32)) if call.is_cut}
        assert {"blocks.0", "blocks.5", "stem"} <= cuts
        assert not {"blocks.0.conv1", "blocks.0.bn2", "blocks.2.shortcut"} & cuts

    def test_one_piece_of_a_split_tensor_is_no_cut(self):
        class Halves(nn.Module):
            def __init__(self):
                super().__init__()
                self.left = nn.Identity()
                self.join = nn.Identity()

            def forward(self, x):
                a, b = x.chunk(2, dim=1)
                return self.join(self.left(a) + b)

        cuts = {call.layer: call.is_cut for call in trace(Halves(), torch.zeros(1, 4, 8, 8))}
        assert cuts["join"]
        assert not cuts["left"]

    def test_flops_and_parameters_of_a_prefix_match_the_formulas(self):
        net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5))
        calls = {call.layer: call for call in trace(net, torch.zeros(2, 3, 4, 4))}
        conv_flops = 2 * 3 * 8 * 9 * 16
        assert calls["1"].params == 3 * 8 * 9 + 8
        assert calls["1"].flops == conv_flops
        assert calls["3"].params == 3 * 8 * 9 + 8 + 8 * 16 * 5 + 5
        assert calls["3"].flops == conv_flops + 2 * 8 * 16 * 5

    def test_flops_of_resnet18_are_the_published_ones(self):
        last = stages_of(torchvision.models.resnet18(weights=None), 224)[-1]
        # He et al. 2015, table 1: 1.8 × 10^9 multiply-adds.
        assert last.flops / 2e9 == pytest.approx(1.81, abs=0.02)

    def test_network_and_its_modes_are_left_as_they_were(self):
        net = CompactResNet(3)
        net.train()
        net.blocks[2].eval()
        before = {name: value.clone() for name, value in net.state_dict().items()}
        modes = [module.training for module in net.modules()]
        trace(net, torch.randn(1, 3, 32, 32))
        assert [module.training for module in net.modules()] == modes
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        assert all(parameter.grad is None for parameter in net.parameters())

    def test_hooks_are_removed_when_the_network_raises(self):
        net = nn.Sequential(nn.Conv2d(5, 4, 3))
        with pytest.raises(RuntimeError):
            trace(net, torch.zeros(1, 3, 8, 8))
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


class TestClassifiers:
    @pytest.mark.parametrize("name", ["test_resnet", "test_vit", "mobilenetv2_100", "resnetv2_18"])
    def test_of_a_network_and_none_without_its_head(self, name):
        image = torch.zeros(1, 3, *[160 if name == "test_vit" else 64] * 2)
        net = timm.create_model(name, pretrained=False, num_classes=7)
        (head,) = classifiers(trace(net, image))
        assert head.module is net.get_classifier()
        assert classifiers(trace(timm.create_model(name, pretrained=False, num_classes=0), image)) == ()

    def test_a_pointwise_convolution_may_be_one(self):
        net = torchvision.models.squeezenet1_1(weights=None)
        (head,) = classifiers(trace(net, torch.zeros(1, 3, 64, 64)))
        assert head.layer == "classifier.1"
        net = timm.create_model("resnetv2_18", pretrained=False)
        assert names_of(net, 64)[-1] == "head.global_pool"

    def test_a_convolution_after_pooling_is_none_where_the_network_says_so(self):
        net = timm.create_model("mobilenetv3_small_050", pretrained=False, num_classes=0)
        assert classifiers(trace(net.eval(), torch.zeros(1, 3, 64, 64))) == ()
        stages = stages_of(net, 64)
        assert stages[-1].shape == net(torch.zeros(1, 3, 64, 64)).shape[1:]

    def test_a_projection_inside_a_pooling_that_has_weights_is_one(self):
        class Pool(nn.Module):
            def __init__(self):
                super().__init__()
                self.places, self.project = nn.Parameter(torch.randn(8, 8)), nn.Linear(4, 5)

            def forward(self, x):
                return self.project((x + self.places).mean(dim=(2, 3)))[:, :]

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem, self.pool = nn.Conv2d(3, 4, 1), Pool()

            def forward(self, x):
                return self.pool(self.stem(x))

        traced = trace(Net(), torch.zeros(1, 3, 8, 8))
        assert [call.layer for call in classifiers(traced)] == ["pool.project"]
        assert [stage.layer for stage in natural_stages(traced.output.module, traced)] == ["stem"]

    @pytest.mark.parametrize(
        ("name", "heads"),
        [
            ("deit_tiny_distilled_patch16_224", ["head", "head_dist"]),
            ("levit_128s", ["head.linear", "head_dist.linear"]),
        ],
    )
    def test_heads_that_are_averaged_count_together(self, name, heads):
        net = timm.create_model(name, pretrained=False).eval()
        traced = trace(net, torch.zeros(1, 3, 224, 224))
        assert [call.layer for call in classifiers(traced)] == heads
        assert not {stage.layer for stage in natural_stages(net, traced)} & {*heads, "head", "head_dist"}

    def test_a_linear_layer_beside_which_another_path_runs_is_none(self):
        class Skips(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 4)

            def forward(self, x):
                x = self.first(x.mean(dim=(2, 3)))
                return x + self.last(x)

        assert classifiers(trace(Skips(), torch.zeros(1, 3, 8, 8))) == ()

    def test_without_weights_there_is_none(self):
        assert classifiers(trace(nn.Sequential(nn.ReLU(), nn.Flatten()), torch.zeros(1, 3, 8, 8))) == ()


class Windows(nn.Module):
    """A transformer block that works on windows of 4 × 4 pixels as if each were an image."""

    def __init__(self, width):
        super().__init__()
        self.block = nn.TransformerEncoderLayer(width, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, x):
        n, h, w, c = x.shape
        x = x.view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        x = self.block(x)
        return x.view(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)


class Windowed(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.blocks = nn.Sequential(Windows(8), Windows(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x).permute(0, 2, 3, 1)).mean(dim=(1, 2)))


class TestRegroupedImages:
    def test_windows_are_no_cut_and_the_block_around_them_is(self):
        net = Windowed().eval()
        traced = trace(net, torch.zeros(1, 3, 32, 32))
        assert [stage.layer for stage in natural_stages(net, traced)] == ["stem", "blocks.0", "blocks.1"]
        inner = traced.find("blocks.0.block")
        assert (inner.is_cut, inner.has_images) == (False, False)

    def test_named_all_the_same_they_are_left_out(self):
        net, sample = Windowed().eval(), torch.zeros(1, 3, 32, 32)
        with pytest.warns(TransferscopeWarning, match=r"1 layers are left out.*regrouped.*blocks\.0\.block"):
            stages = resolve_stages(net, ["stem", "blocks.0.block"], sample, cuts_only=True)
        assert [stage.layer for stage in stages] == ["stem"]

    def test_a_network_that_runs_two_views_of_each_image_has_no_stage(self):
        class Views(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = CompactResNet(3)

            def forward(self, x):
                return self.net(torch.cat([x, x.flip(-1)])).view(2, len(x), -1).mean(dim=0)

        with pytest.raises(CaptureError, match="for parts of the images only"):
            natural_stages(Views(), trace(Views(), torch.zeros(1, 3, 32, 32)))


def test_weights_that_are_computed_from_others_begin_a_stage_too():
    def net(wrap):
        torch.manual_seed(0)
        layers = (
            wrap(nn.Conv2d(3, 4, 3)),
            nn.ReLU(),
            wrap(nn.Conv2d(4, 6, 3)),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(864, 5),
        )
        return nn.Sequential(*layers).eval()

    stages = lambda net: [s.layer for s in natural_stages(net, trace(net, torch.zeros(1, 3, 16, 16)))]  # noqa: E731
    plain = stages(net(lambda layer: layer))
    assert plain == ["1", "4"]
    assert stages(net(nn.utils.parametrizations.spectral_norm)) == plain
    assert stages(net(nn.utils.parametrizations.weight_norm)) == plain
