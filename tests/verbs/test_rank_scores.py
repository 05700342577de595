"""Scores on request, their standard errors, and what they are compared with, from networks to files."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import weightedtau

import transferscope as ts
from transferscope.data.images import Transform
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.networks import CompactResNet
from transferscope.protocols.training.recipe import Recipe
from transferscope.transferability import SCORES
from transferscope.transferability.scores import DEFAULT_SCORES
from transferscope.verbs.rank import scorer

TRANSFORM = {"size": 16, "mean": [0.5] * 3, "std": [0.25] * 3}
FACTORY = """
import torch
from torch import nn
from transferscope.networks import CompactResNet

def build(width=4):
    return CompactResNet(7, width=width)

def headless():
    net = CompactResNet(7, width=4)
    net.head = nn.Identity()
    return net

def softmax():
    return nn.Sequential(CompactResNet(7, width=4), nn.Softmax(dim=1))

def one_output():
    return CompactResNet(1, width=4)

def overflows():
    net = CompactResNet(7, width=4)
    with torch.no_grad():
        net.head.bias.fill_(float("inf"))
    return net

def pointwise():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


def entry(name, function="build", **more):
    return {"name": name, "loader": "python", "factory": f"nets.py:{function}", "transform": TRANSFORM, **more}


@pytest.fixture
def zoo_of(tmp_path):
    (tmp_path / "nets.py").write_text(FACTORY)

    def write(*entries, **keys):
        path = tmp_path / "zoo.yaml"
        path.write_text(json.dumps({"version": 1, **keys, "sources": list(entries)}))
        return path

    return write


def rank(target, zoo, **options):
    # A network that was handed in as the reference needs no training.
    options = {"device": "cpu", "samples": 40, "progress": False, "trust_code": True, **options}
    return ts.rank(target, zoo, **{"recipe": Recipe(epochs=1), **options})


@pytest.fixture
def one_reference(tmp_path):
    torch.manual_seed(1)
    path = tmp_path / "reference.safetensors"
    save_file(CompactResNet(4, width=4).state_dict(), path)
    return str(path)


@pytest.fixture
def computed(monkeypatch):
    """Return the list of the names of scores that were really computed, one call after the other."""
    calls = []
    real = scorer.score_source

    def noting(layers, probabilities, labels, names, **options):
        calls.append(list(names))
        return real(layers, probabilities, labels, names, **options)

    monkeypatch.setattr(scorer, "score_source", noting)
    return calls


class TestScores:
    def test_the_default_is_quick_and_all_is_all(self, digits, zoo_of, one_reference):
        zoo = zoo_of(entry("a"))
        few = rank(digits, zoo, reference=one_reference)
        assert [name for name in few.best.scores if name in SCORES] == [n for n in SCORES if n in DEFAULT_SCORES]
        every = rank(digits, zoo, reference=one_reference, scores="all")
        assert [name for name in every.best.scores if name in SCORES] == list(SCORES)
        for name, score in SCORES.items():
            variable = every.scores[name]
            assert variable.dims == (("source", "depth") if score.needs == "features" else ("source",))
            assert (variable.attrs["range"], variable.attrs["paper"]) == (score.range, score.paper)
            assert np.isfinite(variable).all()
        first = json.loads(every.to_json())["ranking"][0]
        assert set(SCORES) <= set(first["scores"])
        assert set(SCORES) <= set(every.table.columns)

    def test_leep_and_nce_are_those_of_the_networks_own_probabilities(self, digits, zoo_of, one_reference, tmp_path):
        torch.manual_seed(0)
        net = CompactResNet(7, width=4).eval()
        save_file(net.state_dict(), tmp_path / "a.safetensors")
        zoo = zoo_of(entry("a", checkpoint="a.safetensors"))
        ranking = rank(digits, zoo, reference=one_reference, scores=["leep", "nce"], batch_size=16)
        probe = ts.load_target(digits).probe(40, 0)
        with torch.inference_mode():
            logits = net(torch.stack([Transform(**TRANSFORM)(probe.image(i)) for i in range(40)]))
        probabilities = torch.softmax(logits.double(), dim=1).numpy()
        for name in ("leep", "nce"):
            expected = getattr(ts.transferability, name)(probabilities, probe.labels)
            assert ranking.scores[name].item() == pytest.approx(expected, abs=1e-5)
            assert ranking.best.scores[name] == ranking.scores[name].item()

    @pytest.mark.parametrize(
        ("function", "reason"),
        [
            ("headless", "ends in no classifier"),
            ("one_output", r"\(1,\) for an image"),
            ("overflows", "not finite"),
        ],
    )
    def test_without_class_probabilities_they_are_nan_with_a_reason(
        self, digits, zoo_of, one_reference, function, reason
    ):
        zoo = zoo_of(entry("a", function))
        for _ in range(2):  # from the cache too
            with pytest.warns(TransferscopeWarning, match=f"a: leep and nce are NaN: .*{reason}"):
                ranking = rank(digits, zoo, reference=one_reference, scores=["leep", "nce"])
        assert np.isnan(ranking.scores["leep"].item())
        row = json.loads(ranking.to_json())["ranking"][0]
        assert row["scores"]["leep"] is row["scores"]["nce"] is None
        assert row["scores"]["ridge"] > 0

    def test_networks_that_end_in_a_softmax_or_a_pointwise_convolution(self, digits, zoo_of, one_reference):
        zoo = zoo_of(entry("plain"), entry("softmax", "softmax"), entry("pointwise", "pointwise"))
        scores = rank(digits, zoo, reference=one_reference, scores="leep").scores["leep"]
        # The same weights: they are drawn from the seed.
        assert float(scores.sel(source="softmax")) == pytest.approx(float(scores.sel(source="plain")), abs=1e-6)
        assert np.isfinite(scores).all()

    def test_only_what_the_cache_lacks_is_computed(self, digits, zoo_of, one_reference, computed, monkeypatch):
        zoo = zoo_of(entry("a"))
        rank(digits, zoo, reference=one_reference, scores="logme")
        assert computed == [["logme", "knn", "nearest_mean", "ridge", "kernel_ridge", "alignment", "effective_rank"]]

        def never(*_args, **_options):
            raise AssertionError("the features were not in the cache")

        monkeypatch.setattr("transferscope.networks.loading.load_network", never)
        rank(digits, zoo, reference=one_reference, scores=["hscore", "logme", "leep"])
        assert computed[1:] == [["hscore", "leep"]]
        both = rank(digits, zoo, reference=one_reference, scores=["hscore", "leep", "logme"])
        assert len(computed) == 2
        # Another order of the same names is the same question.
        assert (
            both.to_json() == rank(digits, zoo, reference=one_reference, scores=["logme", "leep", "hscore"]).to_json()
        )

    def test_another_version_of_the_scores_is_computed_anew(self, digits, zoo_of, one_reference, computed, monkeypatch):
        zoo = zoo_of(entry("a"))
        rank(digits, zoo, reference=one_reference)
        monkeypatch.setattr("transferscope.verbs.rank.scorer._VERSION", 10**6)
        rank(digits, zoo, reference=one_reference)
        assert computed[0] == computed[1]

    @pytest.mark.parametrize(
        ("scores", "says"),
        [
            ("logmee", "'logmee' .did you mean 'logme'"),
            (["ridge", "x y z"], "'x y z'; there are logme, .*all"),
            ([5], "5"),
        ],
    )
    def test_a_typo_is_told_with_near_names(self, digits, zoo_of, scores, says):
        with pytest.raises(InputError, match=f"`scores` to name scores.*{says}"):
            rank(digits, zoo_of(entry("a")), scores=scores)


class TestUncertainty:
    def test_every_score_gets_a_standard_error_and_a_second_run_the_same(
        self, digits, zoo_of, one_reference, computed, monkeypatch
    ):
        zoo = zoo_of(entry("a"), entry("b", "headless"))
        options = {"reference": one_reference, "uncertainty": 3}
        ranking = rank(digits, zoo, **options)
        for name in DEFAULT_SCORES:
            errors = ranking.scores[f"{name}_standard_error"]
            assert errors.shape == ranking.scores[name].shape
            assert (errors > 0).all()
            share = name in ("knn", "nearest_mean", "ridge", "kernel_ridge")
            assert ("share" if share else "3 stratified draws") in errors.attrs["description"]
            assert ranking.best.scores[f"{name}_standard_error"] == float(
                errors.sel(source=ranking.best.source, depth=ranking.best.depth)
            )
        monkeypatch.setattr("transferscope.verbs.rank.scorer.standard_errors", None)
        again = rank(digits, zoo, **options)
        assert again.to_json() == ranking.to_json()
        plain = rank(digits, zoo, reference=one_reference)
        assert not [name for name in plain.scores if str(name).endswith("_standard_error")]

    def test_a_standard_error_is_near_the_spread_over_other_probes(self, digits, zoo_of, one_reference):
        zoo = zoo_of(entry("a"))
        values, errors = [], []
        for seed in range(12):
            ranking = rank(
                digits, zoo, reference=one_reference, samples=60, seed=seed, scores="alignment", uncertainty=8
            )
            at_top = ranking.scores.isel(depth=-1, source=0)
            values.append(float(at_top["alignment"]))
            errors.append(float(at_top["alignment_standard_error"]))
        # Other weights come with another seed, so that the spread is an upper bound of what the images alone give.
        assert 0.3 * np.std(values, ddof=1) < np.mean(errors) < 2 * np.std(values, ddof=1)

    @pytest.mark.parametrize("draws", [1, -1, 2.0, "5", None])
    def test_a_number_of_draws_is_a_number(self, digits, zoo_of, draws):
        with pytest.raises(InputError, match="`uncertainty` to be a number of draws, at least 2"):
            rank(digits, zoo_of(entry("a")), uncertainty=draws)

    @pytest.mark.filterwarnings("ignore::transferscope.errors.TransferscopeWarning")
    def test_too_few_images_are_said_once_and_not_for_each_source(self, digits, zoo_of):
        with pytest.raises(InputError, match="more than 8 images"):
            rank(digits, zoo_of(entry("a")), samples=8, uncertainty=2)


class TestBaselines:
    def test_what_the_zoo_says_is_in_every_result(self, digits, zoo_of, one_reference):
        zoo = zoo_of(entry("a", accuracy=0.7), entry("b", kwargs={"width": 8}), entry("c"), order=["c", "a"])
        ranking = rank(digits, zoo, reference=one_reference)
        scores = ranking.scores
        np.testing.assert_array_equal(scores["source_accuracy"], [0.7, np.nan, np.nan])
        np.testing.assert_array_equal(scores["preference"], [1, 0, 2])
        np.testing.assert_array_equal(scores["network_params"], scores["params"].isel(depth=-1))
        rows = {row["source"]: row for row in json.loads(ranking.to_json())["ranking"]}
        assert rows["a"]["baselines"]["source_accuracy"] == 0.7
        assert rows["b"]["baselines"]["source_accuracy"] is None
        assert rows["c"]["baselines"] == {
            "network_params": int(scores["network_params"].sel(source="c")),
            "depth_fraction": rows["c"]["depth"] / 8,
            "source_accuracy": None,
            "preference": 2,
        }
        assert set(rows["a"]["baselines"]) <= set(ranking.table.columns)

    def test_agreement_is_the_weighted_tau_of_scipy(self, digits, zoo_of, one_reference):
        zoo = zoo_of(*(entry(name, kwargs={"width": width}) for name, width in zip("abcd", (4, 8, 12, 6), strict=True)))
        ranking = rank(digits, zoo, reference=one_reference, scores=["default", "leep"])
        scores, found = ranking.scores, json.loads(ranking.to_json())["agreement"]
        assert found["sources"] == 4
        accuracy = scores["expected_accuracy"].max("protocol").to_numpy()
        best = accuracy.argmax(axis=1)
        at_best = accuracy[range(4), best]
        for name in ("logme", "hscore", "linear_cka_to_scratch", "depth_fraction"):
            values = scores[name].to_numpy()
            expected = weightedtau(values[range(4), best], at_best).statistic
            assert found["over_sources"][name] == pytest.approx(expected, abs=1e-6)
            within = [weightedtau(values[i], accuracy[i]).statistic for i in range(4)]
            assert found["over_depths"][name] == pytest.approx(np.mean(within), abs=1e-6)
        for name in ("leep", "network_params"):
            expected = weightedtau(scores[name].to_numpy().astype(float), at_best).statistic
            assert found["over_sources"][name] == pytest.approx(expected, abs=1e-6)
            assert found["over_depths"][name] is None

    def test_with_two_sources_agreement_over_them_cannot_be_told(self, digits, zoo_of, one_reference):
        ranking = rank(digits, zoo_of(entry("a"), entry("b", kwargs={"width": 8})), reference=one_reference)
        assert all(math.isnan(tau) for tau in ranking.agreement.over_sources.values())
        assert not math.isnan(ranking.agreement.over_depths["logme"])


def test_twins_are_tied_and_probabilities_go_with_ties(digits, zoo_of, one_reference):
    zoo = zoo_of(entry("a"), entry("twin"), entry("b", kwargs={"width": 8}))
    ranking = rank(digits, zoo, reference=one_reference)
    picks = {pick.source: pick for pick in ranking.recommendations}
    assert "twin" in picks["a"].tied_with
    assert picks["a"].expected_accuracy == pytest.approx(picks["twin"].expected_accuracy)
    rows = json.loads(ranking.to_json())["ranking"]
    for row, following in itertools.pairwise(rows):
        assert (following["source"] in row["tied_with"]) == (0.1 <= row["beats_next"] <= 0.9)
    assert rows[-1]["beats_next"] is None
