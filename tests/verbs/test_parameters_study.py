"""`ts.parameters.measure` and the verb: what is fine-tuned, what T is compared at, what is kept and what goes wrong."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import transferscope as ts
from transferscope.cli import run
from transferscope.data.splits import draw, hold_out
from transferscope.errors import InputError, SourceError, TransferscopeWarning
from transferscope.networks import CompactResNet
from transferscope.protocols.cutting.cut import cut
from transferscope.protocols.training.recipe import Recipe
from transferscope.protocols.training.single import evaluate, fit
from transferscope.verbs.parameters import study
from transferscope.verbs.parameters.moving import Mover

FACTORY = """
from transferscope.networks import CompactResNet

print('a factory says hello')

def build():
    return CompactResNet(3, width=4, stem_stride=2)

def bad():
    raise RuntimeError('[no] way')
"""
LAYERS = ["stem.0", *(f"blocks.{i}" for i in range(6))]
RECIPE = Recipe(epochs=3, batch_size=6, learning_rate=0.05, schedule="constant")
SMALL = {"recipe": RECIPE, "samples_per_class": (4,), "device": "cpu", "trust_code": True, "redraws": 2}

# A dozen steps from random weights teach nobody much.
pytestmark = pytest.mark.filterwarnings("ignore:.* that of guessing")


@pytest.fixture(autouse=True)
def house(home, quiet, tmp_path, monkeypatch):
    """Give each test a working folder with two targets and two sources."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for target, step in (("colours", 1), ("shades", 3)):
        for label, name in enumerate(["a", "b", "c"]):
            folder = tmp_path / target / name
            folder.mkdir(parents=True)
            for i in range(12):
                pixels = rng.integers(0, 160, (16, 16, 3), dtype=np.uint8)
                pixels[::step, :, label] += 80
                Image.fromarray(pixels).save(folder / f"{i}.png")
    Path("nets.py").write_text(FACTORY)
    for name, seed in (("initial", 100), ("given", 101), ("other", 102)):
        torch.manual_seed(seed)
        save_file(CompactResNet(3, width=4, stem_stride=2).state_dict(), f"{name}.safetensors")
    write_zoo({"name": "given", "initial": "initial.safetensors"}, {"name": "other", "images": "shades"})


def write_zoo(*sources):
    """Write zoo.yaml; a source is what differs from a network whose checkpoint is called as it is."""
    entries = [
        {
            "loader": "python", "factory": "nets.py:build", "checkpoint": f"{source['name']}.safetensors",
            "transform": {"size": 16, "mean": [0.5] * 3, "std": [0.5] * 3}, **source,
        }
        for source in sources
    ]  # fmt: skip
    Path("zoo.yaml").write_text(json.dumps({"version": 1, "sources": entries}))


def measure(targets="colours", zoo="zoo.yaml", **options):
    return ts.parameters.measure(targets, zoo, **{**SMALL, **options})


def by_hand(epochs, seed=0, per_class=4):
    """Fine-tune the given source on colours through the public parts alone; return the network and its accuracy."""
    target, source = ts.load_target("colours"), ts.load_zoo("zoo.yaml")["given"]
    pool, test = hold_out(target, most=500, seed=0)
    indices = pool[draw(target.labels[pool], per_class, seed)]
    net = cut(source, 0, "defrost", 3, seed=seed, trust_code=True)
    images = [torch.stack([net.transform(target.image(i)) for i in part]) for part in (indices, test)]
    labels = [torch.from_numpy(target.labels[part]) for part in (indices, test)]
    fit(net, images[0], labels[0], None, recipe=Recipe(**{**vars(RECIPE), "epochs": epochs}), seed=seed)
    return net.rest, evaluate(net, images[1], labels[1])[1]


def published(net):
    """T of the layers, from the weights alone."""
    return ts.parameters.transferability(load_file("initial.safetensors"), load_file("given.safetensors"), net)


class TestNumbers:
    @pytest.fixture(scope="class")
    @classmethod
    def once(cls, tmp_path_factory):
        return tmp_path_factory.mktemp("home")

    @pytest.fixture(autouse=True)
    def home(self, once, monkeypatch):
        """One cache for all: most of them look at the same runs."""
        monkeypatch.setenv("TRANSFERSCOPE_HOME", str(once))
        return once

    def test_at_the_end_t_is_that_of_the_fine_tuned_weights(self):
        found = measure()
        net, accuracy = by_hand(epochs=3)
        rows = found.layers.query("source == 'given' and criterion == 'epochs'")
        assert rows["layer"].tolist() == LAYERS
        np.testing.assert_allclose(rows["transferability"], published(net), rtol=1e-6)
        run = found.runs.query("source == 'given' and criterion == 'epochs'").iloc[0]
        assert run["transferability"] == pytest.approx(published(net).attrs["mean"])
        assert run["accuracy"] == accuracy
        assert run["step"] == 12  # 3 epochs of 12 images, in batches of a quarter of them at most
        shorter = measure(recipe=None, epochs=2).runs.query("criterion == 'epochs'")
        assert set(shorter["step"]) == {8}  # as many epochs as were asked for, few as these steps are
        change = {
            layer: [
                (net.state_dict()[key] - tensor, tensor)
                for key, tensor in load_file("given.safetensors").items()
                if key.startswith(layer) and tensor.ndim == 4
            ]
            for layer in LAYERS
        }
        expected = [
            math.sqrt(sum(float((moved**2).sum()) for moved, _ in pairs) / sum(float((w**2).sum()) for _, w in pairs))
            for pairs in change.values()
        ]
        np.testing.assert_allclose(rows["relative_change"], expected, rtol=1e-5)

    def test_matched_steps_are_those_of_a_shorter_training(self):
        found = measure(samples_per_class=(4, 8))
        fewest = int(found.runs.query("criterion == 'epochs'")["step"].min())
        assert found.settings["matched_steps"] == fewest
        rows = found.layers.query("source == 'given' and criterion == 'steps'")
        assert set(rows["step"]) == {fewest}
        small = rows.query("samples_per_class == 4")["transferability"]
        net, _ = by_hand(epochs=3)
        np.testing.assert_allclose(small, published(net), rtol=1e-6)
        assert not np.allclose(small, rows.query("samples_per_class == 8")["transferability"])

    def test_every_run_reaches_the_matched_loss_unless_it_is_given(self):
        found = measure(samples_per_class=(4, 8), seeds=2)
        at_loss = found.runs.query("criterion == 'loss'")
        assert at_loss["transferability"].notna().all()
        np.testing.assert_allclose(at_loss["loss"], found.settings["matched_loss"])
        never = measure(loss=1e-9)
        rows = never.layers.query("criterion == 'loss'")
        assert rows["transferability"].isna().all()
        assert rows["reason"].str.contains("training ended before the loss").all()
        assert never.layers.query("criterion == 'epochs'")["transferability"].notna().all()

    def test_steps_beyond_the_end_are_not_made_up(self):
        found = measure(steps=1000).runs.set_index(["source", "criterion"])
        assert math.isnan(found.loc[("given", "steps"), "transferability"])
        assert found.loc[("given", "epochs"), "transferability"] > 0

    def test_redrawn_initial_weights_have_a_spread_and_say_so(self):
        found = measure()
        rows = found.layers.query("criterion == 'epochs'").set_index("source")
        assert rows.loc["given", "spread"].isna().all()
        assert (rows.loc["other", "spread"] > 0).all()
        assert found.settings["initial"]["given"] == "given: initial.safetensors"
        assert "seeds 1000 to 1001" in found.settings["initial"]["other"]

    def test_the_domain_gap_needs_images_of_the_source(self):
        runs = measure().runs.set_index("source")
        assert runs.loc["given", ["frechet", "mmd"]].isna().all(axis=None)
        assert runs.loc["other", "frechet"].gt(0).all()
        assert runs[["within", "between"]].gt(0).all(axis=None)

    def test_the_trajectory_ends_in_the_table(self):
        found = measure()
        path = found.trajectory.query("source == 'given'")
        end = found.layers.query("source == 'given' and criterion == 'epochs'")
        last = path[path["step"] == path["step"].max()]
        np.testing.assert_allclose(last["transferability"], end["transferability"])
        assert last["epoch"].unique() == [3.0]
        first = path[path["step"] == 1]["transferability"].to_numpy()
        assert (first > last["transferability"].to_numpy()).all()

    def test_same_seed_same_answer_and_what_is_done_is_not_done_again(self, monkeypatch):
        found = measure(["colours", "shades"])
        with monkeypatch.context() as context:
            context.setattr(Mover, "_move", None)
            again = measure(["colours", "shades"])
        pd.testing.assert_frame_equal(again.layers, found.layers)
        pd.testing.assert_frame_equal(again.trajectory, found.trajectory)
        monkeypatch.setenv("TRANSFERSCOPE_HOME", "elsewhere")
        pd.testing.assert_frame_equal(measure(["colours", "shades"]).layers, found.layers)

    def test_every_weight_by_itself(self):
        rows = measure(groups="tensor").layers.query("source == 'given' and criterion == 'epochs'")
        assert rows["layer"].tolist()[:3] == ["stem.0", "blocks.0.conv1", "blocks.0.conv2"]
        assert len(rows) == 15
        assert rows["cka"].between(0, 1.01).all()


class TestFailures:
    def test_a_source_that_cannot_be_loaded_costs_no_other(self):
        write_zoo({"name": "given", "initial": "initial.safetensors"}, {"name": "worse", "factory": "nets.py:bad"})
        found = measure()
        assert set(found.runs["source"]) == {"given"}
        assert [failure.source for failure in found.failed] == ["worse"]
        write_zoo({"name": "worse", "factory": "nets.py:bad"})
        with pytest.raises(SourceError, match=r"No fine-tuning came to its end. worse: .*\[no\] way"):
            measure()

    def test_a_run_that_diverges_costs_no_other(self, monkeypatch):
        follow = Mover._move

        def diverging(self, wanted, bank, report):
            if wanted.seed == 1:
                raise SourceError("Training diverged")
            return follow(self, wanted, bank, report)

        monkeypatch.setattr(Mover, "_move", diverging)
        found = measure(seeds=2)
        assert set(found.runs["seed"]) == {0}
        assert [failure.source for failure in found.failed] == [
            "given on colours, 4 a class, seed 1", "other on colours, 4 a class, seed 1",
        ]  # fmt: skip

    def test_nothing_learnt_is_said(self):
        write_zoo({"name": "given", "initial": "initial.safetensors"})
        with pytest.warns(TransferscopeWarning, match=r"given on colours, 4 a class, seed 0: .* that of guessing"):
            measure(recipe=replace(RECIPE, epochs=1, learning_rate=1e-9))

    def test_an_interrupt_keeps_what_is_finished(self, monkeypatch):
        moved = []
        move = Mover._move

        def interrupted(self, wanted, bank, report):
            if moved:
                raise KeyboardInterrupt
            moved.append(wanted)
            return move(self, wanted, bank, report)

        monkeypatch.setattr(Mover, "_move", interrupted)
        with pytest.raises(KeyboardInterrupt):
            measure(seeds=2)
        counted = []
        monkeypatch.setattr(Mover, "_move", lambda self, *more: counted.append(1) or move(self, *more))
        measure(seeds=2)
        assert len(counted) == 3

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"loss": 1.5}, r"`loss` to be a share .* in \(0, 1\), but got 1.5"),
            ({"steps": 0}, "`steps` to be a whole number of at least 1, but got 0"),
            ({"redraws": 0}, "`redraws`"),
            ({"seeds": 0}, "`seeds`"),
            ({"samples_per_class": (0,)}, "`samples_per_class`"),
            ({"groups": "blocks"}, "groups"),
            ({"recipe": None, "optimiser": "adam"}, "`optimiser` to be one of sgd, adamw, but got 'adam'"),
            ({"recipe": None, "learning_rate": -1.0}, "`learning_rate`"),
            ({"trust_code": False}, "--trust-code"),
        ],
    )
    def test_bad_arguments_are_named(self, options, message):
        with pytest.raises(InputError, match=message):
            measure(**options)

    def test_targets_need_names_of_their_own(self):
        with pytest.raises(InputError, match=r"`targets` .* got \['colours', 'colours'\]"):
            measure(["colours", "colours"])
        with pytest.raises(InputError, match="`targets`"):
            measure([])


VERB = [
    "parameters", "--target", "colours", "--sources", "zoo.yaml", "--trust-code", "--device", "cpu", "-o", "out",
    "--samples-per-class", "4", "--epochs", "1", "--redraws", "2",
]  # fmt: skip


@pytest.fixture
def unsaved(monkeypatch):
    """Leave out the files, which take longest, where they are not the point."""
    monkeypatch.setattr("transferscope.results.parameters.ParameterTransfer.save", lambda _self, _folder: [])


class TestVerb:
    def test_json_alone_on_stdout_and_the_files(self, capfd):
        assert run([*VERB, "--format", "json"]) == 0
        out, err = capfd.readouterr()
        json.loads(out)
        assert "a factory says hello" in err
        assert "Wrote " in err
        written = {path.name for path in Path("out").iterdir()}
        assert {"parameters.json", "parameters.csv", "parameters.nc", "trajectory.csv"} <= written
        assert any(name.endswith(".png") for name in written)

    @pytest.mark.usefixtures("unsaved")
    def test_the_table_is_for_people_and_quiet_says_nothing_else(self, capsys):
        Path("nets.py").write_text(FACTORY.replace("print", "str"))
        assert run([*VERB, "-q"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        for word in ("given", "blocks.5", "initial.safetensors", "redrawn"):
            assert word in out

    @pytest.mark.usefixtures("unsaved")
    def test_failures_are_exit_code_3(self, capsys):
        write_zoo({"name": "given"}, {"name": "worse", "factory": "nets.py:bad"})
        assert run(VERB) == 3
        assert "worse" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--target", "nowhere"], "nowhere"),
            (["--samples-per-class", "four"], "four"),
            (["--loss", "2"], "--loss"),
            (["--groups", "blocks"], "--groups"),
        ],
    )
    def test_bad_usage_is_exit_code_2_and_one_message(self, more, message, capsys):
        assert run([*VERB, *more]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert "Traceback" not in err

    def test_a_typo_in_the_zoo_is_named_with_its_line(self, capsys):
        write_zoo({"name": "given", "inital": "initial.safetensors"})
        assert run(VERB) == 2
        err = capsys.readouterr().err
        assert "zoo.yaml:1: sources[0] (given).inital: is not a known key (did you mean 'initial'?)" in err

    def test_ctrl_c_is_exit_code_130(self, monkeypatch, capsys):
        def interrupted(*_more, **_options):
            raise KeyboardInterrupt

        monkeypatch.setattr(study, "tabulate", interrupted)
        assert run(VERB) == 130
        assert "Interrupted" in capsys.readouterr().err
