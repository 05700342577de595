"""Beliefs made on the spot, for the tests of what is chosen by them and of everything that shows it."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from transferscope.prediction.belief import Belief
from transferscope.prediction.calibration import Calibration, Chosen
from transferscope.prediction.covariates import Case

SPREAD = 0.3
"""Standard deviation of every difference of logits."""


@dataclass(frozen=True)
class FixedBelief(Belief):
    """A belief in what its rows say: independent logits with columns `middle` and `spread` (standard deviation)."""

    def posterior(self, rows):
        return rows["middle"].to_numpy(float), rows["spread"].to_numpy(float) ** 2

    def expected(self, chosen=False):
        half = NormalDist().inv_cdf(0.9) * self.rows["spread"]
        ends = {"lower": expit(self.rows["middle"] - half), "upper": expit(self.rows["middle"] + half)}
        return pd.DataFrame({"expected_accuracy": self.rows["p"]} | ends)

    def covariance(self, rows, others):
        keys = ["source", "depth", "protocol"]
        same = [
            [tuple(one) == tuple(other) for other in others[keys].itertuples(index=False)]
            for one in rows[keys].itertuples(index=False)
        ]
        return np.array(same) * rows["spread"].to_numpy(float)[:, None] ** 2


def fixed_belief(ways, *, spread=SPREAD / np.sqrt(2), samples=50, classes=4):
    """Return the belief in accuracies: (source, depth, protocol) to a number; scratch's source is empty and comes last."""
    rows = pd.DataFrame([(*way, accuracy) for way, accuracy in ways.items()], columns=["source", "depth", "protocol", "p"])
    rows["middle"] = logit(rows["p"].clip(1e-6, 1 - 1e-6))
    rows = rows.assign(spread=spread, log_per_class=0.0)
    known = Calibration((), np.zeros(0), np.zeros((0, 0)), {}, (1e-12, 0.0), Chosen(0.0, 1.0), "made up")
    return FixedBelief(rows, Case(samples, samples, classes), known)
