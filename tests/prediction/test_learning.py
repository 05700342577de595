"""A laboratory's own transfers change the coefficients as Bayes' rule says."""

import numpy as np
import pytest
from beliefs import some_scores

from transferscope.errors import InputError
from transferscope.prediction.belief import Belief
from transferscope.prediction.calibration import load_calibration
from transferscope.prediction.covariates import Case, candidates
from transferscope.prediction.effects import covariance
from transferscope.prediction.learning import learn
from transferscope.prediction.observation import Observation

CASE = Case(samples=200, probe=100, classes=4)


def measured(*accuracies, protocol="finetune"):
    seen = tuple(
        Observation(source=f"s{i % 2}", depth=1 + i // 2, protocol=protocol, samples=200, accuracy=each, tested=500)
        for i, each in enumerate(accuracies)
    )
    return Belief(candidates(some_scores(), CASE), CASE, load_calibration(), seen)


def test_coefficients_change_as_in_a_joint_gaussian():
    known = load_calibration()
    two = [measured(0.9, 0.8, 0.95), measured(0.4, 0.5, protocol="truncate")]
    found = learn(known, two, "ours")
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


def test_a_laboratory_where_fine_tuning_does_well_expects_more_of_it():
    known, fresh = load_calibration(), measured()
    better = learn(known, [measured(0.97, 0.97, 0.97, 0.97) for _ in range(5)], "ours")
    before, after = (Belief(fresh.rows, CASE, each).mean for each in (known, better))
    finetune = (fresh.rows["protocol"] == "finetune").to_numpy()
    assert (after > before)[finetune].all()


def test_nothing_measured_is_an_error():
    with pytest.raises(InputError, match="Expected `runs` to hold measured transfers"):
        learn(load_calibration(), [measured()], "ours")
