"""Pilots of `rank`: which are run, on which images, when they end, and what is kept of them."""

import dataclasses
import io
import json
import math
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import transferscope as ts
from transferscope.data.target import load_target
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.protocols import finetuning
from transferscope.protocols.training.recipe import Recipe
from transferscope.report.terminal.advice import print_advice
from transferscope.results.ranking import load_ranking
from transferscope.verbs.bench import Bench
from transferscope.verbs.rank import pilots as module
from transferscope.verbs.rank.pilot_costs import RATES, PilotCosts
from transferscope.verbs.rank.pilot_images import PilotImages
from transferscope.verbs.rank.pilot_runs import PilotRunner
from transferscope.verbs.rank.pilots import Limits
from transferscope.verbs.rank.request import RankRequest
from transferscope.verbs.running.executor import Executor

FACTORY = """
from transferscope.networks import CompactResNet

def build(width=4):
    return CompactResNet(4, width=width)
"""
RECIPES = finetuning.recipes


def recipes_of(epochs):
    """Stand in for the recipes of the product: so many epochs, whatever is asked for."""
    return lambda *_args, **_options: RECIPES(epochs=epochs, min_steps=0)


@pytest.fixture(scope="module")
def scored(tmp_path_factory, digits):
    """A cache that knows all but pilots."""
    folder = tmp_path_factory.mktemp("scored")
    (folder / "nets.py").write_text(FACTORY)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TRANSFERSCOPE_HOME", str(folder / "home"))
        rank(digits, [entry(folder), entry(folder, "b", kwargs={"width": 6})])
    return folder / "home"


@pytest.fixture(autouse=True)
def short(tmp_path, monkeypatch, home, scored):
    """Train for an epoch, in a cache of its own where sources are scored already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(finetuning, "recipes", recipes_of(1))
    (tmp_path / "nets.py").write_text(FACTORY)
    shutil.copytree(scored, home)


@pytest.fixture
def in_order(monkeypatch):
    """Take the next option, whatever is believed, and never be sure: what is run does not depend on the model."""
    taken = set()

    def choose(_belief, options, _among):
        for place, option in enumerate(options):
            cell = option.source, option.depth, option.protocol
            if cell not in taken and option.protocol != "truncate":
                taken.add(cell)
                return place, 1.0
        return None

    monkeypatch.setattr(module, "choose_pilot", choose)
    monkeypatch.setattr(module, "SURE", 2.0)
    return taken


def entry(tmp_path, name="a", function="build", **more):
    transform = {"size": 16, "mean": [0.5] * 3, "std": [0.25] * 3}
    factory = f"{tmp_path}/nets.py:{function}"
    return {"name": name, "loader": "python", "factory": factory, "transform": transform, **more}


@pytest.fixture
def zoo(tmp_path):
    return [entry(tmp_path), entry(tmp_path, "b", kwargs={"width": 6})]


def rank(target, zoo, **options):
    usual = {"device": "cpu", "samples": 40, "progress": False, "recipe": Recipe(epochs=2), "trust_code": True}
    return ts.rank(target, zoo, **(usual | options))


@pytest.fixture
def executed(monkeypatch):
    """List every run that is really carried out."""
    runs = []
    execute = Executor.execute

    def noted(self, group, *rest):
        runs.extend(group)
        return execute(self, group, *rest)

    monkeypatch.setattr(Executor, "execute", noted)
    return runs


def test_advice_rests_on_pilots_and_on_evidence_too(digits, zoo, in_order, monkeypatch):
    monkeypatch.setattr("transferscope.verbs.advise.costs._SECONDS", 0.0)  # no more timing than is needed
    monkeypatch.setattr("transferscope.verbs.advise.advise._SIZES", 4)
    options = {"device": "cpu", "samples": 40, "progress": False, "recipe": Recipe(epochs=2), "trust_code": True}
    before, after = (ts.advise(digits, zoo, source="a", pilots=count, **options) for count in (0, 1))
    (pilot,) = after.pilots
    assert (pilot.source, pilot.protocol) == ("a", "reinit")
    assert json.loads(after.to_json())["pilots"] == [dataclasses.asdict(pilot) | {
        "accuracy": pytest.approx(pilot.accuracy, rel=1e-5), "seconds": pytest.approx(pilot.seconds, rel=1e-5),
        "standard_error": pytest.approx(pilot.standard_error, rel=1e-5),
    }]  # fmt: skip
    assert before.pilots == ()

    def accuracies(advice):
        return {way.protocol: way.expected_accuracy for way in advice.ways}

    moved = [name for name, value in accuracies(after).items() if value != accuracies(before)[name]]
    assert {"reinit", "finetune"} <= set(moved)
    print_advice(after, Console(width=120, file=(shown := io.StringIO())))
    assert "Pilots: transfers that were really run" in shown.getvalue()
    with pytest.raises(InputError, match="pilot_budget"):
        ts.advise(digits, zoo, pilot_budget=5, **options)


class TestRank:
    def test_without_pilots_nothing_is_transferred_and_it_says_what_they_would_bring(self, digits, zoo, executed):
        ranking = rank(digits, zoo)
        assert executed == []
        assert ranking.pilots == ()
        outlook = ranking.outlook
        assert outlook.seconds == 120
        assert 0 < outlook.expected_half_width <= outlook.half_width < 0.5
        content = json.loads(ranking.to_json())
        assert content["pilots"] == []
        assert content["pilot_outlook"]["seconds"] == 120

    def test_as_many_as_are_asked_for_are_run_and_shown(self, digits, zoo, executed, in_order, tmp_path):
        ranking = rank(digits, zoo, pilots=2)
        assert len(executed) == len(ranking.pilots) == 2
        assert ranking.outlook is None
        for pilot, run in zip(ranking.pilots, executed, strict=True):
            assert (pilot.source, pilot.depth, pilot.protocol) == (run.source, run.depth, run.protocol)
            assert pilot.samples == 40
            assert 0 <= pilot.accuracy <= 1
            assert pilot.seconds > 0
        tested = round(0.25 * len(digits[1]))
        hits = ranking.pilots[0].accuracy * tested
        assert hits == pytest.approx(round(hits)), "a share of the images that are tested on"
        content = json.loads(ranking.to_json())
        assert list(content["pilots"][0]) == [
            "source", "depth", "protocol", "samples", "accuracy", "standard_error", "seconds"
        ]  # fmt: skip
        settings = ranking.provenance.settings
        assert (settings["pilots"], settings["pilot_budget"], settings["evidence"]) == (2, None, [])
        ranking.save(tmp_path / "out")
        again = load_ranking(tmp_path / "out")
        assert [pilot.source for pilot in again.pilots] == [pilot.source for pilot in ranking.pilots]
        assert again.pilots[0].accuracy == pytest.approx(ranking.pilots[0].accuracy, abs=1e-6)
        page = (tmp_path / "out" / "report.html").read_text()
        assert ">Pilots</h2>" in page
        assert "measured by a pilot" in page

    def test_what_they_find_moves_what_is_expected(self, digits, zoo, in_order):
        before, after = rank(digits, zoo), rank(digits, zoo, pilots=1)
        (pilot,) = after.pilots
        at = {"source": pilot.source, "depth": pilot.depth, "protocol": pilot.protocol}
        old, new = (float(each.scores["expected_accuracy"].sel(at)) for each in (before, after))
        assert abs(new - pilot.accuracy) < abs(old - pilot.accuracy)
        widths = [float((each.scores["upper"] - each.scores["lower"]).sel(at)) for each in (before, after)]
        assert widths[1] < widths[0]
        assert f"A pilot of it reached {pilot.accuracy:.3f}" in next(
            pick.reason for pick in after.recommendations if pick.source == pilot.source
        )

    def test_a_second_run_answers_from_the_cache_with_the_same_bytes(self, digits, zoo, executed):
        first = rank(digits, zoo, pilots=2)
        count = len(executed)
        assert count == len(first.pilots) >= 1
        second = rank(digits, zoo, pilots=2)
        assert len(executed) == count
        assert second.to_json() == first.to_json()

    def test_the_answer_is_the_same_whatever_the_timing_and_whoever_runs_them(
        self, digits, zoo, executed, home, monkeypatch
    ):
        first = rank(digits, zoo, pilots=2)
        for path in (home / "pilots").rglob("*.safetensors"):
            path.unlink()
        run = PilotRunner.record
        monkeypatch.setattr(PilotRunner, "record", lambda *args: run(*args) | {"seconds": 1e4})
        with ThreadPoolExecutor(1) as executor:
            second = rank(digits, zoo, pilots=2, executor=executor)
        assert len(executed) == 2 * len(first.pilots)
        untimed = [dataclasses.replace(pilot, seconds=math.nan) for pilot in second.pilots]
        assert all(pilot.seconds == 1e4 for pilot in second.pilots)
        assert list(map(str, untimed)) == [str(dataclasses.replace(pilot, seconds=math.nan)) for pilot in first.pilots]
        assert second.table.equals(first.table)

    def test_other_images_networks_and_recipes_are_other_pilots(self, digits, zoo, executed, in_order, monkeypatch):
        def count(**options):
            in_order.clear()
            executed.clear()
            rank(options.pop("target", digits), options.pop("zoo", zoo), pilots=1, **options)
            return len(executed)

        assert (count(), count()) == (1, 0)
        assert count(seed=1) == 1
        assert count(target=(digits[0][1:], digits[1][1:])) == 1
        assert count(zoo=[{**zoo[0], "kwargs": {"width": 5}}]) == 1
        assert count(zoo=[{**zoo[0], "name": "renamed"}]) == 0, "the same network by another name"
        monkeypatch.setattr(finetuning, "recipes", recipes_of(2))
        assert count() == 1

    def test_an_interruption_keeps_what_is_done(self, digits, zoo, executed, in_order, monkeypatch):
        execute = Executor.execute

        def interrupted(self, group, *rest):
            if executed:
                raise KeyboardInterrupt
            return execute(self, group, *rest)

        with monkeypatch.context() as patched:
            patched.setattr(Executor, "execute", interrupted)
            with pytest.raises(KeyboardInterrupt):
                rank(digits, zoo, pilots=2)
        assert len(executed) == 1
        in_order.clear()
        ranking = rank(digits, zoo, pilots=2)
        assert len(ranking.pilots) == 2
        assert len(executed) == 2, "the first one came from the cache"

    def test_one_that_fails_is_named_and_the_next_is_taken(self, digits, zoo, executed, in_order, monkeypatch):
        train = Executor._train

        def stubborn(self, run, *rest):
            if run.source == "a":
                raise RuntimeError("I will not be trained")
            return train(self, run, *rest)

        monkeypatch.setattr(Executor, "_train", stubborn)
        with pytest.warns(TransferscopeWarning, match="The pilot of a, .* failed and is left out: .*I will not be tr"):
            ranking = rank(digits, zoo, pilots=1)
        assert [pilot.source for pilot in ranking.pilots] == ["b"]
        assert any("I will not be trained" in text for text in ranking.warnings)
        failed = [run.protocol for run in executed if run.source == "a"]
        assert len(failed) == len(set(failed)), "no more of the same source and protocol"

    def test_protocols_that_are_not_asked_for_are_not_tried(self, digits, zoo, executed, in_order):
        rank(digits, zoo, pilots=3, protocol="reinit")
        assert {run.protocol for run in executed} == {"reinit"}

    def test_they_end_when_one_is_best_for_sure_or_none_is_worth_it(self, digits, zoo, executed, monkeypatch):
        with monkeypatch.context() as patched:
            patched.setattr(module, "SURE", 0.0)
            assert rank(digits, zoo, pilots=5).pilots == ()
        monkeypatch.setattr(module, "choose_pilot", lambda *_: None)
        assert rank(digits, zoo, pilots=5).pilots == ()
        assert executed == []

    def test_a_target_that_cannot_be_divided_gets_an_answer_without(self, digits, zoo):
        images, labels = digits
        keep = np.flatnonzero((labels != 3) | (np.arange(len(labels)) == np.flatnonzero(labels == 3)[0]))
        with pytest.warns(TransferscopeWarning) as caught:
            ranking = rank((images[keep], labels[keep]), zoo, pilots=1)
        (said,) = {str(each.message) for each in caught if "No pilot is run" in str(each.message)}
        assert "one image only, which cannot be both trained and tested on" in said
        assert ranking.pilots == ()
        with pytest.warns(TransferscopeWarning, match="can never be predicted"):
            assert rank((images[keep], labels[keep]), zoo).outlook is None


class TestBudget:
    def test_measured_seconds_stop_it_those_of_the_cache_too(self, digits, zoo, executed, in_order, monkeypatch):
        run = PilotRunner.record
        monkeypatch.setattr(PilotRunner, "record", lambda *args: run(*args) | {"seconds": 40.0})
        monkeypatch.setattr(PilotRunner, "speeds", lambda *_: (1e-4, 3e-4))
        first = rank(digits, zoo, pilots="auto", pilot_budget=100)
        assert len(first.pilots) == len(executed) == 3, "the third began with 20 s left"
        in_order.clear()
        assert len(rank(digits, zoo, pilots="auto", pilot_budget=100).pilots) == 3
        in_order.clear()
        assert len(rank(digits, zoo, pilots="auto", pilot_budget=200).pilots) == 5
        assert len(executed) == 5
        in_order.clear()
        assert len(rank(digits, zoo, pilots=2, pilot_budget=200).pilots) == 2

    def test_what_does_not_fit_is_not_begun_and_said(self, digits, zoo, executed, in_order, monkeypatch):
        monkeypatch.setattr(PilotRunner, "speeds", lambda *_: (1.0, 3.0))
        with pytest.warns(TransferscopeWarning, match=r"none fits into 5 s: the quickest would take about \d+ s"):
            assert rank(digits, zoo, pilots="auto", pilot_budget=5).pilots == ()
        assert executed == []

    def test_sources_are_timed_once(self, digits, zoo, in_order, monkeypatch, home):
        monkeypatch.setattr(module, "choose_pilot", lambda *_: (0, 1.0))
        ranking = rank(digits, zoo, pilots=1, pilot_budget=1e3)
        assert len(ranking.pilots) == 1
        (kept,) = (home / "speed").rglob("*.safetensors")
        before = kept.stat().st_mtime_ns
        assert rank(digits, zoo, pilots=1, pilot_budget=1e3).to_json() == ranking.to_json()
        assert kept.stat().st_mtime_ns == before


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"pilots": -1}, "`pilots` to be a number of pilots, at least 0, or 'auto', but got -1$"),
            ({"pilots": 1.5}, "but got 1.5$"),
            ({"pilots": True}, "but got True$"),
            ({"pilots": "atuo"}, r"but got 'atuo' \(did you mean 'auto'\?\)$"),
            ({"pilots": "auto", "pilot_budget": 0}, "`pilot_budget` to be a number of seconds above 0, but got 0$"),
            ({"pilots": "auto", "pilot_budget": -3}, "above 0, but got -3$"),
            ({"pilots": "auto", "pilot_budget": math.inf}, "above 0, but got inf$"),
            ({"pilots": "auto", "pilot_budget": "long"}, "above 0, but got 'long'$"),
            ({"pilot_budget": 60}, "Expected `pilots` beside `pilot_budget`, but got 0"),
            ({"evidence": 3}, "Expected `evidence` to be the path"),
        ],
    )
    def test_wrong_ones_are_refused_before_anything_runs(self, options, said):
        with pytest.raises(InputError, match=said):
            RankRequest(target="data", zoo="zoo.yaml", **options)

    def test_numbers_of_numpy_are_numbers(self):
        request = RankRequest(target="data", zoo="zoo.yaml", pilots=np.int64(2), pilot_budget=np.float32(8))
        assert (request.pilots, request.pilot_budget) == (2, 8.0)
        json.dumps(request.settings())

    def test_what_they_come_to(self):
        assert Limits.of(3, None) == Limits(3, math.inf)
        assert Limits.of("auto", None) == Limits(math.inf, 120)
        assert Limits.of("auto", 30.0) == Limits(math.inf, 30)


class TestImages:
    @staticmethod
    def images(target, zoo, samples=1000, n_samples=10**6, **more):
        request = RankRequest(target=target, zoo=zoo, trust_code=True, device="cpu", samples=samples, **more)
        bench = Bench.set_up(request)
        return bench, PilotImages.of(bench, n_samples)

    @staticmethod
    def target(counts, split=None):
        labels = np.repeat(np.arange(len(counts)), counts)
        pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 3), dtype=np.uint8)
        target = load_target((pixels, labels), name="noise")
        return target if split is None else dataclasses.replace(target, split=tuple(split))

    def test_they_are_tested_on_what_neither_they_nor_the_scores_saw(self, zoo):
        bench, found = self.images(self.target([100, 100]), zoo, samples=100)
        tested = found.target.indices[found.test]
        assert len(tested) == 50
        assert not set(tested) & set(bench.probe.indices)
        assert not set(found.pool) & set(found.test)
        assert found.sizes == (50, 12)
        assert [found.samples(size) for size in found.sizes] == [100, 24]

    def test_with_too_few_others_scores_have_seen_them(self, zoo):
        bench, found = self.images(self.target([40, 40]), zoo)
        assert len(found.test) == 20
        assert set(found.target.indices[found.test]) <= set(bench.probe.indices)
        assert found.sizes == (30, 7)

    def test_no_more_are_trained_on_than_the_answer_is_for(self, zoo):
        _, found = self.images(self.target([100, 100]), zoo, n_samples=20)
        assert found.sizes == (10,)
        _, found = self.images(self.target([100, 10]), zoo, n_samples=60)
        assert found.samples(found.sizes[0]) <= 60 < found.samples(found.sizes[0] + 1)

    def test_the_test_split_is_never_touched_and_val_is_what_it_is_for(self, zoo):
        split = (["train"] * 50 + ["test"] * 50) * 2
        _, found = self.images(self.target([100, 100], split), zoo)
        assert set(found.target.split) == {"train"}
        assert (len(found.pool), len(found.test)) == (75, 25)
        split = (["train"] * 50 + ["val"] * 20 + ["test"] * 30) * 2
        _, found = self.images(self.target([100, 100], split), zoo)
        assert {found.target.split[index] for index in found.test} == {"val"}
        assert {found.target.split[index] for index in found.pool} == {"train"}
        assert len(found.target) == 140


FLOPS = {"a": [2e8, 1e9], "b": [math.nan, math.nan]}


class TestCosts:
    def test_operations_are_counted_as_the_recipe_makes_them(self, monkeypatch):
        monkeypatch.setattr(finetuning, "recipes", recipes_of(40))
        costs = PilotCosts(FLOPS, "cpu")
        # Forward and back over all images in 40 epochs, and forward over those that are tested on.
        assert costs.seconds("a", 2, "finetune", 64, 10) == pytest.approx(1 + (3 * 64 * 40 + 10) * 1e9 / RATES["cpu"])
        # What is kept computes 16 views once; the rest is trained.
        assert costs.seconds("a", 1, "reinit", 64, 0) == pytest.approx(
            1 + (0.8 * 3 * 64 * 40 + 0.2 * 64 * 16) * 1e9 / RATES["cpu"]
        )
        assert costs.seconds("a", 1, "truncate", 64, 0) == pytest.approx(1 + 0.2 * 64 * 1e9 / RATES["cpu"])
        assert costs.seconds("b", 1, "truncate", 64, 0) == pytest.approx(1 + 0.5 * 64 * 1e9 / RATES["cpu"])

    def test_a_source_that_was_timed_scales_those_that_were_not(self):
        costs = PilotCosts(FLOPS | {"c": [1e9, 4e9]}, "cpu")
        before = costs.seconds("c", 2, "finetune", 64, 0) - 1
        forward = 1e9 / RATES["cpu"]
        assert costs.time("a", lambda _: (2 * forward, 6 * forward))
        assert not costs.time("a", lambda _: pytest.fail("it was timed already"))
        assert costs.seconds("c", 2, "finetune", 64, 0) - 1 == pytest.approx(2 * before)


class TestEvidence:
    @pytest.mark.usefixtures("undrawn")
    def test_what_was_measured_before_moves_what_is_expected_and_is_named(self, digits, zoo, tmp_path):
        ts.measure(
            digits, zoo, tmp_path / "out", protocols=("nearest_mean", "truncate", "finetune"), samples_per_class=(10,),
            test_samples=100,
            depths=(-1,), seeds=2, epochs=1, min_steps=0, device="cpu", progress=False, trust_code=True,
        ).save(tmp_path / "out")  # fmt: skip
        before = rank(digits, zoo)
        with pytest.warns(TransferscopeWarning, match="left out: 4 of a protocol that is no candidate, nearest_mean$"):
            after = rank(digits, zoo, evidence=tmp_path / "out" / "runs.csv")
        assert after.scores.attrs["evidence"] == 4
        runs = pd.read_csv(tmp_path / "out" / "runs.csv")
        for source in "ab":
            measured = runs[(runs["source"] == source) & (runs["protocol"] == "finetune")]["accuracy"].mean()
            at = {"source": source, "depth": 8, "protocol": "finetune"}
            old, new = (float(each.scores["expected_accuracy"].sel(at)) for each in (before, after))
            assert abs(new - measured) < abs(old - measured)
        (record,) = after.provenance.settings["evidence"]
        assert record["rows"] == len(runs)

    def test_a_file_that_is_missing_is_said_before_anything_runs(self, digits, zoo, monkeypatch):
        monkeypatch.setattr(Bench, "set_up", lambda *_: pytest.fail("the evidence comes first"))
        with pytest.raises(InputError, match=r"nothere\.csv cannot be read"):
            rank(digits, zoo, evidence=["nothere.csv"])
