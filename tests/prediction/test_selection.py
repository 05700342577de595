"""From expected accuracies to a ranking: cuts and protocols, objectives, ties, and sources without a prediction."""

import math
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from beliefs import SPREAD, fixed_belief
from scipy import stats

from transferscope.errors import InputError, SourceError, TransferscopeWarning
from transferscope.prediction.belief import Belief
from transferscope.prediction.calibration import Chosen
from transferscope.prediction.covariates import CUT_PROTOCOLS
from transferscope.prediction.selection import ScratchCandidate, protocols_of, recommend
from transferscope.results.cuts import cut_table

PROTOCOLS = ("truncate", "reinit", "finetune")


def predictions_of(expected, *, flops=None):
    """Predictions from a list of expected accuracies a source, each a number (truncate) or one for each protocol."""
    depths = max(len(row) for row in expected.values())
    values = np.full((len(expected), depths, 3), np.nan)
    layer, params, cost = (
        np.full((len(expected), depths), fill, kind) for fill, kind in (("", object), (-1, int), (np.nan, float))
    )
    for i, (source, row) in enumerate(expected.items()):
        for j, value in enumerate(row):
            values[i, j, : np.size(value)] = value
            layer[i, j], params[i, j] = f"stage{j}", 10 * (j + 1)
            cost[i, j] = flops[source][j] if flops else 100 * (j + 1)
    over_all = {"expected_accuracy": values, "lower": values - 0.05, "upper": values + 0.05}
    over_cuts = {"layer": layer, "params": params, "flops": cost, "logme": -values[:, :, 0]}
    return xr.Dataset(
        {name: (("source", "depth", "protocol"), array) for name, array in over_all.items()}
        | {name: (("source", "depth"), array) for name, array in over_cuts.items()}
        | {"leep": ("source", np.arange(len(expected)) / 4)},
        coords={"source": list(expected), "depth": np.arange(1, depths + 1), "protocol": list(PROTOCOLS)},
        attrs={"n_samples": 50, "largest_class": 0.25, "samples": 50, "classes": 4},
    )  # fmt: skip


def belief_of(expected, scratch=None):
    ways = {
        (source, depth, protocol): accuracy
        for source, row in expected.items()
        for depth, values in enumerate(row, 1)
        for protocol, accuracy in zip(PROTOCOLS, np.atleast_1d(values), strict=False)
        if np.isfinite(accuracy)
    }
    return fixed_belief(ways | {("", 0, "scratch"): 0.5 if scratch is None else scratch.accuracy})


def ranked(expected, scratch=None, objective="accuracy", **options):
    predictions = predictions_of(expected, **options)
    return recommend(predictions, belief_of(expected, scratch), ("logme",), scratch, ("leep",), objective)


def scratch_with(accuracy, flops=1):
    return ScratchCandidate("compact", accuracy, n_held_out=40, depths=8, params=5, flops=flops)


def logit(p):
    return math.log(p / (1 - p))


def test_each_source_at_its_best_cut_best_first():
    picks = ranked({"low": [0.1, 0.4], "inner": [0.3, 0.9, 0.5], "short": [0.7]}, scratch_with(0.6))
    assert [(p.source, p.layer, p.depth, p.depths, p.protocol) for p in picks] == [
        ("inner", "stage1", 2, 3, "truncate"),
        ("short", "stage0", 1, 1, "truncate"),
        ("scratch", None, 0, 8, "scratch"),
        ("low", "stage1", 2, 2, "truncate"),
    ]
    assert [p.rank for p in picks] == [1, 2, 3, 4]
    best = picks[0]
    assert (best.expected_accuracy, best.params, best.flops) == (0.9, 20, 200)
    assert best.scores == {"logme": -0.9}
    assert best.baselines == {"leep": 0.25}
    half = stats.norm.ppf(0.9) * SPREAD / math.sqrt(2)
    assert best.interval == pytest.approx(tuple(1 / (1 + math.exp(-logit(0.9) - way * half)) for way in (-1, 1)))
    plain = [*best.interval, best.expected_accuracy, *best.scores.values()]
    assert {type(value) for value in plain} == {float}
    assert {type(value) for value in (best.depth, best.depths, best.params, best.flops)} == {int}


def test_the_best_protocol_is_chosen_with_the_cut_and_what_is_trained_behind_it_is_paid_for():
    (pick,) = ranked({"a": [(0.3, 0.8, 0.4), (0.5, 0.6, 0.7), (0.1, 0.1, 0.1)]})
    assert (pick.protocol, pick.depth, pick.expected_accuracy) == ("reinit", 1, 0.8)
    assert (pick.params, pick.flops) == (30, 300)  # of the whole network
    rows = cut_table(predictions_of({"a": [(0.3, 0.8, 0.4), (0.5, 0.6, 0.7)]}))
    assert rows[rows["protocol"] == "truncate"]["flops"].tolist() == [100, 200]
    assert set(rows[rows["protocol"] != "truncate"]["flops"]) == {200}


def test_scratch_is_ranked_by_what_is_believed_of_it():
    (pick,) = (p for p in ranked({"a": [0.2]}, scratch_with(0.75)) if p.protocol == "scratch")
    assert (pick.rank, pick.source, pick.params, pick.flops, pick.scores) == (1, "scratch", 5, 1, {})
    assert pick.expected_accuracy == 0.75
    assert pick.interval[0] < 0.75 < pick.interval[1]


@pytest.mark.parametrize(("z", "order"), [(0.5, ["good", "scratch", "poor"]), (2.5, ["scratch", "good", "poor"])])
def test_scratch_comes_behind_the_best_network_that_it_is_tied_with(z, order):
    # Standard deviations of the difference that scratch is expected to be better by: tied up to 1.28.
    accuracy = 1 / (1 + math.exp(-z * SPREAD))
    picks = ranked({"good": [0.5], "poor": [0.05]}, scratch_with(accuracy))
    assert [pick.source for pick in picks] == order
    assert ("scratch" in picks[0].tied_with or "good" in picks[0].tied_with) == (z < 1)


def test_without_a_scratch_candidate_there_is_none():
    assert [p.source for p in ranked({"a": [0.2], "b": [0.3]})] == ["b", "a"]


def test_among_equal_cuts_the_shallower_one():
    assert ranked({"a": [0.1, 0.8, 0.8, 0.8]})[0].depth == 2


def test_among_equal_sources_fewer_flops_then_the_name():
    flops = {"dear": [9, 90], "zebra": [5, 50], "ant": [5, 50]}
    picks = ranked({name: [0.1, 0.8] for name in flops}, scratch_with(0.8, flops=60), flops=flops)
    assert [p.source for p in picks] == ["ant", "zebra", "scratch", "dear"]


def test_a_depth_without_prediction_is_never_chosen():
    assert ranked({"a": [np.nan, 0.3, np.nan, 0.2]})[0].depth == 2


def test_a_source_without_any_prediction_is_left_out_and_named():
    with pytest.warns(TransferscopeWarning, match="Source empty has no expected accuracy"):
        picks = ranked({"a": [0.2, 0.1], "empty": [np.nan, np.nan], "b": [0.3]})
    assert [(p.rank, p.source) for p in picks] == [(1, "b"), (2, "a")]


def test_nothing_to_rank_is_an_error():
    with pytest.warns(TransferscopeWarning), pytest.raises(SourceError, match="No source has an expected accuracy"):
        ranked({"a": [np.nan], "b": [np.nan]})
    with pytest.warns(TransferscopeWarning):
        assert [p.source for p in ranked({"a": [np.nan]}, scratch_with(0.5))] == ["scratch"]


def at(differences):
    """An accuracy whose logit lies so many standard deviations of a difference above 0."""
    return 1 / (1 + math.exp(-differences * SPREAD))


def test_sources_are_told_apart_by_the_posterior_of_the_difference():
    first, second, third = ranked({"half": [0.5], "near": [at(0.5)], "far": [at(-3)]})
    assert [first.source, second.source, third.source] == ["near", "half", "far"]
    assert first.beats_next == pytest.approx(stats.norm.cdf(0.5))
    assert second.beats_next == pytest.approx(stats.norm.cdf(3))
    assert third.beats_next is None
    assert (first.tied_with, second.tied_with, third.tied_with) == (("half",), ("near",), ())


def test_probabilities_of_being_best_are_of_all_that_is_ranked():
    picks = ranked({"half": [0.5], "near": [at(0.5)]}, scratch_with(at(-6)))
    assert sum(pick.probability_best for pick in picks) == pytest.approx(1)
    assert picks[0].probability_best == pytest.approx(stats.norm.cdf(0.5), abs=0.02)
    assert picks[2].probability_best == 0


def test_of_those_tied_for_best_and_equal_the_cheapest_comes_first():
    flops = {"dear": [90], "cheap": [5], "worse": [1]}
    sources = {"dear": [0.800], "cheap": [0.797], "worse": [0.78]}
    assert [p.source for p in ranked(sources, flops=flops)] == ["cheap", "dear", "worse"]
    # Tied as well, but two points are no equality.
    assert ranked({"dear": [0.80], "cheap": [0.78]}, flops=flops)[0].source == "dear"
    alike = {"a": [5, 5, 5]}  # what is fine-tuned costs the same wherever it is cut
    assert ranked({"a": [0.797, 0.800, 0.799]}, flops=alike)[0].depth == 2


def test_what_is_certainly_equal_is_level_and_what_is_merely_unknown_is_not():
    rows = {("a", 1, "truncate"): 0.6, ("b", 1, "truncate"): 0.6, ("", 0, "scratch"): 0.1}
    predictions = predictions_of({"a": [0.6], "b": [0.6]})
    sure = recommend(predictions, fixed_belief(rows, spread=0.01), (), None)
    assert sure[0].level_with == sure[0].tied_with == ("b",)
    open_ = recommend(predictions, fixed_belief(rows, spread=0.5), (), None)
    assert (open_[0].tied_with, open_[0].level_with) == (("b",), ())


def test_sources_are_corrected_for_the_choice_of_their_cut_and_scratch_is_not():
    rows = {("a", 1, "truncate"): 0.6, ("", 0, "scratch"): 0.5}
    known = fixed_belief(rows)
    corrected = replace(known.calibration, chosen=Chosen(-0.3, 2.0))
    belief = Belief(known.rows, known.case, corrected)
    object.__setattr__(belief, "posterior", known.posterior)
    object.__setattr__(belief, "covariance", known.covariance)
    a, scratch = recommend(predictions_of({"a": [0.6]}), belief, (), scratch_with(0.5))
    assert (a.source, scratch.source) == ("a", "scratch")
    assert a.expected_accuracy < 0.6
    assert scratch.expected_accuracy == pytest.approx(0.5)
    assert np.ptp(a.interval) > 1.5 * np.ptp(scratch.interval)


def test_latency_takes_the_fewest_flops_of_what_is_tied_for_best():
    sources = {"deep": [0.3, 0.78, 0.8], "slow": [0.77, 0.79], "bad": [0.2]}
    flops = {"deep": [10, 20, 30], "slow": [25, 25], "bad": [1]}
    picks = ranked(sources, objective="latency", flops=flops)
    assert [(p.source, p.depth, p.flops) for p in picks] == [("deep", 2, 20), ("slow", 2, 25), ("bad", 1, 1)]


def test_accuracy_per_joule_counts_what_lies_above_the_largest_class():
    picks = ranked(
        {"a": [0.3, 0.65, 0.7], "b": [0.26]}, objective="accuracy-per-joule", flops={"a": [10, 20, 40], "b": [1]}
    )
    # (0.65 - 0.25) / 20 lies above 0.05 / 10, 0.45 / 40 and 0.01 / 1.
    assert [(p.source, p.depth) for p in picks] == [("a", 2), ("b", 1)]


@pytest.mark.parametrize("objective", ["accuracy", "latency", "accuracy-per-joule"])
def test_unknown_flops_never_win(objective):
    sources = {"unknown": [0.7, 0.8], "known": [0.79], "poor": [0.2]}
    flops = {"unknown": [math.nan, math.nan], "known": [50], "poor": [90]}
    picks = ranked(sources, scratch_with(0.78, flops=math.nan), objective=objective, flops=flops)
    order = [pick.source for pick in picks]
    if objective == "accuracy":
        assert order == ["unknown", "known", "scratch", "poor"]
    else:
        assert order == ["known", "poor", "unknown", "scratch"]
    assert [pick.source for pick in picks if math.isnan(pick.flops)] == ["unknown", "scratch"]
    assert {type(pick.flops) for pick in picks if not math.isnan(pick.flops)} == {int}


@pytest.mark.parametrize("objective", ["latency", "accuracy-per-joule"])
def test_unknown_parameters_never_win_either(objective):
    predictions = predictions_of({"unknown": [0.8], "known": [0.5]}, flops={"unknown": [1], "known": [50]})
    predictions["params"] = predictions["params"].astype(float).where(predictions["source"] != "unknown")
    scratch = scratch_with(0.3, flops=100)
    belief = belief_of({"unknown": [0.8], "known": [0.5]}, scratch)
    picks = recommend(predictions, belief, [], scratch, objective=objective)
    assert [pick.source for pick in picks] == ["known", "scratch", "unknown"]
    assert math.isnan(picks[-1].params)


@pytest.mark.parametrize("objective", ["latency", "accuracy-per-joule"])
def test_where_nothing_is_known_accuracy_decides(objective):
    picks = ranked({"a": [0.6], "b": [0.7]}, objective=objective, flops={"a": [math.nan], "b": [math.nan]})
    assert [pick.source for pick in picks] == ["b", "a"]


def test_the_whole_network_is_unknown_where_a_part_of_it_is():
    predictions = predictions_of({"a": [[0.5, 0.5, 0.5], [0.6, 0.6, 0.6]]}, flops={"a": [10, math.nan]})
    rows = cut_table(predictions)
    assert rows["flops"].isna().tolist() == [False] + 5 * [True]
    assert rows["protocol"][0] == "truncate"
    assert cut_table(predictions_of({"a": [0.5]}))["flops"].dtype == np.int64


def test_unknown_objectives_and_protocols_are_errors():
    with pytest.raises(InputError, match=r"`objective` to be one of accuracy, .*did you mean 'latency'"):
        ranked({"a": [0.2]}, objective="latensy")
    with pytest.raises(InputError, match=r"`protocol` to be one of truncate, .*'truncat'"):
        protocols_of("truncat")
    assert protocols_of("any") == CUT_PROTOCOLS
    assert protocols_of("reinit") == ("reinit",)
