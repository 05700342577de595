"""From scores to predictions, and from predictions to a ranking of sources and depths."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import xarray as xr

from transferscope.errors import InputError, SourceError, TransferscopeWarning

LEVEL = 0.8
"""Coverage of every interval."""

Selector = Callable[[xr.Dataset], xr.Dataset]
"""Takes the scores over (source, depth); returns them with `expected_accuracy`, `lower` and `upper` added."""


@dataclass(frozen=True)
class Recommendation:
    """One way to start a transfer, and what to expect of it."""

    rank: int
    source: str
    layer: str | None
    """Last layer that is kept; None when nothing is (training from scratch)."""
    depth: int
    depths: int
    protocol: str
    expected_accuracy: float
    interval: tuple[float, float]
    """80 % interval of the accuracy, from the number of images it was estimated on alone."""
    params: int
    """Parameters of the network up to the cut."""
    flops: int
    """Floating-point operations per image up to the cut."""
    scores: dict[str, float] = field(default_factory=dict)

    def overlaps(self, other: "Recommendation") -> bool:
        """Whether the intervals share a value, so that the order of the two is not settled."""
        return self.interval[0] <= other.interval[1] and other.interval[0] <= self.interval[1]


@dataclass(frozen=True)
class ScratchCandidate:
    """The network trained from scratch on the target, as an alternative to every source."""

    network: str
    accuracy: float
    n_held_out: int
    depths: int
    params: int
    flops: int


def accuracy_interval(accuracy: Any, n_samples: int) -> tuple[Any, Any]:
    """Wilson score interval (Wilson 1927) of an accuracy measured on `n_samples` images, at 80 %.

    Raises
    ------
    InputError
        When `n_samples` is not positive.
    """
    if n_samples < 1:
        raise InputError(f"Expected `n_samples` to be at least 1, but got {n_samples}.")
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle = (accuracy + z**2 / (2 * n_samples)) / (1 + z**2 / n_samples)
    variance = accuracy * (1 - accuracy) / n_samples + z**2 / (4 * n_samples**2)
    half = z * np.sqrt(variance) / (1 + z**2 / n_samples)
    # At 0 and 1 the two terms are equal; their rounding must not leave [0, 1].
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def leave_one_out(scores: xr.Dataset) -> xr.Dataset:
    """Predict the accuracy of each truncated network as the leave-one-out accuracy of a linear head on it.

    The interval is that of the number of probe images; that the best of several cuts was picked is not in it.
    """
    lower, upper = accuracy_interval(scores["ridge"], scores.attrs["n_samples"])
    predicted = scores.assign(expected_accuracy=scores["ridge"], lower=lower, upper=upper)
    predicted["expected_accuracy"].attrs["description"] = (
        "Predicted accuracy of the truncated network with a new linear head, at this number of images."
    )
    for name in ("lower", "upper"):
        predicted[name].attrs["description"] = f"{name.capitalize()} end of the {LEVEL:.0%} interval."
    return predicted


def recommend(
    predictions: xr.Dataset, score_names: tuple[str, ...], scratch: ScratchCandidate | None
) -> tuple[Recommendation, ...]:
    """Rank every source at its best cut, and training from scratch, best first.

    Ties go to the cheaper one: the shallower cut, then fewer FLOPs, then the name. A source without a prediction at
    any depth is left out with a warning.

    Raises
    ------
    SourceError
        When nothing is left to rank.
    """
    candidates = []
    for source in predictions["source"].to_numpy():
        rows = predictions.sel(source=source)
        accuracy = rows["expected_accuracy"].to_numpy()
        if np.isnan(accuracy).all():
            warnings.warn(
                f"Source {source} has no expected accuracy at any depth and is left out of the ranking.",
                TransferscopeWarning,
                stacklevel=2,
            )
            continue
        best = int(np.nanargmax(accuracy))
        candidates.append(
            Recommendation(
                rank=0,
                source=str(source),
                layer=str(rows["layer"].to_numpy()[best]),
                depth=best + 1,
                depths=int((rows["layer"].to_numpy() != "").sum()),
                protocol="truncate",
                expected_accuracy=float(accuracy[best]),
                interval=(float(rows["lower"].to_numpy()[best]), float(rows["upper"].to_numpy()[best])),
                params=int(rows["params"].to_numpy()[best]),
                flops=int(rows["flops"].to_numpy()[best]),
                scores={name: float(rows[name].to_numpy()[best]) for name in score_names},
            )
        )
    if scratch is not None:
        lower, upper = accuracy_interval(scratch.accuracy, scratch.n_held_out)
        candidates.append(
            Recommendation(
                rank=0,
                source="scratch",
                layer=None,
                depth=0,
                depths=scratch.depths,
                protocol="scratch",
                expected_accuracy=scratch.accuracy,
                interval=(float(lower), float(upper)),
                params=scratch.params,
                flops=scratch.flops,
            )
        )
    if not candidates:
        raise SourceError("No source has an expected accuracy at any depth, and there is no scratch network to rank.")
    candidates.sort(key=lambda c: (-c.expected_accuracy, c.flops, c.source))
    return tuple(replace(candidate, rank=rank) for rank, candidate in enumerate(candidates, 1))
