"""Shards of a WebDataset: the same target as a folder of the images, and a sentence for what they may lack."""

import io
import json
import pickle
import tarfile

import pytest
from image_folders import png, write

from transferscope.data.target import load_target
from transferscope.errors import InputError


def shard(path, **files):
    """Write a tar file of these files, whose names have __ for dots."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else str(content).encode()
            member = tarfile.TarInfo(name.replace("__", "."))
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def pairs(ending="cls", label=str, first=0, count=4):
    files = {}
    for i in range(first, first + count):
        files |= {f"{i:04}__png": png(i), f"{i:04}__{ending}": label(i % 2)}
    return files


LABELS = {
    "cls": (pairs(), {}, ("0", "1")),
    "txt": (pairs("txt", ["cat", "dog"].__getitem__), {}, ("cat", "dog")),
    "json": (pairs("json", lambda i: json.dumps({"label": i, "width": 4})), {}, ("0", "1")),
    "json, named": (pairs("json", lambda i: json.dumps({"species": "ab"[i]})), {"labels": "species"}, ("a", "b")),
    "an ending, named": (pairs("species__txt", "ab".__getitem__), {"labels": "species.txt"}, ("a", "b")),
    "an image, named": (
        pairs() | {f"{i:04}__mask__png": png(i) for i in range(4)}, {"images": "png"}, ("0", "1"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("files", "asked", "classes"), LABELS.values(), ids=LABELS)
def test_images_and_labels_are_files_of_one_name(tmp_path, files, asked, classes):
    target = load_target(shard(tmp_path / "data.tar", **files), **asked)
    assert (target.name, len(target), target.classes) == ("data", 4, classes)
    assert target.labels.tolist() == [0, 1, 0, 1]
    folder = load_target(write(tmp_path / "folder", "0/0.png", "1/1.png", "0/2.png", "1/3.png"))
    assert sorted(target.contents) == sorted(folder.contents)
    assert pickle.loads(pickle.dumps(target)).image(2).getpixel((0, 0)) == (2, 0, 7)


def test_a_folder_of_shards_is_one_target_with_their_splits(tmp_path):
    shard(tmp_path / "wds" / "train-000.tar", **pairs())
    shard(tmp_path / "wds" / "train-001.tar", **pairs(first=4))
    shard(tmp_path / "wds" / "test-000.tar", **pairs(first=8))
    target = load_target(tmp_path / "wds")
    assert (target.name, len(target)) == ("wds", 12)
    assert sorted(target.split) == ["test"] * 4 + ["train"] * 8
    assert target.image(11).getpixel((0, 0)) == (7, 0, 7)  # test comes first


BROKEN = {
    "no label": (pairs() | {"9__png": png(9)}, "1 of 5 images of .* have no label .*, the first is t.tar/9"),
    "no labels": ({"0__png": png(1), "1__png": png(2)}, "no image of .* has a label beside it: .* 0.cls for t.tar/0"),
    "class folders": ({"cat/0__png": png(1), "dog/1__png": png(2)}, "or unpack an archive of class folders"),
    "no images": ({"readme__md": "hello"}, "holds no images; a shard has"),
    "two images": (pairs() | {"0000__jpg": png(3)}, "0000 of shard .* has images png, jpg; say which with --im"),
    "no JSON": (pairs("json", "{a}{".__getitem__), "0000.json of shard .* is no JSON"),
    "no key": (pairs("json", lambda i: '{"lable": 1}'), "has no label, only lable; say which key is the label"),
    "two keys": (pairs("json", lambda i: '{"label": 1, "class": 2}'), "has label, class, each of which could be"),
    "a mapping": (pairs("json", lambda i: '{"label": {"a": 1}}'), "label must be a text or a whole number, but is ..a"),
    "no text": (pairs("txt", lambda i: b"\xff\xfe\xff"), "t.tar/0000.txt is not encoded in UTF-8"),
    "a long label": (pairs("txt", lambda i: b"x" * (2**20 + 1)), "has 1048577 bytes, which is no label"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "sentence"), BROKEN.values(), ids=BROKEN)
def test_broken_shards_have_their_sentence(tmp_path, files, sentence):
    with pytest.raises(InputError, match=sentence):
        load_target(shard(tmp_path / "t.tar", **files))


def test_damaged_shards(tmp_path):
    whole = shard(tmp_path / "t.tar", **pairs()).read_bytes()
    for data, sentence in (
        (b"", "cannot be read as a tar file|holds no images"),
        (b"no tar" * 200, "cannot be read as a tar file: .*; write it again, without compression"),
        (whole[:1030], "ends in the middle of|no image of"),
        (whole[: whole.rindex(b"0003.cls") + 200], "cannot be read as a tar file|have no label"),
    ):
        (tmp_path / "t.tar").write_bytes(data)
        with pytest.raises(InputError, match=sentence):
            load_target(tmp_path / "t.tar")
    with tarfile.open(tmp_path / "t.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("0000.png")
        member.pax_headers = {"GNU.sparse.map": "many"}
        archive.addfile(member)
    with pytest.raises(InputError, match="cannot be read as a tar file: invalid literal"):
        load_target(tmp_path / "t.tar")
    with pytest.raises(InputError, match=r"u\.tar does not exist"):
        load_target(tmp_path / "u.tar")
