import json
import math
import shutil
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
import pytest
import torch
import xarray as xr
from image_folders import write
from markupsafe import escape
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from scipy.special import logit

import transferscope as ts
from transferscope.errors import InputError, SourceError, TransferscopeWarning
from transferscope.networks import loading
from transferscope.networks.compact import CompactResNet
from transferscope.prediction.calibration import load_calibration
from transferscope.protocols.scratch import ScratchResult, compact_transform, split_probe
from transferscope.protocols.training.recipe import Recipe, TrainingRecord
from transferscope.report.terminal.ranking import print_ranking
from transferscope.runtime.progress import Reporter
from transferscope.runtime.store import Store, digest
from transferscope.verbs.layers import list_layers

RECIPE = Recipe(epochs=2)
TRANSFORM = {"size": 16, "mean": [0.5] * 3, "std": [0.25] * 3}
FACTORY = """
from torch import nn
from transferscope.networks import CompactResNet

def build(width=8):
    return CompactResNet(4, width=width)

def broken():
    raise RuntimeError("factory went wrong")

def quits():
    class Quits(CompactResNet):
        def forward(self, x):
            if len(x) > 1:
                raise SystemExit(9)
            return super().forward(x)
    return Quits(4, width=4)

def regroups():
    class Regroups(CompactResNet):
        def forward(self, x):
            return super().forward(x[: len(x) // 2 + 1])
    return Regroups(4, width=4)

def meddles():
    import torch
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    print("printed by a factory")
    return CompactResNet(4, width=4)

def hungry():
    class Hungry(CompactResNet):
        def forward(self, x):
            if len(x) > 1:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 1e12 bytes")
            return super().forward(x)
    return Hungry(4, width=4)
"""


@pytest.fixture
def zoo_folder(tmp_path):
    (tmp_path / "nets.py").write_text(FACTORY)
    torch.manual_seed(0)
    save_file(CompactResNet(4, width=8).state_dict(), tmp_path / "a.safetensors")
    return tmp_path


def entry(name, function="build", **more):
    return {"name": name, "loader": "python", "factory": f"nets.py:{function}", "transform": TRANSFORM, **more}


def write_zoo(folder, *entries):
    path = folder / "zoo.yaml"
    path.write_text(json.dumps({"version": 1, "sources": list(entries)}))
    return path


def rank(target, zoo, **options):
    options = {"device": "cpu", "samples": 40, "progress": False, "recipe": RECIPE, "trust_code": True, **options}
    return ts.rank(target, zoo, **options)


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """Return the cache of one call, with the scratch network of all that rank the same images in the same way."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "nets.py").write_text(FACTORY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRANSFERSCOPE_HOME", str(folder / "home"))
        rank(digits, write_zoo(folder, entry("a")), mode="quick")
    return folder / "home" / "reference"


@pytest.fixture(autouse=True)
def house(home, trained):
    """Begin each test with that network in its cache, for training it takes longest."""
    shutil.copytree(trained, home / "reference")


@pytest.fixture
def two(zoo_folder):
    return write_zoo(zoo_folder, entry("a", checkpoint="a.safetensors"), entry("b", kwargs={"width": 4}))


class TestRank:
    def test_every_source_is_ranked_at_its_best_cut_beside_scratch(self, digits, two):
        ranking = rank(digits, two, shots=10)
        assert ranking.expected_for == 40
        assert {pick.source for pick in ranking.recommendations} == {"a", "b", "scratch"}
        accuracies = [pick.expected_accuracy for pick in ranking.recommendations]
        assert accuracies == sorted(accuracies, reverse=True)
        for pick in ranking.recommendations:
            if pick.source == "scratch":
                assert (pick.depth, pick.layer, pick.protocol) == (0, None, "scratch")
                assert pick.expected_accuracy == ranking.scores["scratch_expected_accuracy"]
                continue
            row = ranking.scores.sel(source=pick.source)
            best = row["expected_accuracy"].max()
            assert row["expected_accuracy"].sel(depth=pick.depth, protocol=pick.protocol) >= best - 0.005
            assert pick.layer == row["layer"].sel(depth=pick.depth)
            assert pick.depths == 8
            # The one that looks best is a little overrated, all alike.
            cut = row["expected_accuracy"].sel(depth=pick.depth, protocol=pick.protocol)
            moved = load_calibration().chosen.shift
            assert logit(pick.expected_accuracy) - logit(float(cut)) == pytest.approx(moved, abs=0.05)
            assert pick.reason.startswith(f"Expected to reach {pick.expected_accuracy:.3f} [")
        sizes = {"source": 2, "depth": 8, "reference_layer": 8, "protocol": 4}
        assert dict(ranking.scores.sizes) == sizes

    def test_accuracies_are_expected_for_all_images_of_the_target_unless_it_is_asked_for_fewer(self, digits, two):
        everything = rank(digits, two)
        assert everything.expected_for == len(ts.load_target(digits))
        few = rank(digits, two, shots=5)
        assert (few.expected_for, few.target.samples) == (20, 20)
        far = rank(digits, two, shots=100)
        assert (far.expected_for, far.target.samples) == (400, 40)
        assert far.scores["expected_accuracy"].mean() > few.scores["expected_accuracy"].mean()

    @pytest.mark.usefixtures("bare_page")
    def test_it_says_how_it_was_made_and_what_was_warned_of(self, digits, two, tmp_path):
        images, labels = digits
        for i, (image, label) in enumerate(zip(images[:40], labels[:40], strict=True)):
            (tmp_path / "data" / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / "data" / str(label) / f"{i}.png")
        (tmp_path / "data" / "0" / "broken.png").write_bytes(b"no picture")
        with pytest.warns(TransferscopeWarning, match=r"broken\.png"):
            ranking = rank(tmp_path / "data", two, shots=np.int64(5), seed=np.int64(3))
        (warning,) = (text for text in ranking.warnings if "broken.png" in text)
        made = ranking.provenance
        expected = {"seed": 3, "shots": 5, "samples": 40, "protocol": "any", "device": "cpu", "reference": "compact"}
        assert expected.items() <= made.settings.items()
        assert made.settings["recipe"] == asdict(RECIPE)
        assert torch.__version__.startswith(made.versions["torch"])
        zoo = ts.load_zoo(two)
        assert made.sources == {name: loading.fingerprint(zoo[name]) for name in ("a", "b")}
        assert made.command == ""
        ranking.save(tmp_path / "out")
        assert ts.load_ranking(tmp_path / "out").provenance == made
        page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        assert all(text in page for text in (made.sources["a"], ranking.target.hash, str(escape(warning))))

    def test_every_long_step_has_a_bar(self, tmp_path, two, monkeypatch):
        bars = {}

        class Recorder(Reporter):
            @contextmanager
            def bar(self, description):
                seen = bars.setdefault(description, [])
                yield lambda done, total: seen.append((done, total))

        for module in ("data.target", "verbs.bench"):
            monkeypatch.setattr(f"transferscope.{module}.Reporter", Recorder)
        rank(write(tmp_path / "data", "x*12", "y*12"), two)
        names = [
            "scratch reference",
            *(f"{name}{part}" for name in ("a (1 of 2)", "b (2 of 2)") for part in ("", ", scores")),
        ]
        assert list(bars) == ["reading images", "decoding images", *names]
        assert bars["reading images"] == [(i, 24) for i in range(24)]
        assert bars["decoding images"] == [(i, 24) for i in range(1, 25)]
        assert bars["a (1 of 2)"][-1] == (24, 24)
        assert bars["a (1 of 2), scores"] == [(i, 8) for i in range(8)]

    def test_one_protocol_alone_and_the_quick_mode(self, digits, two):
        truncated = rank(digits, two, protocol="truncate", mode="quick")
        assert {pick.protocol for pick in truncated.recommendations} == {"truncate", "scratch"}
        assert truncated.scores["expected_accuracy"].sizes["protocol"] == 1
        assert "hscore" not in truncated.scores
        everything = rank(digits, two)
        xr.testing.assert_equal(
            truncated.scores["expected_accuracy"], everything.scores["expected_accuracy"].sel(protocol=["truncate"])
        )
        with pytest.raises(InputError, match="no `scores` with `mode` 'quick'"):
            rank(digits, two, mode="quick", scores="all")

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ({"protocol": "finetun"}, "did you mean 'finetune'"),
            ({"objective": "speed"}, "`objective` to be one of accuracy,"),
            ({"mode": "fast"}, "`mode` to be one of default, quick"),
            ({"shots": 0}, "`shots` to be a whole number of images of each class, at least 1"),
            (
                {"shots": True},
                "`shots` to be a whole number of images of each class, at least 1, or None, but got True",
            ),
            ({"shots": 2.5}, "`shots` to be a whole number of images of each class, at least 1"),
        ],
    )
    def test_unknown_choices_are_errors_before_anything_is_trained(self, digits, two, option, message, monkeypatch):
        monkeypatch.setattr("transferscope.verbs.request.load_target", None)
        with pytest.raises(InputError, match=message):
            rank(digits, two, **option)

    def test_scores_are_those_of_the_features_one_would_compute_by_hand(self, digits, two):
        ranking = rank(digits, two)
        target = ts.load_target(digits)
        probe = target.probe(40, 0)
        from transferscope.data.images import Transform

        transform = Transform(**TRANSFORM)
        images = torch.stack([transform(probe.image(i)) for i in range(len(probe))])
        net = CompactResNet(4, width=8).eval()
        torch.manual_seed(0)
        net.load_state_dict(CompactResNet(4, width=8).state_dict())
        with torch.inference_mode():
            features = net.stem(images)
            for block in net.blocks[:3]:
                features = block(features)
            features = features.mean(dim=(2, 3)).double().numpy()
        row = ranking.scores.sel(source="a", depth=4)
        assert row["layer"] == "blocks.2"
        assert float(row["ridge"]) == pytest.approx(ts.transferability.ridge(features, probe.labels))
        assert float(row["logme"]) == pytest.approx(ts.transferability.logme(features, probe.labels), abs=1e-4)
        assert float(row["hscore"]) == pytest.approx(ts.transferability.hscore(features, probe.labels), abs=1e-3)

    def test_second_run_comes_from_the_cache_and_gives_the_same_bytes(self, digits, two, monkeypatch):
        first = rank(digits, two)

        def never(*_args, **_options):
            raise AssertionError("the cache was not used")

        monkeypatch.setattr("transferscope.networks.loading.load_network", never)
        monkeypatch.setattr("transferscope.protocols.scratch.train_from_scratch", never)
        monkeypatch.setattr("transferscope.verbs.rank.scorer.factor", never)
        monkeypatch.setattr("transferscope.verbs.rank.scorer.score_source", never)
        second = rank(digits, two)
        assert second.to_json() == first.to_json()
        assert second.failed == ()

    def test_same_seed_same_ranking_without_a_cache(self, digits, two, tmp_path, monkeypatch):
        first = rank(digits, two)
        monkeypatch.setenv("TRANSFERSCOPE_HOME", str(tmp_path / "other home"))
        assert rank(digits, two).to_json() == first.to_json()
        assert rank(digits, two, seed=1).to_json() != first.to_json()

    def test_a_changed_image_or_checkpoint_is_computed_again(self, digits, two, zoo_folder):
        first = rank(digits, two)
        images, labels = digits
        changed = images.copy()
        changed[:, 0, 0] = 255
        assert rank((changed, labels), two).target.hash != first.target.hash
        torch.manual_seed(5)
        save_file(CompactResNet(4, width=8).state_dict(), zoo_folder / "a.safetensors")
        again = rank(digits, two)
        assert not np.array_equal(again.scores["logme"].sel(source="a"), first.scores["logme"].sel(source="a"))
        np.testing.assert_array_equal(again.scores["logme"].sel(source="b"), first.scores["logme"].sel(source="b"))

    def test_the_global_random_state_is_left_alone(self, digits, two):
        torch.manual_seed(3)
        np.random.seed(3)  # noqa: NPY002
        before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        rank(digits, two)
        assert torch.equal(torch.get_rng_state(), before)
        np.testing.assert_array_equal(np.random.get_state()[1], before_numpy)  # noqa: NPY002

    def test_explicit_layers_are_the_depths(self, digits, zoo_folder):
        zoo = write_zoo(zoo_folder, entry("a", layers=["blocks.4", "blocks.1"]), entry("b"))
        scores = rank(digits, zoo).scores
        assert list(scores["layer"].sel(source="a").values) == ["blocks.1", "blocks.4", *[""] * 6]
        assert scores["ridge"].sel(source="a").notnull().sum() == 2


class TestFailures:
    def test_failing_sources_are_listed_and_the_others_ranked(self, digits, zoo_folder):
        weights = CompactResNet(4, width=8).state_dict()
        weights["blocks.2.bn1.bias"][0] = float("nan")
        save_file(weights, zoo_folder / "nan.safetensors")
        zoo = write_zoo(
            zoo_folder,
            entry("good"),
            entry("missing", checkpoint="nowhere.safetensors"),
            entry("nan", checkpoint="nan.safetensors"),
            entry("raises", "broken"),
            entry("hungry", "hungry"),
            entry("quits", "quits"),
            entry("regroups", "regroups"),
            entry("typo", layers=["blocks.77"]),
        )
        ranking = rank(digits, zoo)
        assert {pick.source for pick in ranking.recommendations} == {"good", "scratch"}
        errors = {failure.source: failure.error for failure in ranking.failed}
        assert set(errors) == {"missing", "nan", "raises", "hungry", "quits", "regroups", "typo"}
        assert "nowhere.safetensors" in errors["missing"]
        assert "'blocks.2.bn1' is NaN or infinite" in errors["nan"]
        assert "factory went wrong" in errors["raises"]
        assert "--batch-size" in errors["hungry"]
        assert "SystemExit: 9" in errors["quits"]
        assert "a row per image, but got 21 for 40" in errors["regroups"]
        assert "'blocks.77'" in errors["typo"]
        assert json.loads(ranking.to_json())["failed"] == [
            {"source": name, "error": errors[name]}
            for name in ("missing", "nan", "raises", "hungry", "quits", "regroups", "typo")
        ]

    def test_when_every_source_fails_there_is_no_ranking(self, digits, zoo_folder):
        with pytest.raises(SourceError, match=r"No source could be ranked.*factory went wrong"):
            rank(digits, write_zoo(zoo_folder, entry("raises", "broken")))

    def test_what_a_factory_changes_in_torch_does_not_reach_the_next_source(self, digits, zoo_folder):
        ranking = rank(digits, write_zoo(zoo_folder, entry("meddles", "meddles"), entry("next")))
        assert {pick.source for pick in ranking.recommendations} == {"meddles", "next", "scratch"}
        assert ranking.failed == ()
        assert torch.get_default_dtype() == torch.float32
        assert torch.is_grad_enabled()

    def test_an_interrupt_that_a_library_wrapped_is_still_an_interrupt(self, digits, two, monkeypatch):
        def wrapped(*_args, **_options):
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt as error:
                raise RuntimeError("in a lazy import") from error

        monkeypatch.setattr("transferscope.networks.loading.load_network", wrapped)
        with pytest.raises(KeyboardInterrupt):
            rank(digits, two)

    @pytest.mark.filterwarnings("ignore::transferscope.errors.TransferscopeWarning")
    def test_too_few_images_to_beat_guessing_are_said_to_be(self, digits, two):
        ranking = rank(digits, two, samples=8)
        assert ranking.scores.attrs["largest_class"] == 0.25
        best = ranking.best
        assert ("always guessing the largest class (0.250)" in ranking.verdict) == (best.interval[0] <= 0.25)

    def test_code_is_not_run_before_it_is_trusted(self, digits, two):
        with pytest.raises(InputError, match="--trust-code"):
            rank(digits, two, trust_code=False)

    @pytest.mark.parametrize("option", ["samples", "batch_size", "seed"])
    @pytest.mark.parametrize("value", [-1, None, "100", 8.0, 2**70, True])
    def test_wrong_numbers_name_the_argument(self, digits, two, option, value):
        with pytest.raises(InputError, match=f"`{option}` to be a whole number"):
            rank(digits, two, **{option: value})

    def test_an_interrupt_passes_through_and_the_next_run_completes(self, digits, two, monkeypatch):
        from transferscope.verbs import bench

        real = bench.source_features

        def interrupted(*args, **options):
            monkeypatch.setattr(bench, "source_features", real)
            raise KeyboardInterrupt

        monkeypatch.setattr(bench, "source_features", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rank(digits, two)
        assert len(rank(digits, two).recommendations) == 3


class TestReference:
    def test_own_architecture_is_trained_for_each_source(self, digits, two):
        ranking = rank(digits, two, reference="own")
        assert "own architecture" in ranking.reference.network
        # Two networks of one architecture have the same layers, so the similarity matrices are square.
        for source in ("a", "b"):
            names = ranking.scores["reference_layer_name"].sel(source=source).values
            np.testing.assert_array_equal(names, ranking.scores["layer"].sel(source=source).values)

    def test_a_source_of_the_zoo_as_reference_is_not_ranked_and_nothing_is_trained(self, digits, two, monkeypatch):
        monkeypatch.setattr("transferscope.protocols.scratch.train_from_scratch", None)
        ranking = rank(digits, two, reference="b")
        assert [pick.source for pick in ranking.recommendations] == ["a"]
        assert ranking.reference.held_out_accuracy is None
        assert ranking.reference.network == "b"

    def test_the_same_network_as_source_and_reference_is_similar_to_itself(self, digits, zoo_folder):
        same = {"checkpoint": "a.safetensors"}
        ranking = rank(digits, write_zoo(zoo_folder, entry("a", **same), entry("twin", **same)), reference="twin")
        np.testing.assert_allclose(np.diag(ranking.scores["linear_cka"].sel(source="a")), 1, atol=1e-6)
        np.testing.assert_allclose(np.diag(ranking.scores["svcca"].sel(source="a")), 1, atol=1e-6)

    def test_a_checkpoint_of_the_compact_network(self, digits, two, zoo_folder):
        ranking = rank(digits, two, reference=str(zoo_folder / "a.safetensors"))
        assert ranking.reference.network == "a.safetensors"
        assert {pick.source for pick in ranking.recommendations} == {"a", "b"}

    def test_a_checkpoint_of_another_network_says_what_was_expected(self, digits, two, tmp_path):
        save_file({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
        with pytest.raises(InputError, match=r"`reference`.*CompactResNet"):
            rank(digits, two, reference=str(tmp_path / "other.safetensors"))

    def test_a_reference_that_leaves_nothing_to_rank(self, digits, zoo_folder):
        with pytest.raises(InputError, match="sources beside the reference 'only'"):
            rank(digits, write_zoo(zoo_folder, entry("only")), reference="only")

    def test_a_module_as_reference_is_sent_to_the_zoo(self, digits, two):
        with pytest.raises(InputError, match=r"`reference`.*got CompactResNet; put .* into the zoo"):
            rank(digits, two, reference=CompactResNet(4))

    def test_an_unknown_reference_lists_the_choices(self, digits, two):
        with pytest.raises(InputError, match=r"`reference`.*'compact', 'own'.*'nonsense'.*a, b"):
            rank(digits, two, reference="nonsense")

    @pytest.mark.parametrize(
        ("least", "said"),
        [
            (0, r"1 of 50 epochs.*Raise the budget or lower the epochs for"),
            (500, r"1 of 125 epochs.*Raise the budget for"),
        ],
    )
    def test_running_out_of_budget_is_said(self, digits, two, least, said):
        # 40 images are four batches of ten.
        with pytest.warns(TransferscopeWarning, match=f"time budget of 0.01 s ran out after {said}"):
            ranking = rank(digits, two, recipe=Recipe(epochs=50, budget_s=0.01, min_steps=least))
        assert ranking.reference.stopped == "budget"
        assert ranking.reference.epochs == 1

    def test_the_epochs_that_were_run_are_reported(self, digits, two, capsys):
        ranking = rank(digits, two, recipe=Recipe(epochs=2, min_steps=13))
        assert (ranking.reference.epochs, ranking.reference.trained_on) == (4, 40)  # of four steps each
        assert ranking.reference.stopped == "finished"
        assert json.loads(ranking.to_json())["reference"]["epochs"] == 4
        print_ranking(ranking, Console(width=200))
        assert "trained on 40 images for 4 epochs (finished)" in capsys.readouterr().out

    def test_by_default_few_images_are_trained_on_for_75_steps(self, digits, two, monkeypatch):
        recipes = []

        def noted(*_args, recipe, **_options):
            recipes.append(recipe)
            raise KeyboardInterrupt

        monkeypatch.setattr("transferscope.protocols.scratch.train_from_scratch", noted)
        for call in (rank, lambda *args, **options: ts.compare_sources("a", "scratch", *args, **options)):
            with pytest.raises(KeyboardInterrupt):
                call(digits, two, recipe=None, device="cpu", samples=40, progress=False, trust_code=True)
        assert recipes == [Recipe(epochs=10, min_steps=75, optimiser="muon")] * 2

    def test_one_that_was_stopped_by_images_set_aside_is_trained_anew(self, digits, two):
        """The keys under which references were cached that kept the epoch of the least validation loss."""
        first = rank(digits, two)
        target = ts.load_target(digits)
        probe = target.probe(40, 0)
        held_out = split_probe(target, probe, 0).held_out
        old = digest(
            ["compact", asdict(compact_transform(probe))], asdict(RECIPE), 0, probe.hash, held_out.hash,
            ts.__version__, torch.__version__, "cpu",
        )  # fmt: skip
        store = Store()
        (new,) = (store.root / "reference").rglob("*.safetensors")
        assert new.stem != old
        weights, record = store.get("reference", new.stem)
        new.unlink()
        store.put("reference", old, weights, {**record, "figures": {"accuracy": 0.0}})
        assert rank(digits, two).reference == first.reference
        assert new.is_file()

    def test_of_several_the_one_with_the_highest_held_out_accuracy_is_ranked(self, digits, zoo_folder, monkeypatch):
        accuracies = iter([0.25, 0.75, 0.75, 0.5])

        def instead(net, *_args, **_options):
            record = TrainingRecord(2, 2, 8, 0.1, "finished", math.nan, math.nan, 80)
            return ScratchResult(record, {"accuracy": next(accuracies)}, 100)

        monkeypatch.setattr("transferscope.protocols.scratch.train_from_scratch", instead)
        names = ["low", "first", "second", "last"]
        zoo = write_zoo(zoo_folder, *(entry(name, kwargs={"width": width}) for width, name in enumerate(names, 2)))
        ranking = rank(digits, zoo, reference="own", shots=10)
        assert ranking.reference.network == "first's own architecture"
        assert ranking.reference.held_out_accuracy == 0.75
        (scratch,) = (pick for pick in ranking.recommendations if pick.source == "scratch")
        low, high = scratch.interval
        assert low < 0.75 < high
        assert ranking.scores.attrs["scratch_accuracy"] == 0.75


class TestListLayers:
    def test_stages_with_depths_and_sizes(self, two):
        table = list_layers("a", two, trust_code=True)
        assert list(table["depth"]) == list(range(1, 9))
        assert table.loc["blocks.5", "shape"] == "32×4×4"
        assert table["params"].is_monotonic_increasing

    def test_everything_shows_what_can_be_cut(self, two):
        table = list_layers("a", two, everything=True, trust_code=True)
        assert not table.loc["blocks.0.conv1", "is_cut"]
        assert table.loc["head", "is_cut"]

    def test_unknown_source_lists_the_names(self, two):
        with pytest.raises(InputError, match=r"'c'.*'a', 'b'"):
            list_layers("c", two, trust_code=True)
