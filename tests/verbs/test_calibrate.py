"""A laboratory's own runs, beside what was known before them, change what the next ranking expects."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rankings import make_ranking

import transferscope as ts
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.prediction.belief import Belief, believe
from transferscope.prediction.calibration import load_calibration
from transferscope.prediction.covariates import Case
from transferscope.runtime.provenance import Provenance


def known_before():
    """A ranking of two sources with everything that predictions need."""
    more = {"knn": 0.5, "nearest_mean": 0.5, "kernel_ridge": 0.55, "alignment": 0.3, "effective_rank": 8.0}
    return make_ranking({"birds": [0.5, 0.6, 0.55], "digits": [0.4, 0.5]}, more=more)


def runs(**changes):
    rows = [
        {"source": source, "target": "shells", "protocol": "finetune", "depth": depth, "depths": depths,
         "layer": f"blocks.{depth - 1}", "samples_per_class": 100, "samples": 600, "seed": seed, "accuracy": accuracy,
         "seconds": 1.0, "status": "done"}
        for source, depth, depths, accuracy in (("birds", 3, 3, 0.97), ("birds", 2, 3, 0.96), ("digits", 2, 2, 0.95))
        for seed in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**changes)


def test_runs_better_than_expected_raise_what_is_expected(tmp_path):
    with pytest.warns(TransferscopeWarning, match="called 'shells' too"):
        found = ts.calibrate([(known_before(), runs())])
    path = found.save(tmp_path / "ours.json")
    again = load_calibration(path)
    np.testing.assert_allclose(again.coefficients, found.coefficients, rtol=1e-4, atol=1e-6)
    assert again.measured.endswith("3 measured transfers of 1 targets (by `calibrate`)")
    before = load_calibration()
    bases = [i for i, term in enumerate(before.terms) if term.bases == ("finetune",) and not term.factors]
    assert (again.coefficients - before.coefficients)[bases] > 0


def test_a_network_that_did_better_than_another_is_expected_to_on_other_targets_too(tmp_path):
    prints = {"birds": "0b", "digits": "0d"}
    ranking = known_before()
    ranking = replace(ranking, provenance=Provenance({}, prints, {}))
    apart = runs().assign(accuracy=lambda rows: np.where(rows["source"] == "birds", 0.6, 0.98))
    with pytest.warns(TransferscopeWarning, match="called 'shells' too"):
        path = ts.calibrate([(ranking, apart)]).save(tmp_path / "ours.json")
    known = load_calibration(path)
    assert known.networks == ("0b", "0d")
    rows = believe(ranking.scores, 500).rows
    both = {
        name: Belief(rows, Case(500, 500, 10), known.of_sources(sources)).mean[
            ((rows["source"] == "digits") & (rows["protocol"] == "finetune")).to_numpy()
        ]
        for name, sources in {"as it was": prints, "as birds": {"digits": "0b"}, "a stranger": {}}.items()
    }
    assert (both["as it was"] > both["a stranger"]).all()
    assert (both["a stranger"] > both["as birds"]).all()


@pytest.mark.parametrize(
    "sources", [{"birds": None}, {"birds": 1}, {"birds": [1]}, {"birds": ""}, ["birds"], "birds", None]
)
def test_fingerprints_that_are_none_are_said(sources):
    ranking = replace(known_before(), provenance=Provenance({}, sources, {}))
    with pytest.raises(
        InputError, match=r"`provenance` of the ranking of shells to have the fingerprint.*rank it anew"
    ):
        ts.calibrate([(ranking, runs())])


@pytest.mark.usefixtures("undrawn")
def test_a_ranking_may_be_the_folder_that_it_was_saved_in(tmp_path):
    known_before().save(tmp_path / "results")
    runs().to_csv(tmp_path / "runs.csv", index=False)
    with pytest.warns(TransferscopeWarning, match="called 'shells' too"):
        found = ts.calibrate([(tmp_path / "results", tmp_path / "runs.csv")])
    assert "3 measured transfers" in found.measured


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("results/", "pairs of a ranking and its runs, but got str; put the pair into a list"),
        ([("one",)], "but one of them is tuple; give what `rank` found"),
        ([known_before()], "but one of them is Ranking"),
    ],
)
def test_what_are_no_pairs_is_said(given, message):
    with pytest.raises(InputError, match=message):
        ts.calibrate(given)


def test_runs_of_another_target_are_left_out_and_nothing_else_is_an_error():
    with (
        pytest.warns(TransferscopeWarning, match="other targets|another target"),
        pytest.raises(InputError, match="Expected `runs` to hold measured transfers"),
    ):
        ts.calibrate([(known_before(), runs(target="fish"))])
