"""`ts.measure`: which runs there are, on which images, what is recorded, and what happens when things go wrong."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from PIL import Image
from safetensors.torch import save_file
from sklearn.dummy import DummyClassifier

import transferscope as ts
from transferscope.data.bank import Bank
from transferscope.errors import InputError, SourceError, TransferscopeError, TransferscopeWarning
from transferscope.networks.compact import CompactResNet
from transferscope.protocols import finetuning
from transferscope.protocols.training import resuming
from transferscope.runtime.engines import crew
from transferscope.verbs.measure.measure import prepare
from transferscope.verbs.measure.request import MeasureRequest
from transferscope.verbs.running.executor import Executor

COLUMNS = [
    "source", "target", "protocol", "depth", "depths", "layer", "samples_per_class", "samples", "seed", "accuracy",
    "balanced_accuracy", "seconds", "flops", "kwh", "kgco2e", "peak_memory", "trials", "status",
]  # fmt: skip
IDENTITY = ["source", "protocol", "depth", "layer", "samples_per_class", "seed"]
RESULTS = [name for name in COLUMNS if name not in ("seconds", "kwh", "kgco2e", "peak_memory")]
EVERYTHING = (
    "truncate", "svm", "nearest_mean", "toptuning", "fne", "reinit", "finetune", "defrost", "surgical", "scratch",
)  # fmt: skip

FACTORY = """
import multiprocessing
import os
import warnings
from torch import nn
from transferscope.errors import TransferscopeWarning
from transferscope.networks import CompactResNet

def build():
    return CompactResNet(3, width=4)

def wider():
    return CompactResNet(3, width=6)

def broken():
    raise RuntimeError("factory went wrong")

class Dies(CompactResNet):
    def forward(self, x):
        if self.training and len(x) > 1:
            os._exit(9)
        return super().forward(x)

def dies():
    return Dies(3, width=4)

class Warns(CompactResNet):
    def forward(self, x):
        if multiprocessing.parent_process() is not None:
            warnings.warn("said in another process", TransferscopeWarning)
        return super().forward(x)

def warns():
    return Warns(3, width=4)

class Chokes(CompactResNet):
    def forward(self, x):
        with open("calls.txt", "a") as file:
            file.write(f"{len(x)}\\n")
        if len(x) > 2:
            raise RuntimeError("[x] of\\ntwo lines")
        return super().forward(x)

def chokes():
    return Chokes(3, width=4)

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU())
        self.one, self.other = nn.Conv2d(4, 3, 3, 2), nn.Conv2d(4, 3, 3, 2)

    def forward(self, x):
        x = self.stem(x)
        return self.one(x).relu(), self.other(x).tanh()

def two():
    return Two()
"""


@pytest.fixture(autouse=True)
def house(home, tmp_path, monkeypatch):
    """Give each test factories and a working folder of its own, and no more timing than is needed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("transferscope.activations.timing._SECONDS", 0.0)
    (tmp_path / "nets.py").write_text(FACTORY)
    return tmp_path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for seed in (1, 2):
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            save_file(CompactResNet(3, width=4).state_dict(), folder / f"{seed}.safetensors")
    return folder


def noise(n, seed=0):
    """Images (n, 12, 12, 3) of noise, in which the class brightens one channel, and their labels."""
    labels = np.arange(n) % 3
    images = np.random.default_rng(seed).integers(0, 160, (n, 12, 12, 3), dtype=np.uint8)
    images[np.arange(n), ..., labels] += 80
    return images, labels


def entry(name, function="build", checkpoint=None, **more):
    given = {} if checkpoint is None else {"checkpoint": str(checkpoint)}
    return {
        "name": name, "loader": "python", "factory": f"{os.getcwd()}/nets.py:{function}", "transform": {"size": 16},
        **given, **more,
    }  # fmt: skip


@pytest.fixture
def zoo(house, weights):
    return [entry("first", checkpoint=weights / "1.safetensors"), entry("second", checkpoint=weights / "2.safetensors")]


DEFAULTS = {
    "protocols": ("truncate",), "depths": (-1,), "seeds": 1, "samples_per_class": (2,), "epochs": 1,
    "min_steps": 0, "device": "cpu", "progress": False, "trust_code": True,
}  # fmt: skip


def measure(zoo, output="out", target=None, **options):
    return ts.measure(noise(48) if target is None else target, zoo, output, **{**DEFAULTS, **options})


def planned(zoo, output="out", target=None, **options):
    wanted = {"target": noise(48) if target is None else target, "zoo": zoo, "output": output, **DEFAULTS, **options}
    return prepare(MeasureRequest(**wanted))


def truncate(path):
    """Leave the first half of a file, which for an image is its header and some pixels."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def read(folder="out"):
    """Return the runs; of one that was run again, the last row."""
    table = pd.read_csv(f"{folder}/runs.csv", keep_default_na=False).drop_duplicates(IDENTITY, keep="last")
    return table.sort_values(IDENTITY, ignore_index=True)


def never(*_args, **_options):
    raise AssertionError("this was to be left alone")


def contents(folder):
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class TestTable:
    def test_every_run_that_was_asked_for_is_there_with_its_columns(self, zoo):
        result = measure(zoo[:1], protocols=EVERYTHING, depths=(2, -1), samples_per_class=(2, 6))
        table = read()
        assert list(pd.read_csv("out/runs.csv").columns) == list(result.runs.columns) == COLUMNS
        assert (table["status"] == "done").all()
        of_cuts = {(depth, layer) for depth, layer in ((2, "blocks.0"), (8, "pool.1"))}
        expected = dict.fromkeys(EVERYTHING, of_cuts)
        expected |= {"scratch": {(0, "")}, "surgical": {(8, "pool.1")}}
        expected["fne"] = {(8, name) for name in ("all", "upper 75%", "upper 50%", "upper 25%")}
        found = {tuple(run) for run in table[IDENTITY].itertuples(index=False)}
        assert found == {
            ("first", protocol, *cut, size, seed)
            for protocol, cuts in expected.items()
            for cut in cuts
            for size, seed in ((2, 0), (6, 0))
        }
        assert len(table) == len(found)
        assert (table["depths"] == 8).all()
        assert (table["samples"] == 3 * table["samples_per_class"]).all()
        assert set(table["target"]) == {result.settings["target"]}
        assert table["accuracy"].between(0, 1).all()
        for name in ("seconds", "flops", "kwh", "kgco2e", "peak_memory"):
            assert (table[name] > 0).all(), name
        # 48 images, a quarter of which is for testing, all classes alike.
        assert (result.settings["n_test"], result.settings["classes"]) == (12, 3)
        assert result.settings["chance"] == pytest.approx(1 / 3)
        np.testing.assert_allclose(table["balanced_accuracy"], table["accuracy"], rtol=1e-12)

    def test_phases_add_up_to_the_seconds_of_each_run(self, zoo):
        measure(zoo[:1], protocols=EVERYTHING)
        phases = pd.read_csv("out/phases.csv", keep_default_na=False)
        assert set(phases["phase"]) == {"features", "head", "training", "gradients"}
        sums = phases.groupby(IDENTITY)["seconds"].sum()
        runs = read().set_index(IDENTITY)["seconds"].astype(float)
        assert len(sums) == len(runs)
        np.testing.assert_allclose(sums.loc[runs.index], runs, rtol=1e-4)
        trained = phases["protocol"].isin(["finetune", "scratch"])
        assert set(phases["phase"][trained]) == {"training"}
        assert set(phases["phase"][phases["protocol"] == "truncate"]) == {"features", "head"}

    def test_depth_costs_more_flops_of_the_same_network(self, zoo):
        table = measure(zoo[:1], depths=(1, 4, 8), protocols=("nearest_mean",)).runs.set_index("depth")
        # Stem, 16 × 16: 3 × 3 × 3 weights for 4 channels, 6 images, two operations each.
        assert table["flops"][1] == 6 * 2 * 27 * 4 * 256
        assert table["flops"].is_monotonic_increasing
        assert list(table["trials"]) == [1, 1, 1]

    def test_draws_are_nested_and_no_test_image_is_ever_learnt_from(self, zoo, monkeypatch):
        taught, tested = {}, set()
        learn, predict, fit_head = Executor._lesson, Executor._predict, Executor._fit_head

        def lesson(self, run):
            found = learn(self, run)
            taught[run.protocol, run.samples_per_class, run.seed] = found
            return found

        def fitted(self, run, meter):
            tested.add(("head", tuple(self.setup.test)))
            return fit_head(self, run, meter)

        def predicted(self, source, net):
            tested.add(("net", tuple(self.setup.test)))
            return predict(self, source, net)

        monkeypatch.setattr(Executor, "_lesson", lesson)
        monkeypatch.setattr(Executor, "_predict", predicted)
        monkeypatch.setattr(Executor, "_fit_head", fitted)
        images, labels = noise(48)
        grid = planned(
            zoo[:1], protocols=("finetune", "defrost", "truncate"), samples_per_class=(1, 5, "all"), seeds=2,
            target=(images, labels), early_stopping=True,
        )  # fmt: skip
        grid.run()
        (test,) = {indices for _, indices in tested}
        assert len(tested) == 2

        bank = Bank(ts.load_target((images, labels)), grid.executor.network("first").transform)
        bank.add(range(48))
        rows = {bank.images(np.array([i])).numpy().tobytes(): i for i in range(48)}
        drawn = {key: [rows[image.numpy().tobytes()] for image in given.images] for key, given in taught.items()}
        for (protocol, size, seed), indices in drawn.items():
            assert not set(indices) & set(test)
            assert len(set(indices)) == len(indices) == 3 * size
            np.testing.assert_array_equal(taught[protocol, size, seed].labels, labels[indices])
            np.testing.assert_array_equal(np.bincount(labels[indices]), size)
            assert drawn["finetune", size, seed] == indices, "protocols learn from the same images"
            larger = {1: 5, 5: 12}.get(size)
            assert larger is None or set(indices) <= set(drawn[protocol, larger, seed])
            assert (taught[protocol, size, seed].validation is None) == (size == 1)
        assert set(drawn["finetune", 5, 0]) != set(drawn["finetune", 5, 1])
        assert sorted({*drawn["finetune", 12, 0], *test}) == list(range(48))

    @pytest.mark.parametrize(
        ("options", "trained_on"),
        [
            ({}, 15),
            ({"early_stopping": True}, 12),
            ({"learning_rates": (0.1,)}, 15),
            ({"learning_rates": (0.1, 1)}, 12),
        ],
    )
    def test_images_are_kept_from_training_only_to_stop_or_choose_by(self, zoo, options, trained_on):
        grid = planned(zoo[:1], protocols=("finetune",), samples_per_class=(5,), **options)
        lesson = grid.executor._lesson(grid.runs[0])
        assert len(lesson.labels) == 15
        assert 15 - (0 if lesson.validation is None else len(lesson.validation)) == trained_on

    def test_accuracies_are_those_of_a_classifier_of_one_s_own(self, zoo, monkeypatch):
        # In place of the truncated network: the majority class of what it was given.
        def guess(run, features, labels, _validation, _seed):
            from transferscope.protocols.heads.linear import HeadFit

            dummy = DummyClassifier(strategy="constant", constant=1).fit(features, labels)
            return HeadFit(dummy.predict, 3, None)

        monkeypatch.setattr("transferscope.protocols.heads.fitting.fit_head", guess)
        images, labels = noise(60)
        keep = np.flatnonzero((labels != 1) | (np.arange(60) % 2 == 0))  # half as many of class 1
        (row,) = measure(zoo[:1], target=(images[keep], labels[keep])).runs.to_dict("records")
        # 50 images, 10 of them of class 1: a quarter is tested on, in proportion.
        assert row["accuracy"] == pytest.approx(0.2, abs=0.05)
        assert row["balanced_accuracy"] == pytest.approx(1 / 3)
        assert row["trials"] == 3

    @pytest.mark.usefixtures("undrawn")
    def test_saved_files(self, zoo):
        result = measure(zoo, protocols=("truncate", "scratch"), seeds=2)
        result.save("out")
        record = json.loads(Path("out/measurement.json").read_text(encoding="utf-8"))
        assert len(record["results"]) == len(pd.read_csv("out/measurement.csv")) == 4
        with xr.open_dataset("out/measurement.nc", engine="h5netcdf") as dataset:
            accuracy = dataset["accuracy"].sel(source="second", protocol="truncate", depth=8, samples_per_class=2)
            runs = read()
            own = runs[(runs["source"] == "second") & (runs["protocol"] == "truncate")]
            np.testing.assert_allclose(accuracy, own["accuracy"].astype(float))
        assert {path for path in os.listdir("out") if path.startswith(".") or path.endswith("tmp")} == {
            ".measure.lock",
            ".transferscope",
        }

    @pytest.mark.usefixtures("undrawn")
    def test_cost_of_the_networks_cut_at_each_depth(self, zoo):
        result = measure(zoo[:1])
        result.save("out")
        table = pd.read_csv("out/networks.csv")
        assert list(table.columns) == ["source", "depth", "layer", "params", "flops", "latency"]
        assert list(table["depth"]) == list(range(1, 9))
        assert table["layer"].iloc[-1] == "pool.1"
        net = CompactResNet(3, width=4)
        # Width 4 and three channels: the stem's 3 x 3 convolution at 16 x 16 pixels, and its batch norm.
        assert table["params"].iloc[0] == sum(p.numel() for p in net.stem.parameters()) == 4 * 3 * 9 + 8
        assert table["flops"].iloc[0] == 2 * 16 * 16 * 4 * 3 * 9
        head = sum(p.numel() for p in net.head.parameters())
        assert table["params"].iloc[-1] == sum(p.numel() for p in net.parameters()) - head
        assert (table["latency"] > 0).all()
        assert result.networks["latency"].tolist() == measure(zoo[:1], "again").networks["latency"].tolist(), "cached"


class TestTargets:
    @pytest.fixture
    def folder(self, house):
        images, labels = noise(48)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = house / "data" / ("test" if i >= 36 else "train") / "abc"[label] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        return house / "data"

    def test_a_folder_with_a_test_split_is_tested_on_that(self, zoo, folder):
        grid = planned(zoo, target=folder)
        setup = grid.executor.setup
        assert {setup.target.split[i] for i in setup.test} == {"test"}
        assert {setup.target.split[i] for i in setup.pool} == {"train"}
        assert (len(setup.pool), len(setup.test)) == (36, 12)
        assert len(grid.run().runs) == 2

    def test_broken_images_are_left_out_with_a_warning(self, zoo, folder):
        whole = planned(zoo, target=folder).executor.setup
        broken = [whole.drawn[0], whole.test[0]]
        paths = sorted(folder.rglob("*.png"))
        for i in broken:
            truncate(paths[i])
        with pytest.warns(TransferscopeWarning, match=r"2 images are left out: .*png of target 'data' is broken"):
            grid = planned(zoo, target=folder, samples_per_class=(2, "all"))
        table = grid.run().runs
        assert set(table["samples_per_class"]) == {2, 12}
        assert set(table.loc[table["samples_per_class"] == 12, "samples"]) == {35}
        assert (table["status"] == "done").all()
        assert not {*broken} & {*grid.executor.setup.drawn, *grid.executor.setup.test}

    def test_a_class_without_a_sound_image_is_an_error(self, zoo, folder):
        first, *others = (folder / "test" / "b").iterdir()
        for path in others:
            path.unlink()
        truncate(first)
        with (
            pytest.warns(TransferscopeWarning, match="1 images are left out"),
            pytest.raises(InputError, match=r"target 'data': no sound image is left to test on in b"),
        ):
            measure(zoo, target=folder, samples_per_class=("all",))
        assert not os.path.exists("out")

    def test_many_broken_images_are_an_error(self, zoo, folder):
        for path in sorted((folder / "train" / "b").iterdir())[:3]:
            truncate(path)
        with pytest.raises(InputError, match=r"target 'data': 3 of 48 images are broken, over 5%: train/b/.*repair"):
            measure(zoo, target=folder, samples_per_class=("all",))

    def test_a_class_with_few_images_gives_all_it_has(self, zoo):
        images, labels = noise(48)
        keep = np.flatnonzero((labels != 2) | (np.arange(48) < 9))  # three of class 2
        runs = measure(zoo[:1], target=(images[keep], labels[keep]), samples_per_class=(5,)).runs
        assert list(runs["samples"]) == [5 + 5 + 2]
        assert list(runs["samples_per_class"]) == [5]
        keep = np.flatnonzero((labels != 2) | (np.arange(48) < 3))
        with (
            pytest.warns(TransferscopeWarning, match="single image"),
            pytest.raises(InputError, match=r"classes have one image only.*: 2$"),
        ):
            measure(zoo[:1], "other", target=(images[keep], labels[keep]))

    def test_more_images_than_there_are_is_all_and_is_said(self, zoo):
        with pytest.warns(TransferscopeWarning, match=r"No class has more than 12 images .*50"):
            runs = measure(zoo[:1], samples_per_class=(50,)).runs
        assert list(runs["samples_per_class"]) == [12]

    def test_a_class_without_test_images_does_not_count_in_the_balanced_accuracy(self, zoo, folder):
        for path in (folder / "test" / "b").iterdir():
            path.unlink()
        with pytest.warns(TransferscopeWarning, match="no test image.*b"):
            runs = measure(zoo, target=folder, protocols=("truncate", "finetune")).runs
        assert (runs["status"] == "done").all()
        assert runs["balanced_accuracy"].between(0, 1).all()


class TestGoingOn:
    def test_the_same_seed_gives_the_same_table_and_a_second_call_runs_nothing(self, zoo, monkeypatch):
        options = {"protocols": EVERYTHING, "samples_per_class": (5,)}
        measure(zoo[:1], **options)
        measure(zoo[:1], "again", **options)
        pd.testing.assert_frame_equal(read()[RESULTS], read("again")[RESULTS])
        before = Path("out/runs.csv").read_bytes()
        monkeypatch.setattr(Executor, "execute", never)
        result = measure(zoo[:1], **options)
        assert Path("out/runs.csv").read_bytes() == before
        assert len(result.runs) == len(read())

    def test_the_global_random_state_is_left_alone(self, zoo):
        torch.manual_seed(3)
        np.random.seed(3)  # noqa: NPY002
        before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        measure(zoo[:1], protocols=EVERYTHING)
        assert torch.equal(torch.get_rng_state(), before)
        np.testing.assert_array_equal(np.random.get_state()[1], before_numpy)  # noqa: NPY002

    def test_a_grid_that_grows_keeps_its_rows_and_ends_as_if_begun_so(self, zoo, monkeypatch):
        protocols = ("truncate", "scratch")
        executed = []
        real = Executor.execute
        monkeypatch.setattr(Executor, "execute", lambda self, runs, *r: executed.extend(runs) or real(self, runs, *r))
        steps = [
            (zoo[:1], {"samples_per_class": (2,)}, 2),
            (zoo[:1], {"samples_per_class": (2, 5)}, 2),
            # Scratch of the second source is that of the first one.
            (zoo, {"samples_per_class": (2, 5)}, 2),
            (zoo, {"samples_per_class": (2, 5), "seeds": 2}, 6),
            (zoo, {"samples_per_class": (2, 5), "seeds": 2, "depths": (3, -1)}, 8),
        ]
        lines = []
        for sources, options, new in steps:
            executed.clear()
            result = measure(sources, **{"protocols": protocols, **options})
            assert len(executed) == new
            now = Path("out/runs.csv").read_text(encoding="utf-8").splitlines()
            assert now[: len(lines)] == lines
            lines = now
        measure(zoo, "at once", protocols=protocols, samples_per_class=(2, 5), seeds=2, depths=(3, -1))
        pd.testing.assert_frame_equal(read()[RESULTS], read("at once")[RESULTS])
        assert len(result.runs) == len(lines) - 1
        # What is asked for less of is returned less of, and stays in the table.
        assert len(measure(zoo[:1], protocols=("truncate",)).runs) == 1
        assert len(read()) == len(lines) - 1

    def test_scratch_is_trained_once_for_an_architecture(self, zoo, weights, monkeypatch):
        calls = []
        real = finetuning.train
        monkeypatch.setattr(finetuning, "train", lambda *args, **rest: calls.append(args) or real(*args, **rest))
        third = entry("third", "wider")
        measure([*zoo, third], protocols=("scratch",))
        assert len(calls) == 2
        table = read().set_index("source")
        assert list(table.index) == ["first", "second", "third"]
        pd.testing.assert_series_equal(table.loc["first"], table.loc["second"], check_names=False)
        assert table["flops"]["third"] != table["flops"]["first"]
        # Also when the one that was measured is now named second.
        new = entry("new", checkpoint=weights / "1.safetensors")
        measure([new, zoo[1]], protocols=("scratch",))
        assert len(calls) == 2
        assert read().set_index("source")["seconds"]["new"] == table["seconds"]["second"]

    def test_a_changed_setting_begins_a_new_table_and_keeps_the_old_one(self, zoo):
        measure(zoo)
        before = Path("out/runs.csv").read_bytes()
        with pytest.warns(TransferscopeWarning, match=r"cannot be resumed: the settings have changed .*epochs"):
            measure(zoo, epochs=2)
        assert Path("out/runs-1.csv").read_bytes() == before
        assert len(read()) == 2

    @pytest.mark.parametrize(
        ("data", "reason"),
        [(b"a,b\n1,2\n", "other columns"), (b"\xff\x00\n", "cannot be read"), (None, "row that is not a run")],
    )
    def test_a_foreign_or_corrupt_table_is_set_aside(self, zoo, data, reason):
        measure(zoo)
        if data is None:
            data = Path("out/runs.csv").read_bytes().replace(b"done", b"gone")
        Path("out/runs.csv").write_bytes(data)
        with pytest.warns(TransferscopeWarning, match=reason):
            assert len(measure(zoo).runs) == 2
        assert Path("out/runs-1.csv").read_bytes() == data

    def test_after_an_interruption_it_ends_as_if_there_had_been_none(self, zoo, monkeypatch):
        monkeypatch.setattr(resuming, "INTERVAL_S", 0)
        options = {"protocols": ("truncate", "reinit", "finetune"), "samples_per_class": (2, 5), "epochs": 3}
        measure(zoo[:1], "undisturbed", **options)
        real, count = Executor._train, iter(range(100))

        def interrupted(self, run, meter, on_epoch):
            def stop(done, _total):
                if done == 2 and next(count) in (1, 3):
                    raise KeyboardInterrupt

            return real(self, run, meter, stop)

        monkeypatch.setattr(Executor, "_train", interrupted)
        for rows in (3, 5):
            with pytest.raises(KeyboardInterrupt):
                measure(zoo[:1], **options)
            assert len(read()) == rows
            assert len(os.listdir("out/.states")) == 1
        assert len(measure(zoo[:1], **options).runs) == 6
        pd.testing.assert_frame_equal(read()[RESULTS], read("undisturbed")[RESULTS])
        assert not os.path.exists("out/.states")
        assert not os.path.exists("undisturbed/.states")

    def test_the_time_budget_stops_it_and_says_what_is_left(self, zoo, caplog):
        with caplog.at_level("INFO", "transferscope"):
            assert len(measure(zoo, seeds=3, time_budget=1e-9).runs) == 0
        assert "The time is up; 6 runs are left." in caplog.text
        assert len(measure(zoo, seeds=3, time_budget=60.0).runs) == 6
        caplog.clear()
        with caplog.at_level("INFO", "transferscope"):
            measure(zoo, seeds=3, time_budget=1e-9)
        assert "6 of 6 runs are in" in caplog.text
        assert "left" not in caplog.text


class TestFailures:
    def test_a_source_that_cannot_be_loaded_is_listed_and_the_others_run(self, zoo):
        result = measure([entry("bad", "broken"), entry("gone", checkpoint="nowhere.safetensors"), *zoo])
        assert [failure.source for failure in result.failed] == ["bad", "gone"]
        assert "factory went wrong" in result.failed[0].error
        assert "nowhere.safetensors" in result.failed[1].error
        assert set(result.runs["source"]) == {"first", "second"}
        with pytest.raises(SourceError, match=r"No source could be loaded. bad: .*factory went wrong"):
            measure([entry("bad", "broken")])

    def test_what_fails_is_a_row_with_one_line_and_the_others_go_on(self, zoo, caplog):
        protocols = ("truncate", "nearest_mean", "finetune")
        result = measure([entry("chokes", "chokes"), zoo[0]], protocols=protocols, seeds=2)
        table = read().set_index("source")
        failed = table.loc["chokes"]
        assert len(failed) == 6
        assert set(failed["status"]) == {
            f"failed: Chokes, given {n}×3×16×16: RuntimeError: [x] of two lines" for n in (4, 12)
        }  # fmt: skip
        for name in COLUMNS[9:-1]:
            assert set(failed[name]) == {""}
        assert (table.loc["first"]["status"] == "done").all()
        assert len(result.failed_runs) == 6
        assert caplog.text.count("two lines") == 2, "once for each number of images, not for every run"
        # Features that cannot be computed are tried once; each training run is tried.
        calls = Path("calls.txt").read_text(encoding="utf-8").split()
        # One and two images show how a network works, four whether it gives the same again.
        assert [call for call in calls if call not in ("1", "2")] == ["4", "12", "12"]

    def test_what_failed_is_run_again_only_when_asked(self, zoo, monkeypatch):
        def fails(*_args):
            raise SourceError("a bad day")

        with monkeypatch.context() as context:
            context.setattr(Executor, "_fit_head", fails)
            assert set(measure(zoo).runs["status"]) == {"failed: a bad day"}
        with monkeypatch.context() as context:
            context.setattr(Executor, "execute", never)
            assert len(measure(zoo).failed_runs) == 2
        assert set(measure(zoo, retry_failed=True).runs["status"]) == {"done"}
        assert len(measure(zoo, retry_failed=True).runs) == 2

    def test_training_that_diverges_is_a_failed_row(self, zoo):
        result = measure(zoo[:1], protocols=("finetune", "truncate"), learning_rates=(1e30,))
        table = result.runs.set_index("protocol")
        assert table["status"]["finetune"].startswith("failed: Training diverged in epoch 1")
        assert table["status"]["truncate"] == "done"
        tried = measure(zoo[:1], "two rates", protocols=("finetune",), learning_rates=(1e30, 0.01)).runs
        # Without validation images the first rate is taken.
        assert tried["status"][0].startswith("failed: Training diverged")
        tried = measure(
            zoo[:1], "chosen", protocols=("finetune",), learning_rates=(1e30, 0.01), samples_per_class=(5,)
        ).runs
        assert (list(tried["trials"]), list(tried["status"])) == ([2], ["done"])

    def test_a_network_that_can_be_given_no_head_fails_where_it_has_to(self, zoo):
        with pytest.warns(TransferscopeWarning, match=r"two cannot be adapted by scratch \(.*linear classifier"):
            table = measure([entry("two", "two", layers=["stem"])], protocols=("truncate", "scratch")).runs
        assert table[["protocol", "status"]].to_numpy().tolist() == [["truncate", "done"]]
        nothing = pytest.raises(SourceError, match=r"Nothing is left to run\. two cannot be adapted by .*scratch")
        with pytest.warns(TransferscopeWarning, match="these runs are left out"), nothing:
            measure([entry("two", "two", layers=["stem"])], "other", protocols=("scratch",))
        assert not os.path.exists("other")

    def test_code_is_not_run_before_it_is_trusted(self, zoo):
        with pytest.raises(InputError, match="--trust-code"):
            measure(zoo, trust_code=False)
        assert not os.path.exists("out")

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"protocols": ()}, "`protocols` to name at least one of nearest_mean, truncate"),
            ({"protocols": ("truncat",)}, r"'truncat' \(did you mean 'truncate'\?\)"),
            ({"samples_per_class": ()}, "`samples_per_class` to list whole numbers above 0"),
            ({"samples_per_class": (0,)}, "`samples_per_class` to list whole numbers above 0"),
            ({"samples_per_class": ("2",)}, "`samples_per_class` to list whole numbers above 0"),
            ({"samples_per_class": 5}, "`samples_per_class` to list whole numbers above 0"),
            ({"depths": (99,)}, "`depths` to lie between 0 and .* at most 8"),
            ({"depths": 3}, "`depths` to be 'all' or to list whole numbers, but got 3"),
            ({"depths": (0,)}, "`depths` to hold at least one above 0"),
            ({"seeds": 0}, "`seeds` to be a whole number of at least 1, but got 0"),
            ({"seeds": 1.5}, "`seeds` to be a whole number"),
            ({"seeds": True}, "`seeds` to be a whole number of at least 1, but got True"),
            ({"samples_per_class": (True,)}, r"`samples_per_class` to list .* got \(True,\)"),
            ({"depths": (True,)}, r"`depths` to be .* got \(True,\)"),
            ({"epochs": True}, "`epochs` to be a whole number of at least 1, but got True"),
            ({"jobs": 0}, "`jobs` to be a whole number of at least 1, but got 0"),
            ({"test_samples": 0}, "`test_samples` to be a whole number of at least 1"),
            ({"optimiser": "adam"}, "`optimiser` to be one of sgd, adamw"),
            ({"epochs": 0}, "`epochs` to be a whole number of at least 1"),
            ({"min_steps": -1}, "`min_steps` to be a whole number of at least 0"),
            ({"learning_rates": (-1.0,)}, "`learning_rate` to be positive"),
            ({"country": "XYZ"}, "`country` to be 'world' or .* 'XYZ'"),
            ({"batch_size": 0}, "`batch_size` to be a whole number"),
        ],
    )
    def test_wrong_arguments_are_named_and_nothing_is_written(self, zoo, options, said):
        with pytest.raises(InputError, match=said):
            measure(zoo, **options)
        assert not os.path.exists("out")

    def test_a_result_that_cannot_be_written_stops_it_and_what_was_recorded_stays(self, zoo, monkeypatch):
        from transferscope.verbs.measure import runs

        real, calls = runs.append_phases, []

        def full(path, rows):
            calls.append(rows)
            if len(calls) == 2:
                raise OSError(28, "No space left on device")
            return real(path, rows)

        monkeypatch.setattr(runs, "append_phases", full)
        with pytest.raises(TransferscopeError, match=r"No space left on device.*goes on from there"):
            measure(zoo, seeds=2)
        assert len(read()) == 1
        assert len(measure(zoo, seeds=2).runs) == 4


class TestEstimate:
    def test_it_counts_what_is_missing_and_writes_nothing(self, zoo, house):
        before = set(os.listdir(house))
        options = {"protocols": EVERYTHING, "samples_per_class": (2, 5)}
        found = planned(zoo, **options).estimate()
        assert set(os.listdir(house)) - before <= {"home"}, "which is the cache"
        table = found.table.set_index(["source", "protocol"])
        assert table["runs"]["first"].to_dict() == {
            "(features)": 0, "nearest_mean": 2, "truncate": 2, "svm": 2, "toptuning": 2, "fne": 8, "reinit": 2,
            "finetune": 2, "defrost": 2, "surgical": 2, "scratch": 2,
        }  # fmt: skip
        assert "scratch" not in table.loc["second"].index, "that of the first one is copied"
        assert found.runs == table["runs"].sum() == 26 + 24
        assert (table["seconds"] > 0).all()
        assert found.seconds == pytest.approx(table["seconds"].sum())
        assert planned(zoo, **options, jobs=2).estimate().table["runs"].sum() == 50

    def test_more_images_and_epochs_take_longer(self, zoo, monkeypatch):
        from transferscope.verbs.running import speed

        monkeypatch.setattr(speed.Speed, "_per_image", lambda *_: 1.0)
        few, many, long = (
            planned(zoo[:1], protocols=("scratch", "reinit"), **options).estimate().seconds
            for options in ({"samples_per_class": (2,)}, {"samples_per_class": (8,)}, {"epochs": 3})
        )
        steady = planned(zoo[:1], protocols=("scratch", "reinit"), samples_per_class=(2,), min_steps=9).estimate()
        assert steady.seconds == pytest.approx(long), "six images are three steps an epoch"
        assert many == pytest.approx(4 * few)
        assert long == pytest.approx(3 * few), "as many views of a frozen prefix as epochs"
        more, most = (planned(zoo[:1], protocols=("reinit",), epochs=epochs).estimate().seconds for epochs in (16, 32))
        assert more == most, "but no more than 16, and behind the last stage there is nothing else"
        two = planned(zoo[:1], protocols=("scratch", "reinit"), learning_rates=(0.1, 0.2)).estimate().seconds
        assert two == pytest.approx(2 * few)

    def test_what_is_there_is_not_counted_and_stays_byte_for_byte(self, zoo, house, caplog):
        measure(zoo, protocols=("truncate", "scratch"))
        before = contents(house / "out")
        assert planned(zoo, protocols=("truncate", "scratch")).estimate().runs == 0
        assert planned(zoo, protocols=("truncate", "scratch"), seeds=2).estimate().runs == 3
        with caplog.at_level("INFO", "transferscope"):
            assert planned(zoo, protocols=("truncate", "scratch"), epochs=2).estimate().runs == 3
        assert "would be set aside: the settings have changed" in caplog.text
        assert contents(house / "out") == before

    def test_a_source_that_would_fail_is_said_to(self, zoo, caplog):
        sources = [
            entry("two", "two", layers=["stem"]),
            entry("chokes", "chokes", layers=["stem"], transform={"size": 24}),
        ]
        with pytest.warns(TransferscopeWarning, match="two cannot be adapted by scratch"):
            found = planned(sources, protocols=("truncate", "scratch")).estimate()
        assert found.runs == 3
        table = found.table.set_index(["source", "protocol"])["seconds"]
        assert table["two", "truncate"] > 0
        assert ("two", "scratch") not in table.index
        assert table["chokes", "scratch"] == 0
        assert re.search(r"chokes cannot be timed: Chokes, given \d+×3×24×24: RuntimeError: .x. of two", caplog.text)


class TestTogether:
    def together(self, grid, folder):
        setup = replace(grid.executor.setup, together=True)
        return replace(grid, folder=Path(folder), executor=Executor(setup)).run().runs

    def test_seeds_that_are_trained_together_end_as_alone_and_share_the_costs(self, zoo, monkeypatch):
        grid = planned(zoo[:1], protocols=("reinit", "surgical", "scratch"), seeds=2, samples_per_class=(5,))
        alone = grid.run().runs
        real = Executor._train
        trained = []
        monkeypatch.setattr(Executor, "_train", lambda self, run, *r: trained.append(run) or real(self, run, *r))
        found = self.together(grid, "together")
        assert {run.protocol for run in trained} == {"surgical"}, "each has rates of its own"
        assert found[IDENTITY].equals(alone[IDENTITY])
        for name in ("samples", "flops", "trials", "status"):
            assert found[name].equals(alone[name])
        np.testing.assert_allclose(found["accuracy"], alone["accuracy"], atol=0.1)
        assert list(found.groupby("protocol")["seconds"].nunique()) == [1, 1, 2]

    def test_what_cannot_be_trained_together_is_trained_alone(self, zoo, monkeypatch):
        grid = planned(zoo[:1], protocols=("reinit",), seeds=2)
        alone = grid.run().runs

        def fails(*_args, **_options):
            raise RuntimeError("vmap does not know this operation")

        monkeypatch.setattr(finetuning, "train_together", fails)
        assert self.together(grid, "together")[RESULTS].equals(alone[RESULTS])


class TestSideBySide:
    @pytest.mark.usefixtures("forked")
    def test_two_processes_give_the_table_of_one_and_one_that_dies_costs_only_its_run(self, zoo, house, monkeypatch):
        options = {"protocols": ("truncate", "finetune"), "samples_per_class": (5,)}
        zoo[0]["factory"] = zoo[0]["factory"].replace("build", "warns")
        measure(zoo, "one", **options)
        monkeypatch.setenv("TRANSFERSCOPE_HOME", str(house / "another cache"))
        monkeypatch.setattr(crew, "TRIES", 2)  # each more takes as long as starting a process
        with pytest.warns(TransferscopeWarning, match="said in another process"):
            measure([*zoo, entry("dies", "dies")], "two", **options, jobs=2)
        table = read("two")
        assert len(table) == 6
        assert dict(table[table["source"] == "dies"][["protocol", "status"]].to_numpy()) == {
            "truncate": "done",
            "finetune": "failed: its process died, for lack of memory most likely: use fewer jobs or a smaller batch",
        }
        ours = table[table["source"] != "dies"].reset_index(drop=True)
        theirs = read("one")
        assert set(ours["status"]) == {"done"}
        same = [*IDENTITY, "samples", "trials"]
        assert ours[same].astype(str).equals(theirs[same].astype(str))
        # Side by side each process has fewer threads: rounding, and so a test image of twelve, may differ.
        for name, tolerance in (("accuracy", 0.1), ("flops", 0)):
            np.testing.assert_allclose(ours[name].astype(float), theirs[name].astype(float), rtol=0, atol=tolerance)
        assert not os.path.exists("two/.states")

    def test_a_script_without_a_main_part_is_told(self, zoo, house):
        call = f"ts.measure('data', {zoo!r}, 'out', jobs=2, **{DEFAULTS!r})"
        images, labels = noise(24)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = house / "data" / "abc"[label] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-"], input=f"import transferscope as ts\n{call}\n", text=True, capture_output=True,
            timeout=100, check=False,
        )  # fmt: skip
        assert time.monotonic() - started < 60
        assert "TransferscopeError: The 2 processes for `jobs` cannot be started" in done.stderr
        assert not os.path.exists("out/.states")
        assert len(read()) == 0

    def test_a_target_that_cannot_be_sent_is_said_to_be(self, zoo):
        class Local(torch.utils.data.Dataset):
            def __len__(self):
                return 24

            def __getitem__(self, index):
                return Image.fromarray(noise(24)[0][index]), int(index % 3)

        with pytest.raises(InputError, match=r"`jobs`.*use jobs=1"):
            measure(zoo, target=Local(), jobs=2)
        assert len(measure(zoo, target=Local()).runs) == 2
