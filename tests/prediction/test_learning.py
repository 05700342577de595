"""A laboratory's own transfers change the coefficients as Bayes' rule says."""

import numpy as np
import pandas as pd
import pytest
from beliefs import some_scores

from transferscope.errors import InputError
from transferscope.prediction.belief import OF_REFERENCE, Belief
from transferscope.prediction.calibration import load_calibration
from transferscope.prediction.covariates import Case, candidates
from transferscope.prediction.effects import covariance, loadings
from transferscope.prediction.learning import learn
from transferscope.prediction.observation import Observation

CASE = Case(samples=200, probe=100, classes=4)
PRINTS = {"s0": "a", "s1": "b"}


def measured(*accuracies, protocol="finetune"):
    seen = tuple(
        Observation(source=f"s{i % 2}", depth=1 + i // 2, protocol=protocol, samples=200, accuracy=each, tested=500)
        for i, each in enumerate(accuracies)
    )
    return Belief(candidates(some_scores(), CASE), CASE, load_calibration(), seen)


def test_coefficients_change_as_in_a_joint_gaussian():
    known = load_calibration()
    two = [measured(0.9, 0.8, 0.95), measured(0.4, 0.5, protocol="truncate")]
    found = learn(known, [(each, {}) for each in two], "ours")
    columns = np.vstack([known.design(each.seen) for each in two])
    own = np.zeros((5, 5))
    own[:3, :3], own[3:, 3:] = (
        covariance(known.components, each.seen)
        + np.diag(each.noise(each.observations, [seen.accuracy for seen in each.observations]))
        for each in two
    )
    logits = [np.log((a * 500 + 0.5) / (500.5 - a * 500)) for a in (0.9, 0.8, 0.95, 0.4, 0.5)]
    uncertain = known.factor @ known.factor.T
    gain = uncertain @ columns.T @ np.linalg.inv(columns @ uncertain @ columns.T + own)
    np.testing.assert_allclose(
        found.coefficients, known.coefficients + gain @ (logits - columns @ known.coefficients), atol=1e-6
    )
    np.testing.assert_allclose(found.factor @ found.factor.T, uncertain - gain @ columns @ uncertain, atol=1e-6)
    assert np.allclose(found.factor, np.tril(found.factor))
    assert found.measured.endswith("5 measured transfers of 2 targets (ours)")


def joint_prior(known, targets):
    """Return mean and covariance of the logits of rows of several targets, each with the fingerprints of its sources.

    As the model says, without any step in between: targets share coefficients, and what a network does on all of them.
    """
    rows = pd.concat(
        [rows.assign(target=i, print=rows["source"].map(prints)) for i, (rows, prints) in enumerate(targets)]
    )
    columns = known.design(rows)
    spread = columns @ known.factor @ known.factor.T @ columns.T
    same_target = np.equal.outer(rows["target"].to_numpy(), rows["target"].to_numpy())
    spread += same_target * covariance(known.components, rows)
    cut = (rows["protocol"] != "scratch").to_numpy()
    spread += OF_REFERENCE * same_target * np.outer(~cut, ~cut)
    prints = rows["print"].to_numpy(object)
    same_network = np.equal.outer(prints, prints) & np.logical_and.outer(cut, cut) & ~same_target
    centred, mine = rows["kept"].to_numpy() - 0.5, loadings(rows)
    spread += same_network * (mine @ known.components["network"] @ mine.T)
    spread += same_network * np.outer(centred, centred) * (mine @ known.components["slope"] @ mine.T)
    return columns @ known.coefficients, spread


def test_networks_are_known_again_on_another_target_whatever_they_are_called():
    known = load_calibration()
    two = [measured(0.9, 0.8, 0.95), measured(0.4, 0.5, protocol="truncate")]
    names = [PRINTS, {"s0": "b", "s1": "c"}, {"s0": "c", "s1": "a"}]
    found = learn(known, list(zip(two, names, strict=False)), "ours")
    assert found.networks == ("a", "b", "c")
    fresh = measured()
    believed = Belief(fresh.rows, CASE, found.of_sources(names[2]))
    seen = [(each.seen, prints) for each, prints in zip(two, names, strict=False)]
    mean, spread = joint_prior(known, [*seen, (fresh.rows, names[2])])
    noise = [each.noise(each.observations, [seen.accuracy for seen in each.observations]) for each in two]
    logits = np.concatenate([[seen.place for seen in each.observations] for each in two])
    gain = spread[5:, :5] @ np.linalg.inv(spread[:5, :5] + np.diag(np.concatenate(noise)))
    np.testing.assert_allclose(believed.mean, mean[5:] + gain @ (logits - mean[:5]), atol=1e-5)
    after = spread[5:, 5:] - gain @ spread[:5, 5:]
    np.testing.assert_allclose(believed.covariance(fresh.rows, fresh.rows), after, atol=1e-5)
    np.testing.assert_allclose(believed.variance, np.diag(after), atol=1e-5)


def test_a_network_under_two_names_has_the_same_effects_under_both():
    found = learn(load_calibration(), [(measured(0.9, 0.8), PRINTS)], "ours")
    fresh = measured()
    believed = Belief(fresh.rows, CASE, found.of_sources({"s0": "a", "s1": "a"}))
    first = len(found.terms)
    ours = believed.calibration
    np.testing.assert_array_equal(ours.coefficients[first : first + 10], ours.coefficients[first + 10 :])
    assert ours.factor.shape == (first + 20, first + 20)
    assert np.allclose(ours.factor, np.tril(ours.factor))
    assert (believed.variance > 0).all()


def test_what_was_learnt_of_networks_is_learnt_on_in_two_steps_as_in_one():
    known = load_calibration()
    one, other = (measured(0.9, 0.8, 0.95), PRINTS), (measured(0.4, 0.5), {"s0": "b"})
    at_once = learn(known, [one, other], "ours")
    one_by_one = learn(learn(known, [one], "ours"), [other], "ours")
    assert one_by_one.networks == at_once.networks == ("a", "b")
    np.testing.assert_allclose(one_by_one.coefficients, at_once.coefficients, atol=1e-8)
    np.testing.assert_allclose(one_by_one.factor, at_once.factor, atol=1e-5)


def test_a_laboratory_where_fine_tuning_does_well_expects_more_of_it():
    known, fresh = load_calibration(), measured()
    better = learn(known, [(measured(0.97, 0.97, 0.97, 0.97), PRINTS) for _ in range(5)], "ours")
    before, after = (Belief(fresh.rows, CASE, each).mean for each in (known, better))
    finetune = (fresh.rows["protocol"] == "finetune").to_numpy()
    assert (after > before)[finetune].all()


def test_nothing_measured_is_an_error():
    with pytest.raises(InputError, match="Expected `runs` to hold measured transfers"):
        learn(load_calibration(), [(measured(), PRINTS)], "ours")
