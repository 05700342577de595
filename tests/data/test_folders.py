"""What a target folder is taken for: classes, splits, links, other files, broken files, and clear ends."""

import os
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from image_folders import names_of, write

from transferscope.data.target import load_target
from transferscope.errors import InputError, TransferscopeWarning

pytestmark = pytest.mark.bounds


def test_a_folder_of_class_folders(tmp_path):
    target = load_target(write(tmp_path / "my data", "dog/b.png", "dog/a.png", "cat/Z.PNG", "cat/deep/er/x.png"))
    assert target.name == "my data"
    assert target.classes == ("cat", "dog")
    assert names_of(target) == ["cat", "cat", "dog", "dog"]
    assert len(target) == target.n_samples == 4
    assert target.labels.dtype == np.int64
    assert target.split == (None,) * 4
    assert target.broken == ()
    # sorted paths, of which b.png was written first: the red channel counts the writing
    assert [target.image(i).getpixel((0, 0)) for i in range(4)] == [
        (2, 0, 7),
        (3, 0, 7),
        (1, 0, 7),
        (0, 0, 7),
    ]
    assert repr(target) == "<Target 'my data': 4 images, 2 classes (cat, dog)>"


@pytest.mark.parametrize("source", [str, Path], ids=["str", "path"])
def test_paths_of_any_kind_and_names_in_any_script(tmp_path, source):
    target = load_target(
        source(
            write(
                tmp_path / "données d'été",
                "猫 chat/été 1.png",
                "猫 chat/2.png",
                "собака/a b.png",
                "собака/c.png",
            )
        ),
        name="pets",
    )
    assert target.name == "pets"
    assert target.classes == ("собака", "猫 chat")
    assert target.image(0).size == (4, 4)


def test_class_names_are_the_same_in_either_unicode_form(tmp_path):
    composed = load_target(write(tmp_path / "a", "\u00e9t\u00e9*2", "hiver*2"), name="x")
    decomposed = load_target(write(tmp_path / "b", "e\u0301te\u0301*2", "hiver*2"), name="x")
    assert composed.classes == decomposed.classes == ("hiver", "\u00e9t\u00e9")


@pytest.mark.parametrize(
    ("layout", "classes", "splits"),
    [
        (["train/a*2", "train/b*2", "test/a*2", "test/b*2"], "ab", {"train", "test"}),
        (["a/train*2", "a/Validation*2", "b/train*2", "b/DEV*2"], "ab", {"train", "val"}),
        (["a/x/Training*2", "a/x/eval*2", "b/y/training*2", "b/y/testing*2"], "ab", {"train", "test"}),
        (["train/a/valid*2", "test/a*2", "test/b*2"], "ab", {"train", "test"}),
        (["train/train*2", "train/b*2", "test/train*2"], ["b", "train"], {"train", "test"}),
        (["train*2", "bus*2"], ["bus", "train"], {None}),
    ],
    ids=["outside", "inside", "deep", "nested", "train is a class in train", "train is a class"],
)
@pytest.mark.filterwarnings("ignore:.*without a training image:transferscope.errors.TransferscopeWarning")
def test_split_folders_are_no_classes(tmp_path, layout, classes, splits):
    target = load_target(write(tmp_path, *layout))
    assert target.classes == tuple(classes)
    assert set(target.split) == splits
    assert len(target) == 2 * len(layout)


def test_a_probe_is_drawn_from_the_training_images_if_there_are_others(tmp_path):
    both = load_target(write(tmp_path / "both", "train/a*6", "train/b*6", "test/a*6", "test/b*6"))
    drawn = both.probe(100)
    assert set(drawn.split) == {"train"}
    assert len(drawn) == 12
    assert {both.split[i] for i in np.setdiff1d(np.arange(24), drawn.indices)} == {"test"}
    assert len(load_target(write(tmp_path / "only", "train/a*6", "train/b*6")).probe(100)) == 12
    assert len(load_target(write(tmp_path / "none", "val/a*6", "test/b*6")).probe(100)) == 12


def test_hidden_names_are_ignored(tmp_path):
    write(tmp_path, "a*2", "b*2", ".cache/x.png", "a/.thumb.png", "a/.deep/y.png")
    (tmp_path / ".DS_Store").write_text("x")
    (tmp_path / "a" / ".DS_Store").write_text("x")
    with pytest.warns(TransferscopeWarning, match=r"5 files .* left out, 3 of them .* images: 5 of hidden"):
        assert len(load_target(tmp_path)) == 4


@pytest.mark.parametrize(
    ("layout", "classes"),
    [
        (["bus/c1*2", "ship/c2*2", "train/c3*2"], ("bus", "ship", "train")),
        (["bus/c1*2", "train/c2*2", "test/c3*2"], ("bus", "test", "train")),
        (["bus/train*2", "bus/test*2", "train/train*2", "train/test*2"], ("bus", "train")),
        (["train/bus*2", "train/train*2", "val/bus*2", "val/train*2"], ("bus", "train")),
        (["Test/a*2", "TRAIN/a*2", "TRAIN/b*2"], ("a", "b")),
    ],
)
@pytest.mark.filterwarnings("ignore:.*count as classes:transferscope.errors.TransferscopeWarning")
def test_names_of_splits_are_splits_where_all_folders_beside_them_are(tmp_path, layout, classes):
    assert load_target(write(tmp_path, *layout)).classes == classes


def test_what_looks_like_splits_beside_other_folders_is_said(tmp_path):
    write(tmp_path, "train/a*2", "test/a*2", "unlabeled/x*2")
    with pytest.warns(TransferscopeWarning, match=r"test, train of .* count as classes.*such as unlabeled; move"):
        assert load_target(tmp_path).classes == ("test", "train", "unlabeled")


def test_splits_of_some_images_alone_are_none_and_that_is_said(tmp_path):
    write(tmp_path, "cat/train*2", "cat/test*2", "cat/extra*2", "dog/train*2", "dog/test*2")
    with pytest.warns(
        TransferscopeWarning, match="6 of 10 images of .* lie in no split, such as cat/extra/.* not count"
    ):
        target = load_target(tmp_path)
    assert target.classes == ("cat", "dog")
    assert set(target.split) == {None}


@pytest.mark.parametrize("outer", [("fold1", "fold2"), ("test", "trainval"), ("art", "photo")])
def test_class_folders_that_all_hold_the_same_folders_are_said(tmp_path, outer):
    write(tmp_path, *(f"{each}/{name}*2" for each in outer for name in ("cat", "dog")))
    text = (
        f"{', '.join(outer)} of .* count as classes, .* folders of the same names, cat, dog; if those are the classes"
    )
    with pytest.warns(TransferscopeWarning, match=text) as told:
        assert load_target(tmp_path).classes == outer
    assert len(told) == 1


def test_folders_without_images_are_nobodys_siblings(tmp_path):
    write(tmp_path, "train/a*2", "train/b*2", "test/a*2")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "readme.txt").write_text("x")
    (tmp_path / "val").mkdir()  # empty: a split without images, no class
    with pytest.warns(TransferscopeWarning) as caught:
        target = load_target(tmp_path)
    assert target.classes == ("a", "b")
    assert not any("val" in str(warning.message) for warning in caught)


FOREIGN = [
    "@eaDir",
    ".ipynb_checkpoints",
    "__MACOSX",
    "#recycle",
    "$RECYCLE.BIN",
    "lost+found",
    "System Volume Information",
]


@pytest.mark.parametrize("name", FOREIGN)
def test_folders_of_other_programs_are_left_out_and_counted(tmp_path, name):
    write(tmp_path, "a*3", "b*3", f"{name}/1.png", f"a/{name}/1.png/thumb.jpg", f"b/{name}/x/2.png")
    with pytest.warns(TransferscopeWarning) as caught:
        target = load_target(tmp_path)
    (warning,) = caught
    assert f"3 files that other programs left in {tmp_path} are left out, 3 of them" in str(warning.message)
    assert str(warning.message).endswith(f": 3 of {name}")
    assert (len(target), target.classes) == (6, ("a", "b"))


def test_files_of_other_programs_that_are_no_images_are_for_the_log(tmp_path, caplog):
    write(tmp_path, "a*2", "b*2")
    for name in ("Thumbs.db", "a/Thumbs.db", "b/desktop.ini", "b/.DS_Store"):
        (tmp_path / name).write_bytes(b"x")
    with caplog.at_level("INFO", "transferscope"):
        assert len(load_target(tmp_path)) == 4
    assert "4 files that other programs left" in caplog.text
    assert "2 of Thumbs.db" in caplog.text


def test_resource_forks_are_no_images(tmp_path):
    write(tmp_path, "a*2", "b*2")
    (tmp_path / "a" / "._000.png").write_bytes(b"\0\5\x16\7")
    with pytest.warns(TransferscopeWarning, match=r"1 files .*: 1 of \._\*$"):
        assert len(load_target(tmp_path)) == 4


def test_links_are_followed_once_and_loops_end(tmp_path):
    root = write(tmp_path / "root", "a*2", "b*2")
    outside = write(tmp_path / "elsewhere", "inner*3")
    (root / "c").symlink_to(outside)
    (outside / "back").symlink_to(root)
    (outside / "around").symlink_to(outside)
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "over").symlink_to(tmp_path)
    (root / "b" / "self").symlink_to(root / "b" / "self")
    (root / "b" / "file.png").symlink_to(outside / "inner" / "000.png")
    os.mkfifo(root / "b" / "pipe.png")
    with pytest.warns(TransferscopeWarning, match="no images by their extension.*b/self"):
        target = load_target(root)
    assert names_of(target) == ["a"] * 2 + ["b"] * 3 + ["c"] * 3


def test_other_files_are_ignored_with_one_warning(tmp_path):
    write(tmp_path, "a*2", "b*2")
    for name in ("README.md", "a/notes.txt", "b/labels.csv"):
        (tmp_path / name).write_text("x")
    with pytest.warns(TransferscopeWarning) as caught:
        target = load_target(tmp_path)
    assert len(target) == 4
    (warning,) = caught
    assert "2 files in the class folders" in str(warning.message)
    assert "a/notes.txt" in str(warning.message)
    assert warning.filename == __file__


def test_images_outside_of_a_class_are_ignored_with_a_warning(tmp_path):
    write(tmp_path, "train/a*2", "train/b*2", "loose.png", "test/1.png", "test/2.png")
    with pytest.warns(TransferscopeWarning, match=r"3 image files .* loose\.png"):
        assert len(load_target(tmp_path)) == 4


def test_an_empty_class_is_dropped_with_a_warning(tmp_path):
    write(tmp_path, "train/a*2", "train/b*2", "test/a*2")
    for name in ("train/void", "test/b", "train/hollow/deep"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.warns(TransferscopeWarning, match="dropped: hollow, void$"):
        assert load_target(tmp_path).classes == ("a", "b")


def test_classes_that_a_probe_cannot_hold_or_predict_are_named(tmp_path):
    with pytest.warns(TransferscopeWarning) as caught:
        load_target(write(tmp_path, "train/a*4", "train/b*1", "test/b*4", "test/c*4"))
    messages = sorted(str(warning.message) for warning in caught)
    assert len(messages) == 2
    assert messages[0].endswith("counts as wrong: b")
    assert messages[1].endswith("missing from every probe set: c")


def test_folders_that_hold_nothing_usable_say_what_to_do(tmp_path):
    def refused(path, message):
        with pytest.raises(InputError, match=message):
            load_target(path)

    refused(tmp_path / "none", "none does not exist")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "is empty; it must hold one sub-folder")
    (tmp_path / "hollow" / "a").mkdir(parents=True)
    refused(tmp_path / "hollow", "no images, only empty folders")
    (tmp_path / "texts" / "a").mkdir(parents=True)
    (tmp_path / "texts" / "a" / "b.txt").write_text("x")
    refused(tmp_path / "texts", r"no images, only other files \(\.txt\)")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "set.zip").write_bytes(b"x")
    refused(tmp_path / "packed", r"set\.zip: unpack it first")
    refused(tmp_path / "packed" / "set.zip", r"set\.zip is a file.*unpack it")
    refused(write(tmp_path / "single", "x.png") / "x.png", "x.png is a file, not a folder; it must hold")
    refused(write(tmp_path / "flat", "a.png", "b.png"), "2 images, but none in a class folder")
    refused(write(tmp_path / "flat2", "train/a.png", "test/b.png"), "2 images, but none in a class folder")


def test_one_class_only_is_refused_with_a_hint(tmp_path):
    with pytest.raises(InputError, match="one class only, 'a': at least two are needed"):
        load_target(write(tmp_path / "one", "train/a*3", "test/a*3"))
    outer = write(tmp_path / "outer", "all/a*3", "all/b*3")
    with pytest.raises(InputError, match=r"one class only, 'all': .*all holds 2 folders with images: give that"):
        load_target(outer)
    assert load_target(outer / "all").classes == ("a", "b")


@pytest.mark.parametrize(
    "layout",
    [
        ["all/train/a*3", "all/test/a*3", "all/train/b*3"],
        ["data/images/training/a*3", "data/images/training/b*3", "data/images/validation/b*2"],
        ["a/train*3", "b/train*3", "b/test*2"],
        ["art/train/a*3", "photo/train/b*3", "photo/test/a*2"],
    ],
)
def test_the_class_is_the_folder_below_a_split_or_else_above_it(tmp_path, layout):
    target = load_target(write(tmp_path, *layout))
    assert target.classes == ("a", "b")
    assert set(target.split) - {"train"}


def test_an_unreadable_folder_is_named(tmp_path, monkeypatch):
    write(tmp_path, "a*2", "b*2")
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="b cannot be read: Permission denied"):
        load_target(tmp_path)


def test_images_broken_in_their_header_are_skipped_at_load(tmp_path):
    write(tmp_path, "a*20", "b*20")
    (tmp_path / "a" / "003.png").write_bytes(b"")
    (tmp_path / "b" / "004.png").write_bytes(b"this is text")
    with pytest.warns(TransferscopeWarning, match=r"2 of 40 images are broken and skipped: a/003\.png \(.*empty"):
        target = load_target(tmp_path)
    assert len(target) == 38
    assert [path for path, _ in target.broken] == ["a/003.png", "b/004.png"]
    assert all(target.image(i).size == (4, 4) for i in range(38))


def test_a_dangling_link_counts_as_broken(tmp_path):
    write(tmp_path, "a*20", "b*20")
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.warns(TransferscopeWarning, match=r"a/gone\.png \(.*No such file"):
        assert len(load_target(tmp_path)) == 40


def test_over_five_percent_broken_is_an_error(tmp_path):
    write(tmp_path, "a*20", "b*20")
    for i in range(3):
        (tmp_path / "a" / f"{i:03}.png").write_bytes(b"text")
    with pytest.raises(InputError, match=r"3 of 40 images are broken, over 5%: a/000\.png"):
        load_target(tmp_path)


def test_loading_is_fast(tmp_path):
    write(tmp_path, *(f"{name}*100" for name in "abcde"))
    start = time.process_time()
    load_target(tmp_path)
    assert time.process_time() - start < 0.3 * 3  # 2500 files in 1.5 s; three times that for a busy machine


@pytest.mark.skipif("TRANSFERSCOPE_REAL" not in os.environ, reason="needs the folder TRANSFERSCOPE_REAL")
def test_trashnet(tmp_path):
    with zipfile.ZipFile(Path(os.environ["TRANSFERSCOPE_REAL"]) / "data" / "trashnet.zip") as archive:
        archive.extractall(tmp_path)
    target = load_target(tmp_path / "trashnet")
    assert len(target) == 2527
    assert target.classes == ("cardboard", "glass", "metal", "paper", "plastic", "trash")
    counts = np.array([len(list((tmp_path / "trashnet" / name).iterdir())) for name in target.classes])
    probe = target.probe(600)
    assert len(probe) == 600
    assert (np.abs(np.bincount(probe.labels) - 600 * counts / 2527) < 1).all()
    assert probe.image(0).size == (128, 128)
