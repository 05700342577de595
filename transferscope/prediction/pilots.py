"""Which transfer to measure next: the one that is expected to improve the choice most for its time."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from transferscope.prediction.belief import Belief
from transferscope.prediction.observation import Observation

CONSIDERED = 200
"""Candidates that a choice is looked for among: those that are expected to do best."""
SHORTLIST = 200
"""Options that a forecast of pilots looks for the next one among: those that are worth most as the first."""
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
    return _most_for_its_time(expected_gains(belief, options, among), np.array([each.seconds for each in options]))


def _most_for_its_time(gains: np.ndarray, seconds: np.ndarray) -> tuple[int, float] | None:
    rates = np.where(gains >= WORTH, gains / seconds, -np.inf)
    best = int(rates.argmax())
    return (best, float(rates[best])) if np.isfinite(rates[best]) else None


def expected_gains(belief: Belief, options: Sequence[Option], among: np.ndarray | None = None) -> np.ndarray:
    """Return how much accuracy each option is expected to gain by a better choice, (n_options,), at least 0."""
    return _Gains(belief, options, among).expected()


class _Gains:
    """What options are expected to gain, now and supposing that some of them measured what is expected of them.

    That moves no expectation, so that each takes one step of rank one.
    """

    def __init__(self, belief: Belief, options: Sequence[Option], among: np.ndarray | None) -> None:
        index = best_first(belief, among)[:CONSIDERED]
        self._belief, self._rows = belief, belief.rows_of(options)
        expected, self._uncertain = belief.posterior(self._rows)
        self.accuracies = belief.case.link.back(expected)
        """That the options are expected to measure, (n_options,)."""
        self._noise = belief.noise(options, self.accuracies)
        self._mean, self._spread = belief.mean[index], belief.variance[index]
        self._shared = belief.covariance(belief.rows.iloc[index], self._rows)
        self._steps: list[np.ndarray] = []

    def expected(self) -> np.ndarray:
        """Return the gain in accuracy of each option, (n_options,), at least 0."""
        moved = self._shared / np.sqrt(self._uncertain + self._noise)
        left = (self._spread[:, None] - moved**2).clip(min=0)
        nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        weights = weights / weights.sum()
        best, mean = 0.0, 0.0
        for node, weight in zip(nodes, weights, strict=True):
            after = self._belief.case.link.mean(self._mean[:, None] + moved * node, left)
            best, mean = best + weight * after.max(axis=0), mean + weight * after
        # The mean of the best less the best of the means, so that what no outcome changes gains exactly nothing.
        return np.clip(best - np.max(mean, axis=0), 0, None)

    def suppose(self, option: int) -> None:
        """Take an option for measured."""
        scale = np.sqrt(self._uncertain[option] + self._noise[option])
        with_it = self._together[:, option] - sum(step * step[option] for step in self._steps)
        ours, theirs = self._shared[:, option] / scale, with_it / scale
        self._spread = (self._spread - ours**2).clip(min=0)
        self._uncertain = (self._uncertain - theirs**2).clip(min=0)
        self._shared = self._shared - np.outer(ours, theirs)
        self._steps.append(theirs)

    @cached_property
    def _together(self) -> np.ndarray:
        """Covariance of what is believed of the options now, (n_options, n_options)."""
        return self._belief.covariance(self._rows, self._rows)


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
    now, ways = _half_width(belief, among), [each for each in options if each.seconds <= seconds]
    if not ways:
        return now, now
    if len(ways) > SHORTLIST:
        rates = expected_gains(belief, ways, among) / np.array([each.seconds for each in ways])
        ways = [ways[place] for place in np.sort(np.argsort(-rates, kind="stable")[:SHORTLIST])]
    costs, left, spent = np.array([each.seconds for each in ways]), np.ones(len(ways), bool), 0.0
    outlook, found = _Gains(belief, ways, among), []
    while (affordable := left & (spent + costs <= seconds)).any():
        chosen = _most_for_its_time(np.where(affordable, outlook.expected(), -np.inf), costs)
        if chosen is None:
            break
        best = chosen[0]
        left[best], spent = False, spent + costs[best]
        outlook.suppose(best)
        found.append(_measured(belief, ways[best], outlook.accuracies[best]))
    return now, _half_width(belief.given(found), among) if found else now


def best_first(belief: Belief, among: np.ndarray | None) -> np.ndarray:
    """Return the places of the candidates that are chosen from, the best first."""
    places = np.arange(len(belief.mean)) if among is None else among
    return places[np.argsort(-belief.mean[places], kind="stable")]


def _half_width(belief: Belief, among: np.ndarray | None) -> float:
    ends = belief.expected(chosen=True).iloc[int(best_first(belief, among)[0])]
    return float(ends["upper"] - ends["lower"]) / 2


def _measured(belief: Belief, option: Option, accuracy: float) -> Observation:
    return Observation(
        source=option.source, depth=option.depth, protocol=option.protocol, samples=option.samples,
        accuracy=float(accuracy), tested=option.tested, link=belief.case.link,
    )  # fmt: skip
