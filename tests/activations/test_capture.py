import pytest
import torch
from torch import nn
from wrappers import WRAPPERS

from transferscope import similarity
from transferscope.activations.capture import capture, collect, resolve_stages
from transferscope.errors import CaptureError, InputError, TransferscopeWarning
from transferscope.networks.compact import CompactResNet

pytestmark = pytest.mark.bounds


@pytest.fixture
def batch():
    return torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def conv_relu(inplace):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=inplace), nn.Conv2d(8, 8, 3))


class TestCapturedValues:
    @pytest.mark.parametrize("reduce", [None, "flatten"])
    def test_trap_1_an_in_place_relu_does_not_overwrite_what_was_captured(self, batch, reduce):
        net, plain = conv_relu(True), conv_relu(False)
        with capture(net, ["0", "1"], reduce=reduce) as inplace:
            net(batch)
        expected = plain[0](batch).detach()
        if reduce == "flatten":
            expected = expected.flatten(1)
        torch.testing.assert_close(inplace["0"], expected)
        assert (inplace["0"] < 0).any()
        assert not (inplace["1"] < 0).any()

    def test_trap_1_conv_against_relu_cka_is_not_one(self):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True))
        x = torch.randn(64, 5)
        before = net[0](x).detach().double().numpy()
        features = collect(net, [x], ["0", "1"])
        expected = similarity.linear_cka(before, before.clip(min=0))
        assert similarity.linear_cka(features["0"], features["1"]) == pytest.approx(expected, abs=1e-6)
        assert expected < 0.95

    def test_mean_grid_and_flatten_match_plain_arithmetic(self, batch):
        net = conv_relu(False)
        expected = net[0](batch).detach()
        for reduce, value in {
            "flatten": expected.flatten(1),
            "mean": expected.mean(dim=(2, 3)),
            "grid": torch.stack(
                [expected[:, :, a : a + 16, b : b + 16].mean(dim=(2, 3)) for a in (0, 16) for b in (0, 16)],
                dim=2,
            ).flatten(1),
        }.items():
            with capture(net, "0", reduce=reduce) as activations:
                net(batch)
            torch.testing.assert_close(activations["0"], value)

    def test_channels_last_memory_gives_the_same_features(self, batch):
        net = conv_relu(False)
        with capture(net, "0", reduce="flatten") as plain:
            net(batch)
        expected = plain["0"]
        net = net.to(memory_format=torch.channels_last)
        with capture(net, "0", reduce="flatten") as activations:
            net(batch.to(memory_format=torch.channels_last))
        torch.testing.assert_close(activations["0"], expected, rtol=1e-4, atol=1e-5)

    def test_channels_last_layout_is_averaged_over_space(self):
        class Permuted(nn.Module):
            def forward(self, x):
                return x.permute(0, 2, 3, 1)

        net, images = nn.Sequential(Permuted()), torch.randn(2, 5, 7, 7)
        with capture(net, "0", reduce="mean") as activations:
            net(images)
        torch.testing.assert_close(activations["0"], images.mean(dim=(2, 3)))

    def test_half_precision_is_raised_before_it_is_averaged(self):
        net = nn.Sequential(nn.Identity())
        images = torch.full((2, 3, 64, 64), 300.0, dtype=torch.float16)
        with capture(net, "0", reduce="mean") as activations:
            net(images)
        assert activations["0"].dtype == torch.float32
        # A float16 sum of 4096 values of 300 would overflow.
        torch.testing.assert_close(activations["0"], torch.full((2, 3), 300.0))

    def test_tuples_and_mappings_give_their_first_tensor(self):
        class Pair(nn.Module):
            def forward(self, x):
                return x + 1, x + 2

        class Record(nn.Module):
            def forward(self, pair):
                return {"note": None, "out": pair[0] * 2, "more": pair[1]}

        net = nn.Sequential(Pair(), Record())
        x = torch.randn(3, 4)
        with capture(net, ["0", "1"]) as activations:
            net(x)
        torch.testing.assert_close(activations["0"], x + 1)
        torch.testing.assert_close(activations["1"], (x + 1) * 2)

    def test_output_without_a_tensor_is_an_error_naming_the_layer(self):
        class Text(nn.Module):
            def forward(self, x):
                return "nothing"

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.text = Text()

            def forward(self, x):
                self.text(x)
                return x

        net = Net()
        with pytest.raises(CaptureError, match=r"'text'.*str"), capture(net, "text"):
            net(torch.zeros(1, 2))

    def test_module_called_twice_gives_both_calls_by_number(self):
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.relu = nn.ReLU(inplace=True)
                self.fc = nn.Linear(4, 4)

            def forward(self, x):
                return self.relu(self.fc(self.relu(x.clone())))

        net, x = Twice(), torch.randn(3, 4)
        first = x.clamp(min=0)
        second = net.fc(first).clamp(min=0).detach()
        with capture(net, "relu") as both:
            net(x)
        assert list(both) == ["relu", "relu:2"]
        torch.testing.assert_close(both["relu"], first)
        torch.testing.assert_close(both["relu:2"], second)
        with capture(net, "relu:2") as one:
            net(x)
        assert list(one) == ["relu:2"]
        torch.testing.assert_close(one["relu:2"], second)

    @pytest.mark.parametrize("wrap", [*WRAPPERS, None])
    def test_a_wrapper_gives_the_names_of_the_network_inside(self, batch, wrap, one_process):
        net = CompactResNet(3).eval()
        # One in the other, as in training.
        wrapped = WRAPPERS[wrap](net) if wrap else WRAPPERS["compiled"](WRAPPERS["averaged"](net))
        if wrap == "compiled":
            with torch.inference_mode():
                wrapped(batch)  # what was compiled then knows no hooks
        with capture(wrapped, "auto", reduce="mean") as inside:
            wrapped(batch)
        with capture(net, "auto", reduce="mean") as plain:
            net(batch)
        assert list(inside) == list(plain)
        torch.testing.assert_close(inside["blocks.5"], plain["blocks.5"])
        stages = [resolve_stages(each, "auto", batch) for each in (net, wrapped)]
        assert [stage.layer for stage in stages[0]] == [stage.layer for stage in stages[1]] == list(plain)

    def test_trap_5_rows_come_in_firing_order(self):
        class Reversed(nn.Module):
            def __init__(self):
                super().__init__()
                self.b = nn.Linear(4, 4)
                self.a = nn.Linear(4, 4)

            def forward(self, x):
                return self.b(self.a(x))

        net = Reversed()
        with capture(net, ["b", "a"]) as activations:
            net(torch.zeros(1, 4))
        assert list(activations) == ["a", "b"]


class TestManners:
    def test_trap_9_hooks_modes_and_gradients_are_as_before(self, batch):
        net = CompactResNet(3).train()
        net.blocks[1].eval()
        modes = [module.training for module in net.modules()]
        with capture(net) as activations:
            net(batch)
            assert torch.is_inference_mode_enabled()
            assert not any(module.training for module in net.modules())
        assert [module.training for module in net.modules()] == modes
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
        assert not torch.is_inference_mode_enabled()
        assert net(batch).requires_grad
        assert len(activations) == 8

    def test_everything_is_restored_when_the_body_raises(self, batch):
        net = CompactResNet(3).train()

        def fail():
            with capture(net):
                net(batch)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert net.training
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())

    def test_only_the_last_forward_pass_is_kept(self, batch):
        net = conv_relu(False)
        with capture(net, "0") as activations:
            net(batch)
            net(batch[:2] + 1)
        torch.testing.assert_close(activations["0"], net[0](batch[:2] + 1).detach())

    def test_unknown_layer_lists_near_names(self):
        with (
            pytest.raises(CaptureError, match=r"'blocks.9'.*blocks\.\d"),
            capture(CompactResNet(3), "blocks.9"),
        ):
            pass

    def test_layer_that_never_fires_is_an_error(self, batch):
        class Unused(nn.Module):
            def __init__(self):
                super().__init__()
                self.used = nn.Conv2d(3, 4, 3)
                self.unused = nn.Conv2d(3, 4, 3)

            def forward(self, x):
                return self.used(x)

        net = Unused()
        with (
            pytest.raises(CaptureError, match=r"'unused' exists but never fired.*used"),
            capture(net, ["unused"]),
        ):
            net(batch)
        with pytest.raises(CaptureError, match="never fired"):
            resolve_stages(net, ["used", "unused"], batch)

    def test_no_forward_pass_at_all_is_an_error(self):
        with pytest.raises(CaptureError, match="No forward pass"), capture(CompactResNet(3)):
            pass

    @pytest.mark.parametrize("layers", [[], [""], [3]])
    def test_bad_layers_say_what_was_expected(self, layers):
        with pytest.raises(InputError, match="`layers`"), capture(CompactResNet(3), layers):
            pass

    def test_bad_reduction_says_what_was_expected(self):
        with pytest.raises(InputError, match=r"`reduce`.*flatten"), capture(CompactResNet(3), reduce="max"):
            pass

    def test_star_is_one_path_component_and_two_stars_are_any(self, batch):
        net = CompactResNet(3)
        with capture(net, "blocks.*") as one:
            net(batch)
        assert list(one) == [f"blocks.{i}" for i in range(6)]
        with capture(net, "blocks.0.**") as deep:
            net(batch)
        assert "blocks.0.conv1" in deep
        assert "blocks.0" not in deep


class TestCollect:
    def test_batches_are_joined_in_order(self, batch):
        net = CompactResNet(3)
        whole = collect(net, [batch])
        parts = collect(net, [batch[:4], batch[4:]])
        assert list(whole) == list(parts)
        for layer in whole:
            torch.testing.assert_close(torch.from_numpy(parts[layer]), torch.from_numpy(whole[layer]))

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_nan_and_inf_name_the_layer(self, batch, value):
        net = CompactResNet(3)
        with torch.no_grad():
            net.blocks[3].bn2.bias[0] = value
        with pytest.raises(CaptureError, match=r"'blocks.3' are NaN or infinite"):
            collect(net, [batch])

    def test_layers_that_change_from_batch_to_batch_are_an_error(self, batch):
        class Fickle(nn.Module):
            def __init__(self):
                super().__init__()
                self.a = nn.Identity()
                self.b = nn.Identity()

            def forward(self, x):
                return self.a(x) if len(x) > 3 else self.b(x)

        with pytest.raises(CaptureError, match="same layers to fire on every batch"):
            collect(Fickle(), [batch, batch[:2]], ["a", "b"])

    def test_layers_where_no_network_can_be_cut_are_left_out_on_request(self, batch):
        net = CompactResNet(3)
        with pytest.warns(TransferscopeWarning, match=r"1 layers are left out.*blocks\.1\.conv2"):
            stages = resolve_stages(net, ["blocks.1.conv2", "blocks.3"], batch, cuts_only=True)
        assert [stage.layer for stage in stages] == ["blocks.3"]
        assert len(resolve_stages(net, ["blocks.1.conv2", "blocks.3"], batch)) == 2
        with pytest.raises(CaptureError, match=r"blocks\.1\.conv2.*name whole blocks"):
            resolve_stages(net, "blocks.1.conv2", batch, cuts_only=True)

    def test_stages_and_features_name_the_same_layers(self, batch):
        net = CompactResNet(3)
        stages = resolve_stages(net, ["blocks.3", "stem"], batch)
        assert [stage.layer for stage in stages] == ["stem", "blocks.3"]
        assert list(collect(net, [batch], ["blocks.3", "stem"])) == ["stem", "blocks.3"]
        assert stages[1].shape == (32, 16, 16)
