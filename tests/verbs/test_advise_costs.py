"""What a transfer would cost: steps that were timed, times the steps that the protocols really take."""

import math
import time

import numpy as np
import pytest
import torch

import transferscope as ts
from transferscope.activations.stages import Stage
from transferscope.networks.loading import load_network
from transferscope.protocols.finetuning import KEPT_BYTES, Training
from transferscope.protocols.heads.linear import HeadFit
from transferscope.protocols.training.recipe import Recipe, TrainingRecord
from transferscope.runtime.footprint import Meter
from transferscope.runtime.power import carbon_intensity
from transferscope.runtime.progress import Reporter
from transferscope.verbs.advise import costs
from transferscope.verbs.advise.costs import HeadCost, Timer, TrainingCost, footprint
from transferscope.verbs.bench import Bench

JOULES_PER_KWH = 3.6e6
RECIPE = Recipe(epochs=40, min_steps=300, batch_size=32, views=16)


@pytest.fixture(scope="module")
def meter():
    return Meter("ESP")


def seconds(cost, n_samples):
    return {phase: spent for phase, (spent, _) in cost.phases(n_samples).items()}


class TestArithmetic:
    def test_heads_cost_a_forward_pass_of_each_image_and_fits_that_grow_by_a_power(self):
        # Four times the images took eight times as long: a power of 1.5.
        cost = HeadCost(5, 0.01, (100, 400), (0.5, 4.0), (20.0, 10.0))
        assert seconds(cost, 400) == pytest.approx({"features": 4.0, "head": 4.0})
        assert seconds(cost, 1600) == pytest.approx({"features": 16.0, "head": 32.0})
        assert seconds(cost, 100)["head"] == pytest.approx(0.5)

    def test_what_is_quicker_with_more_images_by_chance_does_not_become_quicker_still(self):
        cost = HeadCost(1, 0.0, (10, 40), (0.2, 0.1), (1.0, 1.0))
        assert seconds(cost, 4000)["head"] == 0.1

    def test_training_costs_seconds_of_a_step_times_steps_times_trials(self):
        one = TrainingCost(1, RECIPE, (12.0, 32.0), (0.1, 0.2), 0.0, 0, 15.0)
        # 1000 images are 32 steps of 31.25, 40 epochs of them.
        step = 0.1 + 0.1 * (31.25 - 12) / 20
        assert seconds(one, 1000) == pytest.approx({"training": 40 * 32 * step})
        # 50 images are 5 steps of 10, fewer than were timed; 60 epochs make 300 steps.
        assert seconds(one, 50) == pytest.approx({"training": 300 * 0.1})
        three = TrainingCost(3, RECIPE, (12.0, 32.0), (0.1, 0.2), 0.0, 0, 15.0)
        assert seconds(three, 50) == pytest.approx({"training": 3 * 300 * 0.1})

    def test_a_frozen_prefix_is_run_for_the_views_that_are_kept_or_in_every_epoch(self):
        kept = TrainingCost(1, RECIPE, (32.0,), (0.2,), 0.01, 100, 15.0)
        assert seconds(kept, 1000)["features"] == pytest.approx(16 * 1000 * 0.01)
        large = TrainingCost(1, RECIPE, (32.0,), (0.2,), 0.01, KEPT_BYTES // 16_000 + 1, 15.0)
        assert seconds(large, 1000)["features"] == pytest.approx(40 * 1000 * 0.01)

    def test_energy_is_power_times_seconds_and_emissions_are_those_of_the_country(self, meter):
        cost = HeadCost(5, 0.01, (100, 400), (0.5, 4.0), (20.0, 10.0))
        found = footprint(cost, 400, meter)
        joules = 4 * 20 + 4 * 10
        assert found.seconds == pytest.approx({"features": 4.0, "head": 4.0})
        assert found.kwh == pytest.approx(joules / JOULES_PER_KWH)
        assert found.kgco2e == pytest.approx(joules / JOULES_PER_KWH * carbon_intensity("ESP").grams / 1e3)
        assert found.trials == 5

    def test_what_is_not_known_of_energy_stays_unknown(self, meter):
        found = footprint(HeadCost(1, 0.01, (10, 40), (0.5, 4.0), (math.nan, math.nan)), 40, meter)
        assert math.isnan(found.kwh)
        assert sum(found.seconds.values()) > 0


@pytest.fixture(scope="module")
def probe():
    rng = np.random.default_rng(0)
    return ts.load_target((rng.integers(0, 255, (50, 8, 8, 3), dtype=np.uint8), np.arange(50) % 2))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("costs")
    (folder / "nets.py").write_text(
        "from transferscope.networks import CompactResNet\ndef build():\n    return CompactResNet(2, width=4)\n"
    )
    entry = {
        "name": "net", "loader": "python", "factory": str(folder / "nets.py:build"), "transform": {"size": 16},
    }  # fmt: skip
    return load_network(ts.load_zoo([entry])["net"], trust_code=True)


def bench_of(network, probe):
    zoo = ts.load_zoo([network.source])
    return Bench(probe, probe, zoo, torch.device("cpu"), 16, 0, True, Reporter(False))


@pytest.fixture
def timer(network, probe, meter):
    stages = [Stage("early", (5, 4, 4), 10, 100), Stage("late", (7,), 20, 200)]
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(50, width)).astype(np.float32) for width in (5, 7)]
    return Timer(network, stages, layers, bench_of(network, probe), meter)


class TestTiming:
    def test_a_training_step_is_timed_after_a_first_one_that_does_not_count(self, timer, monkeypatch):
        runs = []

        def train(build, lesson, *, recipe, seed, device, meter):
            """Take a quarter of a second for a step in a batch of 10, half of one for 32; and draw 40 W."""
            n = len(lesson.labels)
            per_epoch = math.ceil(n / min(32, n // 4))
            step = {50: 0.25, 160: 0.5}[n]
            first = recipe.limit_s < 1
            steps = 1 if first else recipe.epochs * per_epoch
            spent = 0.5 if first else step * steps
            meter.charge("features", 0.02 * n, kwh=0.02 * n * 40 / JOULES_PER_KWH)
            meter.charge("training", spent, kwh=spent * 40 / JOULES_PER_KWH)
            runs.append((n, steps, recipe.views, recipe.min_steps))
            record = TrainingRecord(recipe.epochs, 1, steps, spent, "finished", math.nan, math.nan, n)
            return build(), Training(record, recipe.learning_rate, 1)

        monkeypatch.setattr(costs, "train", train)
        cost = timer.training("reinit", 1)
        # Half a second would be one step by the first one: five at least, in whole epochs, twice.
        assert runs == [(n, steps, 1, 0) for n in (50, 160) for steps in (1, 5, 5)]
        assert cost.batches == (10.0, 32.0)
        assert cost.steps == pytest.approx((0.25, 0.5))
        assert cost.per_image == pytest.approx(0.02)
        assert cost.watts == pytest.approx(40)
        assert cost.bytes_per_image == 5 * 4 * 4 * 4
        assert cost.trials == 1
        assert cost.recipe == costs.recipes()["reinit"]
        # 40 epochs of 50 images would be 200 steps: there are 300, and 16 views of each image.
        assert seconds(cost, 50) == pytest.approx({"features": 16 * 50 * 0.02, "training": 300 * 0.25})

    def test_the_least_time_counts(self, timer, monkeypatch):
        told = iter([(0.001, 1.0), (0.03, 3.0), (0.02, 4.0)] * 2)

        def train(build, lesson, *, recipe, seed, device, meter):
            step, features = next(told)
            steps = 1 if recipe.limit_s < 1 else recipe.epochs * 5
            meter.charge("features", features, kwh=0.0)
            record = TrainingRecord(1, 1, steps, step * steps, "finished", math.nan, math.nan, 1)
            return build(), Training(record, recipe.learning_rate, 1)

        monkeypatch.setattr(costs, "_MOST_STEPS", 20)
        monkeypatch.setattr(costs, "train", train)
        cost = timer.training("reinit", 1)
        assert cost.steps == pytest.approx((0.02, 0.02))
        assert cost.per_image == pytest.approx(3 / 160)
        assert next(told, None) is None

    def test_fits_are_repeated_for_a_second_and_counted_once(self, timer, monkeypatch):
        now = [0.0]
        fitted = []

        def fit(_protocol, layers, _depth, labels, _task, validation, _seed):
            # A fifth of each class, as `measure` takes it.
            assert np.bincount(labels[validation]).tolist() == [round(0.2 * n) for n in np.bincount(labels)]
            fitted.append(len(layers[0]))
            now[0] += 0.004 * len(layers[0])
            return HeadFit(lambda test: test, 21, None)

        monkeypatch.setattr(costs, "fit_protocol", fit)
        monkeypatch.setattr(time, "perf_counter", lambda: now[0])
        cost = timer.head("toptuning", 2, ({"early": 0.1, "late": 0.3}, 30.0), searched=True)
        # 25 images of a class are enough for a quarter: 13 of them, and all 50. A first fit of each does not count.
        assert fitted == [13] * 6 + [50] * 6
        assert cost.sizes == (13, 50)
        assert cost.fits == pytest.approx((0.052, 0.2))
        assert (cost.trials, cost.per_image, cost.watts[0]) == (21, 0.3, 30.0)
        fitted.clear()
        monkeypatch.setattr(costs, "_STEPS", 100)
        timer.head("toptuning", 2, ({"early": 0.1, "late": 0.3}, 30.0), searched=True)
        assert fitted == [13] * 21 + [50] * 6, "a second is 20 fits of 0.052 s or 5 of 0.2 s"

    def test_each_way_is_really_run(self, network, probe, meter, monkeypatch):
        monkeypatch.setattr(costs, "_SECONDS", 0.0)
        net = network.module
        from transferscope.activations.capture import collect, resolve_stages

        stages = resolve_stages(net, "auto", torch.zeros(1, 3, 16, 16), cuts_only=True)
        images = torch.stack([network.transform(probe.image(i)) for i in range(50)])
        arrays = collect(net, [images], [stage.layer for stage in stages], reduce="mean", device=torch.device("cpu"))
        timer = Timer(network, stages, list(arrays.values()), bench_of(network, probe), meter)
        forward = timer.forward()
        assert list(forward[0]) == [stage.layer for stage in stages]
        for protocol, trials in (("truncate", 5), ("fne", 1), ("toptuning", 21)):
            cost = timer.head(protocol, 2, forward, searched=True)
            assert cost.trials == trials
            assert min(cost.fits) > 0
        partly, fully = timer.training("reinit", 4), timer.training("finetune", len(stages))
        assert partly.per_image > 0
        assert fully.per_image == fully.bytes_per_image == 0
        assert "features" not in seconds(fully, 100)
        assert sum(seconds(partly, 100).values()) > 0

    @pytest.mark.parametrize(("searched", "trials", "sizes"), [(False, 1, (7, 28)), (True, 5, (14, 56))])
    def test_with_few_images_of_a_class_copies_are_searched_or_nothing(
        self, network, meter, monkeypatch, searched, trials, sizes
    ):
        """The smaller class has 3 of 7 images; a search takes 5."""
        monkeypatch.setattr(costs, "_SECONDS", 0.0)
        rng = np.random.default_rng(0)
        few = ts.load_target((rng.integers(0, 255, (7, 8, 8, 3), dtype=np.uint8), np.arange(7) % 2))
        stages, layers = [Stage("only", (5,), 1, 1)], [rng.normal(size=(7, 5))]
        timer = Timer(network, stages, layers, bench_of(network, few), meter)
        cost = timer.head("truncate", 1, ({"only": 0.1}, 1.0), searched=searched)
        assert (cost.trials, cost.sizes) == (trials, sizes)
