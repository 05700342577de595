"""Tables as targets: the same images as the folder they name, and a sentence for every way a table can be broken."""

import io
import os
import shutil
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from image_folders import png, write

from transferscope.data import table_files, table_paths
from transferscope.data.columns import Columns
from transferscope.data.target import load_target
from transferscope.errors import InputError, TransferscopeWarning

pytestmark = pytest.mark.bounds

ROWS = "path,label\na/000.png,a\na/001.png,a\nb/000.png,b\nb/001.png,b\n"


@pytest.fixture(scope="module")
def shells(tmp_path_factory):
    """Return a folder of two classes with thirty images each."""
    return write(tmp_path_factory.mktemp("shells"), "a*30", "b*30")


@pytest.fixture
def base(shells, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(shells / name)
    return tmp_path


def names():
    return [f"{name}/{i:03}.png" for name in "ab" for i in range(30)]


def frame(folder="", **more):
    rows = names()
    return pd.DataFrame({"path": [f"{folder}{name}" for name in rows], "label": [name[0] for name in rows], **more})


def quiet(source, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TransferscopeWarning)
        return load_target(source, **more)


@pytest.mark.parametrize("label", ["str", "category", "string"])
def test_a_data_frame_is_the_folder_that_holds_its_files(shells, monkeypatch, label):
    folder = load_target(shells)
    monkeypatch.chdir(shells.parent)
    table = frame(f"{shells.name}/").astype({"label": label}).set_axis(range(100, 160))
    target = load_target(table)
    assert (target.name, target.hash, target.classes) == ("table", folder.hash, ("a", "b"))
    assert set(target.split) == {None}
    assert target.image(31).tobytes() == folder.image(31).tobytes()
    assert load_target(table[::-1]).hash != folder.hash  # the order counts
    assert load_target(table.assign(label=np.repeat([10, 9], 30))).classes == ("9", "10")
    paths = table.assign(path=[shells.parent / path for path in table["path"]])
    assert load_target(paths, name="shells").hash == folder.hash


@pytest.mark.parametrize("between", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_is_the_folder_too(shells, base, between, encoding):
    path = base / "labels.csv"
    path.write_bytes(frame().to_csv(sep=between, index=False).encode(encoding))
    target = load_target(path)
    assert (target.name, target.hash) == ("labels", load_target(shells).hash)


def test_a_file_of_parquet_is_the_folder_too(shells, base):
    pytest.importorskip("pyarrow")
    frame(weight=1.5).to_parquet(base / "labels.parquet")
    assert load_target(base / "labels.parquet").hash == load_target(shells).hash
    encoded = [{"bytes": (shells / name).read_bytes(), "path": name} for name in names()]
    pd.DataFrame({"image": encoded, "label": [name[0] for name in names()]}).to_parquet(base / "hub.parquet")
    assert load_target(base / "hub.parquet").hash == load_target(shells).hash


@pytest.mark.parametrize(
    ("header", "asked"),
    [
        ("path,label", {}),
        ("Image,Class", {}),
        (" filename , label ", {}),
        ("img_path,category", {}),
        ("photo,species", {"images": "photo", "labels": "species"}),
        ("photo,label", {"images": "photo"}),
        ("path,species", {"labels": ["species"]}),
    ],
)
def test_columns_are_found_or_named(shells, base, header, asked):
    (base / "t.csv").write_text(frame().to_csv(index=False).replace("path,label", header))
    assert load_target(base / "t.csv", **asked).hash == load_target(shells).hash


def test_the_only_column_left_has_the_labels_and_that_is_said(shells, base):
    (base / "t.csv").write_text(frame().to_csv(index=False).replace("path,label", "path,species"))
    with pytest.warns(
        TransferscopeWarning, match=r"labels of table t\.csv are taken from its column 'species', .*--lab"
    ):
        assert load_target(base / "t.csv").hash == load_target(shells).hash


def test_whole_numbers_count_and_names_are_names(base):
    def classes(first, second):
        labels = [first] * 30 + [second] * 30
        (base / "t.csv").write_text(frame().assign(label=labels).to_csv(index=False))
        return quiet(base / "t.csv").classes

    assert classes("9", "10") == ("9", "10")
    assert classes("2.0", "10.0") == ("2", "10")
    assert classes("010", "9") == ("010", "9")
    assert classes("cat ", "dog") == ("cat", "dog")
    assert classes("NA", "dog") == ("NA", "dog")
    assert classes('say ""x"', "é, ü") == ('say ""x"', "é, ü")


def test_splits_are_understood(base):
    split = ["Train", "valid", "test", "", "DEV", "eval"] * 10
    (base / "t.csv").write_text(frame(split=split).to_csv(index=False))
    assert load_target(base / "t.csv").split[:6] == ("train", "val", "test", None, "val", "test")
    table = frame(f"{base}/", Split=["Train", None, np.nan, pd.NA, "", "dev"] * 10)
    assert load_target(table).split[:6] == ("train", None, None, None, None, "val")


def test_what_is_said_twice_counts_once(shells, base):
    rows = frame().to_csv(index=False)
    (base / "t.csv").write_text(f"{rows}a/000.png,a\n./a/../a/001.png,a\n{base}/b/000.png,b\n")
    with pytest.warns(TransferscopeWarning, match=r"3 rows of table t\.csv say again what .*: a/000\.png in line 62, "):
        assert load_target(base / "t.csv").hash == load_target(shells).hash


def test_backslashes_of_another_system(shells, base):
    (base / "t.csv").write_text(frame().to_csv(index=False).replace("/", "\\"))
    assert load_target(base / "t.csv").hash == load_target(shells).hash


def test_missing_and_broken_files_are_named_and_counted(shells, tmp_path):
    for name in "ab":
        shutil.copytree(shells / name, tmp_path / name)
    (tmp_path / "t.csv").write_text(frame().to_csv(index=False))
    (tmp_path / "b/003.png").unlink()
    with pytest.warns(
        TransferscopeWarning, match=r"1 of 60 files of table t\.csv do not exist and are left out: b/003"
    ):
        target = load_target(tmp_path / "t.csv")
    assert (len(target), target.broken) == (59, ())
    (tmp_path / "b/003.png").write_bytes(b"text")
    with pytest.warns(TransferscopeWarning, match=r"1 of 60 images are broken and skipped: b/003\.png \("):
        assert load_target(tmp_path / "t.csv").broken[0][0] == "b/003.png"


def other_labels(*labels):
    rows = ROWS.splitlines()
    return "\n".join(
        [rows[0], *(f"{row.rpartition(',')[0]},{label}" for row, label in zip(rows[1:], labels, strict=True))]
    )


BROKEN = {
    "empty": ("", "table t.csv is empty; its first line must name the columns"),
    "blank": ("\n \n\n", "table t.csv is empty"),
    "header alone": ("path,label\n", "target 't' has no images"),
    "one column": ("path\na/000.png\n", "has a single column, 'path'; its first line must name at least two"),
    "no header": (ROWS.partition("\n")[2], "no column that is known to be that of the image files.*a/000.png, a; "),
    "latin-1": (ROWS.replace("b\n", "\xe9\n").encode("latin-1"), "not encoded in UTF-8: byte 0xe9 in line 4; save"),
    "cut in a character": (ROWS.encode() + b"c\xc3", "not encoded in UTF-8: byte 0xc3 in line 6"),
    "a binary file": (png(3), "table t.csv is no text; save it as CSV"),
    "zeros": (b"path,label\n" + bytes(99), "table t.csv is no text"),
    "a quote left open": ('path,label\n"a/000.png,a\n', "cannot be read as CSV: .*; a quote that is opened"),
    "text behind a quote": ('path,label\n"a"x,a\n', "cannot be read as CSV: .*expected after"),
    "too many cells": (ROWS + "b/002.png,b,c\n", "line 6 has 3 cells where the first line names 2 .*with ',' between"),
    "too few cells": (ROWS.replace("b/000.png,b", "b/000.png"), "line 4 has 1 cells where the first line names 2"),
    "two image columns": ("path,image,label\nx,y,z\n", "columns path, image, each of which could be that of the image"),
    "two label columns": ("path,label,class\nx,y,z\n", "columns label, class, each of which could be that of"),
    "no label column": ("path,age,sex\nx,y,z\n", "known to be that of the labels.*only age, sex; say which"),
    "one name twice": ("path,label,label\nx,y,z\n", "table t.csv has 2 columns 'label'; give each a name of its own"),
    "no label": (other_labels("a", "", "b", "b"), "label must .* missing in 1 of 4, the first is line 3: a/001"),
    "no label at all": (other_labels("", "", "", ""), "missing in 4 of 4, the first is line 2"),
    "fractions": (other_labels("0.5", "1", "2", "3"), "holds numbers with fractions, such as 0.5, which are no"),
    "minus one": (other_labels("-1", "1", "2", "2"), "labels: 1 of .* are -1, which in scikit-learn stands for"),
    "one class": (other_labels("a", "a", "a", "a"), "target 't' has one class only, 'a'"),
    "no path": (ROWS.replace("a/001.png", ""), r"path must be that of a file in every row .* but is empty in line 3"),
    "an address": (ROWS.replace("a/0", "https://x.org/a/0"), "2 of 4 rows .* addresses, the first is https://x.org/a/000"),
    "an address of a store": (ROWS.replace("a/0", "s3://bucket/a/0"), "name no files but addresses, .*; download"),
    "a file address": (ROWS.replace("a/0", "file:///a/0"), "name no files but addresses"),
    "no file at all": (ROWS.replace(".png", ".jpg"), r"no file of table t\.csv exists, the first is a/000\.jpg;"),
    "absolute paths elsewhere": (ROWS.replace("\na", "\n/nowhere/a").replace("\nb", "\n/nowhere/b"), "no file of"),
    "half of the files": (ROWS.replace("a/0", "c/0"), "2 of 4 files of table t.csv do not exist, over 5%: c/000.png"),
    "other case": (ROWS.replace("a/0", "A/0").replace(".png", ".PNG"), "there is 000.png, with other letters in upper"),
    "no endings": (ROWS.replace(".png", ""), "there is 000.png: write the names with their endings"),
    "no folders": ("path,label\n000.png,a\n001.png,b\n", "there is a/000.png: write the folder before the names"),
    "folders": ("path,label\na,a\nb,b\n", r"2 of 2 images are broken.*[Ii]s a directory"),
    "no images": (ROWS.replace("a/000.png", "t.csv"), "1 of 4 images are broken, over 5%: t.csv"),
    "contradicting rows": (ROWS + "./a/000.png,b\na/001.png,b\n", r"000.png is 'a' in line 2 .* 'b' in line 6 \(and"),
    "contradicting splits": (
        "path,label,split\na/000.png,a,train\nb/000.png,b,train\na/000.png,a,test\n",
        "a/000.png is in the split train in line 2 of table t.csv, but in test in line 4",
    ),
    "an unknown split": ("path,label,split\na/000.png,a,traim\n", "is 'traim' in line 2 .did you mean 'train'"),
    "folds": ("path,label,split\na/000.png,a,1\n", "split must be one of train.* but is '1' in line 2; rename"),
    "a huge cell": (ROWS + "x" * 200_000 + ",b\n", "path has 200000 characters in line 6 of table t.csv, and begins"),
    "a huge quoted cell": (ROWS + '"' + "x" * 200_000 + '",b\n', "cannot be read as CSV: field larger"),
    "a line of nothing but commas": (ROWS + ",\n", "label must name the class .* missing in 1 of 5"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "sentence"), BROKEN.values(), ids=BROKEN)
def test_broken_tables_have_their_sentence(base, content, sentence):
    (base / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    if sentence.startswith("there is 000.png, with"):  # a file system that does not tell them apart
        (base / "A").symlink_to(base / "a")
    with pytest.raises(InputError, match=sentence) as caught:
        quiet(base / "t.csv")
    assert "\n" not in str(caught.value)


OTHER_FILES = {
    "labels.xlsx": (b"PK", "is a spreadsheet: save it as CSV"),
    "labels.json": (b"{}", "is no table that is read: make a CSV"),
    "labels.csv.gz": (b"\x1f\x8b", "is compressed: unpack it"),
    "labels.parquet": (b"path,label", "is no Parquet file, whatever its name ends with"),
    "labels.dat": (b"path,label", "is a file, not a folder"),
}


@pytest.mark.parametrize(("name", "content", "sentence"), [(k, *v) for k, v in OTHER_FILES.items()], ids=OTHER_FILES)
def test_other_files_have_their_sentence(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        load_target(tmp_path / name)


def test_a_table_that_is_not_there(tmp_path):
    (tmp_path / "labels.csv").write_text(ROWS)
    with pytest.raises(InputError, match=r"label\.csv does not exist \(did you mean 'labels\.csv'\?\)"):
        load_target(tmp_path / "label.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="is empty; it must hold one sub-folder"):
        load_target(tmp_path / "folder.csv")


def test_parquet_says_what_is_wrong(base, monkeypatch):
    (base / "t.parquet").write_bytes(b"PAR1 and then nothing")
    with monkeypatch.context() as patched:
        patched.setitem(__import__("sys").modules, "pyarrow.parquet", None)
        with pytest.raises(
            InputError, match=r"needs pyarrow: pip install 'transferscope\[parquet\]', or save it as CSV"
        ):
            load_target(base / "t.parquet")
    pytest.importorskip("pyarrow")
    with pytest.raises(InputError, match=r"cannot be read as Parquet: .*; write it again"):
        load_target(base / "t.parquet")
    frame().assign(image=frame()["path"]).to_parquet(base / "t.parquet")
    with pytest.raises(InputError, match="columns path, image, each of which could be"):
        load_target(base / "t.parquet")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda table: pd.DataFrame(), "has no column that is known .*only none"),
        (lambda table: table[:0], "has no images"),
        (lambda table: table.assign(path=table["path"].where(table.index != 1)), "is empty in row 1"),
        (lambda table: table.assign(path=""), "but is empty in row 0"),
        (lambda table: table.assign(path=5), "but is 5 in row 0"),
        (lambda table: table.assign(path=pd.NA), "but is empty in row 0"),
        (lambda table: table.assign(path=[np.arange(2)] * 60), r"but is array\(\[0, 1\]\) in row 0"),
        (lambda table: table.assign(label=table["label"].where(table.index != 2)), "in 1 of 60, the first is row 2"),
        (lambda table: table.assign(label=0.5), "labels must be whole numbers.*float64"),
        (lambda table: table.assign(label=[["a"]] * 60), "all its images have 'a'"),
        (lambda table: table.assign(split=3), "but is 3 in row 0; rename the column"),
        (lambda table: table.assign(split=[["train"]] * 60), r"is \"\['train'\]\" in row 0"),
        (lambda table: table.assign(path=[b"x"] * 60), "60 of 60 images are broken"),
        (lambda table: table.assign(path=[{"bytes": None}] * 60), "must hold the bytes of an image .* none in row 0"),
    ],
)
def test_data_frames_of_no_use_are_refused(shells, change, sentence):
    with pytest.raises(InputError, match=sentence):
        quiet(change(frame(f"{shells}/")))


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"images": 3}, "Expected `images` to be the name of a column, but got 3"),
        ({"labels": [3]}, r"Expected `labels` to be the name of a column, or several, but got \[3\]"),
        ({"images": "label", "labels": "label"}, "to name different columns"),
        ({"labels": "lable"}, r"labels: the table has no column 'lable' \(did you mean 'label'\?\)"),
        ({"images": "photo"}, "images: the table has no column 'photo'; it has path, label"),
    ],
)
def test_columns_that_are_not_there(shells, asked, sentence):
    with pytest.raises(InputError, match=sentence):
        load_target(frame(f"{shells}/"), **asked)


def test_columns_are_of_tables_alone(shells, base):
    (base / "labels.csv").write_text(ROWS)
    with pytest.raises(InputError, match=r"the folder .*, in which labels\.csv lies: give that file; leave them out"):
        load_target(base, labels="species")
    with pytest.raises(InputError, match="but the target is a pair of arrays"):
        load_target((np.zeros((4, 3, 3), np.uint8), [0, 0, 1, 1]), images="x")


def test_a_table_of_many_rows_is_read_quickly(base):
    rows = 100_000
    text = io.StringIO("path,label,split,width\n")
    text.seek(0, io.SEEK_END)
    text.writelines(f"a/{i:06}.png,class {i % 50},train,640\n" for i in range(rows))
    (base / "t.csv").write_text(text.getvalue())
    start = time.process_time()
    table = table_files.read_table(base / "t.csv", Columns())
    paths = table_paths.absolute(table_paths.check_names(table.frame["path"].tolist(), "path", table), table.base)
    there = table_paths.present(paths)
    assert time.process_time() - start < 3 * 0.15  # 0.1 s; a few times that for a busy machine
    assert (len(paths), sum(there)) == (rows, 0)
    assert Path(paths[7]) == base / "a/000007.png"


@pytest.mark.skipif("TRANSFERSCOPE_REAL" not in os.environ, reason="needs the folder TRANSFERSCOPE_REAL")
def test_trashnet_by_a_table_is_trashnet(tmp_path):
    with zipfile.ZipFile(Path(os.environ["TRANSFERSCOPE_REAL"]) / "data" / "trashnet.zip") as archive:
        archive.extractall(tmp_path)
    images = sorted(path.relative_to(tmp_path) for path in (tmp_path / "trashnet").glob("*/*"))
    rows = [f"{path};{path.parent.name}" for path in images]
    (tmp_path / "labels.csv").write_text("\n".join(["file;material", *rows]))
    target = load_target(tmp_path / "labels.csv", labels="material")
    assert (len(target), target.hash) == (2527, load_target(tmp_path / "trashnet").hash)
