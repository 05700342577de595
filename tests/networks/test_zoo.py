"""Zoo files: what is accepted, and that every problem is told at once, at its line, with what to do."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from transferscope.errors import InputError
from transferscope.networks.loading import fingerprint
from transferscope.networks.zoo import Source, Zoo, check_files, load_zoo

VALID = """\
version: 1
sources:
  - name: mobilenet
    loader: timm
    model: mobilenetv2_100
    checkpoint: weights/mobilenet.safetensors
    kwargs: {pad_type: same, num_classes: 1001, nested: [1, {a: null}]}
    transform: {size: 96, mean: [0.5, 0.5, 0], std: [0.5, 0.5, 1]}
  - name: ours
    loader: python
    factory: code/our_models.py:build
    checkpoint: ours.pt
    transform: {size: 32}
    layers: [stem, "blocks.*"]
  - {name: squeeze, loader: torchvision, model: squeezenet1_1}
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="zoo.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def problems(zoo):
    with pytest.raises(InputError) as raised:
        load_zoo(zoo)
    return str(raised.value).splitlines()[1:]


def test_a_valid_file(write, tmp_path):
    path = write(VALID)
    zoo = load_zoo(path)
    assert (len(zoo), zoo.version, zoo.path) == (3, 1, path)
    assert [source.name for source in zoo] == zoo.names == ["mobilenet", "ours", "squeeze"]
    mobilenet, ours, squeeze = zoo
    assert mobilenet.checkpoint == tmp_path / "weights/mobilenet.safetensors"
    assert mobilenet.kwargs == {"pad_type": "same", "num_classes": 1001, "nested": [1, {"a": None}]}
    assert mobilenet.transform.mean == (0.5, 0.5, 0.0)
    assert mobilenet.transform.resize is mobilenet.transform.interpolation is None
    assert ours.factory_parts == (tmp_path / "code/our_models.py", "build")
    assert ours.layers == ("stem", "blocks.*")
    assert squeeze.layers == "auto"
    assert squeeze.checkpoint is None
    assert zoo["ours"] is ours
    assert "ours" in zoo
    assert "theirs" not in zoo


def test_paths_start_at_the_file_wherever_it_is_read_from(write, tmp_path, monkeypatch):
    write(VALID, "zoo größe.yaml")
    monkeypatch.chdir(tmp_path)
    zoo = load_zoo("zoo größe.yaml")
    assert zoo["ours"].checkpoint == tmp_path / "ours.pt"
    monkeypatch.chdir("/")
    assert load_zoo(tmp_path / "zoo größe.yaml")["ours"] == zoo["ours"]


def test_an_absolute_path_and_home_stay(write, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    text = VALID.replace("ours.pt", "~/ours.pt").replace("weights/mobilenet", "/weights/mobilenet")
    zoo = load_zoo(write(text))
    assert zoo["ours"].checkpoint == Path("/home/somebody/ours.pt")
    assert zoo["mobilenet"].checkpoint == Path("/weights/mobilenet.safetensors")


def test_mappings_lists_and_zoos_are_taken_too(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load(VALID)
    from_file = load_zoo(write(VALID))
    from_mapping = load_zoo(raw)
    assert from_mapping.path is None
    assert list(from_mapping) == list(from_file)
    assert list(load_zoo(raw["sources"])) == list(from_file)
    assert list(load_zoo([Source(**raw["sources"][0]), raw["sources"][1]])) == list(from_file)[:2]
    assert load_zoo(from_file) is from_file


def test_a_table_has_a_row_a_source_and_missing_cells_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load(VALID)["sources"]
    table = pd.DataFrame(raw)
    assert table.isna().any(axis=None)
    assert list(load_zoo(table)) == list(load_zoo(raw))
    assert load_zoo(table.assign(accuracy=np.float32([0.5, np.nan, 1])))["mobilenet"].accuracy == 0.5
    assert problems(table.drop(columns="name"))[0].startswith("sources[0].name: is missing: expected")
    assert "(did you mean 'loader'" in problems(table.rename(columns={"loader": "lader"}))[1]
    assert problems(table[:0]) == ["sources: expected a list of at least one source; got []"]


def test_anchors_and_merge_keys(write):
    text = """\
version: 1
sources:
  - &first {name: a, loader: timm, model: resnet18, transform: {size: 96}}
  - <<: *first
    name: b
"""
    zoo = load_zoo(write(text))
    assert zoo["b"].model_dump(exclude={"name"}) == zoo["a"].model_dump(exclude={"name"})


def test_a_byte_order_mark_is_no_problem(write):
    assert len(load_zoo(write(b"\xef\xbb\xbf" + VALID.encode()))) == 3


MANY = """\
version: 2
surces: []
sources:
  - name: a
    loader: tim
    chekpoint: x.pt
    size: 32
  - name: scratch
    loader: timm
    transform:
      size: "96"
      mean: []
      std: [0.5, 0.5, 0]
      interpolatoin: bicubic
    kwargs: {pretrained: true}
    layers: []
  - name: a
    loader: python
    model: resnet18
    checkpoint:
    name: c
  - resnet50
  - {name: a, loader: timm, model: 5, factory: x.py:f, transform: {size: 10, resize: 4}}
  - {name: e, loader: timm, model: "local-dir:there", kwargs: {when: 2020-01-01}}
  - {name: f, loader: python, factory: models.build, transform: {size: 0}}
  - name: g
    loader: timm
    model: resnet18
    initial:
    images: ""
  - {name: h, loader: timm, model: resnet18, initial: [a.pt], images: 3}
"""

# line, place, and what the message has to say; in the order of the lines
EXPECTED = [
    (1, "version", "expected 1.*got 2"),
    (2, "surces", "did you mean 'sources'"),
    (5, "sources[0] (a).loader", "expected one of timm, torchvision, transformers, open_clip, python; got 'tim'"),
    (6, "sources[0] (a).chekpoint", "did you mean 'checkpoint'"),
    (7, "sources[0] (a).size", "belongs under transform"),
    (8, "sources[1] (scratch).name", "not 'scratch'.*got 'scratch'"),
    (8, "sources[1] (scratch).model", "is missing"),
    (
        11,
        "sources[1] (scratch).transform.size",
        r"pixels from 1 to 4096, or .*, without quotes; got '96'",
    ),
    (12, "sources[1] (scratch).transform.mean", r"numbers, one for each channel.*or one for all; got \[\]"),
    (13, "sources[1] (scratch).transform.std", r"numbers above 0, one for each.*got \[0.5, 0.5, 0\]"),
    (14, "sources[1] (scratch).transform.interpolatoin", "did you mean 'interpolation'"),
    (15, "sources[1] (scratch).kwargs.pretrained", "remove it and use checkpoint"),
    (16, "sources[1] (scratch).layers", r"at least one layer name or glob; got \[\]"),
    (17, "sources[2] (c).factory", "is missing.*file.py:function"),
    (17, "sources[2] (c).transform.size", "is missing"),
    (19, "sources[2] (c).model", "does not go with loader python"),
    (20, "sources[2] (c).checkpoint", "is empty.*leave the key out"),
    (21, "sources[2] (c).name", "comes twice, first in line 17"),
    (22, "sources[3]", "expected a mapping with name, loader.*got 'resnet50'"),
    (23, "sources[4] (a).model", "as text; got 5"),
    (23, "sources[4] (a).factory", "does not go with loader timm"),
    (23, "sources[4] (a).transform.resize", "at least 10.*got 4"),
    (23, "sources[4] (a).name", r"'a' is already taken by sources\[0\]"),
    (24, "sources[5] (e).kwargs", "JSON values"),
    (24, "sources[5] (e).model", "cannot be a folder"),
    (25, "sources[6] (f).factory", "expected file.py:function.*got 'models.build'"),
    (25, "sources[6] (f).transform.size", "from 1 to 4096.*got 0"),
    (29, "sources[7] (g).initial", "is empty: give a path, or leave the key out to redraw the weights"),
    (30, "sources[7] (g).images", "is empty: give a path, or leave the key out to go without the distance"),
    (31, "sources[8] (h).initial", r"expected a path relative to the zoo file; got \['a.pt'\]"),
    (31, "sources[8] (h).images", "expected the path of a folder, relative to the zoo file; got 3"),
]


def test_every_problem_is_told_in_one_pass_with_its_line(write):
    path = write(MANY)
    lines = problems(path)
    left = list(lines)
    for line, place, text in EXPECTED:
        pattern = re.escape(f"{path}:{line}: {place}: ") + f".*{text}"
        found = [told for told in left if re.match(pattern, told)]
        assert len(found) == 1, f"{pattern!r} in\n" + "\n".join(left)
        left.remove(found[0])
    assert not left
    numbers = [int(told.removeprefix(f"{path}:").partition(":")[0]) for told in lines]
    assert numbers == sorted(numbers)


def test_without_a_file_the_place_is_told_without_a_line():
    assert problems([{"name": "a", "loader": "timm"}]) == [
        "sources[0] (a).model: is missing: with loader timm it names the architecture"
    ]


@pytest.mark.parametrize("name", ["", " a", "a ", "a/b", "a\\b", ".", "..", "a\nb", "a\u200b", "x" * 101, 7, None])
def test_names_that_are_no_file_names(name):
    assert re.match(r"sources\[0\].*\.name: expected ", problems([{"name": name, "loader": "timm", "model": "m"}])[0])


@pytest.mark.parametrize("name", ["a", "resnet-50 (ImageNet)", "größe_2.0", "Ω", "x" * 100])
def test_names_that_are_file_names(name):
    assert load_zoo([{"name": name, "loader": "timm", "model": "m"}]).names == [name]


@pytest.mark.parametrize("factory", ["models.py", "models:build", "models.py:", "models.py:1st", "models.py:a b", 3])
def test_factories_that_are_not_file_and_function(factory):
    entry = {"name": "a", "loader": "python", "factory": factory, "transform": {"size": 8}}
    assert "factory: expected file.py:function" in problems([entry])[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", True),
        ("size", 32.0),
        ("size", -1),
        ("resize", "big"),
        ("mean", 0.5),
        ("mean", [0.5, "0.5", 0.5]),
        ("mean", [0, 0, float("nan")]),
        ("mean", []),
        ("std", [0.1, 0.0, 0.1]),
        ("size", [32, 64, 3]),
        ("size", [32, 0]),
        ("interpolation", "cubic"),
    ],
)
def test_transform_values_are_not_coerced(key, value):
    entry = {"name": "a", "loader": "timm", "model": "m", "transform": {key: value}}
    told = problems([entry])
    assert len(told) == 1
    assert told[0].startswith(f"sources[0] (a).transform.{key}: expected ")


@pytest.mark.parametrize("raw", [{}, {"version": 1}, {"sources": []}, {"version": 1, "sources": {"name": "a"}}, []])
def test_other_shapes_of_the_whole(raw):
    assert any("sources: " in told and "expected a list of at least one source" in told for told in problems(raw))


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("version: 1\nsources: [\n  {name: a", 3, "not valid YAML"),
        ("version: 1\nsources:\n\t- name: a\n", 3, "cannot start any token"),
        ("version: 1\nsources: !!python/object/apply:os.getcwd []\n", 2, "could not determine a constructor"),
        ("version: 1\nsources: *unknown\n", 2, "undefined alias"),
        ("version: 1\n---\nversion: 1\n", 2, "single document"),
    ],
)
def test_yaml_that_cannot_be_read_names_the_line(write, text, line, says):
    path = write(text)
    with pytest.raises(InputError, match=re.escape(f"{path}:{line}: ") + f".*{says}"):
        load_zoo(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty: expected version: 1 and sources:"),
        (b"# nothing yet\n", "is empty"),
        (b"version: 1\nname: gr\xf6\xdfe\n", "UTF-8"),
        (b"version: 1\x00", "not valid YAML"),
        (b"version: 2020-02-31\n", "not valid YAML.*day is out of range"),
    ],
)
def test_files_that_are_no_yaml(write, content, says):
    path = write(content)
    with pytest.raises(InputError, match=f"(?s){re.escape(str(path))}.*{says}"):
        load_zoo(path)


def test_a_file_that_holds_something_else(write):
    path = write("just a sentence\n")
    assert problems(path) == [f"{path}:1: expected a mapping with version, sources, order; got 'just a sentence'"]


def test_a_file_that_holds_itself(write):
    text = "version: 1\nsources:\n  - {name: a, loader: timm, model: m, kwargs: &all {nested: *all}}\n"
    path = write(text)
    with pytest.raises(InputError, match=re.escape(f"{path}:3: not valid YAML: an alias that holds itself")):
        load_zoo(path)


SMALL = """\
version: 1
sources:
  - {name: ours, loader: torchvision, model: resnet18}
  - name: squeeze
    loader: torchvision
    model: squeezenet1_1
"""


def test_accuracies_and_an_order_of_preference(write):
    text = VALID.replace("sources:", "order: [squeeze, ours]\nsources:") + "  - {name: d, loader: timm, model: m, "
    zoo = load_zoo(write(text + "accuracy: 0.718}\n"))
    assert zoo.order == ("squeeze", "ours")
    assert [source.accuracy for source in zoo] == [None, None, None, 0.718]
    assert load_zoo(write(VALID)).order is None
    assert load_zoo([{"name": "a", "loader": "timm", "model": "m", "accuracy": 1}])["a"].accuracy == 1


@pytest.mark.parametrize("value", ["72", "0", "-0.5", "1.01", '"0.7"', "yes", ".nan", "[0.7]"])
def test_an_accuracy_that_is_no_share_is_told_with_its_line(write, value):
    path = write(f"{SMALL}    accuracy: {value}\n")
    (told,) = problems(path)
    assert told.startswith(f"{path}:7: sources[1] (squeeze).accuracy: expected ")
    assert "above 0 and at most 1 (0.72 for 72 %)" in told


def test_the_names_in_an_order_are_checked(write):
    path = write("order:\n  - squeeze\n  - our\n  - squeeze\n" + SMALL)
    assert problems(path) == [
        f"{path}:3: order[1]: no source is called 'our' (did you mean 'ours'?); correct or remove it",
        f"{path}:4: order[2]: 'squeeze' comes twice, first as order[0]; remove one",
    ]
    for order in ("[]", "ours", "{ours: 1}", "[3]"):
        path = write(f"order: {order}\n{SMALL}")
        assert problems(path)[0].startswith(f"{path}:1: order: expected a list of source names")
    with pytest.raises(ValueError, match=r"order: no source is called 'b'"):
        Zoo(version=1, sources=(Source(name="a", loader="timm", model="m"),), order=("b",))


def test_a_missing_file_and_a_folder(write, tmp_path):
    write(VALID)
    with pytest.raises(InputError, match=r"no file .*zoo\.yml \(did you mean 'zoo\.yaml'\?\)"):
        load_zoo(tmp_path / "zoo.yml")
    with pytest.raises(InputError, match="expected a file, got the folder"):
        load_zoo(tmp_path)


def test_an_unknown_source_is_told_with_near_names(write):
    zoo = load_zoo(write(VALID))
    with pytest.raises(InputError, match=r"'mobilnet' \(did you mean 'mobilenet'\?\)"):
        zoo["mobilnet"]


def test_entries_made_in_python_are_checked_too():
    with pytest.raises(ValueError, match="factory is missing"):
        Source(name="a", loader="python", transform={"size": 8})
    twice = Source(name="a", loader="timm", model="m")
    with pytest.raises(ValueError, match="unique"):
        Zoo(version=1, sources=(twice, twice))
    with pytest.raises(InputError, match="no factory"):
        _ = twice.factory_parts


def test_check_files_tells_all_that_is_not_there(write, tmp_path):
    text = """\
version: 1
sources:
  - name: a
    loader: timm
    model: test_resnett
    checkpoint: weihgts.pt
  - name: b
    loader: python
    factory: model.py:build
    transform: {size: 8}
  - {name: c, loader: torchvision, model: squeezenet}
  - {name: d, loader: timm, model: test_resnet.no_such_tag}
  - {name: e, loader: timm, model: "hf-hub:somebody/something"}
  - {name: f, loader: timm, model: test_resnet.r160_in1k, checkpoint: weights.pt}
  - {name: g, loader: timm, model: test_resnet, checkpoint: folder.pt}
"""
    path = write(text)
    write("", "weights.pt")
    write("", "models.py")
    (tmp_path / "folder.pt").mkdir()
    told = check_files(load_zoo(path))
    expected = [
        ":6: sources[0] (a).checkpoint: there is no file .*weihgts.pt (did you mean 'weights.pt'?)",
        ":5: sources[0] (a).model: timm has no model 'test_resnett' (did you mean 'test_resnet'",
        ":9: sources[1] (b).factory: there is no file .*model.py (did you mean 'models.py'",
        ":11: sources[2] (c).model: torchvision has no model 'squeezenet' (did you mean 'squeezenet1_",
        ":12: sources[3] (d).model: timm has no model 'test_resnet.no_such_tag' (did you mean",
        ":15: sources[6] (g).checkpoint: expected a file, got the folder ",
    ]
    assert len(told) == len(expected)
    for message, pattern in zip(told, expected, strict=True):
        assert re.match(re.escape(f"{path}{pattern}").replace(r"\.\*", ".*"), message), message


def test_initial_weights_and_images_of_a_source(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    keys = ", initial: first/ours.pt, images: ~/photos}"
    zoo = load_zoo(write(SMALL.replace("model: resnet18}", "model: resnet18" + keys)))
    assert (zoo["ours"].initial, zoo["ours"].images) == (tmp_path / "first/ours.pt", Path("/home/somebody/photos"))
    assert zoo["squeeze"].initial is zoo["squeeze"].images is None
    assert fingerprint(zoo["ours"]) == fingerprint(load_zoo(write(SMALL))["ours"])


def test_check_files_looks_for_initial_weights_and_images(write, tmp_path):
    text = SMALL + "    initial: first.pt\n    images: photos\n"
    path = write(text)
    assert check_files(load_zoo(path)) == [
        f"{path}:7: sources[1] (squeeze).initial: there is no file {tmp_path}/first.pt; correct the path",
        f"{path}:8: sources[1] (squeeze).images: there is no folder {tmp_path}/photos; correct the path",
    ]
    (tmp_path / "first.pt").mkdir()
    (tmp_path / "photo").mkdir()
    assert check_files(load_zoo(path)) == [
        f"{path}:7: sources[1] (squeeze).initial: expected a file, got the folder {tmp_path}/first.pt",
        f"{path}:8: sources[1] (squeeze).images: there is no folder {tmp_path}/photos (did you mean 'photo'?)",
    ]
    (tmp_path / "first.pt").rmdir()
    write("", "first.pt")
    write("", "photos")
    assert check_files(load_zoo(path)) == [
        f"{path}:8: sources[1] (squeeze).images: expected a folder of images, got the file {tmp_path}/photos"
    ]
    (tmp_path / "photos").unlink()
    (tmp_path / "photos").mkdir()
    assert check_files(load_zoo(path)) == []


def test_missing_images_are_told_with_the_problems_of_other_entries(write, tmp_path):
    path = write(SMALL + "    images: photos\n  - {name: ours}\n")
    assert f"{path}:7: sources[1] (squeeze).images: there is no folder {tmp_path}/photos; correct the path" in problems(
        path
    )


def test_reading_a_zoo_imports_no_framework(write):
    path = write(VALID)
    code = (
        "import sys; from transferscope.networks.zoo import load_zoo; load_zoo(sys.argv[1]);"
        "print(sorted({'torch', 'timm', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_where_the_weights_come_from(write):
    entries = ("weights: none", "kwargs: {pretrained: false}", "checkpoint: c.pt, checkpoint_key: teacher")
    lines = [
        f"  - {{name: {name}, loader: timm, model: test_vit, {entry}}}"
        for name, entry in zip("abc", entries, strict=True)
    ]
    zoo = load_zoo(write("\n".join(["version: 1", "sources:", *lines])))
    assert [source.is_random for source in zoo] == [True, True, False]
    assert zoo["c"].checkpoint_key == "teacher"


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (
            "weights: none, checkpoint: a.pt",
            "weights: none asks for weights drawn at random, and checkpoint",
        ),
        ("kwargs: {pretrained: false}, checkpoint: a.pt", "kwargs.pretrained: false asks for weights drawn at random"),
        ("kwargs: {pretrained: true}", "kwargs.pretrained: is the default: remove it"),
        ("weights:", "weights: is empty: write none, as a word"),
        ("weights: imagenet", "weights: expected none, for weights drawn at random; got 'imagenet'"),
        ("checkpoint_key: teacher", "checkpoint_key: says where in a checkpoint the network lies: add the checkpoint"),
        ("checkpoint: a.pt, checkpoint_key: 3", "checkpoint_key: expected the keys, joined with dots"),
    ],
)
def test_where_the_weights_cannot_come_from(write, keys, says):
    path = write(f"version: 1\nsources:\n  - {{name: a, loader: timm, model: test_vit, {keys}}}\n")
    with pytest.raises(InputError) as raised:
        load_zoo(path)
    assert f"sources[0] (a).{says}" in str(raised.value)
