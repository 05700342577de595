"""Predicted accuracies: the covariates that they are made from, the terms of the model, and its file."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from transferscope.errors import InputError
from transferscope.prediction.calibration import Calibration, Chosen, Term, design, load_calibration
from transferscope.prediction.covariates import COVARIATES, RECIPES, Case, candidates, smooth
from transferscope.prediction.effects import BASES, EFFECTS


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
            "kernel_ridge": [0.4, 0.5, 0.3, 0.6, 0.2],
            "alignment": [0.2, 0.3, 0.1, 0.4, 0.15],
            "logme": [-0.56, -0.5, -0.55, -0.4, -0.57],
        }
    )


CASE = Case(samples=200, probe=100, classes=4, scratch_accuracy=0.7, scratch_held_out=30)


def test_every_source_depth_and_protocol_is_a_candidate_and_so_is_scratch():
    rows = candidates(table(), CASE)
    assert len(rows) == 4 * 5 + 1
    assert set(COVARIATES) <= set(rows)
    expected = {"truncate": 5, "reinit": 5, "finetune": 5, "defrost": 5, "scratch": 1}
    assert rows.groupby("protocol").size().to_dict() == expected
    scratch = rows.iloc[-1]
    assert (scratch["source"], scratch["depth"], scratch["protocol"]) == ("", 0, "scratch")
    assert not scratch[
        [
            "kept",
            "whole",
            "rank",
            "head",
            "gain",
            "alignment",
            "source_head",
            "source_far",
            "excess",
            "deficit",
            *RECIPES,
        ]
    ].any()


def logit(accuracy, n):
    return math.log((accuracy * n + 0.5) / (n - accuracy * n + 0.5))


def heads():
    """The mean logits of the four classifiers, unsmoothed."""
    names = ("ridge", "knn", "nearest_mean", "kernel_ridge")
    return np.array([np.mean([logit(row[name], 100) for name in names]) for _, row in table().iterrows()])


def test_covariates_are_what_they_say():
    rows = candidates(table(), CASE).set_index(["protocol", "source", "depth"]).loc["reinit"]
    assert rows.loc[("one", 1), "rank"] == pytest.approx(math.log(8))
    assert rows["whole"].tolist() == [0, 1, 0, 0, 1]
    assert rows["past_65"].tolist() == pytest.approx([0, 0.35, 0, 2 / 3 - 0.65, 0.35])
    assert np.allclose(rows["log_per_class"], math.log(50 / 20))
    assert np.allclose(rows["log_classes"], math.log(4 / 10))
    assert np.allclose(rows["log_more"], math.log(2))
    assert np.allclose(rows["seen"], 100 / 150)
    assert rows.loc["two", "stages"].tolist() == pytest.approx([math.log(3 / 6)] * 3)
    # 30 held-out images against the weight of 10 that the best head of all has.
    smoothed = rows["target_head"] + rows["source_head"] + rows["head"]
    scratch = 0.75 * logit(0.7, 30) + 0.25 * smoothed.max()
    assert np.allclose(rows["scratch"], scratch)
    np.testing.assert_allclose(rows["excess"], (smoothed - scratch).clip(lower=0))
    for source in ("one", "two"):
        np.testing.assert_allclose(rows.loc[source, "deficit"], max(scratch - smoothed[source].max(), 0))
    assert rows.loc["one", "deficit"].iloc[0] > 0


@pytest.mark.parametrize("probe", [20, 500])
def test_sources_that_are_far_apart_are_taken_at_their_word_as_far_as_it_is_no_chance(probe):
    heads = ["ridge", "knn", "nearest_mean", "kernel_ridge"]
    far = table()
    far = far.assign(**dict.fromkeys(heads, np.where(far["source"] == "one", 0.95, 0.3)))
    rows = candidates(far, Case(samples=probe, probe=probe, classes=4)).set_index(["protocol", "source", "depth"])
    rows = rows.loc["truncate"]
    apart = (logit(0.95, probe) - logit(0.3, probe)) / 2
    assert rows.loc["one", "source_head"].tolist() == pytest.approx([apart] * 2)
    # Two squared deviations, less what chance adds to them, beside three sources of variance 0.06.
    signal = (3 * 0.06 + 2 * apart**2 - 4 / probe) / 4
    believed = signal / (signal + 4 / probe)
    assert rows.loc["one", "source_far"].tolist() == pytest.approx([(apart - 0.7) * believed] * 2)
    assert rows.loc["two", "source_far"].tolist() == pytest.approx([(0.7 - apart) * believed] * 3)
    near = candidates(table(), CASE)
    assert not near["source_far"].any()


def test_levels_are_means_over_upper_halves():
    rows = candidates(table(), CASE).set_index(["protocol", "source", "depth"]).loc["truncate"]
    smoothed = rows["target_head"] + rows["source_head"] + rows["head"]
    of_one, of_two = smoothed["one"].mean(), smoothed["two"].loc[[2, 3]].mean()
    assert rows["target_head"].iloc[0] == pytest.approx((of_one + of_two) / 2)
    assert rows.loc[("two", 1), "source_head"] == pytest.approx(of_two - (of_one + of_two) / 2)
    # LogME is a mean over classes of log likelihoods: without features that of a normal with the variance 1/4 · 3/4.
    nothing = scipy.stats.norm.entropy(scale=math.sqrt(3 / 16))
    gains = rows["target_gain"] + rows["source_gain"] + rows["gain"]
    assert gains.mean() == pytest.approx(table()["logme"].mean() + nothing, abs=0.01)


def test_few_images_smooth_scores_and_many_leave_them_as_they_are():
    depths, values = np.array([0.25, 0.5, 0.75, 1.0]), np.array([-0.5, 0.4, -0.2, 0.3])
    level, kept = smooth(depths, values, 0.4, 2.0, 10**7)
    np.testing.assert_allclose(level + kept, values, atol=1e-3)
    _, drawn = smooth(depths, values, 0.4, 2.0, 10)
    assert np.abs(drawn).max() < np.abs(kept).max() / 2
    # The textbook formula, with the level as a coefficient of an endless prior.
    kernel = 0.16 * np.exp(-np.abs(depths[:, None] - depths) / 0.6)
    total = kernel + (0.4 + 1e-5) * np.eye(4) + 1e6
    flat = (kernel + 1e6) @ np.linalg.solve(total, values)
    level, drawn = smooth(depths, values, 0.4, 2.0, 10)
    np.testing.assert_allclose(level + drawn, flat, atol=1e-3)


def test_a_partly_frozen_network_has_the_covariates_of_the_whole_one():
    rows = candidates(table(), CASE).set_index(["protocol", "source", "depth"])
    frozen, whole = rows.loc[("defrost", "two", 1)], rows.loc[("truncate", "two", 3)]
    assert frozen["depth_fraction"] == pytest.approx(1 / 3)
    names = [name for name in COVARIATES if name not in ("depth", "depth_fraction")]
    np.testing.assert_allclose(frozen[names].astype(float), whole[names].astype(float))


def test_without_a_network_from_scratch_the_best_head_stands_for_it():
    rows = candidates(table(), Case(samples=100, probe=100, classes=4))
    cuts = rows[rows["protocol"] == "truncate"]
    assert np.allclose(rows["scratch"], (cuts["target_head"] + cuts["source_head"] + cuts["head"]).max())


def test_accuracies_of_nothing_and_of_everything_stay_finite():
    scores = table().assign(ridge=[0.0, 1.0, 0.0, 0.0, 0.0], knn=0.0, effective_rank=0.0)
    rows = candidates(scores, Case(samples=10, probe=10, classes=2, scratch_accuracy=0.0, scratch_held_out=2))
    assert np.isfinite(rows[list(COVARIATES)].to_numpy(float)).all()


def test_rows_without_all_scores_are_left_out():
    scores = table()
    scores.loc[1, "effective_rank"] = np.nan
    rows = candidates(scores, CASE)
    assert len(rows) == 4 * 4 + 1
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


COMPONENTS = {name: np.eye(5) * (i + 1) / 7 for i, name in enumerate(EFFECTS)}


def small(**changes):
    given = {
        "terms": (Term(("reinit", "finetune"), ("rank", "kept")), Term(("truncate",), ())),
        "coefficients": np.array([0.5, 0.25]),
        "factor": np.array([[1.0, 0.0], [1 / 3, 2.0]]),
        "components": COMPONENTS,
        "draw_noise": (0.02, 0.5),
        "chosen": Chosen(-0.1, 1.25),
        "measured": "nothing",
    }
    return Calibration(**{**given, **changes})


def test_a_term_is_the_product_of_its_factors_for_its_protocols():
    rows = candidates(table(), CASE)
    found = design(small().terms, rows)
    reinit = (rows["protocol"] == "reinit") & (rows["whole"] == 0)
    np.testing.assert_allclose(found[reinit, 0], (rows["rank"] * rows["kept"])[reinit])
    assert not found[rows["protocol"] == "truncate", 0].any()
    assert (found[rows["protocol"] == "truncate", 1] == 1).all()
    # With nothing left to be trained, it is a head on frozen features.
    assert (found[(rows["protocol"] == "reinit") & (rows["whole"] == 1)] == [0, 1]).all()


def test_draws_of_more_images_vary_less():
    np.testing.assert_allclose(small().draw_variance(np.log([1.0, 4.0])), [0.02, 0.01])


def test_a_file_holds_the_whole_calibration(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(small().to_json(), encoding="utf-8")
    found = load_calibration(path)
    assert (found.terms, found.draw_noise, found.chosen) == (small().terms, (0.02, 0.5), Chosen(-0.1, 1.25))
    np.testing.assert_allclose(found.coefficients, small().coefficients)
    np.testing.assert_allclose(found.factor, small().factor, rtol=1e-5)
    for name in EFFECTS:
        np.testing.assert_allclose(found.components[name], COMPONENTS[name], rtol=1e-5)


def test_a_file_holds_what_is_known_of_networks(tmp_path):
    known = small().with_networks(["b", "a", "b"])
    assert known.networks == ("a", "b")
    known = replace(known, coefficients=np.arange(22.0), factor=known.factor + 0.01 * np.tril(np.ones((22, 22))))
    path = known.save(tmp_path / "own.json")
    found = load_calibration(path)
    assert found.networks == ("a", "b")
    np.testing.assert_allclose(found.coefficients, known.coefficients)
    np.testing.assert_allclose(found.factor, known.factor, rtol=1e-5)
    ours = found.of_sources({"mine": "b", "other": "c"})
    assert ours.networks == ("mine",)
    np.testing.assert_allclose(ours.coefficients, [0, 1, *range(12, 22)])
    np.testing.assert_allclose(
        (ours.factor @ ours.factor.T)[2:, 2:], (known.factor @ known.factor.T)[12:, 12:], rtol=1e-4
    )


def test_what_could_not_be_read_again_is_not_saved(tmp_path, monkeypatch):
    monkeypatch.setattr("transferscope.prediction.calibration._MOST_BYTES", 3000)
    with pytest.raises(InputError, match=r"with 9 networks it has .*; learn from the transfers of fewer networks"):
        small().with_networks(map(str, range(9))).save(tmp_path / "own.json")
    assert not list(tmp_path.iterdir())


def test_components_that_a_file_may_hold_are_enough_for_networks():
    flat = {name: np.ones((5, 5)) - 1e-7 * np.eye(5) for name in EFFECTS}
    known = small(components=flat).with_networks(["a"])
    np.testing.assert_allclose((known.factor @ known.factor.T)[2:7, 2:7], np.ones((5, 5)), atol=1e-6)


def test_a_network_that_nothing_is_known_of_is_like_any_other():
    known = small(components={name: np.eye(5) * (i + 1) for i, name in enumerate(EFFECTS)}).with_networks(["a"])
    expected = [1 + EFFECTS.index("network")] * 5 + [1 + EFFECTS.index("slope")] * 5
    np.testing.assert_allclose((known.factor @ known.factor.T)[2:, 2:], np.diag(expected), rtol=1e-6)
    np.testing.assert_array_equal(known.coefficients, [0.5, 0.25, *[0] * 10])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, "version: expected 2, got 1"),
        ({"more": 1}, "more: expected no such field, got 1"),
        ({"draw_noise": [0, 1]}, r"draw_noise.*expected two finite numbers, the first above 0, got 0"),
        ({"terms": []}, "terms: expected a list of terms with bases, factors and coefficient"),
        (
            {"factor": [[1.0]]},
            "factor: expected the lower triangle of a matrix with a row for each term and 10 for each network, but",
        ),
        ({"networks": {"a": [1.0]}}, "networks.a: expected for each fingerprint of a network a list of 10 finite"),
        ({"networks": {"a": [0.0] * 10}}, "factor: expected the lower triangle"),
        ({"networks": {"": [0.0] * 10}}, r"networks\.: expected for each fingerprint"),
        ({"networks": {"a\x1b[31m": [0.0]}}, r"networks\.a\\x1b\[31m: expected"),
        ({"networks": {str(i): [0.0] for i in range(30)}}, "networks.9: expected .*; 20 more. Write it anew"),
        ({"chosen": {"shift": 0.0, "scale": 0.0}}, "chosen.scale: expected a finite number above 0, got 0.0"),
        ({"components": {}}, "components: expected for each of target, size"),
    ],
)
def test_every_problem_of_a_file_is_named_with_its_field(tmp_path, change, message):
    path = tmp_path / "own.json"
    path.write_text(json.dumps(json.loads(small().to_json()) | change), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load_calibration(path)


def test_terms_and_components_are_checked_too(tmp_path):
    content = json.loads(small().to_json())
    content["terms"][0] |= {"bases": ["defrost"], "factors": ["luck"]}
    content["components"]["cell"][0][1] = 3.0
    path = tmp_path / "own.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError) as raised:
        load_calibration(path)
    for said in (
        "terms[0].bases[0]: expected a list with some of truncate",
        "terms[0].factors[0]: expected a list with some of log_per_class",
        "components.cell: expected for each of target",
    ):
        assert said in str(raised.value)


def test_what_is_no_file_or_no_json_is_said(tmp_path):
    with pytest.raises(InputError, match="Expected `path` to be a calibration file, but it cannot be read"):
        load_calibration(tmp_path / "gone.json")
    path = tmp_path / "own.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="it is no JSON"):
        load_calibration(path)


def test_the_shipped_calibration_is_whole():
    known = load_calibration()
    assert known.factor.shape == (len(known.terms),) * 2
    assert {base for term in known.terms for base in term.bases} <= set(BASES)
    for name in EFFECTS:
        assert np.linalg.eigvalsh(known.components[name]).min() > 0
    # What is learnt from one target of what all have in common: fine-tuning goes with reinit more than with heads.
    target = known.components["target"]
    together = target / np.sqrt(np.outer(np.diag(target), np.diag(target)))
    finetune, reinit, truncate = (BASES.index(name) for name in ("finetune", "reinit", "truncate"))
    assert together[finetune, reinit] > together[finetune, truncate] > 0
