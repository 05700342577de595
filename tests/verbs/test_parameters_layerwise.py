"""Parameter transferability by layer: by hand, against a slow reference, and how architectures fall into layers."""

import copy
import importlib.util
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from compact_networks import network
from torch import nn

from transferscope.arrays.backend import to_numpy
from transferscope.errors import InputError
from transferscope.networks import CompactResNet
from transferscope.verbs.parameters.layerwise import ratios, reason, transferability
from transferscope.verbs.parameters.weights import blocks, find_classifier, weights_of

EXAMPLES = Path(__file__).parents[2] / "examples"


def three(classes=(3, 3, 3)):
    """Initial weights, a source and a fine-tuned network: here three draws of one architecture."""
    return tuple(network(seed, each) for seed, each in enumerate(classes))


def state(**weights):
    return {f"{name}.weight": np.array(values, np.float64) for name, values in weights.items()}


def values(array):
    return dict(zip(array["layer"].to_numpy().tolist(), array.to_numpy().tolist(), strict=True))


def slow(initial, source, finetuned, layers):
    """T from its definition, in plain Python: layer to the module paths of its weights."""

    def distance(x, y, path):
        pairs = list(zip(*(net.get_submodule(path).weight.flatten().tolist() for net in (x, y)), strict=True))
        return math.fsum(abs(a - b) for a, b in pairs) / len(pairs)

    return {
        layer: math.fsum(distance(initial, finetuned, path) for path in paths)
        / math.fsum(distance(source, finetuned, path) for path in paths)
        for layer, paths in layers.items()
    }


COMPACT = {"stem.0": ["stem.0"]} | {
    f"blocks.{i}": [f"blocks.{i}.conv1", f"blocks.{i}.conv2"] + [f"blocks.{i}.shortcut.0"] * (i in (2, 4))
    for i in range(6)
}


# --- the values ---------------------------------------------------------------------------------------------------


def test_by_hand():
    initial = state(a=[[0, 0], [0, 0]], b=[[1, 1]], head=[[9, 9]])
    source = state(a=[[1, 0], [0, 2]], b=[[3, 4]], head=[[8, 8]])
    finetuned = state(a=[[1, 1], [0, 4]], b=[[3, 5]], head=[[7, 7]])
    found = transferability(initial, source, finetuned)
    to_initial = [(1 + 1 + 0 + 4) / 4, (2 + 4) / 2]
    to_source = [(0 + 1 + 0 + 2) / 4, (0 + 1) / 2]
    assert values(found) == pytest.approx({"a": to_initial[0] / to_source[0], "b": to_initial[1] / to_source[1]})
    assert found["distance_to_initial"].to_numpy().tolist() == to_initial
    assert found["distance_to_source"].to_numpy().tolist() == to_source
    assert found["relative_change"].to_numpy() == pytest.approx([math.sqrt(5 / 5), math.sqrt(1 / 25)])
    assert found["depth"].to_numpy().tolist() == [1, 2]
    assert found["weights"].to_numpy().tolist() == [1, 1]
    assert found["reason"].to_numpy().tolist() == ["", ""]
    assert np.isnan(found["spread"]).all()
    assert found.name == "transferability"
    assert found.attrs["mean"] == pytest.approx((2 + 6) / 2) == float(found.mean())
    assert (found.attrs["classifier"], found.attrs["initials"], found.attrs["groups"]) == ("head.weight", 1, "auto")
    assert "2212.00399" in found.attrs["paper"]


def test_distances_are_averaged_over_a_block_before_the_ratio():
    """Each tensor counts alike, however large: D = 5.5 and 1.5, while the ratios themselves are 10 and 1/2."""
    initial = state(x=[[0, 0]], y=[[2, 2], [2, 2]])
    source = state(x=[[9, 9]], y=[[1, 1], [1, 1]])
    finetuned = state(x=[[10, 10]], y=[[3, 3], [3, 3]])
    found = transferability(initial, source, finetuned, {"both": ["x", "y"]}, classifier=None)
    assert values(found) == {"both": pytest.approx(5.5 / 1.5)}
    assert found["relative_change"].item() == pytest.approx(math.sqrt((2 * 1 + 4 * 4) / (2 * 81 + 4)))
    assert found["weights"].item() == 2
    assert found.attrs["groups"] == "given"


def test_it_is_the_slow_reference_on_a_network():
    nets = three()
    found = transferability(*nets)
    expected = slow(*nets, COMPACT)
    assert list(values(found)) == list(expected)
    assert values(found) == pytest.approx(expected, rel=1e-12)
    assert found["weights"].to_numpy().tolist() == [1, 2, 2, 3, 2, 3, 2]
    assert found.attrs["mean"] == pytest.approx(np.mean(list(expected.values())))


def test_a_source_that_is_its_initial_weights_has_one_everywhere():
    net, _, finetuned = three()
    assert (transferability(net, copy.deepcopy(net), finetuned) == 1).all()


def test_swapping_initial_and_source_inverts_it():
    initial, source, finetuned = three()
    there, back = transferability(initial, source, finetuned), transferability(source, initial, finetuned)
    np.testing.assert_allclose(there * back, 1, rtol=1e-14)


def test_the_scale_and_an_offset_of_all_weights_do_not_matter():
    states = [{key: value.double() for key, value in weights_of(net, "net").items()} for net in three()]
    plain = transferability(*states)
    scaled = transferability(*({key: 4 * value for key, value in each.items()} for each in states))
    shifted = transferability(*({key: value - 0.5 for key, value in each.items()} for each in states))
    np.testing.assert_array_equal(scaled, plain)
    np.testing.assert_allclose(shifted, plain, rtol=1e-12)
    np.testing.assert_allclose(scaled["relative_change"], plain["relative_change"], rtol=1e-12)


def test_only_convolution_and_linear_weights_count():
    initial, source, finetuned = three()
    before = transferability(initial, source, finetuned)
    with torch.no_grad():
        for name, parameter in finetuned.named_parameters():
            if "bn" in name or name.startswith(("stem.1", "head")) or name.endswith("bias"):
                parameter.fill_(100.0)
    np.testing.assert_array_equal(transferability(initial, source, finetuned), before)


def test_one_source_twice_gives_the_same_bits():
    nets = three()
    np.testing.assert_array_equal(transferability(*nets), transferability(*nets))


# --- what comes in ------------------------------------------------------------------------------------------------


def test_networks_state_dicts_and_arrays_are_alike():
    nets = three()
    plain = transferability(*nets)
    states = [net.state_dict() for net in nets]
    arrays = [{key: to_numpy(value) for key, value in each.items()} for each in states]
    for given in (states, arrays, (nets[0], states[1], arrays[2]), (arrays[0], nets[1], states[2])):
        assert transferability(*given).identical(plain)
    assert all(parameter.requires_grad for net in nets for parameter in net.parameters())


def test_the_order_of_keys_does_not_matter():
    nets = three()
    turned = [dict(reversed(net.state_dict().items())) for net in nets[:2]]
    assert transferability(*turned, nets[2]).identical(transferability(*nets))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    halves = [net.to(dtype) for net in three()]
    full = [copy.deepcopy(net).float() for net in halves]
    np.testing.assert_array_equal(transferability(*halves), transferability(*full))


def test_the_layout_in_memory_does_not_matter():
    nets = three()
    last = copy.deepcopy(nets[2]).to(memory_format=torch.channels_last)
    np.testing.assert_allclose(transferability(*nets[:2], last), transferability(*nets), rtol=1e-14)


@pytest.mark.gpu
@pytest.mark.parametrize("where", [("cuda", "cpu", "cuda"), ("cpu", "cuda", "cpu"), ("cuda", "cuda", "cuda")])
def test_networks_on_different_devices(where):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    nets = three()
    plain = transferability(*nets)
    moved = [copy.deepcopy(net).to(device) for net, device in zip(nets, where, strict=True)]
    np.testing.assert_allclose(transferability(*moved), plain, rtol=1e-12)


def test_several_redraws_have_a_mean_and_a_spread():
    redraws, source, finetuned = [network(seed) for seed in (5, 6, 7)], network(1), network(2)
    found = transferability(redraws, source, finetuned)
    each = np.array([transferability(one, source, finetuned) for one in redraws])
    np.testing.assert_allclose(found, each.sum(axis=0) / 3, rtol=1e-14)
    deviations = each - each.sum(axis=0) / 3
    np.testing.assert_allclose(found["spread"], np.sqrt((deviations**2).sum(axis=0) / 2), rtol=1e-10)
    assert found.attrs["initials"] == 3
    alone = transferability(redraws[:1], source, finetuned)
    assert alone.identical(transferability(redraws[0], source, finetuned))


# --- the classifier -----------------------------------------------------------------------------------------------


def test_classifiers_of_other_widths_are_left_out():
    found = transferability(*three((10, 10, 4)))
    assert found.attrs["classifier"] == "head.weight"
    np.testing.assert_array_equal(found, transferability(*three()))


def test_a_classifier_that_only_one_has_is_left_out():
    initial, source, finetuned = three()
    source.head = nn.Identity()
    assert transferability(initial, source, finetuned).identical(transferability(*three()))


@pytest.mark.parametrize("name", ["stem.0", "stem.0.weight"])
def test_the_classifier_may_be_named(name):
    found = transferability(*three(), classifier=name)
    assert found.attrs["classifier"] == "stem.0.weight"
    assert list(values(found)) == [*list(COMPACT)[1:], "head"]


def test_no_classifier_leaves_nothing_out():
    found = transferability(*three(), classifier=None)
    assert found.attrs["classifier"] == ""
    assert list(values(found)) == [*COMPACT, "head"]


def test_the_last_matrix_is_the_classifier():
    matrix, kernel = np.ones((2, 2)), np.ones((2, 2, 3, 3))
    assert find_classifier({"a": kernel, "b": matrix}) == "b"
    assert find_classifier({"a": matrix, "b": kernel}) is None
    assert find_classifier({"a": matrix}) is None
    assert find_classifier({}) is None


# --- layers that did not move -------------------------------------------------------------------------------------


def test_layers_that_did_not_move_are_infinite_and_named():
    initial, source, finetuned = three()
    finetuned.stem = copy.deepcopy(source.stem)
    finetuned.blocks[1] = copy.deepcopy(source.blocks[1])
    initial.blocks[1] = copy.deepcopy(source.blocks[1])
    found = transferability([initial, initial], source, finetuned)
    assert found.sel(layer="stem.0") == np.inf
    assert np.isnan(found.sel(layer="blocks.1"))
    assert found["reason"].to_numpy().astype(bool).tolist() == [True, False, True, False, False, False, False]
    assert found["reason"].sel(layer="stem.0") == reason(1.0, 0.0)
    assert found["reason"].sel(layer="blocks.1") == reason(0.0, 0.0)
    assert np.isnan(found.attrs["mean"])
    assert found["relative_change"].to_numpy()[[0, 2]].tolist() == [0, 0]


def test_one_infinite_layer_makes_the_mean_infinite():
    initial, source, finetuned = three()
    finetuned.stem = copy.deepcopy(source.stem)
    assert transferability(initial, source, finetuned).attrs["mean"] == np.inf


def test_three_times_the_same_is_not_a_number():
    net = network()
    assert np.isnan(transferability(net, net, net)).all()


@pytest.mark.parametrize("wrapped", [0, 1, 2, (0, 1), (0, 2), (1, 2), (0, 1, 2)])
def test_prefixes_of_wrappers_do_not_count(wrapped):
    nets = three()
    plain = values(transferability(*nets))
    chosen = (wrapped,) if isinstance(wrapped, int) else wrapped
    states = [
        {("module." if i in chosen else "") + key: tensor for key, tensor in net.state_dict().items()}
        for i, net in enumerate(nets)
    ]
    found = values(transferability(*states))
    assert list(found.values()) == list(plain.values())
    assert {layer.removeprefix("module.") for layer in found} == set(plain)


def test_a_source_of_zeros_has_no_relative_change():
    found = transferability(state(a=[[1, 2]]), state(a=[[0, 0]]), state(a=[[1, 0]]))
    assert values(found) == {"a": 2}
    assert found["relative_change"].item() == np.inf


def test_ratios_broadcast_and_never_warn():
    to_initial = np.array([[[2.0, 4.0, 1.0], [0.0, 0.0, 3.0]], [[4.0, 8.0, 2.0], [2.0, 0.0, 3.0]]])
    to_source = np.array([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ratios(to_initial, to_source, ["a", "b", "c"], {"last": ["c"], "first": ["b", "a"]})
    expected = [[[1 / 4, 6 / 3], [np.inf, np.nan]], [[2 / 4, 12 / 3], [np.inf, np.inf]]]
    np.testing.assert_array_equal(found, expected)


def test_reasons():
    assert reason(1.0, 0.5) == reason(0.0, 0.5) == ""
    assert "those of the source, fine-tuning did not move them" in reason(1.0, 0.0)
    assert "none of the three differ" in reason(0.0, 0.0)


# --- weights ------------------------------------------------------------------------------------------------------


class Mixed(nn.Module):
    """Every kind of parameter that is a convolution or linear weight, and every kind that is not."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 5, 8))
        self.patch = nn.Conv2d(3, 8, 2)
        self.norm = nn.LayerNorm((5, 8))
        self.attention = nn.MultiheadAttention(8, 2)
        self.batch = nn.BatchNorm2d(8)
        self.out = nn.Linear(8, 2)


def test_weights_are_convolutions_and_linear_maps_in_order():
    net = Mixed()
    names = ["patch.weight", "attention.in_proj_weight", "attention.out_proj.weight", "out.weight"]
    assert list(weights_of(net, "net")) == list(weights_of(net.state_dict(), "net")) == names
    more = net.state_dict() | {"codes.weight": torch.ones(2, 2, dtype=torch.int64), "extra_state": {"a": 1}, 3: None}
    assert list(weights_of(more, "net")) == names
    assert list(blocks(names)) == ["patch", "attention", "attention.out_proj", "out"]


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ("net.pt", r"Expected `source` to be a torch.nn.Module or a state dict but got str; load a checkpoint"),
        (None, "`source` .* but got NoneType"),
        ({}, "`source` to hold convolution or linear weights.* but it holds nothing"),
        ({"state_dict": {"a.weight": np.ones((2, 2))}}, "it holds state_dict; pass .* unwrapped"),
        (nn.BatchNorm2d(3), "`source` .* it holds weight, bias, running_mean"),
        (state(a=[[1, 2]], b=[[1, np.nan]]), "'b.weight' of `source` holds NaN or infinite"),
        ({"a.weight": torch.tensor([[np.inf]])}, "'a.weight' of `source` holds NaN or infinite"),
    ],
)
def test_no_weights(net, message):
    with pytest.raises(InputError, match=message):
        weights_of(net, "source")


# --- layers of architectures --------------------------------------------------------------------------------------


def layers(net):
    weights = weights_of(net, "net")
    head = find_classifier(weights)
    return blocks([name for name in weights if name != head])


def sizes(net):
    return {layer: len(names) for layer, names in layers(net).items()}


def test_a_residual_network_has_the_layers_of_the_paper():
    import torchvision

    with torch.device("meta"):
        net = torchvision.models.resnet50()
    found = blocks([name for name, value in net.state_dict().items() if value.ndim > 1 and name != "fc.weight"])
    assert list(found)[:5] == ["conv1", "layer1.0", "layer1.1", "layer1.2", "layer2.0"]
    assert [len(names) for names in found.values()] == [1, 4, 3, 3, 4, 3, 3, 3, 4, 3, 3, 3, 3, 3, 4, 3, 3]
    assert found["layer1.0"][-1] == "layer1.0.downsample.0.weight"


def test_the_networks_of_this_project():
    assert layers(network()) == {layer: [f"{path}.weight" for path in paths] for layer, paths in COMPACT.items()}
    spec = importlib.util.spec_from_file_location("cifar_resnet", EXAMPLES / "cifar_resnet.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    expected = {"conv1": 1} | {f"layer{stage}.{block}": 2 for stage in (1, 2, 3) for block in range(3)}
    assert sizes(module.build(20)) == expected


def test_blocks_of_libraries():
    import timm
    import torchvision

    mobile = sizes(torchvision.models.mobilenet_v2(width_mult=0.1))
    # The first of its inverted residuals has two convolutions, which are named differently.
    assert mobile == {
        "features.0.0": 1,
        "features.1": 2,
        **{f"features.{i}": 3 for i in range(2, 18)},
        "features.18.0": 1,
    }
    regular = sizes(timm.create_model("mobilenetv2_035"))
    assert list(regular)[:4] == ["conv_stem", "blocks.0.0", "blocks.1.0", "blocks.1.1"]  # a stage of one block
    assert list(regular.values()) == [1, 2, *[3] * 16, 1]
    dense = sizes(torchvision.models.DenseNet(4, (2, 3), 8))
    names = [f"features.denseblock{i}.denselayer{j}" for i, count in ((1, 2), (2, 3)) for j in range(1, count + 1)]
    assert dense == {"features.conv0": 1, **dict.fromkeys(names, 2), "features.transition1.conv": 1}
    convnext = sizes(timm.models.ConvNeXt(num_classes=3, depths=(1, 2, 1, 1), dims=(8, 8, 8, 8)))
    expected = {f"stages.{stage}.blocks.0": 3 for stage in range(4)} | {"stages.1.blocks.1": 3, "stem.0": 1}
    assert convnext == expected | {f"stages.{stage}.downsample.1": 1 for stage in (1, 2, 3)}
    tokens = timm.models.VisionTransformer(img_size=32, embed_dim=8, depth=3, num_heads=2, num_classes=3)
    assert sizes(tokens) == {"patch_embed.proj": 1, "blocks.0": 4, "blocks.1": 4, "blocks.2": 4}
    swin = timm.models.SwinTransformer(img_size=32, window_size=2, embed_dim=8, depths=(2, 2), num_heads=(2, 2))
    expected = {f"layers.{stage}.blocks.{block}": 4 for stage in (0, 1) for block in (0, 1)}
    assert sizes(swin) == {"patch_embed.proj": 1, "layers.1.downsample.reduction": 1} | expected


def test_plain_networks_have_a_layer_for_each_weight():
    import torchvision

    with torch.device("meta"):
        names = [name for name in torchvision.models.vgg11().state_dict() if name.endswith("weight")]
    assert list(blocks(names)) == [name.removesuffix(".weight") for name in names]
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    assert layers(plain) == {"0": ["0.weight"], "2": ["2.weight"]}
    assert layers(nn.Linear(3, 2)) == {"weight": ["weight"]}


def test_where_no_stage_repeats_a_block_the_stage_is_one_and_a_single_block_is_known_by_its_children():
    names = [f"layer{stage}.0.conv{i}.weight" for stage in (1, 2) for i in (1, 2)]
    assert blocks(["conv1.weight", *names]) == {"conv1": ["conv1.weight"], "layer1": names[:2], "layer2": names[2:]}
    assert blocks(["conv1.weight", *names[:2]]) == {"conv1": ["conv1.weight"], "layer1.0": names[:2]}


def test_parts_of_a_block_and_a_wrapped_network_are_no_blocks():
    parts = [f"features.{i}.block.{part}.weight" for i in (1, 2) for part in ("0.0", "1.fc1", "1.fc2", "2.0")]
    assert list(blocks(parts)) == ["features.1", "features.2"]
    assert len(blocks(["0.conv1.weight", "0.conv2.weight", "1.weight"])) == 3


def test_every_weight_is_in_one_layer_whatever_the_architecture():
    import torchvision

    for build in ("squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small", "regnet_y_400mf"):
        names = list(weights_of(torchvision.models.get_model(build), build))
        found = blocks(names)
        assert sorted(name for own in found.values() for name in own) == sorted(names)
        assert all(name.startswith(layer) for layer, own in found.items() for name in own)
        assert max(map(len, found.values())) <= 6


NAMES = ["stem.weight", "body.0.conv1.weight", "body.0.conv2.weight", "body.1.conv1.weight", "attn.in_proj_weight"]


def test_every_tensor_by_itself():
    assert list(blocks(NAMES, "tensor")) == [
        "stem",
        "body.0.conv1",
        "body.0.conv2",
        "body.1.conv1",
        "attn.in_proj_weight",
    ]
    assert [name for own in blocks(NAMES, "tensor").values() for name in own] == NAMES
    assert sum(transferability(*three(), "tensor")["weights"]) == 15


def test_layers_of_ones_own():
    given = {"late": ["body.1", "attn.in_proj_weight"], "early": ["body.0.conv2.weight", "stem"], "one": "body.0.conv1"}
    assert blocks(NAMES, given) == {
        "late": ["body.1.conv1.weight", "attn.in_proj_weight"],
        "early": ["stem.weight", "body.0.conv2.weight"],
        "one": ["body.0.conv1.weight"],
    }
    assert blocks(NAMES, {"body": ["body"]}) == {"body": NAMES[1:4]}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("block", "`groups` to be 'auto', 'tensor' or a mapping .* but got 'block'"),
        (["stem"], r"`groups` .* but got \['stem'\]"),
        (None, "`groups` .* but got None"),
        ({}, "`groups` to name at least one layer"),
        ({"a": []}, "`groups` to name weights for layer 'a' but got none"),
        ({"a": ["steam"]}, r"puts 'steam' into layer 'a', .*did you mean 'stem'"),
        ({"a": ["stem", 3]}, "puts 3 into layer 'a'"),
        ({"a": ["body.0"], "b": ["body"]}, "puts 'body.0.conv1.weight' into the layers 'a' and 'b'"),
    ],
)
def test_bad_groups(groups, message):
    with pytest.raises(InputError, match=message):
        blocks(NAMES, groups)


# --- bad input ----------------------------------------------------------------------------------------------------


def test_weights_that_one_lacks_are_named():
    initial, source, finetuned = (net.state_dict() for net in three())
    del initial["stem.0.weight"], source["stem.0.weight"], finetuned["blocks.3.conv1.weight"]
    source["more.weight"] = torch.ones(2, 2)
    with pytest.raises(InputError) as caught:
        transferability([initial, network()], source, finetuned)
    text = str(caught.value)
    assert "Expected `initial[0]`, `initial[1]`, `source`, `finetuned` to hold the same weights" in text
    assert "'stem.0.weight' is missing from `initial[0]` and `source`" in text
    assert "'blocks.3.conv1.weight' is missing from `finetuned`" in text
    assert "'more.weight' is missing from `initial[0]` and `initial[1]` and `finetuned`" in text
    assert "`classifier` the weight that may differ (now 'head.weight')" in text


def test_shapes_that_differ_are_named_up_to_five():
    with pytest.raises(InputError) as caught:
        transferability(network(), CompactResNet(3, width=8), network())
    text = str(caught.value)
    assert "'stem.0.weight' is (4, 3, 3, 3) in `initial`, (8, 3, 3, 3) in `source`, (4, 3, 3, 3) in `finetuned`" in text
    assert text.count("in `source`") == 5
    assert "and 10 more" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"initial": "net.pt"}, "`initial` to be a torch.nn.Module or a state dict but got str"),
        ({"initial": []}, "`initial` to hold at least one network or state dict"),
        ({"initial": [network(), 3]}, r"`initial\[1\]` to be .* but got int"),
        ({"source": None}, "`source` to be .* but got NoneType"),
        ({"finetuned": state(a=[[np.nan, 1]])}, "'a.weight' of `finetuned` holds NaN"),
        ({"classifier": "heat"}, r"`classifier` 'heat' is no .* weight of the networks.*or pass None"),
        ({"groups": {"a": ["head"]}}, "puts 'head' into layer 'a', .*the classifier's is never among the layers"),
        ({"groups": "blocks"}, "`groups` to be 'auto', 'tensor' or a mapping"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(InputError, match=message):
        transferability(**dict(zip(("initial", "source", "finetuned"), three(), strict=True)) | change)


def test_nothing_left_without_the_classifier():
    nets = (state(a=[[1, 2]]), state(a=[[2, 2]]), state(a=[[3, 2]]))
    assert values(transferability(*nets)) == {"a": 2}
    with pytest.raises(InputError, match="No weight is left without the classifier 'a"):
        transferability(*nets, classifier="a")
