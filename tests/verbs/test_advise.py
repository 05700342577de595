"""Advice: the accuracies are those of `rank`, the rule is the one that is stated."""

import json
import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

import transferscope as ts
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.protocols.training.recipe import Recipe
from transferscope.results.advice import Change
from transferscope.runtime.power import carbon_intensity
from transferscope.verbs.advise import accuracies, costs
from transferscope.verbs.advise import advise as room
from transferscope.verbs.advise.accuracies import choose_depths, expected, head_shifts
from transferscope.verbs.advise.advise import advise
from transferscope.verbs.advise.decision import changes, cheapest

WAYS = ["truncate", "fne", "toptuning", "reinit", "defrost", "finetune", "scratch"]
COSTS = ("seconds", "kwh", "kgco2e")
FACTORY = """
from torch import nn
from transferscope.networks import CompactResNet

def build(width=4):
    return CompactResNet(4, width=width)

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(6, 6, 3, stride=2), nn.ReLU())

    def forward(self, x):
        x = self.middle(self.stem(x))
        return x.tanh(), x.relu()

def two():
    return Two()
"""


@pytest.fixture(scope="module")
def digits(digits):
    images, labels = digits
    return images[:120], labels[:120]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A cache and a zoo of its own, and no more timing than is needed."""
    folder = tmp_path_factory.mktemp("advice")
    (folder / "nets.py").write_text(FACTORY)
    entries = [
        {"name": name, "loader": "python", "factory": "nets.py:build", "transform": {"size": 16}, "kwargs": kwargs}
        for name, kwargs in (("narrow", {}), ("wide", {"width": 6}))
    ]
    two = {"name": "two", "loader": "python", "factory": "nets.py:two", "layers": ["stem", "middle"]}
    entries.append(two | {"transform": {"size": 16}})
    (folder / "zoo.yaml").write_text(json.dumps({"version": 1, "sources": entries[:2]}))
    (folder / "two.yaml").write_text(json.dumps({"version": 1, "sources": entries[2:]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRANSFERSCOPE_HOME", str(folder / "home"))
        patch.setattr(costs, "_SECONDS", 0.0)
        patch.setattr(room, "_SIZES", 4)
        yield folder


@pytest.fixture(autouse=True)
def home(house):
    """The cache that all tests share, which `house` has set."""
    return house / "home"


OPTIONS = {"device": "cpu", "recipe": Recipe(epochs=2), "progress": False, "trust_code": True}


@pytest.fixture(scope="module")
def advice(house, digits):
    return advise(digits, house / "zoo.yaml", country="ESP", **OPTIONS)


class TestAdvise:
    def test_every_way_is_there_under_the_name_that_measure_has(self, advice):
        from transferscope.verbs.running.run import PROTOCOLS

        assert [way.protocol for way in advice.ways] == WAYS
        assert set(WAYS) <= set(PROTOCOLS)
        depths = {way.protocol: way.depth for way in advice.ways}
        assert depths["fne"] == depths["finetune"] == advice.depths == 8
        assert depths["toptuning"] == depths["truncate"] >= 1
        assert 1 <= depths["reinit"] < 8
        assert 1 <= depths["defrost"] < 8
        assert depths["scratch"] == 0

    def test_accuracies_are_those_of_rank(self, advice, house, digits):
        ranking = ts.rank(digits, house / "zoo.yaml", **OPTIONS)
        assert advice.source == next(pick.source for pick in ranking.recommendations if pick.layer)
        assert (advice.samples, advice.target.samples, advice.samples_per_class) == (120, 120, 30)
        own = ranking.scores.sel(source=advice.source)
        ways = {way.protocol: way for way in advice.ways}
        for protocol, depths in {
            "truncate": range(1, 9), "reinit": range(1, 8), "defrost": range(1, 8), "finetune": [8],
        }.items():  # fmt: skip
            cuts = own.sel(protocol=protocol, depth=list(depths))
            best = cuts.isel(depth=int(cuts["expected_accuracy"].to_numpy().argmax()))
            assert ways[protocol].depth == best["depth"]
            assert ways[protocol].expected_accuracy == best["expected_accuracy"]
            assert ways[protocol].interval == (best["lower"], best["upper"])
        assert ways["scratch"].expected_accuracy == own["scratch_expected_accuracy"]
        for way in advice.ways:
            assert way.interval[0] < way.expected_accuracy < way.interval[1]

    def test_costs_are_of_this_machine_and_trials_those_of_the_protocols(self, advice):
        grams = carbon_intensity("ESP").grams
        for way in advice.ways:
            assert way.seconds > 0
            assert way.kgco2e == pytest.approx(way.kwh * grams / 1e3)
        assert [way.trials for way in advice.ways] == [5, 1, 21, 1, 1, 1, 1]
        assert 0 < advice.measured_seconds < 60
        assert "Spain" in advice.energy

    def test_the_same_again_apart_from_cost_with_the_session_as_it_was(self, advice, house, digits):
        state = torch.random.get_rng_state()
        again = advise(digits, house / "zoo.yaml", country="ESP", **OPTIONS)
        assert torch.equal(state, torch.random.get_rng_state())
        one, other = advice.table.drop(columns=[*COSTS, "advised"]), again.table.drop(columns=[*COSTS, "advised"])
        assert one.equals(other)
        assert advice.looked_at == again.looked_at

    def test_a_named_source_alone_and_more_images_than_there_are(self, house, digits):
        found = advise(digits, house / "zoo.yaml", source="narrow", shots=100, tolerance=0.5, **OPTIONS)
        assert [way.trials for way in found.ways] == [5, 1, 21, 1, 1, 1, 1]
        assert (found.source, found.samples, found.target.samples) == ("narrow", 400, 120)
        low, high = found.looked_at
        assert low == 30
        assert high > 100
        # Half of the accuracy may be lost: something that is done in no time does.
        assert found.best.protocol in ("truncate", "fne", "toptuning")
        assert sum(found.table["advised"]) == 1

    def test_ways_that_the_source_does_not_allow_are_left_out_with_the_reason(self, house, digits, caplog):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TransferscopeWarning)
            found = advise(digits, house / "two.yaml", **OPTIONS)
        assert [way.protocol for way in found.ways] == WAYS[:3]
        assert {each.source for each in found.left_out} == {*WAYS[3:]}
        assert all("linear classifier" in each.error for each in found.left_out)
        assert "from scratch of two failed" in caplog.text

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"tolerance": -0.1}, "`tolerance` to be an accuracy, at least 0 and below 1, but got -0.1"),
            ({"tolerance": 1}, "`tolerance`.*but got 1"),
            ({"tolerance": math.nan}, "`tolerance`.*but got nan"),
            ({"tolerance": "much"}, "`tolerance`.*'much'"),
            ({"shots": 0}, "`shots` to be a whole number of images of each class, at least 1, or None, but got 0"),
            ({"shots": 2.5}, "`shots`.*2.5"),
            ({"source": "narow"}, r"`source` to name a source of the zoo, but got 'narow' \(did you mean 'narrow'"),
            ({"source": "?"}, "there are narrow, wide"),
            ({"country": "Spain"}, r"`country`.*'Spain' \(did you mean 'ESP'"),
            ({"samples": 7}, "samples = 7 is too few for 4 classes"),
            ({"samples": 0}, "`samples`"),
            ({"batch_size": 0}, "`batch_size`"),
        ],
    )
    def test_wrong_arguments_are_input_errors_that_name_them(self, house, digits, options, said):
        with pytest.raises(InputError, match=said):
            advise(digits, house / "zoo.yaml", **{**OPTIONS, **options})


def predictions(truncate, reinit, finetune, defrost, scratch=0.3):
    """Make what `expected_accuracies` returns for one source; each interval is ±0.1."""
    values = np.array([truncate, reinit, finetune, defrost], float).T
    named = {"expected_accuracy": values, "lower": values - 0.1, "upper": values + 0.1}
    own = {f"scratch_{name}": ((), scratch + shift) for name, shift in zip(named, (0, -0.1, 0.1), strict=True)}
    return xr.Dataset(
        {name: (("depth", "protocol"), array) for name, array in named.items()}
        | own
        | {"layer": ("depth", np.where(np.isnan(truncate), "", "x").astype(object))},
        coords={
            "depth": np.arange(1, len(values) + 1), "protocol": ["truncate", "reinit", "finetune", "defrost"],
        },
    )  # fmt: skip


class TestAccuracies:
    def test_ways_are_cut_where_they_are_expected_to_do_best(self):
        # The other source of the zoo is deeper by one.
        own = predictions(
            [0.5, 0.7, 0.7, math.nan], [0.4, 0.5, 0.9, math.nan], [0.8, 0.2, 0.6, math.nan],
            [0.8, 0.75, 0.9, math.nan],
        )  # fmt: skip
        depths = choose_depths(own)
        # With all stages frozen nothing is left to be trained but the head, which is another way.
        partly = {"reinit": 2, "defrost": 1}
        assert depths == {"truncate": 2, "fne": 3, "toptuning": 2, **partly, "finetune": 3, "scratch": 0}
        found = expected(own, depths, {"fne": 0.0, "toptuning": math.log(2)})
        assert found["truncate"] == pytest.approx((0.7, 0.6, 0.8))
        assert found["reinit"] == pytest.approx((0.5, 0.4, 0.6))
        assert found["defrost"] == pytest.approx((0.8, 0.7, 0.9))
        assert found["finetune"] == pytest.approx((0.6, 0.5, 0.7))
        assert found["scratch"] == pytest.approx((0.3, 0.2, 0.4))
        assert found["fne"] == pytest.approx(found["truncate"])
        # Odds twice as high: 7/3 becomes 14/3, 6/4 becomes 12/4, 8/2 becomes 16/2.
        assert found["toptuning"] == pytest.approx((14 / 17, 12 / 16, 16 / 18))

    def test_with_one_stage_nothing_is_left_to_be_trained_in_part(self):
        found = choose_depths(predictions([0.5], [0.4], [0.8], [0.7]))
        assert list(found) == [way for way in WAYS if way not in ("reinit", "defrost")]

    def test_ways_that_nothing_is_expected_of_are_left_out(self):
        nothing = [math.nan, math.nan]
        own = predictions([0.5, math.nan], nothing, [0.8, math.nan], nothing).assign(layer=("depth", ["x", "y"]))
        assert choose_depths(own) == {"truncate": 1, "fne": 2, "toptuning": 1, "scratch": 0}

    def test_a_head_is_moved_by_what_it_gets_right_more(self):
        # Four corners of a square, opposite ones of one class: no line tells them apart, a kernel does.
        rng = np.random.default_rng(0)
        corners = np.array([[0, 0], [1, 1], [0, 1], [1, 0]]).repeat(15, axis=0)
        features = corners + 0.05 * rng.normal(size=(60, 2))
        labels = np.repeat([0, 0, 1, 1], 15)
        shifts = head_shifts([features, features], labels, 1)
        right = round(60 * ts.transferability.ridge(features, labels))
        assert ts.transferability.kernel_ridge(features, labels) == 1
        odds = (60.5 / 0.5) / ((right + 0.5) / (60.5 - right))
        assert shifts["toptuning"] == pytest.approx(60 / (60 + accuracies.HALF_BELIEVED) * math.log(odds))

    def test_heads_that_get_as_much_right_are_expected_to_be_alike(self):
        labels = np.repeat([0, 1], 12)
        features = labels[:, None] + np.linspace(0, 0.1, 24)[:, None] * [1, -1]
        assert head_shifts([features], labels, 1) == pytest.approx({"fne": 0, "toptuning": 0})

    def test_one_image_of_a_class_tells_nothing_of_the_embedding(self):
        rng = np.random.default_rng(0)
        labels = np.array([0] * 9 + [1])
        assert head_shifts([rng.normal(size=(10, 3))], labels, 1)["fne"] == 0


class TestDecision:
    @pytest.mark.parametrize(
        ("tolerance", "wanted"), [(0, "best"), (0.019, "best"), (0.02, "close"), (0.1, "close"), (0.3, "poor")]
    )
    def test_the_cheapest_within_the_tolerance(self, tolerance, wanted):
        accuracies = {"poor": 0.6, "close": 0.88, "best": 0.9, "costly": 0.89}
        seconds = {"poor": 1.0, "close": 10.0, "best": 100.0, "costly": 1000.0}
        assert cheapest(accuracies, seconds, tolerance) == wanted

    def test_of_ways_that_cost_about_the_same_the_more_accurate(self):
        accuracies = {"a": 0.88, "b": 0.89, "c": 0.9}
        assert cheapest(accuracies, {"a": 2.0, "b": 3.0, "c": 3.1}, 0.05) == "b"
        assert cheapest(accuracies, {"a": 2.0, "b": 3.1, "c": 3.2}, 0.05) == "a"

    def test_changes_lie_between_neighbours(self):
        assert changes([5, 10, 20, 40], ["a", "a", "b", "c"]) == (
            Change((10, 20), "a", "b"),
            Change((20, 40), "b", "c"),
        )
        assert changes([5], ["a"]) == ()

    def turning(self, monkeypatch, samples):
        """Let fine-tuning gain 0.1 with each tenfold and stay 0.015 behind until 200 images of each of 10 classes."""

        def hand_made(_scores, n_samples):
            tuned = 0.9 - 0.015 + 0.1 * math.log10(n_samples / 2000)
            found = predictions([0.8, 0.9], [0.1, 0.1], [0.1, tuned], [0.1, 0.1]).expand_dims(source=["it"])
            for name in ("scratch_expected_accuracy", "scratch_lower", "scratch_upper"):
                found[name] = found[name].isel(source=0)
            return found

        monkeypatch.setattr(room, "labelled", hand_made)
        monkeypatch.setattr(room, "_SIZES", 20)
        ranking = SimpleNamespace(
            target=SimpleNamespace(classes=10, samples=samples), scores=None, expected_for=samples
        )
        # A tenth of a second for each image, or five seconds in all.
        prices = {"truncate": SimpleNamespace(phases=lambda n: {"head": (0.1 * n, 1.0)})}
        prices["finetune"] = SimpleNamespace(phases=lambda _n: {"training": (4.0, 1.0), "features": (1.0, 1.0)})
        belief = SimpleNamespace(trained_on=lambda n_samples: n_samples)
        return room._turning_points(ranking, belief, "it", dict.fromkeys(prices, 2), {}, prices, 0.015)

    def test_the_number_of_images_at_which_the_advice_changes(self, monkeypatch):
        """From 200 images of each class on, fine-tuning comes within the tolerance, and costs less than the head."""
        (found,), looked_at = self.turning(monkeypatch, 500)
        assert (found.before, found.after) == ("truncate", "finetune")
        assert found.between[0] < 200 <= found.between[1] < 1.5 * found.between[0]
        assert looked_at == (50, 500)

    def test_it_is_sought_up_to_ten_times_as_many_images(self, monkeypatch):
        assert self.turning(monkeypatch, 30_000) == ((), (3000, 30_000))
