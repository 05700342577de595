"""The line that a figure is believed on: errors that are rare lie as far apart there as errors that are frequent."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.special import logit as exact_logit

from transferscope.runtime.metrics import R2, SPEARMAN, Metric

_BEST, _WORST = 1e-6, 2.0
"""Shares of the variance that are left unexplained: less counts as the first, more as the second."""


@dataclass(frozen=True)
class Link:
    """How a figure lies on the whole line, and how exactly images measure it. Arrays are taken as numbers are.

    Attributes
    ----------
    lowest : float
        Of the figure; the highest is 1.
    onto : callable
        ``f(figure, n_samples)``: the place of a figure that was measured on so many images; finite.
    place : callable
        ``f(figure)``: the place of a figure that is known exactly.
    back : callable
        ``f(place)``: the figure there.
    noise : callable
        ``f(figure, n_samples)``: variance of the place, of so many images alone.
    mean : callable
        ``f(place, variance)``: what is expected of a figure whose place is Gaussian.
    slope : callable
        ``f(place)``: of the figure, by its place.
    standard_error : callable
        ``f(figure, n_samples)``: of the figure, of so many images alone; never 0.
    """

    lowest: float
    onto: Callable[[Any, Any], Any]
    place: Callable[[Any], Any]
    back: Callable[[Any], Any]
    noise: Callable[[Any, Any], Any]
    mean: Callable[[Any, Any], Any]
    slope: Callable[[Any], Any]
    standard_error: Callable[[Any, Any], Any]

    def holds(self, figure: float) -> bool:
        """Whether there can be such a figure."""
        return self.lowest <= figure <= 1


def logit(share: Any, n_samples: Any) -> Any:
    """Return the logit of a share measured on this many images, half a hit and half a miss added to them."""
    hits = share * n_samples + 0.5
    return np.log(hits / (n_samples + 1 - hits))


def expected_share(places: Any, variances: Any) -> Any:
    """Return the mean of the logistic function of Gaussians (MacKay 1992's approximation), of their shape."""
    return expit(places / np.sqrt(1 + math.pi * variances / 8))


def _smoothed(share: Any, n_samples: Any) -> Any:
    return (share * n_samples + 0.5) / (n_samples + 1)


def _share_noise(share: Any, n_samples: Any) -> Any:
    smoothed = _smoothed(share, n_samples)
    return 1 / ((n_samples + 1) * smoothed * (1 - smoothed))


def _share_error(share: Any, n_samples: Any) -> Any:
    smoothed = _smoothed(share, n_samples)
    return np.sqrt(smoothed * (1 - smoothed) / n_samples)


SHARE = Link(
    lowest=0.0,
    onto=logit,
    place=exact_logit,
    back=expit,
    noise=_share_noise,
    mean=expected_share,
    slope=lambda place: expit(place) * expit(-place),
    standard_error=_share_error,
)
"""Of a share of images, or what is averaged of shares: accuracy, average precision, F1. Its logit; the noise is that of
a binomial."""


def _unexplained(figure: Any) -> Any:
    return np.clip(1 - np.asarray(figure, dtype=float), _BEST, _WORST)


EXPLAINED = Link(
    lowest=-math.inf,
    onto=lambda figure, _n_samples: -np.log(_unexplained(figure)),
    place=lambda figure: -np.log(_unexplained(figure)),
    back=lambda place: 1 - np.exp(-np.asarray(place, dtype=float)),
    noise=lambda figure, n_samples: 4 / n_samples + np.zeros_like(_unexplained(figure)),
    mean=lambda place, _variance: 1 - np.exp(-np.asarray(place, dtype=float)),
    slope=lambda place: np.exp(-np.asarray(place, dtype=float)),
    standard_error=lambda figure, n_samples: 2 * _unexplained(figure) / np.sqrt(n_samples),
)
"""Of R², the share of the variance that is explained: minus the logarithm of what is left of it, so that halving the
squared error is as far everywhere. Of independent Gaussian errors the variance of R² is about 4 R² (1 - R²)² / n (Olkin
and Finn 1995), of its place at most 4 / n. What is expected is the median: the mean of a figure without a lower end is
made by what hardly ever happens. R² below -1 count as that."""


def _halved(correlation: Any) -> Any:
    return (1 + np.asarray(correlation, dtype=float)) / 2


def _correlation_error(correlation: Any, n_samples: Any) -> Any:
    smoothed = _smoothed(_halved(correlation), n_samples)
    return 4 * smoothed * (1 - smoothed) / np.sqrt(np.maximum(n_samples - 3, 1))


CORRELATION = Link(
    lowest=-1.0,
    onto=lambda figure, n_samples: logit(_halved(figure), n_samples),
    place=lambda figure: exact_logit(_halved(figure)),
    back=lambda place: 2 * expit(place) - 1,
    noise=lambda figure, n_samples: 4 / np.maximum(n_samples - 3, 1) + np.zeros_like(_halved(figure)),
    mean=lambda place, variance: 2 * expected_share(place, variance) - 1,
    slope=lambda place: 2 * expit(place) * expit(-place),
    standard_error=_correlation_error,
)
"""Of a correlation: twice the inverse hyperbolic tangent (Fisher 1915), which is the logit of (1 + ρ) / 2."""


def link_of(metric: Metric) -> Link:
    """Return the link of a metric."""
    return {R2.name: EXPLAINED, SPEARMAN.name: CORRELATION}.get(metric.name, SHARE)
