"""Predicted accuracies: what they are made from, the model, its file, and what happens outside of what was measured."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from transferscope.errors import InputError
from transferscope.prediction.calibration import Calibration, Term, load_calibration, unfitted
from transferscope.prediction.covariates import COVARIATES, Case, candidates

PROTOCOLS = ("truncate", "reinit", "finetune", "scratch")


def table():
    """Two sources with two and three stages."""
    return pd.DataFrame(
        {
            "source": ["one", "one", "two", "two", "two"],
            "depth": [1, 2, 1, 2, 3],
            "depth_fraction": [0.5, 1.0, 1 / 3, 2 / 3, 1.0],
            "effective_rank": [3.0, 8.0, 2.0, 20.0, 5.0],
            "ridge": [0.4, 0.6, 0.3, 0.5, 0.2],
            "knn": [0.3, 0.6, 0.3, 0.7, 0.2],
            "nearest_mean": [0.5, 0.6, 0.2, 0.5, 0.1],
            "logme": [-0.56, -0.5, -0.55, -0.4, -0.57],
        }
    )


CASE = Case(samples=200, probe=100, classes=4, scratch_accuracy=0.7, scratch_held_out=30)


def test_every_source_depth_and_protocol_is_a_candidate_and_so_is_scratch():
    rows = candidates(table(), CASE)
    assert len(rows) == 3 * 5 + 1
    assert set(COVARIATES) <= set(rows)
    assert rows.groupby("protocol").size().to_dict() == {"truncate": 5, "reinit": 5, "finetune": 5, "scratch": 1}
    scratch = rows.iloc[-1]
    assert (scratch["source"], scratch["depth"], scratch["protocol"]) == ("", 0, "scratch")
    assert not scratch[["depth_fraction", "whole", "rank", "head", "gain", "gap", "excess"]].any()


def test_covariates_are_what_they_say():
    rows = candidates(table(), CASE).set_index(["protocol", "source", "depth"]).loc["reinit"]
    logit = lambda hits, n: math.log((hits + 0.5) / (n - hits + 0.5))  # noqa: E731
    heads = [sum(logit(hits, 100) for hits in each) / 3 for each in ((40, 30, 50), (60, 60, 60), (30, 30, 20))]
    heads += [(2 * logit(50, 100) + logit(70, 100)) / 3, (2 * logit(20, 100) + logit(10, 100)) / 3]
    assert rows["head"].tolist() == pytest.approx(heads)
    # LogME is a mean over classes of log likelihoods: without features that of a normal with the variance 1/4 · 3/4.
    nothing = scipy.stats.norm.entropy(scale=math.sqrt(3 / 16))
    assert rows["gain"].tolist() == pytest.approx([score + nothing for score in (-0.56, -0.5, -0.55, -0.4, -0.57)])
    assert rows.loc[("one", 1), "rank"] == pytest.approx(math.log(8))
    assert rows["whole"].tolist() == [0, 1, 0, 0, 1]
    assert np.allclose(rows["log_per_class"], math.log(50))
    assert np.allclose(rows["log_more"], math.log(2))
    # 30 held-out images against the weight of 10 that the best head of all has.
    scratch = 0.75 * logit(21, 30) + 0.25 * logit(60, 100)
    assert np.allclose(rows["scratch"], scratch)
    gaps = [head - scratch for head in heads]
    assert rows["gap"].tolist() == pytest.approx(gaps)
    assert rows["excess"].tolist() == pytest.approx([max(gap, 0) for gap in gaps])


def test_without_a_network_from_scratch_the_best_head_stands_for_it():
    rows = candidates(table(), Case(samples=100, probe=100, classes=4))
    assert np.allclose(rows["scratch"], rows["head"].max())


def test_accuracies_of_nothing_and_of_everything_stay_finite():
    scores = table().assign(ridge=[0.0, 1.0, 0.0, 0.0, 0.0], knn=0.0, effective_rank=0.0)
    rows = candidates(scores, Case(samples=10, probe=10, classes=2, scratch_accuracy=0.0, scratch_held_out=2))
    assert np.isfinite(rows[list(COVARIATES)].to_numpy(float)).all()


def test_rows_without_all_scores_are_left_out():
    scores = table()
    scores.loc[1, "effective_rank"] = np.nan
    rows = candidates(scores, CASE)
    assert len(rows) == 3 * 4 + 1
    with pytest.raises(InputError, match="there is none"):
        candidates(scores.assign(ridge=np.nan), CASE)
    with pytest.raises(InputError, match="there is no ridge"):
        candidates(scores.drop(columns="ridge"), CASE)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"samples": 0}, "`samples` to be a whole number of at least 1"),
        ({"probe": 1}, "`probe` to be a whole number of at least 2"),
        ({"classes": 1}, "`classes` to be a whole number of at least 2"),
        ({"scratch_held_out": 0}, "to come together"),
        ({"scratch_accuracy": None}, "to come together"),
    ],
)
def test_a_case_that_is_none_raises(given, message):
    known = {"samples": 5, "probe": 5, "classes": 2, "scratch_accuracy": 0.5, "scratch_held_out": 4}
    with pytest.raises(InputError, match=message):
        Case(**{**known, **given})


def small(**changes):
    known = {
        "level": -1.0,
        "terms": (Term(("reinit", "finetune"), ("rank", "depth_fraction"), 0.5), Term(("truncate",), (), 0.25)),
        "errors": dict.fromkeys(PROTOCOLS, (-0.5, 1.0)),
        "growth": 0.0,
        "contrast": 0.2,
        "ranges": {"log_per_class": (0.0, 10.0)},
        "measured": "nothing",
    }
    return Calibration(**{**known, **changes})


def test_a_prediction_is_the_sum_of_its_terms():
    rows = candidates(table(), CASE)
    found = small().predict(rows).set_index(["protocol", "source", "depth"])
    logit = -1.0 + 0.5 * math.log(20) * (2 / 3)
    row = found.loc[("finetune", "two", 2)]
    expected = [1 / (1 + math.exp(-(logit + error))) for error in (0.0, -0.5, 1.0)]
    assert row[["expected_accuracy", "lower", "upper"]].tolist() == pytest.approx(expected)
    assert found.loc[("truncate", "one", 1), "expected_accuracy"] == pytest.approx(1 / (1 + math.exp(0.75)))
    assert found.loc[("scratch", "", 0), "expected_accuracy"] == pytest.approx(1 / (1 + math.e))


def test_beyond_what_was_measured_scores_speak_for_themselves():
    rows = candidates(table(), CASE)
    narrow = small(ranges={"log_per_class": (0.0, 10.0), "rank": (0.0, math.log(10))})
    assert narrow.beyond(rows) == ["rank"]  # of source two
    found = narrow.predict(rows)
    pd.testing.assert_frame_equal(found, unfitted(rows))
    found = found.set_index(["protocol", "source", "depth"])
    assert found.loc[("truncate", "one", 2), "expected_accuracy"] == pytest.approx(60.5 / 101)
    scratch = found.loc[("scratch", "", 0), "expected_accuracy"]
    assert found.loc[("reinit", "two", 3), "expected_accuracy"] == pytest.approx(scratch)
    assert found[["lower", "upper"]].isna().all(axis=None)


def test_a_calibration_survives_its_file(tmp_path):
    (tmp_path / "own.json").write_text(small().to_json(), encoding="utf-8")
    assert load_calibration(tmp_path / "own.json") == small()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(version=99), r"version: expected 1, got 99\. Write"),
        (lambda c: c.update(version=True), "version: expected 1, got True"),
        (lambda c: c.pop("terms"), "terms: expected a list of terms .*, but it is missing"),
        (lambda c: c["ranges"].update(mood=[0, 1]), "ranges.mood: expected for some of log_per_class.*, got 'mood'"),
        (lambda c: c["errors"].pop("scratch"), "errors: expected for each of truncate, reinit, .* got"),
        (lambda c: c["errors"].update(svm=[-1, 1]), "errors.svm: expected for each of truncate"),
        (lambda c: c["errors"].update(reinit=[0.1, 1]), r"errors.reinit: .*at most 0, .*at least 0, got \[0.1, 1\]"),
        (lambda c: c["errors"].update(reinit=[-1, 1, 2]), r"errors.reinit.*: .*two finite numbers"),
        (lambda c: c["ranges"].update(head=[2, 1]), r"ranges.head: .*the first not above the other, got \[2, 1\]"),
        (lambda c: c["ranges"].update(head=[0]), r"ranges.head.*: .*two finite numbers"),
        (lambda c: c["ranges"].update(head=[0, math.inf]), r"ranges.head\[1\]: .*two finite numbers.*, got inf"),
        (lambda c: c.update(level=math.nan), "level: expected a finite number, got nan"),
        (lambda c: c.update(level="0"), "level: expected a finite number, got '0'"),
        (lambda c: c.update(level=None), "level: expected a finite number, got None"),
        (lambda c: c.update(growth=-0.1), "growth: expected a finite number of at least 0, got -0.1"),
        (lambda c: c.update(contrast=0), "contrast: expected a finite number above 0, got 0"),
        (lambda c: c.update(contrast=True), "contrast: expected a finite number above 0, got True"),
        (lambda c: c.update(measured=""), "measured: expected words on what was measured, got ''"),
        (lambda c: c.update(mood=1), "mood: expected no such field, got 1"),
        (lambda c: c["terms"][0].update(mood=1), r"terms\[0\].mood: expected no such field, got 1"),
        (lambda c: c["terms"][1].update(coefficient=math.inf), r"terms\[1\].coefficient: expected a finite .* got inf"),
        (lambda c: c["terms"][1].pop("coefficient"), r"terms\[1\].coefficient: expected a finite .* missing"),
        (lambda c: c["terms"][0].update(factors=["mood"]), r"terms\[0\].factors\[0\]: .*log_per_class.* got 'mood'"),
        (lambda c: c["terms"][0].update(protocols=[]), r"terms\[0\].protocols: .*some of truncate, .* got \[\]"),
        (lambda c: c.update(terms={}), r"terms: expected a list of terms .*, got {}"),
        (lambda c: (c.update(growth=-1), c.update(contrast=-1)), "growth: .* got -1; contrast: .* got -1"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_an_error_that_names_it(tmp_path, change, message):
    content = json.loads(small().to_json())
    change(content)
    (tmp_path / "own.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=rf"own\.json.*{message}"):
        load_calibration(tmp_path / "own.json")


@pytest.mark.parametrize(("text", "message"), [("{", "it is no JSON"), ("[1]", r"expected an object, got \[1\]")])
def test_a_file_that_holds_something_else_is_an_error_that_names_it(tmp_path, text, message):
    (tmp_path / "own.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=rf"own\.json.*{message}"):
        load_calibration(tmp_path / "own.json")


def test_a_file_that_is_not_there_is_an_error_that_names_it(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read.*none\.json"):
        load_calibration(tmp_path / "none.json")


def test_the_calibration_that_is_shipped_can_be_used():
    shipped = load_calibration()
    assert {protocol for term in shipped.terms for protocol in term.protocols} == set(PROTOCOLS)
    assert shipped.contrast > 0
    assert all(low < 0 < high for low, high in shipped.errors.values())
    found = shipped.predict(candidates(table(), CASE))
    assert found["expected_accuracy"].between(0, 1).all()
    assert (found["lower"] <= found["expected_accuracy"]).all()
    assert (found["expected_accuracy"] <= found["upper"]).all()
