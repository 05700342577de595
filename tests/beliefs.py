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


def fixed_belief(ways, *, spread=SPREAD / 2**0.5, samples=50, classes=4):
    """Return the belief in accuracies: (source, depth, protocol) to a number; scratch comes last, its source empty."""
    rows = pd.DataFrame(
        [(*way, accuracy) for way, accuracy in ways.items()], columns=["source", "depth", "protocol", "p"]
    )
    rows["middle"] = logit(rows["p"].clip(1e-6, 1 - 1e-6))
    rows = rows.assign(spread=spread, log_per_class=0.0)
    known = Calibration((), np.zeros(0), np.zeros((0, 0)), {}, (1e-12, 0.0), Chosen(0.0, 1.0), "made up")
    return FixedBelief(rows, Case(samples, samples, classes), known)


def some_scores(sources=2, depths=3):
    """Return scores of sources s0, s1 … with so many stages each, as `candidates` takes them."""
    rng = np.random.default_rng(0)
    rows = [
        {"source": f"s{s}", "depth": d, "depth_fraction": d / depths, "logme": -0.5, "effective_rank": 4.0}
        | {name: rng.uniform(0.2, 0.8) for name in ("knn", "nearest_mean", "ridge", "kernel_ridge", "alignment")}
        for s in range(sources)
        for d in range(1, depths + 1)
    ]
    return pd.DataFrame(rows)
