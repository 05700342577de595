"""`ts.transfer` and `ts.load_transfer`: what is delivered, that it predicts what was measured, and what goes wrong."""

import json
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from image_folders import coloured_noise
from PIL import Image
from rankings import make_ranking

import transferscope as ts
from transferscope.errors import InputError, SourceError, TransferscopeWarning
from transferscope.networks import loading
from transferscope.prediction.evidence import observations, read_evidence
from transferscope.protocols import finetuning
from transferscope.protocols.delivery import export
from transferscope.protocols.training import resuming
from transferscope.results import saving
from transferscope.results.transfer import read_card

FACTORY = """
from pathlib import Path
from helpers_of_ours import WIDTH
from collections import OrderedDict
from torch import nn

def net(width):
    return nn.Sequential(OrderedDict(
        stem=nn.Sequential(nn.Conv2d(3, width, 3, 2), nn.BatchNorm2d(width), nn.ReLU()),
        one=nn.Conv2d(width, width, 3), two=nn.Conv2d(width, width, 3), three=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), head=nn.Linear(width, 3),
    ))

def build():
    return net(WIDTH)

def changing():
    first = not Path("built").exists()
    Path("built").touch()
    return net(WIDTH + first)
"""
HEADS = ("truncate", "svm", "nearest_mean", "toptuning", "fne")
VIEWS = saving.views
TRAINED = ("reinit", "finetune", "defrost", "surgical", "scratch")
DEPTHS = dict.fromkeys((*HEADS, *TRAINED), 2) | {"fne": None, "surgical": None, "scratch": None}


def set_up(folder, monkeypatch):
    """Put a factory into a working folder, and do as little timing, training, drawing and counting as can be."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("transferscope.activations.timing._SECONDS", 0.0)
    short = finetuning.recipes(epochs=2, min_steps=0)
    monkeypatch.setattr("transferscope.verbs.measure.request.recipes", lambda *_: short)
    monkeypatch.setattr("transferscope.results.saving.views", lambda _result: {})
    Path("nets.py").write_text(FACTORY)
    Path("helpers_of_ours.py").write_text("WIDTH = 6\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a target, shells, and a model for it; for tests that change neither."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRANSFERSCOPE_HOME", str(folder / "home"))
        set_up(folder, patch)
        run(coloured_noise(folder / "shells", per_class=16))
    return folder


@pytest.fixture(autouse=True)
def house(home, tmp_path, monkeypatch):
    """Give each test a working folder of its own."""
    set_up(tmp_path, monkeypatch)


@pytest.fixture
def target(tmp_path):
    return coloured_noise(tmp_path / "shells", per_class=16)


@pytest.fixture
def model(made):
    """That model, loaded from a folder of the test's own."""
    shutil.copytree(made / "model", "model")
    return load()


def zoo(function="build", **more):
    entry = {
        "name": "ours", "loader": "python", "factory": f"nets.py:{function}",
        "transform": {"size": 16, "mean": [0.5] * 3, "std": [0.25] * 3}, **more,
    }  # fmt: skip
    return {"version": 1, "sources": [entry]}


def run(target, output="model", **options):
    options = {"source": "ours", "protocol": "truncate", "depth": 2, "trust_code": True, **options}
    return ts.transfer(target, options.pop("zoo", zoo()), output, progress=False, **options)


def load(folder="model"):
    return ts.load_transfer(folder, trust_code=True)


def held_out(result, target):
    """Where a ranking's evidence says that the model was measured: which images, in the target's order."""
    from transferscope.data.splits import hold_out

    images = ts.load_target(target)
    _, test = hold_out(images)
    return images, test


class TestWhatIsDelivered:
    @pytest.mark.parametrize("protocol", [*HEADS, *TRAINED])
    def test_the_model_predicts_what_was_measured(self, target, protocol):
        result = run(target, protocol=protocol, depth=DEPTHS[protocol])
        images, test = held_out(result, target)
        model = load()
        assert model.classes == images.classes == ("blue", "green", "red")
        predictions = model.predict(images.subset(test), progress=False)
        truth = [images.classes[label] for label in images.labels[test]]
        counted = pd.crosstab(pd.Series(truth), pd.Series(predictions.labels)).reindex(
            index=images.classes, columns=images.classes, fill_value=0
        )
        np.testing.assert_array_equal(counted, result.confusion)
        assert result.accuracy == np.mean(np.array(truth) == predictions.labels)
        assert result.measured_on == 12
        assert result.trained_on == 36
        np.testing.assert_allclose(predictions.probabilities.sum(1), 1, atol=1e-5)
        if protocol in HEADS:  # colours are told apart by their means
            assert result.accuracy == 1

    @pytest.mark.parametrize("protocol", ["truncate", "reinit"])
    def test_it_does_what_measure_does(self, target, protocol):
        result = run(target, protocol=protocol)
        measured = ts.measure(
            target, zoo(), "measured", protocols=[protocol], samples_per_class=["all"], depths=[2], seeds=1,
            trust_code=True, progress=False,
        ).runs  # fmt: skip
        assert len(measured) == 1
        (row,) = measured.to_dict("records")
        assert result.accuracy == row["accuracy"]
        ours = pd.read_csv("model/runs.csv", keep_default_na=False).to_dict("records")[0]
        same = ("source", "target", "protocol", "depth", "depths", "layer", "samples_per_class", "samples", "seed")
        assert {name: ours[name] for name in same} == {name: row[name] for name in same}
        assert json.loads(Path("model/measure.json").read_text()) == json.loads(
            Path("measured/measure.json").read_text()
        )

    def test_the_folder_is_all_that_is_needed(self, target, tmp_path):
        run(target, protocol="defrost")
        before = load().predict(target, progress=False)
        shutil.move("model", tmp_path / "elsewhere")
        for name in ("nets.py", "helpers_of_ours.py"):
            Path(name).unlink()
        after = load(tmp_path / "elsewhere").predict(target, progress=False)
        assert after.paths == before.paths
        np.testing.assert_array_equal(after.probabilities, before.probabilities)

    def test_code_does_not_run_unasked(self, model):
        with pytest.raises(InputError, match=r"runs the code of .*model/code/nets.py.*--trust-code"):
            ts.load_transfer("model")

    def test_the_same_call_gives_the_same_bytes(self, target):
        for folder in ("one", "other"):
            run(target, folder, protocol="finetune")
        for name in ("model.safetensors", "model.json"):
            assert Path("one", name).read_bytes() == Path("other", name).read_bytes()
        assert Path("one/code/helpers_of_ours.py").read_text() == "WIDTH = 6\n"

    def test_the_card_says_all_and_can_be_read(self, target, monkeypatch):
        monkeypatch.setattr(saving, "views", VIEWS)
        result = run(target, protocol="svm")
        card = json.loads(Path("model/card.json").read_text())
        assert card["how"] == "cut after one (depth 2 of 3), its features frozen, a linear SVM on them"
        assert card["measured"]["images"].startswith("drawn by the seed")
        assert card["expected"] is None
        assert set(card["hashes"]) == {
            "model.safetensors", "model.json", "code/nets.py", "code/helpers_of_ours.py",
        }  # fmt: skip
        again = read_card(Path("model"))
        assert again.to_json() == result.to_json()
        assert again.verdict == result.verdict
        text = Path("model/README.md").read_text()
        assert "| measured | 1.000 |" in text
        assert "--trust-code" in text
        with Image.open("model/confusion.png") as picture:
            assert picture.size[0] > 300

    def test_the_targets_own_test_split_is_measured_on(self, tmp_path):
        coloured_noise(tmp_path / "data" / "train", per_class=8)
        coloured_noise(tmp_path / "data" / "test", per_class=5)
        for path in (tmp_path / "data" / "test").rglob("*.png"):  # else they would be copies
            Image.fromarray(np.asarray(Image.open(path))[::-1]).save(path)
        result = run(tmp_path / "data")
        assert (result.trained_on, result.measured_on) == (24, 15)
        assert result.held_out == "the test split of the target"

    def test_the_compact_network_is_trained_from_scratch_without_a_source(self, target):
        result = run(target, source="scratch", protocol=None, depth=None)
        assert (result.source, result.protocol, result.depth) == ("scratch", "scratch", 0)
        assert not result.is_evidence
        model = ts.load_transfer("model")  # our own code needs no trust
        assert model.transform.size == 32
        assert len(model.predict(target, progress=False)) == 48

    def test_networks_of_libraries_come_back_without_their_weights(self, target, tmp_path):
        import timm

        torch.save(timm.create_model("test_resnet").state_dict(), "tiny.pt")
        entry = {"name": "tiny", "loader": "timm", "model": "test_resnet", "checkpoint": "tiny.pt",
                 "transform": {"size": 32}}  # fmt: skip
        run(target, zoo={"version": 1, "sources": [entry]}, source="tiny", protocol="reinit")
        Path("tiny.pt").unlink()
        assert json.loads(Path("model/model.json").read_text())["architecture"] == {
            "loader": "timm", "model": "test_resnet", "kwargs": {},
        }  # fmt: skip
        assert len(ts.load_transfer("model").predict(target, progress=False)) == 48

    def test_two_classes(self, target):
        shutil.rmtree(target / "red")
        result = run(target)
        assert result.confusion.shape == (2, 2)
        assert load().predict(target, progress=False).probabilities.shape == (32, 2)


class TestGoingOn:
    def test_an_interrupted_training_goes_on_and_ends_the_same(self, target, monkeypatch):
        run(target, "whole", protocol="finetune")
        monkeypatch.setattr(resuming, "INTERVAL_S", 0.0)
        write, begun = resuming.StateFile.write, []

        def interrupted(self, state):
            write(self, state)
            begun.append(self)
            raise KeyboardInterrupt

        with monkeypatch.context() as context:
            context.setattr(resuming.StateFile, "write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run(target, protocol="finetune")
        assert begun
        assert not Path("model").exists()
        read, found = resuming.StateFile.read, []
        monkeypatch.setattr(
            resuming.StateFile, "read", lambda self, device: found.append(read(self, device)) or found[-1]
        )
        run(target, protocol="finetune")
        assert found[0] is not None
        assert Path("model/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()

    def test_a_model_that_is_there_is_not_trained_again(self, target, monkeypatch):
        first = run(target)
        monkeypatch.setattr("transferscope.verbs.transfer.job.Job.carry_out", None)
        again = run(target, export=["torchscript"], evidence="evidence")
        assert again.to_json() == replace(first, hashes=again.hashes).to_json()
        assert set(again.hashes) - set(first.hashes) == {"model.torchscript.pt"}
        assert read_card(Path("model")).hashes == again.hashes
        assert Path("evidence/runs.csv").is_file()

    def test_another_model_is_left_alone(self, target, model):
        before = Path("model/model.safetensors").read_bytes()
        with pytest.raises(
            InputError, match=r"model holds the model of another transfer \(of ours, truncate, to shells"
        ):
            run(target, protocol="svm")
        assert Path("model/model.safetensors").read_bytes() == before

    def test_other_files_are_left_alone(self, target):
        Path("model").mkdir()
        Path("model/mine.txt").write_text("mine")
        with pytest.raises(InputError, match=r"model holds other files, such as mine\.txt; choose another one"):
            run(target)
        Path("file").write_text("")
        with pytest.raises(InputError, match="file is a file; choose another one"):
            run(target, "file")


class TestEvidence:
    def test_a_ranking_learns_what_was_measured(self, target):
        result = run(target, protocol="reinit")
        images = ts.load_target(target)
        source = ts.load_zoo(zoo())["ours"]
        layers = {"ours": ["stem.2", "one", "flat"]}
        (found,) = observations(
            read_evidence(["model"]), target="whatever it is called", target_hash=images.hash, layers=layers,
            candidates={("ours", 2, "reinit")}, fingerprints={"ours": loading.fingerprint(source)},
        )  # fmt: skip
        assert (found.source, found.depth, found.protocol, found.samples) == ("ours", 2, "reinit", 36)
        assert (found.accuracy, found.tested) == (result.accuracy, 12)

    def test_results_of_several_transfers_gather_in_one_folder(self, target):
        run(target, "one", evidence="gathered")
        run(target, "two", protocol="svm", evidence="gathered/runs.csv")
        run(target, "two", protocol="svm", evidence="gathered")
        rows = pd.read_csv("gathered/runs.csv").drop_duplicates(["protocol", "depth"])
        assert rows["protocol"].tolist() == ["truncate", "svm"]

    def test_evidence_of_another_target_is_refused_before_anything_is_trained(self, target, tmp_path, monkeypatch):
        run(target, "one", evidence="gathered")
        shutil.rmtree(target / "red")
        before = Path("gathered/runs.csv").read_bytes()
        with pytest.raises(InputError, match=r"`evidence` to be new, or to hold runs of the same target.*gathered"):
            run(target, "two", evidence="gathered")
        assert not Path("two").exists()
        assert Path("gathered/runs.csv").read_bytes() == before
        with pytest.raises(InputError, match=r"a folder, or the runs\.csv in one, but got notes\.csv"):
            run(target, "two", evidence="notes.csv")


class TestRankings:
    def ranking(self, target, **changes):
        images = ts.load_target(target)
        made = make_ranking({"ours": [0.4, 0.9, 0.5], "other": [0.2, 0.3]})
        return replace(made, target=replace(made.target, hash=images.hash), **changes)

    @pytest.mark.parametrize("row", [1, "ours"])
    def test_a_row_is_followed(self, target, row):
        ranking = self.ranking(target)
        ranking.save("ranked")
        result = run(target, source=None, protocol=None, depth=None, ranking="ranked", row=row)
        assert (result.source, result.protocol, result.depth) == ("ours", "truncate", 2)
        assert result.expected.accuracy == pytest.approx(ranking.best.expected_accuracy, abs=1e-6)
        assert result.expected.samples == 2000
        assert "expected 0.9" in result.verdict
        assert "for 2000 images to train on; it was trained on 36" in result.verdict

    def test_from_scratch(self, target):
        result = run(target, source=None, protocol=None, depth=None, ranking=self.ranking(target), row="scratch")
        assert (result.source, result.protocol) == ("scratch", "scratch")

    def test_one_of_other_images_is_pointed_out(self, target):
        other = make_ranking({"ours": [0.4, 0.9, 0.5]})
        with pytest.warns(TransferscopeWarning, match="of other images than target 'shells'"):
            run(target, source=None, protocol=None, depth=None, ranking=other)

    def test_rows_that_there_are_not(self, target):
        with pytest.raises(
            InputError, match=r"from 1 to 3 or the name.*'our' \(did you mean 'ours'\?\).*ours, scratch"
        ):
            run(target, source=None, protocol=None, depth=None, ranking=self.ranking(target), row="our")

    def test_another_architecture_from_scratch_has_to_be_named(self, target):
        reference = replace(self.ranking(target).reference, network="ours's own architecture")
        ranking = self.ranking(target, reference=reference)
        with pytest.raises(InputError, match="name the source that has it, with `protocol` scratch"):
            run(target, source=None, protocol=None, depth=None, ranking=ranking, row="scratch")


class TestWhatGoesWrong:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"protocol": None}, "Expected `protocol` beside `source`, one of nearest_mean, truncate"),
            ({"protocol": "truncat"}, r"got 'truncat' \(did you mean 'truncate'\?\)"),
            ({"source": None, "protocol": None, "depth": None}, "Expected `ranking`, .* but got neither"),
            ({"ranking": "ranked"}, "either `ranking` or `source`, .*got `ranking` and `source`"),
            ({"depth": 1.5}, "`depth` to be a whole number of stages, but got 1.5"),
            ({"depth": None}, "'ours': Expected `depth` to be from 1 to 3 for the protocol 'truncate', but got None"),
            (
                {"depth": 9},
                r"from 1 to 3 for the protocol 'truncate', but got 9; the stages are 1 stem\.2, 2 one",
            ),
            ({"protocol": "fne", "depth": 2}, "to be 3 for the protocol 'fne', but got 2"),
            ({"source": "theirs"}, "no source is called 'theirs'"),
            ({"source": "scratch"}, "Expected the protocol scratch for the source 'scratch', but got 'truncate'"),
            ({"export": ["onx"]}, r"among onnx, torchscript, but got 'onx' \(did you mean 'onnx'\?\)"),
            ({"row": 0}, "`row` to be a rank, from 1, or the name"),
            ({"trust_code": False}, "allow it with --trust-code"),
        ],
    )
    def test_arguments_are_checked(self, target, options, message):
        with pytest.raises(InputError, match=message):
            run(target, **options)
        assert not Path("model").exists()

    def test_depths_count_from_the_end(self, target):
        assert run(target, depth=-1).depth == 3

    def test_a_factory_that_builds_something_else_each_time(self, target):
        with pytest.raises(SourceError, match=r"source 'ours': built without its weights it has other parameters"):
            run(target, zoo=zoo("changing"), protocol="defrost")
        assert not Path("model").exists()

    def test_training_that_diverges_leaves_nothing(self, target, monkeypatch):
        wild = {name: replace(recipe, learning_rate=1e30) for name, recipe in finetuning.recipes(epochs=2).items()}
        monkeypatch.setattr("transferscope.verbs.measure.request.recipes", lambda *_: wild)
        with pytest.raises(SourceError, match="diverged"):
            run(target, protocol="finetune")
        assert not Path("model").exists()

    @pytest.mark.parametrize("content", [b"torn", safetensors.torch.save({"other": torch.zeros(1)})])
    def test_weights_of_something_else(self, model, content):
        Path("model/model.safetensors").write_bytes(content)
        with pytest.raises(InputError, match=r"The weights in model/model\.safetensors are not those of the network"):
            load()

    def test_no_model(self):
        with pytest.raises(InputError, match=r"gone to be the folder of a model, as `transfer -o` writes it"):
            load("gone")


class TestPredicting:
    def test_whatever_form_the_images_have(self, model, target):
        paths = sorted(target.rglob("*.png"))
        pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
        opened = [Image.open(path).copy() for path in paths]
        expected = model.predict(target, progress=False)
        assert expected.paths == tuple(map(str, paths))
        forms = {
            "paths": [str(path) for path in paths],
            "array": pixels,
            "tensor": torch.from_numpy(pixels).permute(0, 3, 1, 2),
            "floats": torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255,
            "pairs": [(image, 0) for image in opened],
            "dicts": [{"image": image, "label": 0} for image in opened],
            "images": opened,
            "target": ts.load_target(target),
        }
        for form, images in forms.items():
            found = model.predict(images, batch_size=7, progress=False)
            np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6, err_msg=form)
            assert found.labels == expected.labels

    def test_folders_of_any_depth_and_single_files(self, model, target):
        deep = target.parent / "new" / "a" / "b"
        deep.mkdir(parents=True)
        shutil.copy(target / "red" / "00.png", deep / "one.png")
        shutil.copy(target / "blue" / "00.png", deep.parent / "two.PNG")
        (deep / "notes.txt").write_text("no image")
        found = model.predict(target.parent / "new", progress=False)
        assert [Path(path).name for path in found.paths] == ["one.png", "two.PNG"]
        assert found.labels == ("red", "blue")
        assert model.predict(str(deep / "one.png"), progress=False).labels == ("red",)

    def test_unreadable_images_are_named_and_the_others_predicted(self, model, target):
        broken = target / "green" / "broken.png"
        broken.write_bytes(b"no image")
        found = model.predict([target / "green", "gone.png"], progress=False)
        assert len(found) == 16
        assert [each.source for each in found.unreadable] == [str(broken), "gone.png"]
        assert "no image in a format that is read" in found.unreadable[0].error
        with pytest.raises(InputError, match=r"none of 1 can: .*broken\.png: it is no image"):
            model.predict(broken, progress=False)

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            ("nowhere", "there is no file nowhere"),
            (7, "Expected `images` to be a folder, files, .* but got int"),
            ({"image": 1}, "but got dict"),
            ([], "at least one image"),
            (np.zeros((3, 4)), r"shape \(N, H, W\).* but got \(3, 4\)"),
            (".", r"Expected images in the folder"),
        ],
    )
    def test_what_is_no_image(self, model, images, message, tmp_path, monkeypatch):
        (tmp_path / "empty").mkdir()
        monkeypatch.chdir(tmp_path / "empty")
        with pytest.raises(InputError, match=message):
            model.predict(images, progress=False)

    def test_it_says_what_it_is(self, model):
        assert repr(model) == "<model of ours for shells: 3 classes, accuracy 1.000>"
        assert model.card.source == "ours"

    def test_images_of_more_bits_are_read_as_those_trained_on(self, tmp_path):
        rng = np.random.default_rng(0)
        labels = np.arange(48) % 2
        images = rng.integers(0, 1500, (48, 16, 16)).astype(np.uint16) + (labels * 2000)[:, None, None].astype(
            np.uint16
        )
        run((images, labels), value_range=(0, 4095))
        # Alone these would be spread over 0 to 1023.
        dark = rng.integers(0, 1000, (4, 16, 16)).astype(np.uint16)
        assert load().predict(dark, progress=False).labels == ("0",) * 4


class TestExports:
    def test_torchscript_runs_without_this_package(self, target):
        run(target, protocol="finetune", export="torchscript")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own ways have become old
            module = torch.jit.load("model/model.torchscript.pt")
        self.agrees(load(), lambda data: module(data).numpy())

    @pytest.mark.parametrize("protocol", ["toptuning", "defrost"])
    def test_onnx(self, target, protocol):
        runtime = pytest.importorskip("onnxruntime")
        run(target, protocol=protocol)
        path = load().export("onnx", "out/mine.onnx")
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.agrees(load(), lambda data: session.run(["probabilities"], {"images": data.numpy()})[0])

    def agrees(self, model, run_it):
        for count in (1, 5):
            images = torch.randn(count, *model.transform.shape, generator=torch.Generator().manual_seed(count))
            np.testing.assert_allclose(run_it(images), model.network.probabilities(images), atol=1e-4)

    def test_a_file_that_differs_is_not_written(self, model, monkeypatch):
        wrong = lambda _data: lambda images: np.full((len(images), 3), 0.5, dtype=np.float32)  # noqa: E731
        monkeypatch.setitem(export._READERS, "torchscript", wrong)
        with pytest.raises(SourceError, match=r"cannot be exported to torchscript \(the file's probabilities differ"):
            model.export("torchscript")
        assert not Path("model/model.torchscript.pt").exists()

    def test_onnx_asks_for_its_extra(self, target, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(InputError, match=r"pip install 'transferscope\[onnx\]'"):
            run(target, export=["onnx"])
