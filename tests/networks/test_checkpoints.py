"""Reading checkpoints: wrappers, prefixes, precisions; what does not fit, is damaged or would run code."""

import argparse
import hashlib
import os
import pickle
import re

import pytest
import safetensors.torch
import torch
from torch import nn

from transferscope.errors import SourceError
from transferscope.networks.checkpoint_files import file_digest, read_checkpoint
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
    load_checkpoint(loaded, tmp_path / "w.pt")
    assert_same_weights(loaded, plain)


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.model."])
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


class Runs:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path, protocol):
    marker, path = tmp_path / "ran", tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"state_dict": Runs(marker)}, protocol=protocol))
    with pytest.raises(SourceError, match=r"would run code.*safetensors"):
        read_checkpoint(path)
    assert not marker.exists()


class RunsBlocked:
    def __reduce__(self):
        return os.system, ("exit 1",)


def test_a_function_that_torch_blocks_is_refused_by_name_beside_weights(tmp_path):
    torch.save({"state_dict": network().state_dict(), "extra": RunsBlocked()}, tmp_path / "w.pt")
    with pytest.raises(SourceError, match=r"\(posix\.system\) besides weights, and unpickling it would run code"):
        read_checkpoint(tmp_path / "w.pt")


def test_a_web_page_is_no_checkpoint(tmp_path):
    (tmp_path / "w.pt").write_text("<html>Not found</html>")
    with pytest.raises(SourceError, match="damaged"):
        read_checkpoint(tmp_path / "w.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_whole_network_or_arguments_beside_the_weights_are_refused_by_name(tmp_path, legacy):
    path = tmp_path / "w.pt"
    contents = {
        "torch.nn.modules.linear.Linear": nn.Linear(2, 2),
        "argparse.Namespace": {"state_dict": network().state_dict(), "args": argparse.Namespace(lr=0.1)},
    }
    for name, content in contents.items():
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(SourceError, match=re.escape(name)):
            read_checkpoint(path)


def damaged_files(folder):
    torch.save(network().state_dict(), folder / "whole.pt")
    torch.save(network().state_dict(), folder / "legacy.pt", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(network().state_dict(), folder / "whole.safetensors")
    for name in ["whole.pt", "legacy.pt", "whole.safetensors"]:
        content = (folder / name).read_bytes()
        yield f"half-{name}", content[: len(content) // 2]
        yield f"stub-{name}", content[:10]
        yield f"empty-{name}", b""
        yield f"text-{name}", b"hello, this is a page that says: file not found"


def test_damaged_files_are_told_and_nothing_else_is_raised(tmp_path):
    for name, content in damaged_files(tmp_path):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(SourceError, match=f"{name} is damaged or no checkpoint"):
            read_checkpoint(path)


@pytest.mark.parametrize("content", [{}, [torch.zeros(2)], torch.zeros(2), {"epoch": 3, "optimizer": {"lr": 1}}, 3])
def test_files_without_named_tensors_say_what_they_hold(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    kind = "epoch, optimizer" if isinstance(content, dict) and content else type(content).__name__
    with pytest.raises(SourceError, match=f"must hold named tensors.*got .*{kind}"):
        read_checkpoint(tmp_path / "w.pt")


def test_missing_files_folders_and_other_suffixes(tmp_path):
    torch.save({}, tmp_path / "weights.pt")
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(SourceError, match=r"no file .*weihgts\.pt \(did you mean 'weights\.pt'"):
        read_checkpoint(tmp_path / "weihgts.pt")
    with pytest.raises(SourceError, match=r"expected a file, got the folder"):
        read_checkpoint(tmp_path / "folder.pt")
    with pytest.raises(SourceError, match=r"must end in one of \.safetensors .*got \.npz"):
        read_checkpoint(tmp_path / "weights.npz")


def test_the_digest_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"abc" * 100_000)
    assert file_digest(tmp_path / "a.bin") == hashlib.sha256(b"abc" * 100_000).hexdigest()
    with pytest.raises(SourceError, match="no file"):
        file_digest(tmp_path / "b.bin")
    with pytest.raises(SourceError, match="cannot be read"):
        file_digest(tmp_path)
