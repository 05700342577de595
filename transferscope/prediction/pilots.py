"""Which transfer to measure next: the one that is expected to improve the choice most for its time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from transferscope.prediction.belief import Belief, expected_share
from transferscope.prediction.observation import Observation

CONSIDERED = 200
"""Candidates that a choice is looked for among: those that are expected to do best."""
WORTH = 1e-4
"""Expected gain in accuracy below which no pilot is run."""
_NODES = 11


@dataclass(frozen=True, kw_only=True)
class Option:
    """A transfer that could be measured.

    Attributes
    ----------
    source, depth, protocol, samples, tested
        As in `Observation`.
    seconds : float
        That it is expected to take; positive.
    """

    source: str
    depth: int
    protocol: str
    samples: int
    tested: int
    seconds: float


def choose_pilot(
    belief: Belief, options: Sequence[Option], among: np.ndarray | None = None
) -> tuple[int, float] | None:
    """Return which option to measure next, and the accuracy that it is expected to gain per second.

    The knowledge gradient (Frazier, Powell and Dayanik 2009): how much higher the expected accuracy of the best choice
    will be after the measurement, on average over what may be measured, divided by its seconds.

    Parameters
    ----------
    belief : Belief
    options : sequence of Option
        Each of a candidate in `belief`.
    among : numpy.ndarray, optional
        Places in `belief` of the candidates that will be chosen from; all by default.

    Returns
    -------
    tuple of (int, float), or None
        None where no option is expected to gain `WORTH`.
    """
    if not options:
        return None
    gains = expected_gains(belief, options, among)
    rates = np.where(gains >= WORTH, gains / np.array([each.seconds for each in options]), -np.inf)
    best = int(rates.argmax())
    return (best, float(rates[best])) if np.isfinite(rates[best]) else None


def expected_gains(belief: Belief, options: Sequence[Option], among: np.ndarray | None = None) -> np.ndarray:
    """Return how much accuracy each option is expected to gain by a better choice, (n_options,), at least 0."""
    index = best_first(belief, among)[:CONSIDERED]
    mean, spread = belief.mean[index], belief.variance[index]
    rows = belief.rows_of(options)
    expected, uncertain = belief.posterior(rows)
    total = uncertain + belief.noise(options, expit(expected))
    moved = belief.covariance(belief.rows.iloc[index], rows) / np.sqrt(total)
    left = (spread[:, None] - moved**2).clip(min=0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    after = np.array([expected_share(mean[:, None] + moved * node, left) for node in nodes])
    weights = weights / weights.sum()
    # The mean of the best less the best of the means, so that what no outcome changes gains exactly nothing.
    return (weights @ after.max(axis=1) - np.tensordot(weights, after, 1).max(axis=0)).clip(min=0)


def narrowing(
    belief: Belief, options: Sequence[Option], seconds: float, among: np.ndarray | None = None
) -> tuple[float, float]:
    """Return half the width of the 80 % interval of the best candidate: now, and as expected after pilots.

    Parameters
    ----------
    belief : Belief
    options : sequence of Option
    seconds : float
        That pilots may take together; they are chosen one after the other, as if each measured what is expected.
    among : numpy.ndarray, optional
        As in `choose_pilot`.
    """
    now, left, spent = _half_width(belief, among), list(options), 0.0
    while affordable := [each for each in left if spent + each.seconds <= seconds]:
        chosen = choose_pilot(belief, affordable, among)
        if chosen is None:
            break
        option = affordable[chosen[0]]
        left.remove(option)
        spent += option.seconds
        belief = belief.given([_as_expected(belief, option)])
    return now, _half_width(belief, among)


def best_first(belief: Belief, among: np.ndarray | None) -> np.ndarray:
    """Return the places of the candidates that are chosen from, the best first."""
    places = np.arange(len(belief.mean)) if among is None else among
    return places[np.argsort(-belief.mean[places], kind="stable")]


def _half_width(belief: Belief, among: np.ndarray | None) -> float:
    ends = belief.expected(chosen=True).iloc[int(best_first(belief, among)[0])]
    return float(ends["upper"] - ends["lower"]) / 2


def _as_expected(belief: Belief, option: Option) -> Observation:
    expected = float(expit(belief.posterior(belief.rows_of([option]))[0][0]))
    return Observation(
        source=option.source, depth=option.depth, protocol=option.protocol, samples=option.samples,
        accuracy=expected, tested=option.tested,
    )  # fmt: skip
