"""Reading checkpoint files: what they hold by name, what is damaged, of another kind or would run code."""

import argparse
import collections
import datetime
import gzip
import hashlib
import io
import os
import pathlib
import pickle
import re
import tarfile
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from transferscope.errors import SourceError
from transferscope.networks.checkpoint_files import file_digest, read_checkpoint

pytestmark = pytest.mark.bounds


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))


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


def in_a_zip(content):
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:
        archive.writestr("inner.pth", content)
    return stream.getvalue()


def in_a_tar(content):
    with tarfile.open(fileobj=(stream := io.BytesIO()), mode="w") as archive:
        (info := tarfile.TarInfo("inner.pth")).size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("w.pt", lambda _: b"<html>Not found</html>", "is damaged or no checkpoint .*web page"),
        ("w.pt", lambda _: b"", "is damaged or no checkpoint .*empty"),
        ("w.safetensors", lambda _: b"", "is damaged or no checkpoint .*empty"),
        (
            "w.pt",
            lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "is the pointer .*git lfs pull",
        ),
        ("w.safetensors", lambda _: b"version https://git-lfs.github.com/spec/v1\n", "is the pointer .*git lfs pull"),
        ("w.pth", gzip.compress, "is an archive; unpack it"),
        ("w.pth.tar", in_a_tar, "is an archive; unpack it"),
        ("w.pth", in_a_zip, r"is an archive with inner\.pth; unpack it"),
        ("w.safetensors", lambda content: content, r"is a file of torch\.save; let its name end in \.pt"),
    ],
)
def test_what_is_no_checkpoint_is_called_by_what_it_is(tmp_path, name, change, message):
    torch.save(network().state_dict(), stream := io.BytesIO())
    (tmp_path / name).write_bytes(change(stream.getvalue()))
    with pytest.raises(SourceError, match=f"{re.escape(name)} {message}"):
        read_checkpoint(tmp_path / name)


def test_a_file_of_safetensors_under_another_name_is_called_so(tmp_path):
    safetensors.torch.save_file(network().state_dict(), tmp_path / "w.pth")
    with pytest.raises(SourceError, match=r"is a file of safetensors; let its name end in \.safetensors"):
        read_checkpoint(tmp_path / "w.pth")


def test_networks_in_a_list_are_called_by_their_place(tmp_path):
    torch.save([network().state_dict(), {"lr": 0.1}], tmp_path / "w.pt")
    assert list(read_checkpoint(tmp_path / "w.pt")) == [f"0.{name}" for name in network().state_dict()]


def test_weights_as_arrays_are_refused_as_such(tmp_path):
    torch.save({name: tensor.numpy() for name, tensor in network().state_dict().items()}, tmp_path / "w.pt")
    with pytest.raises(SourceError, match=r"must hold named tensors.*\(values of NumPy\)"):
        read_checkpoint(tmp_path / "w.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_whole_network_or_an_unknown_object_beside_the_weights_is_refused_by_name(tmp_path, legacy):
    path = tmp_path / "w.pt"
    contents = {
        "torch.nn.modules.linear.Linear": nn.Linear(2, 2),
        "_io.BytesIO": {"state_dict": network().state_dict(), "buffer": io.BytesIO(b"x")},
    }
    for name, content in contents.items():
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(SourceError, match=re.escape(name)):
            read_checkpoint(path)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_settings_and_records_beside_the_weights_are_left_out(tmp_path, legacy, mapped):
    by_step = collections.defaultdict(dict)
    by_step[3] = {"loss": 0.1}
    state = network().state_dict()
    content = {
        "state_dict": state, "args": argparse.Namespace(lr=0.1, out=pathlib.Path("out")), "metric": np.float64(81.2),
        "losses": np.arange(3.0), "log": by_step, "when": datetime.datetime(2020, 1, 1), "epoch": 3,
    }  # fmt: skip
    torch.save(content, tmp_path / "w.pth.tar", _use_new_zipfile_serialization=not legacy)
    read = read_checkpoint(tmp_path / "w.pth.tar", mapped=mapped)
    assert read.keys() == {f"state_dict.{name}" for name in state}
    assert all(torch.equal(read[f"state_dict.{name}"], value) for name, value in state.items())


def test_what_settings_are_called_is_neither_imported_nor_run(tmp_path):
    """A pickle that calls a function of a package whose records are left out: none of it is ever looked for."""
    torch.save({"w": torch.ones(2), "hyper_parameters": 0}, tmp_path / "w.ckpt")
    # In place of the number: lightning_fabric.utilities.data.AttributeDict(lr=1), as protocol 2 writes it
    attributes = b"clightning_fabric.utilities.data\nAttributeDict\n)\x81X\x02\x00\x00\x00lrK\x01s"
    replaced = tmp_path / "replaced.ckpt"
    reader = torch._C.PyTorchFileReader(str(tmp_path / "w.ckpt"))
    writer = torch._C.PyTorchFileWriter(str(replaced))
    for record in reader.get_all_records():
        content = reader.get_record(record)
        if record == "data.pkl":
            assert content.count(b"hyper_parametersq") == 1
            content = re.sub(rb"(hyper_parametersq.)K\x00", rb"\1" + attributes.replace(b"\\", b"\\\\"), content)
        if not record.startswith((".", "version", "byteorder")):
            writer.write_record(record, content, len(content))
    writer.write_end_of_file()
    read = read_checkpoint(replaced)
    assert read.keys() == {"w"}
    assert torch.equal(read["w"], torch.ones(2))


def test_tensors_in_nested_mappings_are_named_by_their_keys(tmp_path):
    content = {
        "models": [{"w": torch.ones(1)}, {"w": torch.zeros(1)}],
        "optimizer": {"state": {0: {"m": torch.ones(2)}}},
    }
    torch.save(content, tmp_path / "w.pt")
    assert list(read_checkpoint(tmp_path / "w.pt")) == ["models.0.w", "models.1.w", "optimizer.state.0.m"]


def test_two_tensors_of_one_name_are_refused(tmp_path):
    torch.save({"a": {"b": torch.ones(1)}, "a.b": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(SourceError, match=r"two tensors that are called a\.b"):
        read_checkpoint(tmp_path / "w.pt")


def test_names_that_safetensors_left_out_are_there_again(tmp_path):
    shared = nn.Linear(3, 3, bias=False)
    safetensors.torch.save_model(nn.Sequential(shared, nn.ReLU(), shared), tmp_path / "w.safetensors")
    assert len(safetensors.torch.load_file(tmp_path / "w.safetensors")) == 1
    read = read_checkpoint(tmp_path / "w.safetensors")
    assert read.keys() == {"0.weight", "2.weight"}
    assert all(torch.equal(value, shared.weight) for value in read.values())


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
    for name in ("weights.npz", "weights.tar"):
        with pytest.raises(SourceError, match=r"must end in one of \.safetensors .*got \.(npz|tar)"):
            read_checkpoint(tmp_path / name)


def test_the_digest_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"abc" * 100_000)
    assert file_digest(tmp_path / "a.bin") == hashlib.sha256(b"abc" * 100_000).hexdigest()
    with pytest.raises(SourceError, match="no file"):
        file_digest(tmp_path / "b.bin")
    with pytest.raises(SourceError, match="cannot be read"):
        file_digest(tmp_path)
