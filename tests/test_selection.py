"""From scores to a ranking: intervals, ties, padding, and sources without a prediction."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from transferscope.errors import InputError, SourceError, TransferscopeWarning
from transferscope.selection import (
    ScratchCandidate,
    accuracy_interval,
    compare_hits,
    leave_one_out,
    recommend,
)

N_SAMPLES = 50


def scores_of(ridge, *, flops=None):
    """Scores over (source, depth) with the given leave-one-out accuracies; shorter rows are padded."""
    depths = max(len(row) for row in ridge.values())

    def padded(rows, fill):
        return [[*row, *[fill] * (depths - len(row))] for row in rows]

    cost = flops or {source: [100 * (i + 1) for i in range(len(row))] for source, row in ridge.items()}
    variables = {
        "layer": padded([[f"stage{i}" for i in range(len(row))] for row in ridge.values()], ""),
        "params": padded([[10 * (i + 1) for i in range(len(row))] for row in ridge.values()], -1),
        "flops": padded([cost[source] for source in ridge], -1),
        "ridge": padded(ridge.values(), np.nan),
        "logme": padded([[-value for value in row] for row in ridge.values()], np.nan),
    }
    right = np.round(np.nan_to_num(variables["ridge"]) * N_SAMPLES)[..., None]
    correct = (np.arange(N_SAMPLES) < right).astype(np.int8)
    return xr.Dataset(
        {name: (("source", "depth"), np.array(rows)) for name, rows in variables.items()}
        | {"correct": (("source", "depth", "sample"), correct), "leep": ("source", np.arange(len(ridge)) / 4)},
        coords={"source": list(ridge), "depth": np.arange(1, depths + 1)},
        attrs={"n_samples": N_SAMPLES},
    )


def ranked(ridge, scratch=None, **options):
    predictions = compare_hits(leave_one_out(scores_of(ridge, **options)), scratch)
    return recommend(predictions, ("ridge", "logme"), scratch, ("leep",))


def scratch_with(accuracy, flops=1):
    return ScratchCandidate("compact", accuracy, n_held_out=40, depths=8, params=5, flops=flops)


@pytest.mark.parametrize("n_samples", [1, 2, 7, 17, 50, 600])
def test_the_interval_is_the_wilson_interval_of_scipy(n_samples):
    for correct in {0, 1, n_samples // 3, n_samples - 1, n_samples}:
        expected = stats.binomtest(correct, n_samples).proportion_ci(confidence_level=0.8, method="wilson")
        lower, upper = accuracy_interval(correct / n_samples, n_samples)
        assert (lower, upper) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert 0 <= lower <= upper <= 1


def test_the_interval_of_an_array_is_that_of_each_value_and_keeps_nan():
    accuracies = np.array([0.0, 0.3, np.nan, 1.0])
    lower, upper = accuracy_interval(accuracies, 17)
    single = [accuracy_interval(accuracy, 17) for accuracy in accuracies]
    np.testing.assert_array_equal(np.stack([lower, upper], axis=1), single)
    assert np.isnan(lower).tolist() == [False, False, True, False]


@pytest.mark.parametrize("n_samples", [0, -3])
def test_an_interval_needs_a_sample(n_samples):
    with pytest.raises(InputError, match="`n_samples` to be at least 1"):
        accuracy_interval(0.5, n_samples)


def test_leave_one_out_adds_three_variables_and_leaves_the_scores_alone():
    scores = scores_of({"a": [0.2, 0.6, 0.4], "b": [0.5]})
    scores["ridge"].attrs["description"] = "its own"
    before = scores.copy(deep=True)
    predicted = leave_one_out(scores)

    xr.testing.assert_identical(scores, before)
    xr.testing.assert_identical(predicted[list(before)], before)
    assert set(predicted) - set(before) == {"expected_accuracy", "lower", "upper"}
    np.testing.assert_array_equal(predicted["expected_accuracy"], scores["ridge"])
    expected = stats.binomtest(30, N_SAMPLES).proportion_ci(confidence_level=0.8, method="wilson")
    at = {"source": "a", "depth": 2}
    assert float(predicted["lower"].sel(at)) == pytest.approx(expected.low)
    assert float(predicted["upper"].sel(at)) == pytest.approx(expected.high)
    assert "80%" in predicted["lower"].attrs["description"]
    assert np.isnan(predicted["upper"].sel(source="b", depth=2))


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
    assert best.scores == {"ridge": 0.9, "logme": -0.9}
    assert best.baselines == {"leep": 0.25}
    assert best.interval == pytest.approx(accuracy_interval(0.9, N_SAMPLES))
    plain = [*best.interval, best.expected_accuracy, *best.scores.values()]
    assert {type(value) for value in plain} == {float}
    assert {type(value) for value in (best.depth, best.depths, best.params, best.flops)} == {int}


def test_scratch_has_an_interval_of_its_own_held_out_images():
    (pick,) = (p for p in ranked({"a": [0.2]}, scratch_with(0.75)) if p.protocol == "scratch")
    expected = stats.binomtest(30, 40).proportion_ci(confidence_level=0.8, method="wilson")
    assert pick.interval == pytest.approx((expected.low, expected.high))
    assert (pick.rank, pick.source, pick.params, pick.flops, pick.scores) == (1, "scratch", 5, 1, {})


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


def test_sources_are_compared_image_by_image_at_their_best_cuts():
    # 45, 44 and 30 of 50 right, the same ones first: 1 image, 15 and 14 tell them apart.
    predictions = compare_hits(leave_one_out(scores_of({"a": [0.1, 0.9], "b": [0.88, 0.2], "c": [0.6]})), None)
    expected = {("a", "b"): 1, ("a", "c"): 15, ("b", "c"): 14}
    for (one, other), images in expected.items():
        mid_p = stats.binom.pmf(images, images, 0.5) / 2
        assert float(predictions["beats"].sel(source=one, other=other)) == pytest.approx(1 - mid_p)
        assert float(predictions["beats"].sel(source=other, other=one)) == pytest.approx(mid_p)
    assert "beats_scratch" not in predictions
    assert "McNemar" in predictions["beats"].attrs["description"]


def test_what_cannot_be_told_apart_is_tied():
    picks = {pick.source: pick for pick in ranked({"a": [0.9], "b": [0.88], "c": [0.6]}, scratch_with(0.1))}
    assert [picks[name].tied_with for name in "abc"] == [("b",), ("a",), ()]
    assert picks["scratch"].tied_with == ()
    assert picks["a"].beats_next == pytest.approx(0.75)
    assert picks["b"].beats_next == pytest.approx(1 - 0.5**15)
    assert picks["c"].beats_next > 0.999
    assert picks["scratch"].beats_next is None


def test_scratch_was_measured_on_other_images():
    picks = ranked({"a": [0.7], "b": [0.2]}, scratch_with(0.75))
    assert [pick.source for pick in picks] == ["scratch", "a", "b"]
    rng = np.random.default_rng(0)
    scratch, a = rng.beta(31, 11, 10**6), rng.beta(36, 16, 10**6)
    assert picks[0].beats_next == pytest.approx((scratch > a).mean(), abs=0.01)
    assert picks[0].tied_with == ("a",)
    assert picks[1].tied_with == ("scratch",)


@pytest.mark.filterwarnings("ignore::transferscope.errors.TransferscopeWarning")
def test_a_source_without_prediction_beats_nobody():
    scores = leave_one_out(scores_of({"a": [0.2, 0.1], "empty": [np.nan, np.nan]}))
    predictions = compare_hits(scores, scratch_with(0.5))
    np.testing.assert_array_equal(predictions["beats"], [[0.5, np.nan], [np.nan, np.nan]])
    assert np.isnan(predictions["beats_scratch"].to_numpy()).tolist() == [False, True]
    assert [p.tied_with for p in recommend(predictions, (), scratch_with(0.5))] == [(), ()]
