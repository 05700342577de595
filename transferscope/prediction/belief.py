"""What is believed of every way to transfer, before and after evidence: a Gaussian over the logits of accuracies.

Of another metric than an accuracy "logit" stands for the place of the figure on its `Link`, and "accuracy" for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.linalg import cholesky, solve_triangular
from scipy.special import ndtr

from transferscope.errors import InputError, check_whole
from transferscope.prediction.any_task import calibration_for
from transferscope.prediction.calibration import Calibration
from transferscope.prediction.covariates import AS_CLASSES, RECIPES, SCRATCH, Case, candidates
from transferscope.prediction.effects import covariance, variance
from transferscope.prediction.observation import Observation
from transferscope.results.recommendation import LEVEL
from transferscope.runtime.metrics import ACCURACY, CLASSIFICATION, metric_of

OF_REFERENCE = 0.03
"""Variance, in squared logits, of how the scratch network that `rank` trains differs from those of measured transfers,
which have other architectures and recipes. What is believed of training from scratch is of that very network."""
_DRAWS, _SEED = 4000, 0
"""Of the posterior, for the probability of being best: its error is at most 0.008."""
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


@dataclass(frozen=True)
class Belief:
    """A Gaussian over the logits of the accuracies of all candidates, given evidence.

    Attributes
    ----------
    rows : pandas.DataFrame
        As `candidates` returns them.
    case : Case
        The target; transfers are trained on `case.samples` images.
    calibration : Calibration
    observations : tuple of Observation
        What it is given.
    """

    rows: pd.DataFrame
    case: Case
    calibration: Calibration
    observations: tuple[Observation, ...] = ()

    def given(self, observations: Sequence[Observation]) -> "Belief":
        """Return what is believed after further measured transfers.

        Raises
        ------
        InputError
            When one is of no candidate.
        """
        after = replace(self, observations=(*self.observations, *observations))
        _ = after.seen  # complains
        return after

    def trained_on(self, samples: int) -> "Belief":
        """Return what is believed, given the same evidence, of transfers that are trained on so many images.

        Raises
        ------
        InputError
            When `samples` is not positive.
        """
        case = replace(self.case, samples=samples)
        return replace(self, case=case, rows=self.rows.assign(**case.of_size(samples)))

    def rows_of(self, measured: Sequence[Any]) -> pd.DataFrame:
        """Return the candidates of these transfers, as trained on their own numbers of images.

        Parameters
        ----------
        measured : sequence of Observation or of whatever has source, depth, protocol and samples

        Raises
        ------
        InputError
            When one is of no candidate.
        """
        places = pd.MultiIndex.from_frame(self.rows[["source", "depth", "protocol"]])
        found = places.get_indexer(pd.MultiIndex.from_tuples([(m.source, m.depth, m.protocol) for m in measured]))
        if found.min() < 0:
            stranger = measured[int(found.argmin())]
            raise InputError(
                f"Expected `observations` to be of sources and depths that are ranked, but got {stranger.protocol} of "
                f"{stranger.source or SCRATCH!r} at depth {stranger.depth}; leave it out"
            )
        sized = pd.DataFrame([self.case.of_size(m.samples) for m in measured])
        rows = self.rows.iloc[found].reset_index(drop=True).assign(**{name: sized[name] for name in sized})
        # The candidates may be transfers by another recipe than that of the scratch network of `rank`.
        ours = np.array([getattr(each, "origin", "") == "reference" for each in measured])
        return rows.assign(**{name: rows[name].where(~ours, 0.0) for name in RECIPES})

    @cached_property
    def seen(self) -> pd.DataFrame:
        """The candidates that were observed."""
        return self.rows_of(self.observations) if self.observations else self.rows.iloc[:0]

    @cached_property
    def mean(self) -> np.ndarray:
        """Posterior mean of the logits, (n_rows,)."""
        return self._own_posterior[0]

    @cached_property
    def variance(self) -> np.ndarray:
        """Posterior variance of the logits, (n_rows,)."""
        return self._own_posterior[1]

    @cached_property
    def _own_posterior(self) -> tuple[np.ndarray, np.ndarray]:
        return self.posterior(self.rows)

    def posterior(self, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the variance of the logits of `rows`, each (n_rows,), as `rows_of` returns them."""
        known = self.calibration
        columns = known.design(rows)
        mean = columns @ known.coefficients
        spread = ((columns @ known.factor) ** 2).sum(axis=1) + variance(known.components, rows, known.networks)
        spread += OF_REFERENCE * _scratch(rows)
        if not self.observations:
            return mean, spread
        gain = self._gain(rows)
        return mean + gain.T @ self._surprise, spread - (gain**2).sum(axis=0)

    def covariance(self, rows: pd.DataFrame, others: pd.DataFrame) -> np.ndarray:
        """Return posterior covariances of the logits, (n_rows, n_others)."""
        prior = self._prior(rows, others)
        return prior - self._gain(rows).T @ self._gain(others) if self.observations else prior

    def noise(self, measured: Sequence[Any], accuracies: Sequence[float]) -> np.ndarray:
        """Return by how much a measured logit varies about the true one, in squared logits, (n_measured,).

        That of the draw of the images trained on, and that of the number of images tested on.
        """
        tested = np.array([each.tested for each in measured], dtype=float)
        draws = np.array([getattr(each, "draws", 1) for each in measured])
        sized = np.array([self.case.of_size(each.samples)["log_per_class"] for each in measured])
        return self.calibration.draw_variance(sized) / draws + self.case.link.noise(np.asarray(accuracies), tested)

    def expected(self, chosen: bool = False) -> pd.DataFrame:
        """Return expected_accuracy, lower and upper of a transfer for each candidate: an 80 % interval.

        Parameters
        ----------
        chosen : bool
            Whether to correct for having been chosen as the best.
        """
        spread = self.variance + self.calibration.draw_variance(self.rows["log_per_class"].to_numpy(float))
        shift, scale = (self.calibration.chosen.shift, self.calibration.chosen.scale) if chosen else (0.0, 1.0)
        middle, spread = self.mean + shift, spread * scale**2
        half = _Z * np.sqrt(spread)
        return pd.DataFrame(
            {
                "expected_accuracy": self.case.link.mean(middle, spread),
                "lower": self.case.link.back(middle - half),
                "upper": self.case.link.back(middle + half),
            },
            index=self.rows.index,
        )

    def better(self, index: np.ndarray, others: int | np.ndarray) -> np.ndarray:
        """Return the probability that each of these candidates is really better than another one.

        Effects that both share, such as how hard the target is, cancel.

        Parameters
        ----------
        index : numpy.ndarray
            Places of candidates, (n_index,).
        others : int or numpy.ndarray
            The place of another one, or places (n_others,).

        Returns
        -------
        numpy.ndarray
            (n_index,), or (n_index, n_others).
        """
        return ndtr(np.subtract.outer(self.mean[index], self.mean[others]) / self._apart(index, others))

    def within(self, index: np.ndarray, others: int | np.ndarray, difference: float) -> np.ndarray:
        """Return the probability that candidates differ by less than this accuracy; shapes as in `better`."""
        both = np.add.outer(self.mean[index], self.mean[others]) / 2
        apart, spread = np.subtract.outer(self.mean[index], self.mean[others]), self._apart(index, others)
        bound = difference / self.case.link.slope(both)
        return ndtr((bound - apart) / spread) - ndtr((-bound - apart) / spread)

    def probability_best(self, index: np.ndarray | None = None) -> np.ndarray:
        """Return the probability that each of these candidates (default: all) is the best of them, (n_index,).

        By draws from the posterior, the same for the same belief.
        """
        index = np.arange(len(self.rows)) if index is None else index
        rows = self.rows.iloc[index]
        spread = self.covariance(rows, rows)
        values, vectors = np.linalg.eigh((spread + spread.T) / 2)
        draws = np.random.default_rng(_SEED).standard_normal((_DRAWS, len(index)))
        logits = self.mean[index] + draws * np.sqrt(values.clip(min=0)) @ vectors.T
        return np.bincount(logits.argmax(axis=1), minlength=len(index)) / _DRAWS

    def _apart(self, index: np.ndarray, others: int | np.ndarray) -> np.ndarray:
        """Return the standard deviation of the difference of logits."""
        shared = self.covariance(self.rows.iloc[index], self.rows.iloc[np.atleast_1d(others)])
        both = np.add.outer(self.variance[index], self.variance[others])
        spread = both - 2 * shared.reshape(both.shape)
        # Of a candidate and itself, or one that is the same by another name, only rounding is left.
        return np.sqrt(spread.clip(min=1e-9))

    @cached_property
    def own_covariance(self) -> np.ndarray:
        """Covariance of the observed logits for given coefficients: effects and noise, (n_observations, same)."""
        noise = self.noise(self.observations, [each.accuracy for each in self.observations])
        return self._effects(self.seen, self.seen) + np.diag(noise)

    @cached_property
    def _root(self) -> np.ndarray:
        spread = self._seen_columns
        return cholesky(spread @ spread.T + self.own_covariance, lower=True)

    @cached_property
    def _surprise(self) -> np.ndarray:
        logits = np.array([each.place for each in self.observations])
        expected = self.calibration.design(self.seen) @ self.calibration.coefficients
        return solve_triangular(self._root, logits - expected, lower=True)

    def _gain(self, rows: pd.DataFrame) -> np.ndarray:
        return solve_triangular(self._root, self._prior(self.seen, rows), lower=True)

    def _prior(self, rows: pd.DataFrame, others: pd.DataFrame) -> np.ndarray:
        mine, theirs = (self._seen_columns if each is self.seen else self._columns(each) for each in (rows, others))
        return mine @ theirs.T + self._effects(rows, others)

    def _columns(self, rows: pd.DataFrame) -> np.ndarray:
        return self.calibration.design(rows) @ self.calibration.factor

    @cached_property
    def _seen_columns(self) -> np.ndarray:
        return self._columns(self.seen)

    def _effects(self, rows: pd.DataFrame, others: pd.DataFrame) -> np.ndarray:
        ours = OF_REFERENCE * np.multiply.outer(_scratch(rows), _scratch(others))
        return covariance(self.calibration.components, rows, others, self.calibration.networks) + ours


def _scratch(rows: pd.DataFrame) -> np.ndarray:
    return (rows["protocol"] == SCRATCH).to_numpy(float)


def believe(
    scores: xr.Dataset,
    samples: int,
    calibration: Calibration | None = None,
    observations: Sequence[Observation] = (),
) -> Belief:
    """Return what is believed of every source, cut and protocol, and of training from scratch.

    Parameters
    ----------
    scores : xarray.Dataset
        Over (source, depth): `layer` ("" where a source has no such depth), `depth_fraction` and the scores in
        `tasks.needed_of`; attributes n_samples (images they were computed on), classes, metric (by default accuracy)
        and, if a network was trained from scratch on these images, scratch_accuracy, scratch_held_out and
        scratch_trained_on: an observation too.
    samples : int
        Images that transfers are trained on.
    calibration : Calibration, optional
        By default the one of this version. Of tasks beside classification none can be given, see `any_task`.
    observations : sequence of Observation
        Measured transfers of the same target.

    Raises
    ------
    InputError
        When `samples` is not positive, there is no complete row of scores, an observation is of no candidate, or the
        task of the metric has no calibration.
    """
    check_whole("samples", samples, 1)
    about = scores.attrs
    held_out, trained_on = (int(about.get(f"scratch_{name}", 0)) for name in ("held_out", "trained_on"))
    metric = metric_of(about.get("metric", ACCURACY.name), task=None)
    classes = int(about["classes"]) if metric.task == CLASSIFICATION else AS_CLASSES
    case = Case(samples, int(about["n_samples"]), classes, about.get("scratch_accuracy"), held_out, trained_on, metric)
    known = calibration_for(metric.task, calibration)
    table = scores[["layer", "depth_fraction", *case.needed]].to_dataframe().reset_index()
    rows = candidates(table[table["layer"] != ""], case)
    return Belief(rows, case, known, (*reference(case), *observations))


def reference(case: Case) -> tuple[Observation, ...]:
    """Return what the scratch network of a target is evidence of, trained on what was not held out; or nothing."""
    if case.scratch_accuracy is None:
        return ()
    trained_on = case.scratch_trained_on or max(case.probe - case.scratch_held_out, case.classes)
    return (
        Observation(
            source="", depth=0, protocol=SCRATCH, samples=trained_on, accuracy=float(case.scratch_accuracy),
            tested=case.scratch_held_out, origin="reference", link=case.link,
        ),
    )  # fmt: skip
