"""The fit of the prediction, on accuracies drawn from a known model."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from beliefs import some_scores
from prediction import reml
from prediction.terms import expected_components

from transferscope.prediction.calibration import Term, design
from transferscope.prediction.covariates import CUT_PROTOCOLS, SCRATCH, Case, candidates
from transferscope.prediction.effects import BASES, covariance

TERMS = (*(Term((base,), ()) for base in BASES[:4]), Term(BASES[:3], ("head",)))
SLOPE = 0.9


def drawn(targets, seed=0, **changes):
    """Return measured cells of so many targets, and their noise, from components that differ from the expected ones."""
    rng = np.random.default_rng(seed)
    true = {name: each * changes.get(name, 1.0) for name, each in expected_components().items()}
    found = []
    for target in range(targets):
        scores = some_scores(depths=4).assign(ridge=rng.uniform(0.2, 0.8, 8), knn=rng.uniform(0.2, 0.8, 8))
        rows = pd.concat([candidates(scores, Case(n, n, 4)) for n in (40, 400)], ignore_index=True)
        spread = covariance(true, rows) + 0.01 * np.eye(len(rows))
        mean = design(TERMS, rows) @ np.array([0.5, 0.2, 0.8, 0.3, SLOPE])
        logits = rng.multivariate_normal(mean, spread, method="cholesky")
        found.append(rows.assign(map="drawn", target=f"t{target}", ahead=0, logit=logits))
    return pd.concat(found, ignore_index=True), true


@pytest.fixture(scope="module")
def fitted():
    rows, true = drawn(40, target=3.0)
    return reml.fit(rows, np.full(len(rows), 0.01), np.ones(len(rows)), TERMS, steps=40), true, rows


def test_components_are_found_again(fitted):
    found, true, _ = fitted
    target = BASES.index("finetune")
    # 40 draws of a variance have a standard deviation of 22 %; the expected one, a third of it, counts for six more.
    assert found.components["target"][target, target] == pytest.approx(true["target"][target, target], rel=0.5)
    together = found.components["target"][target, BASES.index("reinit")]
    assert together == pytest.approx(true["target"][target, BASES.index("reinit")], rel=0.6)
    assert found.components["source"][0, 0] < found.components["target"][0, 0]


def test_coefficients_are_found_again_and_as_certain_as_they_say(fitted):
    found, _, _ = fitted
    mean, factor = found.coefficients()
    spread = np.sqrt((factor**2).sum(axis=1))
    assert abs(mean[-1] - SLOPE) < 3 * spread[-1] < 0.3
    assert (np.abs(mean[:4] - [0.5, 0.2, 0.8, 0.3]) < 3 * spread[:4]).all()


def test_a_target_that_is_left_out_is_unknown(fitted):
    found, _, rows = fitted
    part = rows[rows["target"] != "t0"].reset_index(drop=True)
    alone = reml.fit(part, np.full(len(part), 0.01), np.ones(len(part)), TERMS, found.components, steps=0)
    np.testing.assert_allclose(found.coefficients("t0")[0], alone.coefficients()[0], rtol=0.05, atol=0.02)
    assert (np.abs(found.coefficients("t0")[0] - found.coefficients()[0]) > 0).any()


def test_every_protocol_has_terms():
    assert {*CUT_PROTOCOLS, SCRATCH} - set(BASES) == {"defrost"}
