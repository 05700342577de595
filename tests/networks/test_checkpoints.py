"""Fitting checkpoints into networks: wrappers, prefixes, several networks, missing classifiers; what does not fit."""

import re

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn
from torch.optim.swa_utils import AveragedModel

from transferscope.errors import SourceError, TransferscopeWarning
from transferscope.networks.checkpoints import load_checkpoint

pytestmark = pytest.mark.bounds


def network(classes=3, width=4, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width, classes))


def assert_same_weights(module, other, **tolerances):
    theirs = other.state_dict()
    for key, value in module.state_dict().items():
        torch.testing.assert_close(value, theirs[key], **tolerances or {"rtol": 0, "atol": 0})


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".bin", ".safetensors", ".PT"])
def test_every_suffix_is_read(tmp_path, suffix):
    path, saved, loaded = tmp_path / f"weights{suffix}", network(seed=1), network(seed=2)
    if suffix == ".safetensors":
        safetensors.torch.save_file(saved.state_dict(), path)
    else:
        torch.save(saved.state_dict(), path)
    load_checkpoint(loaded, path)
    assert_same_weights(loaded, saved)
    assert loaded[0].weight.requires_grad


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "best_prec1": 91.7},
        lambda state: {"model": state, "optimizer": {"lr": torch.tensor(1.0)}},
        lambda state: {"epoch": 3, "model_state_dict": state},
        lambda state: {"model_ema": state},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {**state, "epoch": 3},
    ],
)
def test_wrappers_are_unwrapped(tmp_path, wrap):
    saved, loaded = network(seed=1), network(seed=2)
    torch.save(wrap(dict(saved.state_dict())), tmp_path / "w.pt")
    load_checkpoint(loaded, tmp_path / "w.pt")
    assert_same_weights(loaded, saved)


def test_plain_weights_come_before_their_average(tmp_path):
    plain, average = network(seed=1), network(seed=2)
    torch.save({"model_ema": average.state_dict(), "model": plain.state_dict()}, tmp_path / "w.pt")
    loaded = network(seed=3)
    with pytest.warns(TransferscopeWarning, match="model is taken, not model_ema; checkpoint_key: model_ema would"):
        load_checkpoint(loaded, tmp_path / "w.pt")
    assert_same_weights(loaded, plain)


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.model.", "backbone.", "net.module.",
     "student.backbone.", "base_model.model.", "a.b.c.d.", "_fsdp_wrapped_module."],
)  # fmt: skip
def test_prefixes_are_removed(tmp_path, prefix):
    saved, loaded = network(seed=1), network(seed=2)
    torch.save(prefixed(saved.state_dict(), prefix), tmp_path / "w.pt")
    load_checkpoint(loaded, tmp_path / "w.pt")
    assert_same_weights(loaded, saved)


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_a_prefix_of_the_networks_own_is_kept(tmp_path, prefix):
    class Wrapped(nn.Module):
        def __init__(self, seed):
            super().__init__()
            self.model = network(seed=seed)

    saved, loaded = Wrapped(1), Wrapped(2)
    torch.save(prefixed(saved.state_dict(), prefix), tmp_path / "w.pt")
    load_checkpoint(loaded, tmp_path / "w.pt")
    assert_same_weights(loaded, saved)


def test_a_prefix_that_only_some_keys_carry_is_kept(tmp_path):
    state = network().state_dict()
    state["module.0.weight"] = state.pop("0.weight")
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(SourceError, match=r"1 are missing from the file \(0\.weight.*1 are not in the network"):
        load_checkpoint(network(), tmp_path / "w.pt")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_load_into_float32(tmp_path, dtype):
    saved, loaded = network(seed=1), network(seed=2)
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in saved.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    load_checkpoint(loaded, tmp_path / "w.safetensors")
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    assert_same_weights(loaded, saved.to(dtype).float())


def test_batch_counters_may_be_missing(tmp_path):
    saved, loaded = network(seed=1), network(seed=2)
    state = {key: value for key, value in saved.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(prefixed(state, "module."), tmp_path / "w.pt")
    load_checkpoint(loaded, tmp_path / "w.pt")
    assert_same_weights(loaded, saved)


def test_an_extra_state_that_is_no_tensor_is_left_alone(tmp_path):
    class Counting(nn.Linear):
        calls = 7

        def get_extra_state(self):
            return {"calls": self.calls}

        def set_extra_state(self, state):
            self.calls = state["calls"]

    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "w.pt")
    load_checkpoint(loaded := Counting(2, 2), tmp_path / "w.pt")
    assert loaded.calls == 7


def test_a_classifier_of_another_width_is_told_with_the_argument_to_give(tmp_path):
    torch.save(network(classes=965).state_dict(), tmp_path / "w.pt")
    loaded = network(classes=10)
    before = loaded[0].weight.clone()
    with pytest.raises(SourceError) as raised:
        load_checkpoint(loaded, tmp_path / "w.pt")
    message = str(raised.value)
    assert "3.weight: network (10, 4) float32, file (965, 4) float32" in message
    assert "2 differ" in message
    assert "num_classes: 965" in message
    assert torch.equal(loaded[0].weight, before)  # nothing is loaded by halves


def test_another_architecture_is_told_by_its_first_keys_and_counts(tmp_path):
    state = network(width=8).state_dict()
    state["5.bias"] = torch.zeros(2)
    del state["3.bias"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(SourceError) as raised:
        load_checkpoint(network(width=4), tmp_path / "w.pt")
    message = str(raised.value)
    # conv weight and bias, batch norm's weight, bias and two statistics, linear weight; the first three named
    assert re.search(r"7 differ \(0\.weight: network \(4, 3, 3, 3\) float32, file \(8, 3, 3, 3\) float32", message)
    assert "and 4 more" in message
    assert "1 are missing from the file (3.bias: (3,) float32)" in message
    assert "1 are not in the network (5.bias: (2,) float32)" in message
    assert "num_classes" not in message


def test_integers_do_not_silently_become_floats(tmp_path):
    state = network().state_dict()
    state["0.weight"] = (state["0.weight"] * 100).to(torch.int8)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(SourceError, match=r"network \(4, 3, 3, 3\) float32, file \(4, 3, 3, 3\) int8"):
        load_checkpoint(network(), tmp_path / "w.pt")


def pairs():
    return {"first": network(seed=1).state_dict(), "second": network(seed=2).state_dict()}


def loaded_weights(path, content, *, key=None, net=None):
    net = net or network(seed=3)
    torch.save(content, path)
    load_checkpoint(net, path, key)
    return net.state_dict()


def equal(some, other):
    return all(torch.equal(some[key], other[key]) for key in other)


def test_an_averaged_model_is_read_with_its_counter(tmp_path):
    average = AveragedModel(saved := network(seed=1), use_buffers=True)
    average.update_parameters(saved)
    for content in (average.state_dict(), {"model_ema": average.state_dict(), "epoch": 3}):
        assert equal(loaded_weights(tmp_path / "w.pt", content), saved.state_dict())


def test_the_state_of_training_beside_the_weights_needs_no_word(tmp_path):
    saved = network(seed=1).state_dict()
    state = {"optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "lr_scheduler": {"values": torch.ones(2)}}
    best = {"best_acc1": torch.tensor(76.1)}
    assert equal(loaded_weights(tmp_path / "w.pt", saved | state | best), saved)


def test_a_lightning_checkpoint_with_a_loss_and_a_metric(tmp_path):
    saved = network(seed=1).state_dict()
    content = {
        "epoch": 4, "pytorch-lightning_version": "2.5.0", "loops": {}, "callbacks": {}, "hyper_parameters": {"lr": 0.1},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
    }  # fmt: skip
    state = prefixed(saved, "model.")
    assert equal(loaded_weights(tmp_path / "w.ckpt", content | {"state_dict": state}), saved)
    state |= {"criterion.weight": torch.ones(3), "accuracy.tp": torch.zeros(3)}
    with pytest.warns(TransferscopeWarning, match=r"under state_dict\.model are taken, .*criterion.*accuracy"):
        assert equal(loaded_weights(tmp_path / "w.ckpt", content | {"state_dict": state}), saved)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("state_dict.module.encoder_q", "state_dict.module.encoder_k"),
        ("teacher.backbone", "student.module.backbone"),
        ("online_network", "target_network"),
        ("base_encoder", "momentum_encoder"),
        ("state_dict", "state_dict_ema"),
        ("state_dict.model", "state_dict.ema_model.module"),
        ("net", "swa_net"),
    ],
)
def test_of_two_networks_the_one_by_convention_is_taken_and_the_other_by_its_key(tmp_path, first, second):
    weights = pairs()
    content = prefixed(weights["second"], f"{second}.") | prefixed(weights["first"], f"{first}.")
    with pytest.warns(TransferscopeWarning, match=f"{first} is taken, not {second}; checkpoint_key: {second}"):
        assert equal(loaded_weights(tmp_path / "w.pt", content), weights["first"])
    assert equal(loaded_weights(tmp_path / "w.pt", content, key=second), weights["second"])


def test_a_key_may_begin_within_the_names(tmp_path):
    weights = pairs()
    content = {"state_dict": prefixed(weights["first"], "module.a.") | prefixed(weights["second"], "module.b.")}
    for key in ("module.b", "b", "b."):
        assert equal(loaded_weights(tmp_path / "w.pt", content, key=key), weights["second"])


def test_two_networks_without_a_convention_are_asked_about(tmp_path):
    weights = pairs()
    content = {name: prefixed(state, "net.") for name, state in weights.items()}
    with pytest.raises(SourceError, match=r"2 networks that fit, .*: first\.net, second\.net; say .*_key"):
        loaded_weights(tmp_path / "w.pt", content)
    for key, state in weights.items():
        assert equal(loaded_weights(tmp_path / "w.pt", content, key=key), state)
    with pytest.raises(SourceError, match=r"_key 'third'; the keys above most tensors are first, first\.net,"):
        loaded_weights(tmp_path / "w.pt", content, key="third")
    with pytest.raises(SourceError, match=r"'secnd' \(did you mean 'second'"):
        loaded_weights(tmp_path / "w.pt", content, key="secnd")


def test_two_copies_of_one_network_are_one(tmp_path):
    state = network(seed=1).state_dict()
    assert equal(loaded_weights(tmp_path / "w.pt", prefixed(state, "a.") | prefixed(state, "b.")), state)


@pytest.mark.parametrize("prefix", ["", "module.encoder_q.", "backbone."])
def test_a_classifier_may_be_missing_as_a_whole(tmp_path, prefix):
    saved, loaded = network(seed=1).state_dict(), network(seed=2)
    drawn = loaded[3].weight.clone()
    body = {key: value for key, value in saved.items() if not key.startswith("3.")}
    torch.save(prefixed(body, prefix) | {"projector.0.weight": torch.ones(2, 2)}, tmp_path / "w.pt")
    with pytest.warns(TransferscopeWarning) as told:
        assert load_checkpoint(loaded, tmp_path / "w.pt") == ["3.weight", "3.bias"]
    assert equal(loaded.state_dict(), body)
    assert torch.equal(loaded[3].weight, drawn)
    told = " ".join(str(each.message) for each in told)
    assert "has no classifier: 3.weight, 3.bias stay as they are drawn" in told
    assert "projector" in told
    torch.save(prefixed(body | {"3.weight": saved["3.weight"]}, prefix), tmp_path / "w.pt")
    with pytest.raises(SourceError, match=r"1 are missing from the file \(3\.bias"):
        load_checkpoint(loaded, tmp_path / "w.pt")


def test_a_network_whose_own_names_have_a_prefix_that_the_file_lacks(tmp_path):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = timm.create_model("test_resnet", num_classes=0)
            self.head = nn.Linear(96, 2)

    saved = timm.create_model("test_resnet").state_dict()
    with pytest.warns(TransferscopeWarning) as told:
        loaded = loaded_weights(tmp_path / "w.pt", prefixed(saved, "module."), net=Wrapped())
    assert len(told) == 2
    assert "module.fc.weight, module.fc.bias are not taken" in str(told[0].message)
    assert "no classifier: head.weight, head.bias" in str(told[1].message)
    body = {key: value for key, value in saved.items() if not key.startswith("fc.")}
    assert equal({key.removeprefix("backbone."): value for key, value in loaded.items()}, body)


def test_a_deeper_network_is_none_with_parts_too_many(tmp_path):
    deep, shallow = (nn.Sequential(*(nn.Linear(3, 3) for _ in range(depth))) for depth in (4, 3))
    torch.save(deep.state_dict(), tmp_path / "w.pt")
    with pytest.raises(SourceError, match=r"2 are not in the network \(3\.weight") as raised:
        load_checkpoint(shallow, tmp_path / "w.pt")
    assert "kwargs" not in str(raised.value)
    # ResNet-18 has no more names than ResNet-34, and in the same shapes.
    torch.save(torchvision.models.resnet34().state_dict(), tmp_path / "w.pt")
    with pytest.raises(SourceError, match=r"80 are not in the network \(layer1\.2\.conv1\.weight"):
        load_checkpoint(torchvision.models.resnet18(), tmp_path / "w.pt")


def test_a_network_without_a_classifier_takes_a_file_with_one(tmp_path):
    saved = timm.create_model("test_convnext")
    loaded = timm.create_model("test_convnext", num_classes=0)
    with pytest.warns(TransferscopeWarning, match=r"model\.head\.fc\.weight, model\.head\.fc\.bias are not taken"):
        state = loaded_weights(tmp_path / "w.pt", {"model": saved.state_dict()}, net=loaded)
    assert equal(saved.state_dict(), state)


class Parts(nn.Module):
    """What users build: an encoder, and a classifier beside it."""

    def __init__(self, classes=3, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
            self.head = nn.Linear(4, classes)


@pytest.mark.parametrize("wrapper", ["module.", "_forward_module.module.", "_orig_mod."])
@pytest.mark.parametrize("prefix", ["", "state_dict.model."])
def test_a_classifier_beside_an_encoder_that_was_wrapped_alone(tmp_path, prefix, wrapper):
    saved, loaded = Parts(seed=1), Parts(seed=2)
    state = {
        prefix + name.replace("backbone.", f"backbone.{wrapper}"): each for name, each in saved.state_dict().items()
    }
    torch.save(state, tmp_path / "w.pt")
    with pytest.warns(TransferscopeWarning, match=rf"the classifier is that beside .*: {prefix}head\.weight"):
        assert load_checkpoint(loaded, tmp_path / "w.pt") == []
    assert_same_weights(loaded, saved)


def test_several_parts_of_a_network_that_were_wrapped_each(tmp_path):
    class Two(nn.Module):
        def __init__(self, seed):
            super().__init__()
            self.left, self.right = network(seed=seed), network(seed=seed + 1)

    saved, loaded = Two(1), Two(5)
    state = {re.sub("^(left|right)", r"\1.module", name): tensor for name, tensor in saved.state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    load_checkpoint(loaded, tmp_path / "w.pt")
    assert_same_weights(loaded, saved)


def test_a_classifier_beside_the_backbone_that_it_belongs_to(tmp_path):
    saved, loaded = timm.create_model("test_resnet", num_classes=3), timm.create_model("test_resnet", num_classes=3)
    state = {name if name.startswith("fc.") else f"backbone.{name}": each for name, each in saved.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    text = r"the classifier is that beside state_dict\.backbone: state_dict\.fc\.weight, state_dict\.fc\.bias"
    with pytest.warns(TransferscopeWarning, match=text) as told:
        assert load_checkpoint(loaded, tmp_path / "w.pt") == []
    assert len(told) == 1
    assert_same_weights(loaded, saved)


def test_a_classifier_of_another_width_beside_an_encoder_is_no_missing_one(tmp_path):
    torch.save(Parts(classes=7).state_dict(), tmp_path / "w.pt")
    with pytest.raises(SourceError, match=r"head\.weight: network \(3, 4\) float32, file \(7, 4\).* of 7 outputs"):
        load_checkpoint(Parts(), tmp_path / "w.pt")


def test_a_part_of_weights_in_several_files_is_told_by_its_name(tmp_path):
    some = dict(list(network().state_dict().items())[:3])
    safetensors.torch.save_file(some, tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(SourceError, match="by its name it is one of 2 parts"):
        load_checkpoint(network(), tmp_path / "model-00001-of-00002.safetensors")


class Tied(nn.Module):
    def __init__(self, tied=True):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)
        if tied:
            self.b.weight = self.a.weight


def test_tied_weights_may_be_in_the_file_once(tmp_path):
    saved = Tied()
    safetensors.torch.save_model(saved, tmp_path / "w.safetensors")
    load_checkpoint(loaded := Tied(), tmp_path / "w.safetensors")
    assert_same_weights(loaded, saved)
    state = {key: value for key, value in saved.state_dict().items() if key != "a.weight"}
    safetensors.torch.save_file(prefixed(state, "net."), tmp_path / "w.safetensors")  # without a note of the other name
    load_checkpoint(loaded := Tied(), tmp_path / "w.safetensors")
    assert_same_weights(loaded, saved)
    torch.save(Tied(tied=False).state_dict(), tmp_path / "w.pt")
    with pytest.raises(SourceError, match=r"2 share one tensor|1 share one tensor .*\(b\.weight\)"):
        load_checkpoint(loaded, tmp_path / "w.pt")


def test_wrappers_within_a_network(tmp_path):
    saved = network(seed=1).state_dict()
    content = {key.replace("0.", "0._orig_mod.").replace("3.", "3._checkpoint_wrapped_module."): value
               for key, value in saved.items()}  # fmt: skip
    assert equal(loaded_weights(tmp_path / "w.pt", content), saved)


def test_another_architecture_shows_the_nearest_names_and_the_likely_prefix(tmp_path):
    saved = network(seed=1).state_dict()
    content = prefixed({key.replace("3.", "head."): value for key, value in saved.items() if key != "0.bias"}, "net.")
    with pytest.raises(SourceError) as raised:
        loaded_weights(tmp_path / "w.pt", content)
    message = str(raised.value)
    assert "3 are missing from the file (0.bias" in message
    assert re.search(r"nearest names \(network ~ file\): .*3\.weight ~ head\.weight, 3\.bias ~ head\.bias", message)
    assert "5 of its names are the network's under 'net.'" in message
    assert "kwargs" not in message
    with pytest.raises(SourceError, match=r"1 are not in the network \(x\.y.*; nearest names .* ~ x\.y.*; 0 of"):
        loaded_weights(tmp_path / "w.pt", {"x.y": torch.ones(2)})


def test_kwargs_are_blamed_when_only_shapes_differ(tmp_path):
    with pytest.raises(SourceError, match=r"tensors under 'net\.': 7 differ .*check that model and kwargs are those"):
        loaded_weights(tmp_path / "w.pt", prefixed(network(width=8).state_dict(), "net."))
