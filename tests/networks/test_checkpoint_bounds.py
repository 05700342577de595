"""Checkpoints of strangers that ask for all the time or memory there is: a sentence, at once."""

import io
import os
import pickle
import resource
import struct
import time
import zipfile
from collections import OrderedDict

import pytest
import safetensors.torch
import torch

from transferscope.errors import SourceError
from transferscope.networks.checkpoint_files import file_digest, read_checkpoint

WEIGHTS = {"conv.weight": torch.ones(4, 3, 3, 3)}


def saved(content, legacy=False):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def repacked(data, change=lambda name, content: content, compression=zipfile.ZIP_STORED, more=()):
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(buffer, "w", compression) as result:
        for name in archive.namelist():
            result.writestr(name, change(name, archive.read(name)))
        for name, content in more:
            result.writestr(name, content)
    return buffer.getvalue()


def itself():
    content = {"state_dict": {}}
    content["state_dict"]["module"] = content
    return content | WEIGHTS


def nested(depth):
    content = dict(WEIGHTS)
    for _ in range(depth):
        content = {"module": content}
    return content


def branching(depth):
    content = OrderedDict(WEIGHTS)
    for _ in range(depth):
        content = {"a": content, "b": content}
    return content


def allocates(text):
    """A pickle that calls something that allocates."""
    return b"\x80\x02}X\x01\x00\x00\x00aq\x00" + text + b"s."


def instead(pickled):
    """An archive with another pickle in the place of its own."""
    return repacked(saved(WEIGHTS), lambda name, content: pickled if name.endswith("data.pkl") else content)


MANY = pickle.dumps(dict.fromkeys(map(str, range(400_000))), protocol=2)
SIZE = struct.pack("<BBq", 0x8A, 8, 4_800_000_000)  # LONG1

BOMBS = {
    "itself": (lambda: saved(itself()), "hold themselves"),
    "nested": (lambda: saved(nested(60)), "over 40 in each other"),
    "branching": (lambda: saved(branching(30)), "over 100000 tensors"),
    "many keys": (lambda: instead(MANY), "of names and other things beside its tensors, over the 4 MiB"),
    "many keys, legacy": (lambda: MANY, "beside its tensors|more than 50000 tensors"),
    "many entries": (
        lambda: repacked(saved(WEIGHTS), more=[(f"archive/data/{i:060000}", b"") for i in range(80)]),
        "of names and other things beside its tensors",
    ),
    "zeros": (
        lambda: repacked(saved(WEIGHTS), compression=zipfile.ZIP_DEFLATED, more=[("archive/data/9", bytes(2**28))]),
        "unpacks to 256 MiB, though it has .* and torch.save compresses nothing",
    ),
    "bytearray": (lambda: allocates(b"cbuiltins\nbytearray\n" + SIZE + b"\x85R"), "a bytearray"),
    "bytearray in an archive": (
        lambda: instead(allocates(b"c__builtin__\nbytearray\n" + SIZE + b"\x85R")),
        "a bytearray",
    ),
    "calls": (lambda: allocates(b"ccollections\nOrderedDict\n" + b")R0h\0" * 200_000), "more than 50000 tensors"),
    "tensor": (lambda: instead(allocates(b"ctorch\nTensor\n" + SIZE + b"\x85R")), "holds too little for a"),
    "expanded": (lambda: saved({"a": torch.ones(1).expand(10**9)}), r"too little for a of shape \(1000000000,\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_checkpoint_that_asks_for_too_much_is_refused_at_once(tmp_path, name):
    make, says = BOMBS[name]
    path = tmp_path / "bomb.pt"
    path.write_bytes(make())
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for mapped in (False, True):
        with pytest.raises(SourceError, match=says):
            read_checkpoint(path, mapped=mapped)
    assert time.process_time() - start < 8
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 * 1024


def test_a_header_of_safetensors_has_a_bound(tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(dict.fromkeys(map(str, range(0)), None) | WEIGHTS, path, {"note": "x" * 5_000_000})
    with pytest.raises(SourceError, match="beside its tensors, over the 4 MiB that are read"):
        read_checkpoint(path)


def test_ordinary_checkpoints_are_within_the_bounds(tmp_path):
    state = {f"layers.{place}.weight": torch.ones(2, 3) for place in range(600)}
    optimizer = {"state": {place: {"step": torch.tensor(1.0)} for place in range(600)}, "groups": [{"lr": 0.1}]}
    content = {"state_dict": state, "optimizer": optimizer, "epoch": 3}
    for name, data in (("a.pt", saved(content)), ("b.pt", saved(content, legacy=True)), ("c.bin", pickle.dumps({}))):
        path = tmp_path / name
        path.write_bytes(data)
        if name != "c.bin":
            assert len(read_checkpoint(path)) == 1200


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.bin"])
def test_pipes_and_devices_are_never_opened(tmp_path, name):
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(SourceError, match="is a pipe, which is not read"):
        read_checkpoint(path)
    with pytest.raises(SourceError, match="it is a pipe, not a file"):
        file_digest(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(SourceError, match="is a device, which is not read"):
        read_checkpoint(path)
    with pytest.raises(SourceError, match="it is a device, not a file"):
        file_digest(path)
